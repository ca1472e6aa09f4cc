-- Workspaces: each has its own experiments, runs and registry. `default` is the one of clients that name none; each
-- environment of the project is one, and people may make more.

CREATE TABLE workspaces (
    name          TEXT   PRIMARY KEY NOT NULL,
    description   TEXT,
    artifact_root TEXT,
    created_by    TEXT   NOT NULL,
    created       BIGINT NOT NULL
);

-- A name is used once in each workspace, no longer once in all.
CREATE TABLE experiments_of_workspaces (
    id                BIGINT PRIMARY KEY NOT NULL,
    workspace         TEXT   NOT NULL,
    name              TEXT   NOT NULL,
    artifact_location TEXT   NOT NULL,
    lifecycle         TEXT   NOT NULL CHECK (lifecycle IN ('active', 'deleted')),
    created           BIGINT NOT NULL,
    updated           BIGINT NOT NULL,
    UNIQUE (workspace, name)
);
INSERT INTO experiments_of_workspaces (id, workspace, name, artifact_location, lifecycle, created, updated)
SELECT id, 'default', name, artifact_location, lifecycle, created, updated FROM experiments;
DROP TABLE experiments;
ALTER TABLE experiments_of_workspaces RENAME TO experiments;

ALTER TABLE runs ADD COLUMN workspace TEXT NOT NULL DEFAULT 'default';
ALTER TABLE logged_models ADD COLUMN workspace TEXT NOT NULL DEFAULT 'default';

-- The registry's `name` is the key of a model: its label in the default workspace, `WORKSPACE/label` in others. Labels hold
-- no slash.
ALTER TABLE registered_models ADD COLUMN workspace TEXT NOT NULL DEFAULT 'default';
ALTER TABLE registered_models ADD COLUMN label TEXT NOT NULL DEFAULT '';
UPDATE registered_models SET label = name;
ALTER TABLE model_versions ADD COLUMN workspace TEXT NOT NULL DEFAULT 'default';
ALTER TABLE model_versions ADD COLUMN label TEXT NOT NULL DEFAULT '';
UPDATE model_versions SET label = name;
