-- Tracking data: experiments, runs and what they logged. Ordinary rows, not governed, not in the audit log.
-- A number that may be NaN has a flag beside it, because SQLite turns NaN into NULL.

CREATE TABLE experiments (
    id                BIGINT PRIMARY KEY NOT NULL,
    name              TEXT   NOT NULL UNIQUE,
    artifact_location TEXT   NOT NULL,
    lifecycle         TEXT   NOT NULL CHECK (lifecycle IN ('active', 'deleted')),
    created           BIGINT NOT NULL,
    updated           BIGINT NOT NULL
);
-- Clients log into experiment 0 without asking. It is older than any clock here.
INSERT INTO experiments (id, name, artifact_location, lifecycle, created, updated)
VALUES (0, 'Default', 'mlflow-artifacts:/0', 'active', 0, 0);

CREATE TABLE experiment_tags (
    experiment_id BIGINT NOT NULL,
    key           TEXT   NOT NULL,
    value         TEXT   NOT NULL,
    PRIMARY KEY (experiment_id, key)
);

CREATE TABLE runs (
    run_id        TEXT   PRIMARY KEY NOT NULL,
    experiment_id BIGINT NOT NULL,
    name          TEXT   NOT NULL,
    user_id       TEXT   NOT NULL,
    created_by    TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    start_time    BIGINT NOT NULL,
    end_time      BIGINT,
    artifact_uri  TEXT   NOT NULL,
    lifecycle     TEXT   NOT NULL CHECK (lifecycle IN ('active', 'deleted'))
);
CREATE INDEX runs_newest ON runs (experiment_id, lifecycle, start_time);

CREATE TABLE metrics (
    run_id    TEXT   NOT NULL,
    key       TEXT   NOT NULL,
    logged_at BIGINT NOT NULL,
    step      BIGINT NOT NULL,
    value     DOUBLE PRECISION NOT NULL,
    is_nan    BIGINT NOT NULL,
    PRIMARY KEY (run_id, key, logged_at, step, value, is_nan)
);

CREATE TABLE latest_metrics (
    run_id    TEXT   NOT NULL,
    key       TEXT   NOT NULL,
    logged_at BIGINT NOT NULL,
    step      BIGINT NOT NULL,
    value     DOUBLE PRECISION NOT NULL,
    is_nan    BIGINT NOT NULL,
    PRIMARY KEY (run_id, key)
);
CREATE INDEX latest_metrics_value ON latest_metrics (key, value, run_id);

CREATE TABLE params (
    run_id TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (run_id, key)
);

CREATE TABLE run_tags (
    run_id TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (run_id, key)
);

CREATE TABLE datasets (
    id            TEXT   PRIMARY KEY NOT NULL,
    experiment_id BIGINT NOT NULL,
    name          TEXT   NOT NULL,
    digest        TEXT   NOT NULL,
    source_type   TEXT   NOT NULL,
    source        TEXT   NOT NULL,
    schema_text   TEXT,
    profile_text  TEXT,
    UNIQUE (experiment_id, name, digest)
);

CREATE TABLE run_inputs (
    run_id     TEXT   NOT NULL,
    dataset_id TEXT   NOT NULL,
    PRIMARY KEY (run_id, dataset_id)
);
CREATE INDEX run_inputs_dataset ON run_inputs (dataset_id);

CREATE TABLE input_tags (
    run_id     TEXT NOT NULL,
    dataset_id TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (run_id, dataset_id, key)
);

-- Which logged models a run used or made.
CREATE TABLE run_models (
    run_id   TEXT   NOT NULL,
    model_id TEXT   NOT NULL,
    role     TEXT   NOT NULL CHECK (role IN ('input', 'output')),
    step     BIGINT NOT NULL,
    PRIMARY KEY (run_id, model_id, role)
);
CREATE INDEX run_models_model ON run_models (model_id);

CREATE TABLE logged_models (
    model_id       TEXT   PRIMARY KEY NOT NULL,
    experiment_id  BIGINT NOT NULL,
    name           TEXT   NOT NULL,
    model_type     TEXT   NOT NULL,
    source_run_id  TEXT   NOT NULL,
    status         TEXT   NOT NULL,
    artifact_uri   TEXT   NOT NULL,
    created        BIGINT NOT NULL,
    updated        BIGINT NOT NULL
);
CREATE INDEX logged_models_newest ON logged_models (experiment_id, created);

CREATE TABLE logged_model_params (
    model_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (model_id, key)
);

CREATE TABLE logged_model_tags (
    model_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (model_id, key)
);

CREATE TABLE logged_model_metrics (
    model_id       TEXT   NOT NULL,
    run_id         TEXT   NOT NULL,
    key            TEXT   NOT NULL,
    logged_at      BIGINT NOT NULL,
    step           BIGINT NOT NULL,
    value          DOUBLE PRECISION NOT NULL,
    is_nan         BIGINT NOT NULL,
    dataset_name   TEXT   NOT NULL,
    dataset_digest TEXT   NOT NULL,
    PRIMARY KEY (model_id, key, logged_at, step, run_id)
);

-- The model registry. `next_version` only grows, so that a version's number is never used again.
CREATE TABLE registered_models (
    name         TEXT   PRIMARY KEY NOT NULL,
    description  TEXT,
    created_by   TEXT   NOT NULL,
    created      BIGINT NOT NULL,
    updated      BIGINT NOT NULL,
    next_version BIGINT NOT NULL
);

CREATE TABLE registered_model_tags (
    name  TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name, key)
);

CREATE TABLE model_versions (
    name             TEXT   NOT NULL,
    version          BIGINT NOT NULL,
    description      TEXT,
    user_id          TEXT   NOT NULL,
    created_by       TEXT   NOT NULL,
    source           TEXT   NOT NULL,
    storage_location TEXT   NOT NULL,
    run_id           TEXT   NOT NULL,
    run_link         TEXT,
    model_id         TEXT   NOT NULL,
    created          BIGINT NOT NULL,
    updated          BIGINT NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE INDEX model_versions_run ON model_versions (run_id);
CREATE INDEX model_versions_model ON model_versions (model_id);

CREATE TABLE model_version_tags (
    name    TEXT   NOT NULL,
    version BIGINT NOT NULL,
    key     TEXT   NOT NULL,
    value   TEXT   NOT NULL,
    PRIMARY KEY (name, version, key)
);

CREATE TABLE aliases (
    name    TEXT   NOT NULL,
    alias   TEXT   NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (name, alias)
);

-- Who moved which alias when. A version of NULL means that the alias was removed.
CREATE TABLE alias_history (
    seq     BIGINT PRIMARY KEY NOT NULL,
    name    TEXT   NOT NULL,
    alias   TEXT   NOT NULL,
    version BIGINT,
    actor   TEXT   NOT NULL,
    at_ms   BIGINT NOT NULL
);
CREATE INDEX alias_history_alias ON alias_history (name, alias, seq);

-- Which bytes lie under which path. `root` is the folder of one run, one logged model or one registered version.
CREATE TABLE artifacts (
    root    TEXT   NOT NULL,
    path    TEXT   NOT NULL,
    digest  TEXT   NOT NULL,
    size    BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (root, path)
);
CREATE INDEX artifacts_digest ON artifacts (digest);
