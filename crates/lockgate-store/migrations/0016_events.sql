-- Predictions of rollouts and what was said of them have one order, in which what goals have seen is made again: `seq` counts
-- both. `noted` is when a prediction became known. `kept` says that it is needed for as long as its rollout is followed; what is
-- not may go when its time is over. Predictions from before come first, in the order of their times.
ALTER TABLE drawn ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE drawn ADD COLUMN noted BIGINT NOT NULL DEFAULT 0;
ALTER TABLE drawn ADD COLUMN kept BIGINT NOT NULL DEFAULT 1;
UPDATE drawn SET noted = at, seq = o.place - (SELECT COUNT(*) FROM drawn) - 1
    FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY at, id) AS place FROM drawn) o
    WHERE o.id = drawn.id;
DROP INDEX drawn_promotion;
CREATE UNIQUE INDEX drawn_seq ON drawn (promotion, seq);
CREATE INDEX drawn_passing ON drawn (promotion, at) WHERE kept = 0;
