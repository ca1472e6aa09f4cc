//! Releases that a server of the team's own runs: what people have to know of them, and why a plan can't be carried out.

use lockgate_core::id::{EnvironmentName, ModelName};
use lockgate_core::plan::{Isolation, Plan};
use lockgate_core::release::Runtime;
use lockgate_core::server::{self, ServerProtocol};

/// How two releases are served differently, where they are.
pub(crate) fn difference(old: &Runtime, new: &Runtime) -> Option<String> {
    (old != new && (old.server().is_some() || new.server().is_some()))
        .then(|| format!("served by {} → {}", old.words(), new.words()))
}

/// Why the release's server can't serve or be asked in this plan.
pub(crate) fn obstacles(plan: &Plan, runtime: &Runtime) -> Vec<String> {
    let model = &plan.model;
    if let Some(why) = not_native(plan.rollout.isolation, &plan.environment, model, runtime) {
        return vec![why];
    }
    let Some(server) = runtime.server() else { return Vec::new() };
    let refused = plan.gates.iter().filter_map(|(gate, spec)| {
        let why = server.protocol.refuses(spec)?;
        Some(format!("gate `{gate}` of `{}` can't be asked of `{model}`: {why}", plan.environment))
    });
    let addresses = match runtime {
        Runtime::Http(http) => http.addresses.as_slice(),
        _ => &[],
    };
    let unknown = addresses.iter().filter_map(|address| {
        let filled = server::fill(address, |name| plan.revision.vars.get(name).cloned());
        let environment = &plan.environment;
        match filled {
            Err(name) => Some(format!(
                "the server's address `{address}` needs variable {name}, which `{environment}` doesn't set: [env.{environment}.vars] {name} = \"…\""
            )),
            Ok(filled) => {
                server::host_and_port(&filled).err().map(|why| format!("the server's address `{filled}`: {why}"))
            }
        }
    });
    refused.chain(unknown).collect()
}

/// Why a release can't run inside the gateway, where its environment asks for that.
fn not_native(
    isolation: Isolation,
    environment: &EnvironmentName,
    model: &ModelName,
    runtime: &Runtime,
) -> Option<String> {
    if isolation.is_process() || matches!(runtime, Runtime::Onnx { .. }) {
        return None;
    }
    let what = runtime.words();
    Some(format!(
        "`{environment}` asks for isolation = \"inline\", and only a native (ONNX) release can run inside the gateway; `{model}` needs {what}: [env.{environment}] isolation = {{ {model} = \"process\" }}"
    ))
}

/// What this plan can't prove, or does to users, because of the release's server. `before` is what serves now.
pub(crate) fn warnings(model: &ModelName, runtime: &Runtime, before: Option<&Runtime>) -> Vec<String> {
    let mut found = Vec::new();
    match runtime {
        Runtime::Http(http) => {
            let place = http.addresses.join(", ");
            let pinned = match (&http.server.protocol, &http.server.version) {
                (ServerProtocol::Mlflow | ServerProtocol::Sagemaker, _) => {
                    "nothing but its address".to_owned()
                }
                (_, Some(version)) => format!("model `{}`, version `{version}`", http.server.model),
                (_, None) => format!("model `{}`, whatever version the server gives", http.server.model),
            };
            found.push(format!(
                "somebody else runs the server at {place}: the release pins {pinned}, and its digest proves nothing about what answers there"
            ));
        }
        Runtime::Process(process) if process.requirements.is_none() => {
            let program = process.run.split_whitespace().next().unwrap_or_default();
            found.push(format!(
                "the release pins the model's files and the command line, not the program `{program}`: that is what the agent's machine has (`requirements` pins a Python one)"
            ));
        }
        _ => {}
    }
    let Some(before) = before else { return found };
    let lost: Vec<&str> = spoken(before).into_iter().filter(|word| !spoken(runtime).contains(word)).collect();
    if !lost.is_empty() {
        found.push(format!(
            "what serves `{model}` now speaks {} too, and this release doesn't: such requests will be refused",
            lost.join(", ")
        ));
    }
    found
}

/// The protocols in which a release is asked.
fn spoken(runtime: &Runtime) -> Vec<&'static str> {
    match runtime.server().map(|s| s.protocol) {
        None => vec!["oip", "grpc", "mlflow", "tfs"],
        Some(ServerProtocol::Oip) => vec!["oip"],
        Some(ServerProtocol::Mlflow | ServerProtocol::Sagemaker) => vec!["mlflow"],
        Some(ServerProtocol::Tfs) => vec!["tfs"],
        Some(ServerProtocol::Openai) => vec!["openai"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::server::{HttpServer, Server};

    fn http(protocol: ServerProtocol, version: Option<&str>) -> Runtime {
        let version = version.map(str::to_owned);
        let server = Server { protocol, model: "m".to_owned(), version, health: None, stream_ms: 1 };
        Runtime::Http(Box::new(HttpServer { server, addresses: vec!["http://{TRITON}".to_owned()] }))
    }

    #[test]
    fn people_are_told_what_is_not_proven_and_which_clients_are_left_alone() {
        let model = ModelName::new("m").unwrap();
        let onnx = Runtime::Onnx { entry: "m.onnx".to_owned() };
        let all = warnings(&model, &http(ServerProtocol::Oip, Some("7")), Some(&onnx)).join("\n");
        assert!(all.contains("model `m`, version `7`") && all.contains("proves nothing"), "{all}");
        assert!(all.contains("speaks grpc, mlflow, tfs too"), "{all}");
        let all = warnings(&model, &http(ServerProtocol::Sagemaker, None), None).join("\n");
        assert!(all.contains("nothing but its address"), "{all}");
        assert_eq!(warnings(&model, &onnx, None), Vec::<String>::new());
        let changed = difference(&onnx, &http(ServerProtocol::Oip, Some("7"))).unwrap();
        assert!(changed.contains("ONNX Runtime → http://{TRITON} (oip, model m version 7)"), "{changed}");
        assert_eq!(difference(&onnx, &onnx), None);
    }
    #[test]
    fn only_native_releases_are_taken_into_the_gateway() {
        let (model, environment) = (ModelName::new("m").unwrap(), EnvironmentName::new("prod").unwrap());
        let onnx = Runtime::Onnx { entry: "m.onnx".to_owned() };
        let python = Runtime::Python {
            loader: "mlflow.sklearn".to_owned(),
            requirements: "requirements.txt".to_owned(),
            python: "3.11.7".to_owned(),
            flavor: lockgate_core::digest::Digest::of(b"flavor"),
        };
        let why = |isolation, runtime: &Runtime| not_native(isolation, &environment, &model, runtime);
        assert_eq!(why(Isolation::Inline, &onnx), None);
        for runtime in [python, http(ServerProtocol::Oip, None)] {
            assert_eq!(why(Isolation::Process, &runtime), None);
            let told = why(Isolation::Inline, &runtime).unwrap();
            assert!(told.contains("[env.prod] isolation = { m = \"process\" }"), "{told}");
        }
    }
}
