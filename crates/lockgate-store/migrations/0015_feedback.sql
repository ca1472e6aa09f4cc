-- Outcomes that come after the prediction, and the predictions of rollouts that wait for them. Both are an environment's own:
-- they stand in the agent's file for feedback.

-- A prediction that was drawn into a side of a rollout with a goal. `answered` says whether that side answered it well.
CREATE TABLE drawn (
    id        TEXT NOT NULL PRIMARY KEY,
    promotion TEXT NOT NULL,
    weight    BIGINT NOT NULL,
    candidate BIGINT NOT NULL CHECK (candidate IN (0, 1)),
    answered  BIGINT NOT NULL CHECK (answered IN (0, 1)),
    unit      BIGINT NOT NULL,
    at        BIGINT NOT NULL
);
CREATE INDEX drawn_promotion ON drawn (promotion, at);

-- What was said of a prediction: one value for each name, the first one. `seq` is the order in which it came.
CREATE TABLE feedback (
    prediction TEXT NOT NULL,
    name       TEXT NOT NULL,
    number     DOUBLE PRECISION,
    words      TEXT,
    at         BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    PRIMARY KEY (prediction, name)
);
CREATE UNIQUE INDEX feedback_seq ON feedback (seq);
