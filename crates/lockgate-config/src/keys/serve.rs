//! The keys of a server that a team has already.

use super::VARIABLES;
use crate::format::Format;
use crate::shape::{Key, Length, Shape};

/// The words of `lockgate_core::server::ServerProtocol`.
const SERVER_PROTOCOLS: &[&str] = &["oip", "mlflow", "tfs", "sagemaker", "openai"];

/// `[model.NAME.serve]`.
pub(crate) const SERVE: &[Key] = &[
    Key::new(
        "process",
        Shape::Text(Format::Any),
        "A command that is started for each worker: `mlserver start {model}`. Places: {model}, {name}, {host}, {port}, {port:OTHER}, {socket}.",
    ),
    Key::new(
        "http",
        Shape::Either(&[
            Shape::Text(Format::Any),
            Shape::List(&Shape::Text(Format::Any), Length::AtLeastOne),
        ]),
        "The address (or several) of a server that somebody else runs: `http://HOST:PORT`. Places: the environment's variables.",
    ),
    Key::new("protocol", Shape::Text(Format::OneOf(SERVER_PROTOCOLS)), "What it speaks.").required(),
    Key::new(
        "model",
        Shape::Text(Format::Any),
        "The name under which it knows the model; the model's own otherwise.",
    ),
    Key::new("version", Shape::Text(Format::Any), "The version to ask for in its paths (`oip` and `tfs`)."),
    Key::new(
        "health",
        Shape::Text(Format::Any),
        "The path that says whether it is well, where it isn't the protocol's own.",
    ),
    Key::new("stream", Shape::Text(Format::Duration), "How long a streamed answer may take in all (10m)."),
    Key::new("start", Shape::Text(Format::Duration), "How long a process may take to become ready (5m)."),
    Key::new("env", Shape::Map(&VARIABLES), "Environment variables for a process, with the same places."),
    Key::new(
        "requirements",
        Shape::Text(Format::Path),
        "The requirements file among the model's files, from which a process gets a Python environment of its own.",
    ),
    Key::new("python", Shape::Text(Format::Any), "The version of Python for that: `3.11`."),
    Key::new(
        "tcp",
        Shape::Flag,
        "Whether a process may use TCP for more than to listen on its own ports (false).",
    ),
];
