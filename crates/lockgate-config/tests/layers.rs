//! Precedence, and errors in settings from outside the file.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use lockgate_config::diagnostic::Origin;
use lockgate_config::{Diagnostics, Override, Project, overlay};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::EnvironmentName;

const FILE: &str = r#"
project = "p"
[env.dev]
[env.production-eu]
after = "dev"
gates = ["tests"]
vars = { THRESHOLD = "0.5", Region = "eu" }
workers = 2
[gate.tests]
kind = "command"
run = "pytest -q"
"#;

fn with(variables: &[(&str, &str)], sets: &[&str]) -> Result<Project, Diagnostics> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let mut all = Override::from_variables(variables);
    for set in sets {
        all.push(Override::from_set(set)?);
    }
    overlay(FILE, "lockgate.toml", &all)
}

fn production(project: &Project) -> &lockgate_config::ResolvedEnvironment {
    project.environment(&EnvironmentName::new("production-eu").unwrap()).unwrap()
}

#[test]
fn set_beats_variables_beat_the_file_beats_what_is_built_in() {
    let plain = with(&[], &[]).unwrap();
    assert_eq!((production(&plain).workers, production(&plain).timeout_ms), (2, 2_000));
    assert!(matches!(production(&plain).origins["workers"], Origin::File { line: 8, .. }));
    let variables = [
        ("LOCKGATE__ENV__PRODUCTION_EU__WORKERS", "3"),
        ("LOCKGATE__ENV__PRODUCTION_EU__VARS__THRESHOLD", "0.4"),
        ("LOCKGATE__ENV__PRODUCTION_EU__VARS__REGION", "us"),
        ("LOCKGATE__ENV__PRODUCTION_EU__VARS__NEW", "x"),
        ("LOCKGATE__GUARD__ERRORS__WORSE_BY", "30%"),
        ("LOCKGATE__ENV__PRODUCTION_EU__APPROVE__COUNT", "2"),
        ("LOCKGATE_HOME", "/elsewhere"),
        ("PATH", "/bin"),
    ];
    let project =
        with(&variables, &["env.production-eu.workers=4", "env.production-eu.rollout=[\"10%\", \"100%\"]"])
            .unwrap();
    let resolved = production(&project);
    assert_eq!(resolved.workers, 4);
    assert_eq!(resolved.vars["THRESHOLD"], "0.4", "a text stays a text");
    assert_eq!(resolved.vars["Region"], "us", "the file's spelling holds");
    assert_eq!(resolved.vars["NEW"], "x");
    assert_eq!(resolved.approve.as_ref().unwrap().count, 2);
    assert_eq!(resolved.steps.len(), 2);
    assert!(
        matches!(resolved.guards["errors"], GuardSpec::Rate { worse_by, .. } if (worse_by - 0.3).abs() < 1e-12)
    );
    assert_eq!(resolved.origins["workers"], Origin::Set("env.production-eu.workers".to_owned()));
    let threshold = Origin::Variable("LOCKGATE__ENV__PRODUCTION_EU__VARS__THRESHOLD".to_owned());
    assert_eq!(resolved.origins["vars.THRESHOLD"], threshold);
}

#[test]
fn a_setting_reaches_into_lists_of_gates_and_merges_tables() {
    let project =
        with(&[], &["env.production-eu.gates.tests.timeout=1m", "env.production-eu.vars={ A = \"b\" }"])
            .unwrap();
    let resolved = production(&project);
    assert!(format!("{:?}", resolved.gates["tests"]).contains("60000"));
    assert_eq!(resolved.vars.len(), 3);
}

#[test]
fn an_error_names_the_variable_or_the_setting_instead_of_a_line() {
    let shown = |variables: &[(&str, &str)], sets: &[&str]| with(variables, sets).unwrap_err().to_string();
    insta::assert_snapshot!(
        "layer_errors",
        [
            shown(&[("LOCKGATE__ENV__PRODUCTION_EU__WORKERS", "many")], &[]),
            shown(&[("LOCKGATE__ENV__PRODUCTION_EU__WORKRES", "3")], &[]),
            shown(&[("LOCKGATE__ENV__PRODUKTION_EU__WORKERS", "3")], &[]),
            shown(&[("LOCKGATE__ENV__", "3")], &[]),
            shown(&[("LOCKGATE__PROJECT__NAME", "3")], &[]),
            shown(&[("LOCKGATE__ENV__PRODUCTION_EU__TIMEOUT", "3")], &[]),
            shown(&[], &["env.production-eu.rollout=50%"]),
            shown(&[], &["env.production-eu.gates.tests.runn=x"]),
            shown(&[], &["env.production-eu.gates.smoke.run=x"]),
            shown(&[], &["env.Production-EU.workers=1"]),
            shown(&[], &["workers"]),
            shown(&[], &["env..workers=1"]),
        ]
        .join("\n---\n")
    );
}
