-- Traces: what an application did for one request, as spans; and what people and judges said about it.

CREATE TABLE traces (
    trace_id          TEXT   PRIMARY KEY NOT NULL,
    workspace         TEXT   NOT NULL,
    experiment_id     BIGINT NOT NULL,
    state             TEXT   NOT NULL,
    started           BIGINT NOT NULL,
    duration          BIGINT,
    client_request_id TEXT,
    request_preview   TEXT,
    response_preview  TEXT,
    session_id        TEXT
);
-- The order in which they are listed.
CREATE INDEX traces_newest ON traces (experiment_id, started DESC, trace_id);
CREATE INDEX traces_session ON traces (experiment_id, session_id);

CREATE TABLE trace_tags (
    trace_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (trace_id, key)
);

CREATE TABLE trace_metadata (
    trace_id TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (trace_id, key)
);

-- The runs and the prompts' versions (`name/version`) that a trace belongs to.
CREATE TABLE trace_links (
    kind     TEXT NOT NULL CHECK (kind IN ('run', 'prompt')),
    target   TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    PRIMARY KEY (kind, target, trace_id)
);
CREATE INDEX trace_links_trace ON trace_links (trace_id);

CREATE TABLE spans (
    trace_id  TEXT   NOT NULL,
    span_id   TEXT   NOT NULL,
    parent_id TEXT,
    name      TEXT   NOT NULL,
    kind      TEXT,
    status    TEXT   NOT NULL,
    start_ns  BIGINT NOT NULL,
    end_ns    BIGINT NOT NULL,
    token_use TEXT,
    cost      TEXT,
    content   TEXT   NOT NULL,
    PRIMARY KEY (trace_id, span_id)
);

-- `value` is JSON; `amount` holds it once more where it is a number.
CREATE TABLE assessments (
    trace_id      TEXT   NOT NULL,
    assessment_id TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    kind          TEXT   NOT NULL CHECK (kind IN ('feedback', 'expectation', 'issue')),
    value         TEXT   NOT NULL,
    amount        DOUBLE PRECISION,
    error         TEXT,
    source_type   TEXT   NOT NULL,
    source_id     TEXT,
    run_id        TEXT,
    span_id       TEXT,
    rationale     TEXT,
    overrides     TEXT,
    valid         BIGINT NOT NULL,
    metadata      TEXT,
    of_session    BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    updated       BIGINT NOT NULL,
    PRIMARY KEY (trace_id, assessment_id)
);
CREATE INDEX assessments_name ON assessments (name, kind);
