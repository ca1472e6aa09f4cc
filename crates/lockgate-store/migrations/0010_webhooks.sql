-- Webhooks, and what is to be delivered to them: written in the transaction of the change that it tells.

CREATE TABLE webhooks (
    id          TEXT   PRIMARY KEY NOT NULL,
    workspace   TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    url         TEXT   NOT NULL,
    description TEXT,
    secret      TEXT,
    status      TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    updated     BIGINT NOT NULL
);

CREATE TABLE webhook_events (
    webhook_id TEXT NOT NULL,
    event      TEXT NOT NULL,
    PRIMARY KEY (webhook_id, event)
);
CREATE INDEX webhook_events_event ON webhook_events (event);

CREATE TABLE deliveries (
    seq        BIGINT PRIMARY KEY NOT NULL,
    webhook_id TEXT   NOT NULL,
    event      TEXT   NOT NULL,
    payload    TEXT   NOT NULL,
    state      TEXT   NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts   BIGINT NOT NULL,
    created    BIGINT NOT NULL,
    -- When it is tried (again), or when it was settled.
    due        BIGINT NOT NULL,
    -- Until when whoever tries it has it, and all others of its webhook, for itself.
    claimed    BIGINT NOT NULL,
    outcome    TEXT
);
CREATE INDEX deliveries_due ON deliveries (state, due);
CREATE INDEX deliveries_webhook ON deliveries (webhook_id, seq);
CREATE INDEX deliveries_claimed ON deliveries (claimed);
