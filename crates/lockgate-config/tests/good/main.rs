//! Right files: what they mean.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod goals;
mod servers;

use lockgate_config::project::{Approve, BackupRef, ConfigurationError, Principal, Task};
use lockgate_config::{Project, parse};
use lockgate_core::gate::{GateSpec, Metric};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::{EnvironmentName, ModelName};
use lockgate_core::plan::{OnInconclusive, Smoke, Step, Switch, Testers};
use std::path::Path;

const SMALL: &str = include_str!("../fixtures/small-team.toml");
const REGULATED: &str = include_str!("../fixtures/regulated.toml");

fn read(text: &str) -> Project {
    parse(text, "lockgate.toml").unwrap_or_else(|e| panic!("{e}"))
}

fn env(name: &str) -> EnvironmentName {
    EnvironmentName::new(name).unwrap()
}

/// The example of DESIGN.md 6, with the dataset that its gate names.
const DESIGN: &str = r#"
project = "parcel-delays"
[model.delay]
task = "binary"
target = "arr_delayed"
unit = "header:X-Passenger-Id"
[pipeline.train]
run = "python train.py"
deps = ["train.py", "data/2013-01.parquet"]
[env.dev]
[env.testing]
after = "dev"
gates = { tests = {}, quality = { min = 0.72 }, parity = {} }
data = { holdout = "data/testing.parquet" }
[env.staging]
after = "testing"
gates = { load = {} }
[env.production]
after = "staging"
approve = { count = 1, from = ["group:release-managers"], not = "author" }
rollout = ["canary 5% for 15m", "25% for 30m", "100%"]
backup = "delay@rules"
probation = "24h"
vars = { THRESHOLD = "0.5" }
port = 7613
workers = 2
timeout = "2s"
memory = "2GiB"
batch_rows = 64
deadline = "20m"
on = { inconclusive = "rollback" }
guards = { latency = { worse_by = "10%" } }
[groups]
release-managers = ["bob@example.com"]
[python]
requirements = "requirements.lock"
[gate.tests]
kind = "command"
run = "pytest -q"
[gate.quality]
kind = "metric"
metric = "roc_auc"
data = "holdout"
versus = { env = "production", max_loss = 0.005 }
[gate.load]
kind = "benchmark"
p99 = "20ms"
rps = 200
[gate.parity]
kind = "parity"
[guard.errors]
kind = "rate"
worse_by = "50%"
[guard.latency]
kind = "latency"
p99 = "50ms"
worse_by = "20%"
"#;

#[test]
fn the_shape_of_the_design_means_what_it_says() {
    let project = read(DESIGN);
    assert!(project.unsupported.is_empty() && project.warnings.is_empty(), "{project:?}");
    let model = &project.models[&ModelName::new("delay").unwrap()];
    assert_eq!((model.task, model.unit_header.as_deref()), (Task::Binary, Some("x-passenger-id")));
    assert_eq!(project.requirements.as_deref(), Some("requirements.lock"));
    let names: Vec<&str> = project.environments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["dev", "testing", "staging", "production"]);

    let testing = project.environment(&env("testing")).unwrap();
    assert_eq!(testing.after, [env("dev")]);
    assert_eq!(testing.gates.len(), 3);
    let GateSpec::Metric { metric, data, min, max, versus } = &testing.gates["quality"] else {
        panic!("a metric gate")
    };
    assert_eq!((*metric, data.as_str(), *min, *max), (Metric::RocAuc, "holdout", Some(0.72), None));
    let versus = versus.as_ref().unwrap();
    assert_eq!((versus.environment.as_str(), versus.max_loss), ("production", 0.005));
    assert_eq!(testing.gates["parity"], GateSpec::Parity { atol: 1e-5 });
    assert_eq!(testing.steps, [Step::live(10_000, 0)], "all at once by default");
    assert_eq!((testing.probation_ms, testing.deadline_ms, testing.workers), (0, 1_800_000, 1));
    assert_eq!(testing.approve, None);

    let production = project.environment(&env("production")).unwrap();
    let weights: Vec<(u32, i64)> = production.steps.iter().map(|s| (s.weight, s.hold_ms)).collect();
    assert_eq!(weights, [(500, 900_000), (2_500, 1_800_000), (10_000, 0)]);
    let approve = Approve {
        count: 1,
        from: vec![Principal::Group("release-managers".to_owned())],
        not_author: true,
        ttl_ms: 604_800_000,
    };
    assert_eq!(production.approve, Some(approve));
    let backup = BackupRef::Alias { model: ModelName::new("delay").unwrap(), alias: "rules".to_owned() };
    assert_eq!(production.backup, Some(backup));
    assert_eq!((production.port, production.workers, production.timeout_ms), (Some(7613), 2, 2_000));
    assert_eq!((production.memory_bytes, production.deadline_ms), (2 << 30, 1_200_000));
    assert_eq!(production.batch_rows, Some(64));
    assert_eq!(production.on_inconclusive, OnInconclusive::Rollback);
    assert_eq!(production.vars["THRESHOLD"], "0.5");
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn guards_are_built_in_and_an_environment_overrides_single_keys() {
    let project = read(DESIGN);
    let staging = &project.environment(&env("staging")).unwrap().guards;
    let GuardSpec::Rate { worse_by, rollback_by, floor } = staging["errors"] else { panic!("a rate") };
    assert!(close(worse_by, 0.5) && close(rollback_by, 0.2) && close(floor, 0.005));
    let GuardSpec::Latency { p99_ms, worse_by, rollback_by, floor_ms, warmup_ms: None } = staging["latency"]
    else {
        panic!("latency")
    };
    assert!(p99_ms == Some(50.0) && close(worse_by, 0.2) && close(rollback_by, 0.05) && close(floor_ms, 1.0));
    assert_eq!(staging["constant"], GuardSpec::Constant { rollback_by: 2.0 });
    let production = &project.environment(&env("production")).unwrap().guards;
    let GuardSpec::Latency { p99_ms, worse_by, rollback_by, .. } = production["latency"] else {
        panic!("latency")
    };
    assert!(p99_ms == Some(50.0) && close(worse_by, 0.1) && close(rollback_by, 0.025));

    let slow_start = read("project = \"p\"\n[env.a]\nguards = { latency = { warmup = \"30s\" } }\n");
    let guards = &slow_start.environment(&env("a")).unwrap().guards;
    assert!(matches!(guards["latency"], GuardSpec::Latency { warmup_ms: Some(30_000), .. }));

    let bare = read(
        "project = \"p\"\n[guard.constant]\nremove = true\n[env.a]\n[env.b]\nguards = { errors = { remove = true } }\n",
    );
    let names = |e: &str| {
        bare.environment(&env(e)).unwrap().guards.keys().map(|g| g.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("a"), ["errors", "latency"]);
    assert_eq!(names("b"), ["latency"]);
}

#[test]
fn both_examples_of_the_specification_can_be_said() {
    let small = read(SMALL);
    let gates = |p: &Project, e: &str| p.environment(&env(e)).unwrap().gates.len();
    assert_eq!(gates(&small, "staging"), 1);
    assert!(
        small.unsupported_for(&env("production")).is_empty(),
        "{:?}",
        small.unsupported_for(&env("production"))
    );
    assert!(small.unsupported_for(&env("staging")).is_empty());
    let testing = small.unsupported_for(&env("testing"));
    assert_eq!(testing.len(), 1, "{testing:?}");
    assert!(testing[0].message.contains("`dvc:` data"));
    assert_eq!(gates(&small, "testing"), 4);

    let regulated = read(REGULATED);
    let told: Vec<String> = regulated.unsupported.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("regulated_unsupported", told.join("\n"));
    for name in ["dev", "testing", "staging", "prod-eu", "prod-us"] {
        assert!(!regulated.unsupported_for(&env(name)).is_empty(), "{name}: at least the freeze");
    }
    let shows =
        |e: &str, what: &str| regulated.unsupported_for(&env(e)).iter().any(|d| d.message.contains(what));
    for what in
        ["`windows`", "`confirm.needs`", "`approve.each`", "more than one `backup`", "`hold` for a time"]
    {
        assert!(shows("prod-eu", what), "prod-eu: {what}");
        assert!(shows("prod-us", what), "prod-us inherits {what}");
    }
    assert!(shows("prod-us", "`soak`") && !shows("prod-eu", "`soak`"));
    assert!(shows("staging", "`masked:` data") && shows("staging", "`drill` gates"));
    assert!(
        shows("testing", "`fairness` gates")
            && shows("testing", "`slices`")
            && shows("testing", "`golden` files")
    );
    assert!(!shows("dev", "`fairness` gates"));
    let us = regulated.environment(&env("prod-us")).unwrap();
    assert_eq!(us.after, [env("prod-eu")]);
    assert_eq!(us.approve.as_ref().unwrap().count, 2);
    assert_eq!((us.steps.len(), us.steps[0].clone()), (6, Step::mirroring(10_000, 7 * 86_400_000)));
    let guards = |e: &str| regulated.environment(&env(e)).unwrap().guards.clone();
    let disagreement = GuardSpec::Disagreement { max: 0.03, tolerance: 0.05 };
    assert_eq!(guards("prod-us").get("disagreement"), Some(&disagreement));
    assert!(!guards("testing").contains_key("disagreement"), "nothing is mirrored there");
}

#[test]
fn like_inherits_by_the_one_merge_rule() {
    let project = read(
        r#"
project = "p"
[env.eu]
gates = ["a", "b"]
approve = { count = 2 }
vars = { X = "1", Y = "2" }
rollout = ["50%", "100%"]
guards = { errors = { remove = true } }
port = 7001
[env.us]
like = "eu"
after = "eu"
gates = { b = { remove = true }, c = {} }
approve = { remove = true }
vars = { Y = "3" }
rollout = ["10%", "100%"]
port = 7002
[env.asia]
like = "us"
gates = ["a"]
guards = { errors = { remove = true } }
port = 7003
[gate.a]
kind = "command"
run = "a"
[gate.b]
kind = "command"
run = "b"
[gate.c]
kind = "command"
run = "c"
"#,
    );
    let us = project.environment(&env("us")).unwrap();
    assert_eq!(us.gates.keys().map(|g| g.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(us.approve, None);
    assert_eq!(us.vars.iter().map(|(k, v)| format!("{k}{v}")).collect::<String>(), "X1Y3");
    assert_eq!(us.steps.len(), 2);
    assert_eq!(us.steps[0].weight, 1_000);
    assert!(!us.guards.contains_key("errors"));
    let asia = project.environment(&env("asia")).unwrap();
    assert_eq!(asia.gates.keys().map(|g| g.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(asia.after, [env("eu")], "`after` is inherited as every key is");
    assert!(!asia.guards.contains_key("errors"), "removed twice is removed");
}

#[test]
fn the_file_of_feedback_tokens_is_inherited_unless_it_is_taken_out_and_is_no_part_of_a_revision() {
    let text = r#"
project = "p"
[model.delay]
task = "regression"
[env.eu]
feedback_token_file = "/run/secrets/feedback"
[env.us]
like = "eu"
[env.open]
like = "eu"
feedback_token_file = { remove = true }
"#;
    let project = read(text);
    let of = |name: &str| project.environment(&env(name)).unwrap().feedback_token_file.clone();
    let file = Some("/run/secrets/feedback".to_owned());
    assert_eq!([of("eu"), of("us"), of("open")], [file.clone(), file, None]);
    let digest =
        |name: &str| project.configuration_digest(&env(name), &ModelName::new("delay").unwrap()).unwrap();
    assert_eq!(digest("eu"), digest("open"));
}

#[test]
fn a_preview_lets_testers_in_unless_it_says_otherwise_and_nothing_else_does() {
    let text = r#"
project = "p"
[env.canary]
rollout = ["canary 5% for 5m", "100%"]
[env.open]
like = "canary"
testers = "anybody"
[env.green]
rollout = ["preview for 10m", "100%"]
smoke = "pytest -q smoke"
[env.hand]
like = "green"
rollout = ["preview for 10m by hand", "canary 5% for 15m", "100%"]
smoke = { run = "python smoke.py", timeout = "90s" }
testers = "nobody"
"#;
    let project = read(text);
    let of = |name: &str| {
        let e = project.environment(&env(name)).unwrap();
        (e.testers, e.steps[0].preview, e.smoke.clone())
    };
    let smoke = |run: &str, timeout_ms| Some(Smoke { run: run.to_owned(), timeout_ms });
    assert_eq!(of("canary"), (Testers::Nobody, None, None));
    assert_eq!(of("open"), (Testers::Anybody, None, None));
    assert_eq!(of("green"), (Testers::Token, Some(Switch::Automatic), smoke("pytest -q smoke", 300_000)));
    assert_eq!(of("hand"), (Testers::Nobody, Some(Switch::ByHand), smoke("python smoke.py", 90_000)));
}

#[test]
fn the_configuration_digest_changes_with_what_a_revision_depends_on_and_with_nothing_else() {
    let digest = |text: &str| {
        read(text).configuration_digest(&env("production"), &ModelName::new("delay").unwrap()).unwrap()
    };
    let base = digest(DESIGN);
    for (from, to) in [
        ("THRESHOLD = \"0.5\"", "THRESHOLD = \"0.4\""),
        ("timeout = \"2s\"", "timeout = \"3s\""),
        ("workers = 2", "workers = 3"),
        ("memory = \"2GiB\"", "memory = \"3GiB\""),
        ("batch_rows = 64", "batch_rows = 1"),
        ("latency = { worse_by = \"10%\" }", "latency = { worse_by = \"11%\" }"),
        ("X-Passenger-Id", "X-Other-Id"),
    ] {
        assert!(DESIGN.contains(from));
        assert_ne!(digest(&DESIGN.replace(from, to)), base, "{to}");
    }
    for (from, to) in [
        ("count = 1", "count = 1, ttl = \"1d\""),
        ("rps = 200", "rps = 300"),
        ("25% for 30m", "26% for 30m"),
        ("port = 7613", "port = 7614"),
        ("probation = \"24h\"", "probation = \"25h\""),
    ] {
        assert!(DESIGN.contains(from));
        assert_eq!(digest(&DESIGN.replace(from, to)), base, "{to}");
    }
    let project = read(DESIGN);
    let model = ModelName::new("delay").unwrap();
    // What serves `staging` can be promoted again through a gate that is another one now.
    let staging = |project: &Project| project.configuration_digest(&env("staging"), &model).unwrap();
    assert_ne!(staging(&read(&DESIGN.replace("rps = 200", "rps = 300"))), staging(&project));
    assert!(matches!(
        project.configuration_digest(&env("nowhere"), &model),
        Err(ConfigurationError::Environment(_))
    ));
    let other = ModelName::new("other").unwrap();
    assert!(matches!(project.configuration_digest(&env("dev"), &other), Err(ConfigurationError::Model(_))));
}

#[test]
fn stages_come_in_the_order_of_their_files() {
    let project = read(
        r#"
project = "p"
[pipeline.evaluate]
run = "e"
deps = ["model", "data/test/part.csv"]
[pipeline.train]
run = "t"
deps = ["./data//train.csv"]
outs = ["model/model.onnx"]
params = { lr = 0.1, depth = 4, name = "x", fast = true }
env = { SEED = "1" }
timeout = "1h"
[pipeline.prepare]
run = "p"
outs = ["data/train.csv", "data/test"]
"#,
    );
    let order: Vec<&str> = project.pipeline.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(order, ["prepare", "train", "evaluate"]);
    assert_eq!(project.pipeline[2].after, ["train", "prepare"]);
    assert_eq!(project.pipeline[1].params["depth"], serde_json::json!(4));
    assert_eq!(project.pipeline[1].timeout_ms, Some(3_600_000));
    assert_eq!(project.pipeline[1].deps, ["data/train.csv"]);
}

#[test]
fn the_repository_s_own_examples_parse() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let folders: Vec<_> = std::fs::read_dir(examples).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(folders.len() >= 2, "{folders:?}");
    for folder in folders {
        let file = folder.join("lockgate.toml");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let project = read(&text);
        assert!(
            project.unsupported.is_empty() && project.warnings.is_empty(),
            "{:?} {:?}",
            project.unsupported,
            project.warnings
        );
    }
}

#[test]
fn the_words_of_metrics_and_tasks_are_core_s() {
    for (metric, name) in Metric::ALL {
        let bound = if metric.larger_is_better() { "min = 0.5" } else { "max = 0.5" };
        let text = format!(
            "project = \"p\"\n[env.a]\ngates = [\"q\"]\ndata = {{ d = \"d.csv\" }}\n[gate.q]\nkind = \"metric\"\nmetric = \"{name}\"\ndata = \"d\"\n{bound}\n"
        );
        assert!(
            matches!(read(&text).environment(&env("a")).unwrap().gates["q"], GateSpec::Metric { metric: m, .. } if m == metric)
        );
    }
    for (task, name) in Task::ALL {
        let project = read(&format!("project = \"p\"\n[model.m]\ntask = \"{name}\"\n"));
        assert_eq!(project.models[&ModelName::new("m").unwrap()].task, task);
    }
}

#[test]
fn brackets_in_texts_and_comments_are_not_nesting() {
    let brackets = "[{".repeat(20);
    let project = read(&format!(
        "project = \"p\" # {brackets}\n[env.a.vars]\nA = \"{brackets}\\\"{brackets}\"\nB = '{brackets}'\nC = \"\"\"{brackets}\n\"\"\"\n"
    ));
    assert_eq!(project.environments[0].vars.len(), 3);
}
