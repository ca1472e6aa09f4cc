//! The kinds of guards.

use super::TEXTS;
use crate::format::Format;
use crate::shape::{Bounds, Key, Kind, Later, Shape, Tagged};

const SHARE: Shape = Shape::Text(Format::Percent);
const BOUND: Shape = Shape::Number(Bounds { min: -1e12, max: 1e12, open: false });

/// A guard.
pub(crate) const GUARD: Tagged = Tagged {
    noun: "guard",
    kinds: &[
        Kind {
            name: "rate",
            later: Later::Now,
            doc: "Bad answers beside the baseline's.",
            keys: &[
                Key::new("worse_by", SHARE, "What must be excluded to promote (50%)."),
                Key::new("rollback_by", SHARE, "What must be exceeded to roll back (0.4 of worse_by)."),
                Key::new("floor", SHARE, "A rate below which nothing is worse (0.5%)."),
            ],
        },
        Kind {
            name: "latency",
            later: Later::Now,
            doc: "Latency beside the baseline's, and an absolute bound.",
            keys: &[
                Key::new("p99", Shape::Text(Format::Latency), "One request in a hundred may take longer."),
                Key::new("worse_by", SHARE, "What must be excluded to promote (20%)."),
                Key::new("rollback_by", SHARE, "What must be exceeded to roll back (a quarter of worse_by)."),
                Key::new("floor", Shape::Text(Format::Latency), "A slow-down by less is no harm (1ms)."),
                Key::new(
                    "warmup",
                    Shape::Text(Format::Duration),
                    "For how long after the candidate's first request slowness doesn't count (2s).",
                ),
            ],
        },
        Kind {
            name: "constant",
            later: Later::Now,
            doc: "Answers that are always the same; rolls back only.",
            keys: &[Key::new(
                "rollback_by",
                Shape::Number(Bounds { min: 1.0, max: 1e6, open: true }),
                "How many times as many repeated answers as the baseline's roll back (2.0).",
            )],
        },
        Kind {
            name: "disagreement",
            later: Later::Now,
            doc: "Answers to mirrored requests that differ from the baseline's, net of its own noise; in shadow steps only.",
            keys: &[
                Key::new("max", SHARE, "The share of answers that may differ.").required(),
                Key::new(
                    "tolerance",
                    SHARE,
                    "How far apart numbers may be, of the larger one, or of 1 where both are smaller (5%).",
                ),
            ],
        },
        Kind {
            name: "goal",
            later: Later::Now,
            doc: "An outcome that comes after the prediction, by POST /feedback; an A/B step goes on only when it is met.",
            keys: &[
                Key::new(
                    "metric",
                    Shape::Text(Format::Variable),
                    "The name of the outcome in feedback (outcome).",
                ),
                Key::new(
                    "direction",
                    Shape::Text(Format::OneOf(&["up", "down"])),
                    "Which way is better (up).",
                ),
                Key::new("min_gain", SHARE, "The gain that must be exceeded to promote, in points (0%)."),
                Key::new("max_loss", SHARE, "Instead: the loss that must be excluded to promote, in points."),
                Key::new(
                    "rollback_by",
                    SHARE,
                    "The loss that must be exceeded to roll back, in points (0%).",
                ),
                Key::new(
                    "within",
                    Shape::Text(Format::Duration),
                    "How long after its prediction an outcome counts (for ever).",
                ),
                Key::new(
                    "missing",
                    BOUND,
                    "What an outcome counts as that does not come `within` this time (it doesn't count).",
                ),
                Key::new("min", BOUND, "The smallest outcome (0)."),
                Key::new("max", BOUND, "The largest outcome (1)."),
            ],
        },
        Kind {
            name: "metric",
            later: Later::Refused("`metric` guards"),
            doc: "A number of one's own.",
            keys: &[
                Key::new("metric", Shape::Text(Format::Any), "Which number.").required(),
                Key::new("labels", Shape::Text(Format::Any), "Where labels come from that arrive late."),
                Key::new("shift", SHARE, "How far it may move to either side."),
                Key::new("max", SHARE, "The largest share."),
                Key::new(
                    "max_loss",
                    Shape::Number(Bounds { min: 0.0, max: 1e12, open: false }),
                    "How much worse it may be.",
                ),
                Key::new("worse_by", SHARE, "What must be excluded to promote."),
                Key::new("slices", TEXTS, "The same for parts of the traffic."),
            ],
        },
    ],
};
