//! Servers that a team brings.

use crate::read;
use lockgate_config::parse;
use lockgate_core::id::ModelName;
use lockgate_core::release::Runtime;
use lockgate_core::server::ServerProtocol;

#[test]
fn a_server_of_the_team_s_own_is_read_with_its_defaults_and_gates_that_it_can_not_be_asked_are_told() {
    let text = r#"
project = "p"
[model.rows]
task = "binary"
serve = { http = ["http://{A}:8000", "http://b:1"], protocol = "tfs", version = "7" }
[model.texts]
task = "other"
[model.texts.serve]
process = "serve {model} {port:grpc}"
protocol = "openai"
env = { X = "{name}" }
start = "15m"
tcp = true
[env.dev]
gates = { golden = {} }
[gate.golden]
kind = "parity"
"#;
    let project = read(text);
    let serve = |name: &str| project.models[&ModelName::new(name).unwrap()].serve.clone().unwrap();
    let Runtime::Http(http) = serve("rows") else { panic!() };
    assert_eq!((http.server.model.as_str(), http.server.version.as_deref()), ("rows", Some("7")));
    assert_eq!(http.addresses, ["http://{A}:8000", "http://b:1"]);
    let Runtime::Process(process) = serve("texts") else { panic!() };
    assert_eq!((process.start_ms, process.server.stream_ms, process.tcp), (900_000, 600_000, true));
    assert_eq!(process.server.protocol, ServerProtocol::Openai);
    let told: Vec<&str> = project.warnings.iter().map(|w| w.message.as_str()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("gate `golden` of `dev` can't be asked of `texts`"), "{told:?}");
    // Where no model could be asked, it is a mistake.
    let alone = text.split("[model.rows]").next().unwrap().to_owned()
        + "[model.texts]"
        + text.split("[model.texts]").nth(1).unwrap();
    let error = parse(&alone, "lockgate.toml").unwrap_err().to_string();
    assert!(error.contains("answers texts, not rows"), "{error}");
}

#[test]
fn the_words_of_server_protocols_are_core_s() {
    for (protocol, word) in ServerProtocol::ALL {
        let text = format!(
            "project = \"p\"\n[model.m]\ntask = \"other\"\nserve = {{ process = \"x\", protocol = \"{word}\" }}\n"
        );
        let project = read(&text);
        let Some(Runtime::Process(process)) = &project.models[&ModelName::new("m").unwrap()].serve else {
            panic!("{word}")
        };
        assert_eq!(process.server.protocol, protocol);
    }
}

#[test]
fn inline_is_for_all_native_models_or_for_those_that_are_named() {
    let text = r#"
project = "p"
[model.native]
task = "binary"
[model.other]
task = "binary"
[model.served]
task = "other"
serve = { http = "http://b:1", protocol = "oip" }
[env.dev]
isolation = "inline"
[env.one]
isolation = { native = "inline", other = "process" }
[env.like]
like = "one"
isolation = { native = "process" }
[env.usual]
"#;
    let project = read(text);
    let inline = |name: &str| {
        let environment = project.environment(&crate::env(name)).unwrap();
        environment.inline.iter().map(ModelName::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(["dev", "one", "like", "usual"].map(inline), ["native other", "native", "", ""]);
    let digest = |name: &str, model: &str| {
        project.configuration_digest(&crate::env(name), &ModelName::new(model).unwrap()).unwrap()
    };
    // What serves can be promoted again to move in or out, and who says nothing keeps the digest that it had.
    assert_ne!(digest("dev", "native"), digest("usual", "native"));
    assert_eq!(digest("dev", "served"), digest("usual", "served"));
    assert_eq!(digest("one", "other"), digest("usual", "other"));
}
