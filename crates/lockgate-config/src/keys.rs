//! Every key of `lockgate.toml`, declared once. The check, the settings from outside and the JSON schema come from here.

mod environment;
mod gate;
mod guard;
mod serve;

pub(crate) use environment::ENVIRONMENT;
pub(crate) use gate::GATE;
pub(crate) use guard::GUARD;
pub(crate) use serve::SERVE;

use crate::format::Format;
use crate::shape::{Bounds, Key, Length, Names, Shape};

/// What is there before the file says anything.
pub(crate) const BUILT_IN: &str = r#"
[gate.schema]
kind = "data"
[gate.parity]
kind = "parity"
[guard.errors]
kind = "rate"
[guard.latency]
kind = "latency"
[guard.constant]
kind = "constant"
"#;

/// The words of `project::Task`.
pub(crate) const TASKS: &[&str] = &["binary", "multiclass", "regression", "other"];

pub(crate) const TEXTS: Shape = Shape::List(&Shape::Text(Format::Any), Length::Any);
pub(crate) const SOME_TEXTS: Shape = Shape::List(&Shape::Text(Format::Any), Length::AtLeastOne);
const PATHS: Shape = Shape::List(&Shape::Text(Format::Path), Length::Any);
const ALPHA: Shape = Shape::Number(Bounds { min: 0.0, max: 0.5, open: true });

/// The whole file.
pub(crate) const ROOT: &[Key] = &[
    Key::new("project", Shape::Text(Format::ProjectName), "The project's name.").required(),
    Key::new(
        "model",
        Shape::Map(&MODELS),
        "The project's models, by the name under which they are registered.",
    ),
    Key::new("pipeline", Shape::Map(&STAGES), "The stages that make a model."),
    Key::new("env", Shape::Map(&ENVIRONMENTS), "The environments, ordered by `after`."),
    Key::new("gate", Shape::Map(&GATES), "Checks that a release must pass to enter an environment."),
    Key::new("guard", Shape::Map(&GUARDS), "What is watched all through a rollout."),
    Key::new("groups", Shape::Map(&GROUPS), "Groups of people, for approvals."),
    Key::new("python", Shape::Table(PYTHON), "The project's Python."),
    Key::new("statistics", Shape::Table(STATISTICS), "The error rates of a rollout's tests."),
    Key::new("owners", PRINCIPALS, "Who owns the project.").warned("`owners`"),
    Key::new("notify", Shape::Table(NOTIFY), "Who is told what happens.").warned("`notify`"),
    Key::new("freeze", Shape::Map(&FREEZES), "Times without forward moves.").refused("`freeze`"),
    Key::new("drift", Shape::Table(DRIFT), "What is watched between rollouts.").refused("`drift`"),
    Key::new("audit", Shape::Table(AUDIT), "How long what is kept.").warned("`audit`"),
];

const MODELS: Names =
    Names { noun: "model", form: Format::ModelName, shape: Shape::Table(MODEL), open: false, built_in: &[] };

const MODEL: &[Key] = &[
    Key::new("task", Shape::Text(Format::OneOf(TASKS)), "What the model does.").required(),
    Key::new("target", Shape::Text(Format::Any), "The label's column."),
    Key::new("id", Shape::Text(Format::Any), "The column that joins labels which arrive late."),
    Key::new("unit", Shape::Text(Format::Unit), "Where a request names its unit: `header:X-User-Id`."),
    Key::new(
        "serve",
        Shape::Table(SERVE),
        "A server that you have already, in the place of Lockgate's workers; part of each release made from then on.",
    ),
];

const STAGES: Names =
    Names { noun: "stage", form: Format::Label, shape: Shape::Table(STAGE), open: false, built_in: &[] };

const STAGE: &[Key] = &[
    Key::new("run", Shape::Text(Format::Any), "The command line.").required(),
    Key::new("deps", PATHS, "Files and folders that it reads."),
    Key::new("outs", PATHS, "Files and folders that it writes."),
    Key::new(
        "params",
        Shape::Either(&[Shape::Map(&PARAMS), PARAM_NAMES]),
        "Parameters, by name with a default or only their names: a changed one runs the stage again.",
    ),
    Key::new("env", Shape::Map(&VARIABLES), "Environment variables for it."),
    Key::new("timeout", Shape::Text(Format::Duration), "How long it may take."),
    Key::new("retries", Shape::Integer(0, 100), "How often it is tried again after a failure."),
    Key::new("resources", Shape::Table(RESOURCES), "What it needs.").warned("`resources` of a stage"),
];

const RESOURCES: &[Key] = &[
    Key::new("cpu", Shape::Number(Bounds { min: 0.0, max: 10_000.0, open: true }), "Processors."),
    Key::new("memory", Shape::Text(Format::Bytes), "Memory."),
    Key::new("gpu", Shape::Integer(0, 1_000), "Graphics processors."),
    Key::new("capacity", Shape::Text(Format::OneOf(&["spot", "on-demand"])), "Which machines."),
];

const PARAM_NAMES: Shape = Shape::List(&Shape::Text(Format::Variable), Length::Any);

const PARAMS: Names =
    Names { noun: "parameter", form: Format::Variable, shape: Shape::Scalar, open: true, built_in: &[] };

pub(crate) const VARIABLES: Names = Names {
    noun: "variable",
    form: Format::Variable,
    shape: Shape::Text(Format::Free),
    open: true,
    built_in: &[],
};

const ENVIRONMENTS: Names = Names {
    noun: "environment",
    form: Format::EnvironmentName,
    shape: Shape::Table(ENVIRONMENT),
    open: false,
    built_in: &[],
};

pub(crate) const GATE_NAMES: &[&str] = &["schema", "parity"];
pub(crate) const GUARD_NAMES: &[&str] = &["errors", "latency", "constant"];

const GATES: Names = Names {
    noun: "gate",
    form: Format::GateName,
    shape: Shape::Tagged(&GATE),
    open: false,
    built_in: GATE_NAMES,
};

const GUARDS: Names = Names {
    noun: "guard",
    form: Format::GuardName,
    shape: Shape::Tagged(&GUARD),
    open: false,
    built_in: GUARD_NAMES,
};

const GROUPS: Names = Names {
    noun: "group",
    form: Format::Label,
    shape: Shape::List(&Shape::Text(Format::Any), Length::Any),
    open: true,
    built_in: &[],
};

const PYTHON: &[Key] =
    &[Key::new("requirements", Shape::Text(Format::Path), "The file that pins the packages.")];

const STATISTICS: &[Key] = &[
    Key::new("alpha_rollback", ALPHA, "Chance of a false rollback over a whole rollout (0.05)."),
    Key::new("alpha_promote", ALPHA, "Chance, for each guard, of a false `not worse` (0.05)."),
    Key::new("alpha_sample_ratio", ALPHA, "Chance of a false sample-ratio alarm (0.001)."),
];

pub(crate) const PRINCIPALS: Shape = Shape::List(&Shape::Text(Format::Principal), Length::AtLeastOne);

const NOTIFY: &[Key] = &[
    Key::new("slack", Shape::Text(Format::Any), "A Slack channel."),
    Key::new("webhook", Shape::Text(Format::Any), "A URL that events are posted to."),
    Key::new("email", TEXTS, "Addresses."),
];

const FREEZES: Names = Names {
    noun: "freeze",
    form: Format::Label,
    shape: Shape::Text(Format::DateRange),
    open: true,
    built_in: &[],
};

const DRIFT: &[Key] = &[
    Key::new("features", Shape::Table(DRIFT_TEST), "The inputs' distributions."),
    Key::new("outputs", Shape::Table(DRIFT_TEST), "The predictions' distribution."),
    Key::new("then", SOME_TEXTS, "What happens: `alert`, `hold`, `retrain via ENVIRONMENT`."),
];

const DRIFT_TEST: &[Key] = &[
    Key::new("test", Shape::Text(Format::OneOf(&["psi", "ks", "js", "wasserstein"])), "Which measure.")
        .required(),
    Key::new(
        "max",
        Shape::Number(Bounds { min: 0.0, max: 1e9, open: false }),
        "The largest value that is no drift.",
    ),
    Key::new("windows", Shape::Text(Format::Any), "How many windows of how many must drift: `3 of 5`."),
];

const AUDIT: &[Key] = &[
    Key::new("keep", Shape::Text(Format::Duration), "How long the record is kept."),
    Key::new("evidence", Shape::Text(Format::OneOf(&["full", "digests"])), "What of the evidence is kept."),
];
