-- MLflow's stages, for old clients; and what moved an alias or a stage, where a promotion did.

ALTER TABLE model_versions ADD COLUMN stage TEXT NOT NULL DEFAULT 'None';

ALTER TABLE alias_history ADD COLUMN promotion TEXT NOT NULL DEFAULT '';

-- Who moved which version from one stage to another.
CREATE TABLE stage_history (
    seq        BIGINT PRIMARY KEY NOT NULL,
    name       TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    from_stage TEXT   NOT NULL,
    to_stage   TEXT   NOT NULL,
    promotion  TEXT   NOT NULL,
    actor      TEXT   NOT NULL,
    at_ms      BIGINT NOT NULL
);
CREATE INDEX stage_history_name ON stage_history (name, seq);
