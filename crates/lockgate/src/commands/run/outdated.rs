//! Which stages ran here on other inputs than those that lie here now: then what lies here did not make the model.

use super::{Record, Runner};
use crate::context::Context;
use lockgate_config::Project;
use lockgate_config::project::Stage;
use lockgate_core::clock::Millis;
use std::collections::BTreeMap;

/// One sentence for each stage that ran here and whose inputs are others now. A stage that never ran here says nothing:
/// the model may have been made elsewhere. Parameters don't count: a run's own are on record with it.
pub(crate) fn outdated(ctx: &Context) -> anyhow::Result<Vec<String>> {
    let project = crate::commands::project::load(ctx)?;
    let runner = runner(ctx, &project)?;
    Ok(project.pipeline.iter().filter_map(|stage| runner.outdated(stage)).collect())
}

/// Whether something that was made at a time was made by a stage on the very inputs that lie here now, and by no other;
/// nothing where no stage ran here, so that nobody can say.
pub(crate) fn made_here(ctx: &Context, at: Millis) -> anyhow::Result<Option<bool>> {
    let project = crate::commands::project::load(ctx)?;
    let runner = runner(ctx, &project)?;
    let (mut any, mut by_this, mut by_other) = (false, false, false);
    for stage in &project.pipeline {
        let parts = runner.key(stage).ok().map(|(_, parts)| parts);
        for record in runner.records(stage).iter().filter(|record| record.ended > 0) {
            any = true;
            let took = (record.seconds * 1000.0).ceil() as Millis;
            if !(record.ended - took - SLACK_MS..=record.ended + SLACK_MS).contains(&at) {
                continue;
            }
            let same = parts.as_ref().is_some_and(|parts| changed(record, parts).is_empty());
            (by_this, by_other) = (by_this || same, by_other || !same);
        }
    }
    // Where a stage on other inputs ran at that time, too, it may have been that one.
    Ok(any.then_some(by_this && !by_other))
}

/// How far the server's clock may be off from this machine's.
const SLACK_MS: Millis = 2000;

fn runner<'a>(ctx: &'a Context, project: &'a Project) -> anyhow::Result<Runner<'a>> {
    Ok(Runner {
        ctx,
        project,
        dir: ctx.project_dir()?,
        state: ctx.state_dir()?.join("pipeline"),
        params: BTreeMap::new(),
        environment: None,
        server: String::new(),
    })
}

impl Runner<'_> {
    fn outdated(&self, stage: &Stage) -> Option<String> {
        let records = self.records(stage);
        if records.is_empty() {
            return None;
        }
        let Ok((_, parts)) = self.key(stage) else {
            return Some(format!("stage `{}` read something that is gone now", stage.name));
        };
        if records.iter().any(|record| changed(record, &parts).is_empty()) {
            return None;
        }
        let fewest = records.iter().map(|record| changed(record, &parts)).min_by_key(Vec::len)?;
        Some(format!("stage `{}` would run again: {} changed since", stage.name, fewest.join(", ")))
    }

    /// Every finished run of a stage that is on record here.
    fn records(&self, stage: &Stage) -> Vec<Record> {
        let entries = std::fs::read_dir(&self.state).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .filter_map(|path| serde_json::from_slice::<Record>(&std::fs::read(path).ok()?).ok())
            .filter(|record| record.stage == stage.name)
            .collect()
    }
}

/// The inputs, other than parameters, in which a record differs from the present.
fn changed(record: &Record, parts: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<&String> = record.parts.keys().chain(parts.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| !name.starts_with("parameter ") && record.parts.get(*name) != parts.get(*name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;
    use std::path::Path;

    fn context(project: &Path, state: &Path) -> Context {
        let cli = Cli::try_parse_from([
            "lockgate",
            "check",
            "--project",
            &project.to_string_lossy(),
            "--state",
            &state.to_string_lossy(),
        ])
        .unwrap();
        assert!(matches!(cli.command, Command::Check));
        Context::new(cli.global)
    }

    /// Writes down that a stage ran on what lies there now, with this value of its parameter.
    fn ran(ctx: &Context, stage: &str, depth: &str) {
        let project = crate::commands::project::load(ctx).unwrap();
        let runner = Runner {
            ctx,
            project: &project,
            dir: ctx.project_dir().unwrap(),
            state: ctx.state_dir().unwrap().join("pipeline"),
            params: BTreeMap::from([("DEPTH".to_owned(), depth.to_owned())]),
            environment: None,
            server: String::new(),
        };
        let stage = project.pipeline.iter().find(|s| s.name == stage).unwrap();
        let (key, parts) = runner.key(stage).unwrap();
        let record = Record {
            stage: stage.name.clone(),
            key,
            parts,
            outs: BTreeMap::new(),
            seconds: 1.0,
            ended: 1_000_000,
        };
        std::fs::create_dir_all(&runner.state).unwrap();
        std::fs::write(runner.record_path(stage, &key), serde_json::to_vec(&record).unwrap()).unwrap();
    }

    #[test]
    fn only_what_was_made_during_a_run_on_what_lies_here_was_made_by_it() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let toml = "project = \"p\"\n[model.m]\ntask = \"other\"\n[pipeline.train]\nrun = \"true\"\ndeps = [\"train.py\"]\n[env.dev]\n";
        std::fs::write(dir.path().join("lockgate.toml"), toml).unwrap();
        std::fs::write(dir.path().join("train.py"), "print(1)\n").unwrap();
        let ctx = context(dir.path(), state.path());
        assert_eq!(made_here(&ctx, 999_500).unwrap(), None, "nothing ran here");
        ran(&ctx, "train", "1");
        assert_eq!(made_here(&ctx, 999_500).unwrap(), Some(true));
        assert_eq!(made_here(&ctx, 500_000).unwrap(), Some(false), "before it");
        assert_eq!(made_here(&ctx, 2_000_000).unwrap(), Some(false), "after it");
        std::fs::write(dir.path().join("train.py"), "print(2)\n").unwrap();
        assert_eq!(made_here(&ctx, 999_500).unwrap(), Some(false), "on other inputs");
    }

    #[test]
    fn a_stage_whose_inputs_changed_since_it_ran_is_named() {
        let (project, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).unwrap();
        write(
            "lockgate.toml",
            "project = \"p\"\n[model.m]\ntask = \"other\"\n[pipeline.train]\nrun = \"python train.py\"\n\
             deps = [\"train.py\", \"rows.csv\"]\nparams = [\"DEPTH\"]\n[env.dev]\n",
        );
        write("train.py", "1");
        write("rows.csv", "a");
        let ctx = context(project.path(), state.path());
        assert_eq!(outdated(&ctx).unwrap(), Vec::<String>::new(), "it never ran here");
        ran(&ctx, "train", "3");
        assert_eq!(outdated(&ctx).unwrap(), Vec::<String>::new(), "a parameter is no change");
        write("rows.csv", "b");
        let said = outdated(&ctx).unwrap();
        assert_eq!(said, ["stage `train` would run again: file rows.csv changed since"]);
        ran(&ctx, "train", "3");
        assert!(outdated(&ctx).unwrap().is_empty());
        write("rows.csv", "a");
        assert!(outdated(&ctx).unwrap().is_empty(), "an earlier run was made of this");
        std::fs::remove_file(project.path().join("rows.csv")).unwrap();
        assert!(outdated(&ctx).unwrap()[0].contains("gone"));
    }
}
