//! The kinds of gates.

use super::SOME_TEXTS;
use crate::format::Format;
use crate::shape::{Bounds, Key, Kind, Later, Shape, Tagged};

/// The words of core's `Metric::ALL`; a test holds them equal.
pub(crate) const METRICS: &[&str] =
    &["roc_auc", "ece", "brier", "log_loss", "accuracy", "f1", "rmse", "mae", "r2"];

const FINITE: Shape = Shape::Number(Bounds { min: -1e12, max: 1e12, open: false });
const NOT_NEGATIVE: Shape = Shape::Number(Bounds { min: 0.0, max: 1e12, open: false });
const POSITIVE: Shape = Shape::Number(Bounds { min: 0.0, max: 1e9, open: true });
const DATASET: Shape = Shape::Text(Format::Label);

/// A gate.
pub(crate) const GATE: Tagged = Tagged {
    noun: "gate",
    kinds: &[
        Kind {
            name: "command",
            later: Later::Now,
            doc: "A program in a clean checkout of the release's code; its exit code is the verdict.",
            keys: &[
                Key::new("run", Shape::Text(Format::Any), "The command line.").required(),
                Key::new("timeout", Shape::Text(Format::Duration), "How long it may take (10m)."),
            ],
        },
        Kind {
            name: "data",
            later: Later::Now,
            doc: "The environment's dataset fits the release's feature schema.",
            keys: &[Key::new(
                "data",
                DATASET,
                "The dataset; the environment's only one if it isn't written.",
            )],
        },
        Kind {
            name: "metric",
            later: Later::Now,
            doc: "A number computed from the release's predictions.",
            keys: METRIC,
        },
        Kind {
            name: "parity",
            later: Later::Now,
            doc: "Recorded rows through the serving path equal the offline predictions.",
            keys: &[
                Key::new("atol", NOT_NEGATIVE, "The largest absolute difference that passes (1e-5)."),
                Key::new("golden", Shape::Text(Format::Path), "A file of rows and answers.")
                    .refused("`golden` files"),
            ],
        },
        Kind {
            name: "benchmark",
            later: Later::Now,
            doc: "Load on a real worker.",
            keys: &[
                Key::new("rps", POSITIVE, "Requests per second that it must sustain.").required(),
                Key::new("p99", Shape::Text(Format::Latency), "The largest 99th percentile of latency."),
                Key::new("duration", Shape::Text(Format::Duration), "How long (10s)."),
            ],
        },
        Kind {
            name: "replay",
            later: Later::Now,
            doc: "Recorded requests must all be answered, with finite numbers.",
            keys: &[
                Key::new(
                    "data",
                    DATASET,
                    "A dataset of requests; the environment's own log if it isn't written.",
                ),
                Key::new("limit", Shape::Integer(1, 10_000_000), "How many requests at the most (1000)."),
            ],
        },
        Kind {
            name: "fairness",
            later: Later::Refused("`fairness` gates"),
            doc: "A difference between groups of people.",
            keys: &[
                Key::new("metric", Shape::Text(Format::Any), "Which difference: `equal_opportunity_gap`.")
                    .required(),
                Key::new("by", Shape::Text(Format::Any), "The column that tells the groups apart.")
                    .required(),
                Key::new("data", DATASET, "The dataset."),
                Key::new("max", NOT_NEGATIVE, "The largest value that passes.").required(),
            ],
        },
        Kind {
            name: "scan",
            later: Later::Refused("`scan` gates"),
            doc: "A search for known weaknesses.",
            keys: &[
                Key::new("run", Shape::Text(Format::Any), "The scanner's command line."),
                Key::new(
                    "severity",
                    Shape::Text(Format::OneOf(&["low", "medium", "high", "critical"])),
                    "From where on it fails.",
                ),
            ],
        },
        Kind {
            name: "drill",
            later: Later::Refused("`drill` gates"),
            doc: "A rehearsed rollback.",
            keys: &[
                Key::new("max_age", Shape::Text(Format::Duration), "How old the last one may be."),
                Key::new("rollback", Shape::Text(Format::Duration), "How long it may take."),
            ],
        },
        Kind {
            name: "cost",
            later: Later::Refused("`cost` gates"),
            doc: "What predictions cost.",
            keys: &[
                Key::new("metric", Shape::Text(Format::Any), "Which cost: `eur_per_1k`.").required(),
                Key::new("max", NOT_NEGATIVE, "The largest value that passes.").required(),
            ],
        },
        Kind {
            name: "http",
            later: Later::Refused("`http` gates"),
            doc: "The answer of a service.",
            keys: &[
                Key::new("url", Shape::Text(Format::Any), "Where to ask.").required(),
                Key::new("timeout", Shape::Text(Format::Duration), "How long it may take."),
            ],
        },
    ],
};

const METRIC: &[Key] = &[
    Key::new("metric", Shape::Text(Format::OneOf(METRICS)), "Which number.").required(),
    Key::new("data", DATASET, "The environment's dataset.").required(),
    Key::new("min", FINITE, "The smallest value that passes."),
    Key::new("max", FINITE, "The largest value that passes."),
    Key::new(
        "versus",
        Shape::Table(VERSUS),
        "A comparison with what another environment serves, on the same rows.",
    ),
    Key::new("slices", Shape::Table(SLICES), "The same for parts of the data.").refused("`slices`"),
];

const VERSUS: &[Key] = &[
    Key::new("env", Shape::Text(Format::EnvironmentName), "The other environment.").required(),
    Key::new("max_loss", NOT_NEGATIVE, "How much worse it may be, in the metric's own unit.").required(),
];

const SLICES: &[Key] = &[
    Key::new("by", SOME_TEXTS, "Columns.").required(),
    Key::new("min_rows", Shape::Integer(1, 1_000_000_000), "Smaller parts aren't judged."),
    Key::new("max_loss", NOT_NEGATIVE, "How much worse a part may be."),
    Key::new("min", FINITE, "The smallest value that passes."),
    Key::new("max", FINITE, "The largest value that passes."),
];
