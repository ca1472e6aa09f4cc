//! A model's own server: which keys go together, and which gates can't be asked of it.

use super::Context;
use super::value::Reader;
use crate::diagnostic::{Path, Report};
use crate::nearest::suggest;
use crate::project::ResolvedEnvironment;
use crate::tree::{Node, Value};
use lockgate_core::id::ModelName;
use lockgate_core::release::{Runtime, is_safe_path};
use lockgate_core::server::{HttpServer, ProcessServer, Server, ServerProtocol, host_and_port, places};
use std::collections::BTreeMap;

/// How long a process may take to become ready, in milliseconds.
const START_MS: i64 = 300_000;

/// How long a streamed answer may take, in milliseconds.
const STREAM_MS: i64 = 600_000;

/// What a command line may have filled in.
const PLACES: [&str; 6] = ["model", "name", "host", "port", "port:OTHER", "socket"];

/// Keys of a process alone.
const OF_PROCESSES: [&str; 5] = ["start", "env", "requirements", "python", "tcp"];

/// Reads `serve` of a model. What is wrong is reported.
pub(super) fn read(model: &Node, name: &ModelName, report: &mut Report) -> Option<Runtime> {
    let node = model.get("serve").filter(|n| n.table().is_some())?;
    let path = Path::of(&["model", name.as_str(), "serve"]);
    let mut reader = Reader { node, path, report };
    let server = server(&mut reader, name);
    match (node.text_at("process"), node.get("http")) {
        (Some(run), None) => Some(Runtime::Process(Box::new(process(&mut reader, run, server?)))),
        (None, Some(_)) => {
            for key in OF_PROCESSES.into_iter().filter(|key| node.get(key).is_some()) {
                let help = Some("take it out: whoever runs the server decides that".to_owned());
                reader.wrong(key, format!("`{key}` is for a `process`"), help);
            }
            Some(Runtime::Http(Box::new(HttpServer { server: server?, addresses: addresses(&mut reader) })))
        }
        (Some(_), Some(_)) => {
            let help = Some("keep one of them".to_owned());
            reader.wrong("http", "a server is either a `process` or at an `http` address", help);
            None
        }
        (None, None) => {
            let help = "write process = \"mlserver start {model}\", or http = \"http://HOST:PORT\"";
            reader.wrong("serve", "it doesn't say which server", Some(help.to_owned()));
            None
        }
    }
}

fn server(reader: &mut Reader<'_, '_>, name: &ModelName) -> Option<Server> {
    let word = reader.node.text_at("protocol")?;
    let protocol = ServerProtocol::ALL.iter().find(|(_, w)| *w == word).map(|(protocol, _)| *protocol)?;
    let text = |key| reader.node.text_at(key).map(str::to_owned);
    let (model, version, health) = (text("model"), text("version"), text("health"));
    if version.is_some() && !matches!(protocol, ServerProtocol::Oip | ServerProtocol::Tfs) {
        let help = Some("pin it by `model`, or take it out".to_owned());
        reader.wrong("version", format!("paths of `{word}` name no version"), help);
    }
    if model.is_some() && matches!(protocol, ServerProtocol::Mlflow | ServerProtocol::Sagemaker) {
        let help = Some("take it out: such a server has one model".to_owned());
        reader.wrong("model", format!("paths of `{word}` name no model"), help);
    }
    if health.as_deref().is_some_and(|h| !is_path(h)) {
        let help = Some("write it as in a request: \"/health\"".to_owned());
        reader.wrong("health", "it is no path", help);
    }
    let stream_ms = u64::try_from(reader.positive_duration("stream", STREAM_MS)).unwrap_or(0);
    let model = model.unwrap_or_else(|| name.to_string());
    Some(Server { protocol, model, version, health, stream_ms })
}

/// Whether a text can stand as the path of a request.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b))
}

fn process(reader: &mut Reader<'_, '_>, run: &str, server: Server) -> ProcessServer {
    let env: BTreeMap<String, String> = reader
        .node
        .get("env")
        .map(Node::entries)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.text()?.to_owned())))
        .collect();
    for (key, text) in std::iter::once(("process", run)).chain(env.values().map(|v| ("env", v.as_str()))) {
        for place in places(text) {
            let known = PLACES.contains(&place) && place != "port:OTHER" || place.starts_with("port:");
            if !known {
                reader.wrong(
                    key,
                    format!("there is nothing to put into `{{{place}}}`"),
                    suggest(place, "place", &PLACES),
                );
            }
        }
    }
    let all: Vec<&str> = env.values().map(String::as_str).chain([run]).flat_map(places).collect();
    if all.contains(&"socket") && all.contains(&"port") {
        let help = Some("keep one of them; further ports are {port:NAME}".to_owned());
        reader.wrong("process", "a server listens on {port} or at {socket}, not at both", help);
    }
    let text = |key| reader.node.text_at(key).map(str::to_owned);
    let (requirements, python) = (text("requirements"), text("python"));
    if requirements.as_deref().is_some_and(|path| !is_safe_path(path)) {
        let help = Some("write it as it lies in the model's folder: \"requirements.txt\"".to_owned());
        reader.wrong("requirements", "it is no plain path among the model's files", help);
    }
    let version = |text: &str| {
        let mut parts = text.split('.');
        let number = |p: Option<&str>| {
            p.is_some_and(|n| !n.is_empty() && n.len() < 4 && n.bytes().all(|b| b.is_ascii_digit()))
        };
        number(parts.next()) && number(parts.next())
    };
    match (&requirements, &python) {
        (Some(_), None) => {
            let help = Some("add the version: python = \"3.11\"".to_owned());
            reader.wrong("requirements", "`requirements` needs `python`", help);
        }
        (None, Some(_)) => {
            let help = Some("name the file: requirements = \"requirements.txt\"".to_owned());
            reader.wrong("python", "`python` needs `requirements`", help);
        }
        (Some(_), Some(python)) if !version(python) => {
            reader.wrong("python", "it is no version of Python", Some("write \"3.11\"".to_owned()));
        }
        _ => {}
    }
    let tcp = matches!(reader.node.get("tcp").map(|n| &n.value), Some(Value::Flag(true)));
    let start_ms = u64::try_from(reader.positive_duration("start", START_MS)).unwrap_or(0);
    ProcessServer { server, run: run.to_owned(), requirements, python, env, start_ms, tcp }
}

fn addresses(reader: &mut Reader<'_, '_>) -> Vec<String> {
    let all: Vec<String> = reader
        .node
        .get("http")
        .map(Node::one_or_many)
        .unwrap_or_default()
        .iter()
        .filter_map(|n| n.text().map(str::to_owned))
        .collect();
    for address in &all {
        // What variables hold is looked at when a plan is made.
        if places(address).is_empty()
            && let Err(why) = host_and_port(address)
        {
            reader.wrong("http", why, None);
        }
    }
    all
}

/// Gates that can't be asked of a model's server: a mistake where no model of the project could be asked, else a warning.
pub(super) fn check_gates(context: &Context<'_>, environments: &[ResolvedEnvironment], report: &mut Report) {
    for environment in environments {
        for (gate, spec) in &environment.gates {
            let refused: Vec<(&ModelName, String)> = context
                .models
                .iter()
                .filter_map(|(name, model)| {
                    Some((name, model.serve.as_ref()?.server()?.protocol.refuses(spec)?))
                })
                .collect();
            let Some((model, why)) = refused.first() else { continue };
            let path = Path::of(&["env", environment.name.as_str(), "gates"]);
            let Some(env) = context.root.get("env").and_then(|e| e.get(environment.name.as_str())) else {
                continue;
            };
            let at = env.get("gates").map_or(&env.key_at, |n| &n.at);
            let message =
                format!("gate `{gate}` of `{}` can't be asked of `{model}`: {why}", environment.name);
            if refused.len() == context.models.len() {
                let help = "take the gate out; a command gate can ask whatever you like";
                report.error(at, &path, message, Some(help.to_owned()));
            } else {
                report.warning(at, &path, message, Some("a plan for that model is refused".to_owned()));
            }
        }
    }
}
