-- The nodes of the cluster, and what each was last seen to have.
CREATE TABLE hives (
    name           TEXT PRIMARY KEY,
    transport      TEXT NOT NULL CHECK (transport IN ('local', 'ssh', 'http')),
    added_at_unix  INTEGER NOT NULL,
    last_seen_unix INTEGER
) STRICT;

CREATE TABLE devices (
    hive         TEXT NOT NULL REFERENCES hives (name) ON DELETE CASCADE,
    id           TEXT NOT NULL,
    backend      TEXT NOT NULL,
    name         TEXT NOT NULL,
    memory_bytes INTEGER NOT NULL,
    PRIMARY KEY (hive, id)
) STRICT;

-- Counts the queen's starts: an order of an older queen is told from one of the present queen by it.
CREATE TABLE epochs (
    epoch      INTEGER PRIMARY KEY AUTOINCREMENT,
    begun_unix INTEGER NOT NULL
) STRICT;
