-- A registered model has no file yet, a split one has several; names that people gave; what loads really took.
CREATE TABLE models_now (
    id                 TEXT PRIMARY KEY NOT NULL,
    name               TEXT NOT NULL DEFAULT '',
    provider           TEXT NOT NULL,
    reference          TEXT NOT NULL,
    file               TEXT NOT NULL DEFAULT '',
    revision           TEXT NOT NULL DEFAULT '',
    local_path         TEXT,
    size_bytes         INTEGER NOT NULL DEFAULT 0 CHECK (size_bytes >= 0),
    downloaded_at_unix INTEGER,
    architecture       TEXT,
    quant              TEXT,
    sha256             TEXT,
    last_used_unix     INTEGER,
    use_count          INTEGER NOT NULL DEFAULT 0,
    pinned             INTEGER NOT NULL DEFAULT 0,
    asked_revision     TEXT NOT NULL DEFAULT '',
    UNIQUE (provider, reference, file, revision)
) STRICT;

INSERT INTO models_now (id, provider, reference, file, revision, local_path, size_bytes, downloaded_at_unix)
SELECT id, provider, reference, file, revision, local_path, size_bytes, downloaded_at_unix FROM models;

DROP TABLE models;

ALTER TABLE models_now RENAME TO models;

CREATE INDEX models_by_path ON models (local_path);

CREATE TABLE model_files (
    model_id    TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    part        INTEGER NOT NULL,
    path        TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    sha256      TEXT,
    modified_ns INTEGER,
    PRIMARY KEY (model_id, part)
) STRICT, WITHOUT ROWID;

INSERT INTO model_files (model_id, part, path, size_bytes)
SELECT id, 0, local_path, size_bytes FROM models WHERE local_path IS NOT NULL;

CREATE TABLE model_aliases (
    alias    TEXT PRIMARY KEY NOT NULL,
    model_id TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX aliases_by_model ON model_aliases (model_id);

-- What a load was estimated at and what it took, newest kept: the next estimate of the family is corrected by them.
CREATE TABLE loads (
    at_unix            INTEGER NOT NULL,
    architecture       TEXT NOT NULL,
    backend            TEXT NOT NULL,
    model_id           TEXT NOT NULL,
    n_ctx              INTEGER NOT NULL,
    slots              INTEGER NOT NULL,
    estimated_weights  INTEGER NOT NULL,
    estimated_kv       INTEGER NOT NULL,
    estimated_compute  INTEGER NOT NULL,
    actual_weights     INTEGER NOT NULL,
    actual_kv          INTEGER NOT NULL,
    actual_compute     INTEGER NOT NULL
) STRICT;

CREATE INDEX loads_by_family ON loads (architecture, backend, at_unix)
