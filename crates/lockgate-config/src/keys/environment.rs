//! The keys of an environment.

use super::{GATE, GUARD, PRINCIPALS, SOME_TEXTS, VARIABLES};
use crate::format::Format;
use crate::shape::{Key, Length, Names, Shape};

const NAMES: Shape = Shape::List(&Shape::Text(Format::EnvironmentName), Length::AtLeastOne);

/// One environment. Nothing is required: what isn't written is inherited by `like`, or has a default.
pub(crate) const ENVIRONMENT: &[Key] = &[
    Key::new(
        "after",
        Shape::Either(&[Shape::Text(Format::EnvironmentName), NAMES]),
        "The environment (or all of several) that a release must have been in before.",
    ),
    Key::new(
        "like",
        Shape::Text(Format::EnvironmentName),
        "The environment that everything else is inherited from.",
    ),
    Key::new(
        "gates",
        Shape::Either(&[
            Shape::List(&Shape::Text(Format::GateName), Length::Any),
            Shape::Map(&GATE_OVERRIDES),
        ]),
        "The gates that a release must pass, by name, with overrides of their keys.",
    ),
    Key::new("guards", Shape::Map(&GUARD_OVERRIDES), "Overrides of [guard.*]; all guards apply."),
    Key::new("approve", Shape::Table(APPROVE), "Who must say yes."),
    Key::new(
        "rollout",
        Shape::List(&Shape::Text(Format::Step), Length::AtLeastOne),
        "The steps: `preview for 10m`, `shadow 20% for 10m`, `canary 5% for 15m`, `25% for 30m`, `a/b 50% for 7d`, `100%`. Default: all at once.",
    ),
    Key::new(
        "smoke",
        Shape::Either(&[Shape::Text(Format::Any), Shape::Table(SMOKE)]),
        "A program that tries a release out at its preview address, before any user meets it: `run` and `timeout`.",
    ),
    Key::new(
        "testers",
        Shape::Text(Format::OneOf(&["nobody", "token", "anybody"])),
        "Who may say which release answers a request: `nobody` (default), whoever has a `token` (default with a preview step), or `anybody`.",
    ),
    Key::new(
        "observe",
        Shape::Flag,
        "Whether users only ever get the answers of what serves, and what a rollout would decide is said and not done (false).",
    ),
    Key::new(
        "backup",
        Shape::Either(&[
            Shape::Text(Format::Backup),
            Shape::List(&Shape::Text(Format::Backup), Length::AtLeastOne),
        ]),
        "What answers when nothing else can: `model@alias`, `model:version` or a release's digest.",
    ),
    Key::new("probation", Shape::Text(Format::Duration), "How long a finished rollout stays armed (0s)."),
    Key::new(
        "holdout",
        Shape::Text(Format::Percent),
        "The share of users who stay with what served before until the probation is over, so that there is something to compare with (0%).",
    ),
    Key::new(
        "deadline",
        Shape::Text(Format::Duration),
        "How long a step waits for its verdicts beyond its hold (30m).",
    ),
    Key::new("on", Shape::Table(ON), "What happens without a verdict."),
    Key::new(
        "prepare",
        Shape::Text(Format::Duration),
        "How long loading and warming a release may take (5m).",
    ),
    Key::new("gates_deadline", Shape::Text(Format::Duration), "How long all gates together may take (1h)."),
    Key::new("vars", Shape::Map(&VARIABLES), "Variables for the model; part of the revision."),
    Key::new(
        "data",
        Shape::Either(&[Shape::Map(&DATASETS), Shape::Text(Format::DataSource)]),
        "The environment's datasets: name and path.",
    ),
    Key::new(
        "aliases",
        Shape::List(&Shape::Text(Format::Alias), Length::AtLeastOne),
        "MLflow aliases that point to what serves here, beside the one that is the environment's name.",
    ),
    Key::new(
        "stage",
        Shape::Text(Format::OneOf(&["Staging", "Production"])),
        "MLflow's stage of what serves here. Default: `Staging` for an environment of the name `staging`, `Production` for `production` and `prod`.",
    ),
    Key::new("port", Shape::Integer(1, 65_535), "The gateway's port."),
    Key::new(
        "feedback_token_file",
        Shape::Text(Format::Any),
        "A file with the tokens that `/feedback` takes, one in each line; without it whoever reaches the gateway may say what came of a prediction. `lockgate up` hands it to the agent; one that is started by itself gets `--feedback-token-file`.",
    ),
    Key::new("workers", Shape::Integer(1, 1_000), "Worker processes for each release (1)."),
    Key::new("timeout", Shape::Text(Format::Duration), "How long one attempt of a request may take (2s)."),
    Key::new("memory", Shape::Text(Format::Bytes), "Memory limit of one worker; none if it isn't written."),
    Key::new(
        "batch_rows",
        Shape::Integer(1, 65_536),
        "The most rows of requests that wait, put together in one call of a model that runs in Python (256); 1 calls it for each request alone.",
    ),
    Key::new(
        "isolation",
        Shape::Either(&[Shape::Text(ISOLATION), Shape::Map(&ISOLATIONS)]),
        "Where models run: in worker processes (`process`, default), or `inline` inside the gateway too, while a release has no rollout beside it, for reviewed ONNX models alone. For all models, or by model.",
    ),
    Key::new("auto", Shape::Flag, "Whether a release comes here by itself.").warned("`auto` promotions"),
    Key::new(
        "soak",
        Shape::Text(Format::Duration),
        "How long a release must have been in the environment before.",
    )
    .refused("`soak`"),
    Key::new(
        "windows",
        Shape::Either(&[
            Shape::Text(Format::Window),
            Shape::List(&Shape::Text(Format::Window), Length::AtLeastOne),
        ]),
        "When releases may move forward: `Mon..Thu 09:00-16:00 Europe/Berlin`.",
    )
    .refused("`windows`"),
    Key::new("confirm", Shape::Table(CONFIRM), "What ends the probation, beside time."),
];

const GATE_OVERRIDES: Names =
    Names { noun: "gate", form: Format::GateName, shape: Shape::Overrides(&GATE), open: true, built_in: &[] };

const GUARD_OVERRIDES: Names = Names {
    noun: "guard",
    form: Format::GuardName,
    shape: Shape::Overrides(&GUARD),
    open: true,
    built_in: &[],
};

const ISOLATION: Format = Format::OneOf(&["process", "inline"]);

const ISOLATIONS: Names = Names {
    noun: "model",
    form: Format::ModelName,
    shape: Shape::Text(ISOLATION),
    open: true,
    built_in: &[],
};

const DATASETS: Names = Names {
    noun: "dataset",
    form: Format::Label,
    shape: Shape::Text(Format::DataSource),
    open: true,
    built_in: &[],
};

const SMOKE: &[Key] = &[
    Key::new("run", Shape::Text(Format::Any), "The command line; its exit code is the verdict.").required(),
    Key::new("timeout", Shape::Text(Format::Duration), "How long it may take (5m)."),
];

const APPROVE: &[Key] = &[
    Key::new("count", Shape::Integer(1, 100), "How many distinct people (1)."),
    Key::new("from", PRINCIPALS, "Who may: `group:NAME` or people. Without it: anybody who may approve."),
    Key::new(
        "not",
        Shape::Text(Format::OneOf(&["author"])),
        "`author`: neither the release's authors nor the requester.",
    ),
    Key::new("ttl", Shape::Text(Format::Duration), "How long the promotion waits (7d)."),
    Key::new("each", Shape::True, "One from each group.").refused("`approve.each`"),
];

const ON: &[Key] = &[
    Key::new(
        "inconclusive",
        Shape::Text(Format::Inconclusive),
        "At the deadline: `hold` (default) or `rollback`.",
    ),
    Key::new(
        "sample_ratio",
        Shape::Text(Format::OneOfSome(&["hold"], &["rollback"])),
        "When the shares of units don't fit the weights: `hold`.",
    ),
];

const CONFIRM: &[Key] = &[Key::new("needs", SOME_TEXTS, "Guards that must have said `not worse`.")
    .required()
    .refused("`confirm.needs`")];
