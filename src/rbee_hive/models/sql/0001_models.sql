-- The catalog of model files on this node. Times are UNIX seconds.
CREATE TABLE models (
    id                 TEXT PRIMARY KEY NOT NULL,
    provider           TEXT NOT NULL,
    reference          TEXT NOT NULL,
    file               TEXT NOT NULL DEFAULT '',
    revision           TEXT NOT NULL DEFAULT '',
    local_path         TEXT NOT NULL,
    size_bytes         INTEGER NOT NULL CHECK (size_bytes >= 0),
    downloaded_at_unix INTEGER NOT NULL,
    UNIQUE (provider, reference, file, revision)
) STRICT;

CREATE INDEX models_by_path ON models (local_path)
