-- How each node is reached, whether it may be used, and what was last known of it.
ALTER TABLE hives ADD COLUMN host TEXT;
ALTER TABLE hives ADD COLUMN port INTEGER;
ALTER TABLE hives ADD COLUMN user TEXT;
ALTER TABLE hives ADD COLUMN key TEXT;
ALTER TABLE hives ADD COLUMN hive_port INTEGER;
ALTER TABLE hives ADD COLUMN home TEXT;
ALTER TABLE hives ADD COLUMN installs INTEGER NOT NULL DEFAULT 1 CHECK (installs IN (0, 1));
ALTER TABLE hives ADD COLUMN drained INTEGER NOT NULL DEFAULT 0 CHECK (drained IN (0, 1));
ALTER TABLE hives ADD COLUMN version TEXT;
ALTER TABLE hives ADD COLUMN last_error TEXT;
-- A hive of this queen was running there when she last knew: she looks for it when she starts again.
ALTER TABLE hives ADD COLUMN serving INTEGER NOT NULL DEFAULT 0 CHECK (serving IN (0, 1));

-- Every name that a model has on a node: its id, its aliases, its reference. What a sleeping node can serve.
CREATE TABLE models (
    hive TEXT NOT NULL REFERENCES hives (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (hive, name)
) STRICT;

-- One row: who this queen is to her hives, over every restart.
CREATE TABLE queen (
    id TEXT NOT NULL
) STRICT;
