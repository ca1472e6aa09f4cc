-- The audit log. `text` is the entry's canonical JSON and the truth; the other columns repeat parts of it for queries.
CREATE TABLE entries (
    seq           BIGINT PRIMARY KEY NOT NULL CHECK (seq >= 0),
    id            TEXT   NOT NULL UNIQUE,
    at_ms         BIGINT NOT NULL,
    resource_type TEXT   NOT NULL,
    resource_id   TEXT   NOT NULL,
    project       TEXT   NOT NULL,
    environment   TEXT   NOT NULL,
    action        TEXT   NOT NULL,
    text          TEXT   NOT NULL,
    leaf          TEXT   NOT NULL,
    chain         TEXT   NOT NULL
);
CREATE INDEX entries_resource ON entries (resource_type, resource_id, seq);
CREATE INDEX entries_scope ON entries (project, environment, seq);
CREATE INDEX entries_at ON entries (at_ms);

-- One row: how many entries there are and the chain's hash after the last one.
CREATE TABLE head (
    one   BIGINT PRIMARY KEY NOT NULL CHECK (one = 1),
    next  BIGINT NOT NULL CHECK (next >= 0),
    chain TEXT   NOT NULL
);
INSERT INTO head (one, next, chain)
VALUES (1, 0, 'sha256:0000000000000000000000000000000000000000000000000000000000000000');

-- Which entries of which agent's journal this log repeats. Derived from the log.
CREATE TABLE sources (
    agent     TEXT   NOT NULL,
    seq       BIGINT NOT NULL,
    leaf      TEXT   NOT NULL,
    entry_seq BIGINT NOT NULL,
    PRIMARY KEY (agent, seq)
);

-- The state of every aggregate after its last event. Derived from the log.
CREATE TABLE aggregates (
    kind        TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    project     TEXT   NOT NULL,
    environment TEXT   NOT NULL,
    model       TEXT   NOT NULL,
    stage       TEXT   NOT NULL,
    seq         BIGINT NOT NULL,
    created     BIGINT NOT NULL,
    state       TEXT   NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX aggregates_scope ON aggregates (kind, project, environment, model, stage);
CREATE INDEX aggregates_created ON aggregates (kind, created, id);

-- Who stands behind an opaque id. The log holds ids only; this table can be erased.
CREATE TABLE principals (
    id      TEXT   PRIMARY KEY NOT NULL,
    kind    TEXT   NOT NULL,
    name    TEXT   NOT NULL UNIQUE,
    created BIGINT NOT NULL
);

-- What opens the log's salted commitments. Erasing a row leaves the log's hashes as they are.
CREATE TABLE sealed (
    entry_seq BIGINT PRIMARY KEY NOT NULL,
    salt      TEXT   NOT NULL,
    value     TEXT   NOT NULL
);
CREATE INDEX sealed_value ON sealed (value);

-- Bearer tokens by the SHA-256 of the token.
CREATE TABLE tokens (
    hash        TEXT   PRIMARY KEY NOT NULL,
    principal   TEXT   NOT NULL,
    environment TEXT   NOT NULL,
    created     BIGINT NOT NULL
);
CREATE INDEX tokens_principal ON tokens (principal);

CREATE TABLE settings (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);
