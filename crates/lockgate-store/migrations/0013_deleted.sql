-- What was deleted and can be restored or looked at until `db gc` takes it away for good.

-- Since when a run is deleted; nothing where that was not noted.
ALTER TABLE runs ADD COLUMN deleted_at BIGINT;
CREATE INDEX runs_deleted ON runs (deleted_at) WHERE lifecycle = 'deleted';

-- Deleted logged models keep their rows; nobody changes them, so that `updated` says since when.
ALTER TABLE logged_models ADD COLUMN lifecycle TEXT NOT NULL DEFAULT 'active' CHECK (lifecycle IN ('active', 'deleted'));
CREATE INDEX logged_models_deleted ON logged_models (updated) WHERE lifecycle = 'deleted';

-- What is being taken away: its own row has gone, what belongs to it goes in steps. `place` is where its artifacts lie.
CREATE TABLE doomed (
    kind  TEXT NOT NULL CHECK (kind IN ('run', 'model', 'experiment', 'version')),
    id    TEXT NOT NULL,
    place TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);
