-- Runs by their name within an experiment, the newest first. Names that are too long for an index of PostgreSQL's are left out:
-- searches for a shorter one say so.
CREATE INDEX runs_named ON runs (experiment_id, name, lifecycle, start_time) WHERE length(name) <= 250;

-- A run's datasets in the order in which they were logged; those of before have none.
ALTER TABLE run_inputs ADD COLUMN place BIGINT NOT NULL DEFAULT 0;
