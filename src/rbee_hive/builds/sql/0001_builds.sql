-- The catalog of worker builds on this node. Times are UNIX seconds; backends and features are JSON lists of texts.
CREATE TABLE builds (
    id           TEXT PRIMARY KEY NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('cpu', 'cuda', 'metal', 'vulkan')),
    version      TEXT NOT NULL,
    path         TEXT UNIQUE,
    backends     TEXT NOT NULL CHECK (json_valid(backends)),
    features     TEXT NOT NULL CHECK (json_valid(features)),
    python       TEXT NOT NULL,
    platform     TEXT NOT NULL,
    made_at_unix INTEGER NOT NULL,
    size_bytes   INTEGER NOT NULL CHECK (size_bytes >= 0),
    source       TEXT NOT NULL CHECK (source IN ('environment', 'wheel', 'compiled')),
    CHECK ((path IS NULL) = (source = 'environment'))
) STRICT;

-- What the hive's own environment looked like when its rows above were written; at most one row.
CREATE TABLE environment (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    fingerprint TEXT NOT NULL
) STRICT
