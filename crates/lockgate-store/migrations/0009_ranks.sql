-- Runs in the order of a metric's latest value, within their experiment: the first of many are found without sorting all.

ALTER TABLE latest_metrics ADD COLUMN experiment_id BIGINT NOT NULL DEFAULT 0;
UPDATE latest_metrics SET experiment_id =
    COALESCE((SELECT r.experiment_id FROM runs r WHERE r.run_id = latest_metrics.run_id), 0);
DROP INDEX latest_metrics_value;
CREATE INDEX latest_metrics_rank ON latest_metrics (experiment_id, key, is_nan, value, run_id);
