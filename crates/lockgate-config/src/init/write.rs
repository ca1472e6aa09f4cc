//! Writes the proposal.

use super::Proposal;
use super::dvc::DvcStage;
use super::find::Found;
use crate::format::normal_path;
use std::fmt::Write as _;

/// The proposal for what was found.
pub(super) fn write(found: &Found) -> Proposal {
    let mut findings = Vec::new();
    let mut text = format!(
        "# Proposed by `lockgate init`. Check it with `lockgate check`.\nproject = {}\n",
        quote(&found.project)
    );
    model(found, &mut text, &mut findings);
    python(found, &mut text, &mut findings);
    pipeline(found, &mut text, &mut findings);
    let holdout = holdout(found, &mut findings);
    environments(found, holdout.as_deref(), &mut text, &mut findings);
    if found.cut {
        findings.push("the repository is large or deep; not all of it was looked at".to_owned());
    }
    Proposal { text, findings }
}

/// A TOML string: JSON's escapes are TOML's, but for DEL.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn add(text: &mut String, lines: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{lines}");
}

fn model(found: &Found, text: &mut String, findings: &mut Vec<String>) {
    let name = found.registered.clone().unwrap_or_else(|| found.project.clone());
    match (&found.registered, found.mlmodels.as_slice()) {
        (Some(name), _) => findings.push(format!("the code registers a model as `{name}`")),
        (None, [first, ..]) => findings
            .push(format!("an MLflow model lies in `{first}`; it is called `{name}` until you name it")),
        _ => findings.push("no MLflow model was found; log one with mlflow, and register it".to_owned()),
    }
    if !found.flavors.is_empty() {
        let list = found.flavors.iter().cloned().collect::<Vec<_>>().join(", ");
        findings.push(format!("its flavours are {list}"));
    }
    add(text, &format!("\n[model.{}]                # the name under which it is registered", quote(&name)));
    add(
        text,
        "task = \"other\"                     # binary, multiclass or regression allow gates on metrics",
    );
    add(text, "# target = \"label\"                 # the label's column");
    add(text, "# unit = \"header:X-User-Id\"        # keeps a user on one side of a rollout");
}

fn python(found: &Found, text: &mut String, findings: &mut Vec<String>) {
    match (&found.requirements, found.other_requirements.first()) {
        (Some(file), _) => {
            findings.push(format!("Python packages are listed in `{file}`"));
            add(text, &format!("\n[python]\nrequirements = {}", quote(file)));
        }
        (None, Some(other)) => {
            findings.push(format!(
                "packages are declared in `{other}`; pin them: uv pip compile {other} -o requirements.lock"
            ));
            add(text, "\n# [python]\n# requirements = \"requirements.lock\"");
        }
        (None, None) => {}
    }
}

fn pipeline(found: &Found, text: &mut String, findings: &mut Vec<String>) {
    if let Some(stages) = &found.dvc {
        let (plain, rest): (Vec<&DvcStage>, Vec<&DvcStage>) = stages.iter().partition(|s| s.plain && fits(s));
        findings.push(format!(
            "dvc.yaml has {} stages, of which {} were taken over",
            stages.len(),
            plain.len()
        ));
        for stage in rest {
            findings.push(format!(
                "stage `{}` of dvc.yaml uses more than cmd, deps and outs; write it by hand",
                stage.name
            ));
        }
        for stage in plain {
            let name = stage.name.replace('_', "-").to_ascii_lowercase();
            let list = |paths: &[String]| paths.iter().map(|p| quote(p)).collect::<Vec<_>>().join(", ");
            add(
                text,
                &format!("\n[pipeline.{name}]                  # from dvc.yaml\nrun = {}", quote(&stage.cmd)),
            );
            for (key, paths) in [("deps", &stage.deps), ("outs", &stage.outs)] {
                if !paths.is_empty() {
                    add(text, &format!("{key} = [{}]", list(paths)));
                }
            }
        }
        return;
    }
    if let Some(script) = found.training.first() {
        findings.push(format!("`{script}` looks like the training; `lockgate run` would run it"));
        add(text, &format!("\n[pipeline.train]\nrun = {}", quote(&format!("python {}", shell(script)))));
        add(text, &format!("deps = [{}]                   # add the data that it reads", quote(script)));
    } else if let Some(notebook) = found.notebooks.first() {
        findings.push(format!("there are notebooks (`{notebook}`) and no training script; a release needs code that runs by itself"));
        add(
            text,
            &format!(
                "\n# [pipeline.train]\n# run = {}",
                quote(&format!("jupyter execute {}", shell(notebook)))
            ),
        );
    }
}

/// A file's name as one word of a command line.
fn shell(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-');
    if path.bytes().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// Whether the stage's names can stand in a `lockgate.toml`.
fn fits(stage: &DvcStage) -> bool {
    let name = stage.name.replace('_', "-").to_ascii_lowercase();
    let paths = stage.deps.iter().chain(&stage.outs);
    lockgate_core::id::GateName::new(name).is_ok()
        && paths.map(|p| normal_path(p)).all(|p| !p.is_empty() && !p.starts_with("..") && !p.contains("${"))
}

/// A file that looks like held-out data.
fn holdout(found: &Found, findings: &mut Vec<String>) -> Option<String> {
    let words = ["holdout", "test", "valid", "eval"];
    let name = |path: &&String| path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let file = words.iter().find_map(|word| found.data.iter().find(|path| name(path).contains(word)));
    match (file, found.data.len()) {
        (Some(file), _) => {
            findings.push(format!("`{file}` looks like held-out data: staging checks releases with it"))
        }
        (None, 0) => {}
        (None, n) => findings
            .push(format!("{n} data files were found, but none that looks held out (holdout, test, valid)")),
    }
    file.cloned()
}

fn environments(found: &Found, holdout: Option<&str>, text: &mut String, findings: &mut Vec<String>) {
    add(text, "\n[env.dev]\n\n[env.staging]\nafter = \"dev\"");
    let gates: Vec<&str> = found.tests.iter().map(|_| "tests").chain(holdout.map(|_| "schema")).collect();
    if gates.is_empty() {
        add(text, "# gates = { tests = {} }           # what a release must pass to enter; see [gate.*]");
    } else {
        let list = gates.iter().map(|g| format!("{g} = {{}}")).collect::<Vec<_>>().join(", ");
        add(text, &format!("gates = {{ {list} }}"));
    }
    if let Some(file) = holdout {
        add(text, &format!("data = {{ holdout = {} }}", quote(file)));
    }
    add(text, "\n[env.production]\nafter = \"staging\"");
    add(text, "approve = { count = 1, not = \"author\" }    # somebody else must say yes");
    add(text, "rollout = [\"canary 5% for 15m\", \"25% for 30m\", \"100%\"]");
    add(text, "probation = \"24h\"                  # stays armed this long");
    match &found.tests {
        Some(folder) => {
            let folder = if folder.is_empty() { "." } else { folder };
            findings.push(format!("tests were found in `{folder}`: they became the gate `tests`"));
            let run =
                if folder == "." { "pytest -q".to_owned() } else { format!("pytest -q {}", shell(folder)) };
            add(text, &format!("\n[gate.tests]\nkind = \"command\"\nrun = {}", quote(&run)));
        }
        None => {
            findings
                .push("no tests were found; a gate of kind `command` can run them once there are".to_owned());
            add(text, "\n# [gate.tests]\n# kind = \"command\"\n# run = \"pytest -q\"");
        }
    }
}
