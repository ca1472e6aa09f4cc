//! Where a model came from: the run behind its version, whether this folder is what made it, and who wrote that.

use crate::client::{Client, Refusal};
use crate::git;
use anyhow::bail;
use lockgate_config::Project;
use lockgate_control::view::{HistoryRow, ReleaseView};
use lockgate_core::clock::Millis;
use lockgate_core::id::EnvironmentName;
use std::collections::BTreeSet;
use std::path::Path;

/// The tag in which MLflow's client notes the commit that a run was made from, where it can tell.
const COMMIT: &str = "mlflow.source.git.commit";

/// A registered version and its run's commit, as far as they can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The version's number.
    pub(super) version: Option<String>,
    /// The commit that its run was made from.
    pub(super) commit: Option<String>,
    /// When it was registered.
    pub(super) made: Option<Millis>,
}

/// Asks the registry. What it doesn't know is left open: making the release says what is wrong with it.
pub(super) async fn origin(client: &Client, model: &str, version: &str) -> anyhow::Result<Origin> {
    let encode = super::super::encode;
    let path = if version.bytes().all(|b| b.is_ascii_digit()) {
        format!("model-versions/get?name={}&version={version}", encode(model))
    } else {
        format!("registered-models/alias?name={}&alias={}", encode(model), encode(version))
    };
    let Some(found) = known(client.mlflow(&path).await)? else { return Ok(Origin::default()) };
    let found = &found["model_version"];
    let number = found["version"].as_str().map(str::to_owned);
    let made = found["creation_timestamp"].as_i64();
    let Some(run) = found["run_id"].as_str().filter(|id| !id.is_empty()) else {
        return Ok(Origin { version: number, commit: None, made });
    };
    let run = known(client.mlflow(&format!("runs/get?run_id={}", encode(run))).await)?;
    Ok(Origin { version: number, commit: run.as_ref().and_then(commit), made })
}

fn commit(answer: &serde_json::Value) -> Option<String> {
    let tags = answer["run"]["data"]["tags"].as_array()?;
    tags.iter().find(|tag| tag["key"] == COMMIT)?["value"].as_str().map(str::to_owned)
}

/// Nothing where there is no such thing, and an error where the server can't be asked.
fn known<T>(answer: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if matches!(refusal.status, 400 | 404) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Why the run's commit may not be the code that lies at `dir`.
///
/// A later commit is the same code where nothing that the pipeline's stages read has changed: notes and tests may.
pub(super) fn doubt(dir: &Path, project: &Project, head: &str, made_from: Option<&str>) -> Option<String> {
    let made_from = made_from.filter(|commit| *commit != head)?;
    let mut deps: BTreeSet<String> = project.pipeline.iter().flat_map(|s| s.deps.iter().cloned()).collect();
    deps.extend(project.requirements.clone());
    if !project.pipeline.is_empty() && git::are_as_at(dir, made_from, &deps.into_iter().collect::<Vec<_>>()) {
        return None;
    }
    let short = |commit: &str| commit.chars().take(12).collect::<String>();
    let unknown = if git::has_commit(dir, made_from) { "" } else { ", which this repository doesn't have" };
    Some(format!(
        "its run was made from commit {}{unknown}, and this folder is at {}",
        short(made_from),
        short(head)
    ))
}

/// Who wrote what a release brings: everybody since what the environments serve now that ask for somebody else's approval.
pub(super) async fn authors(
    client: &Client,
    project: &Project,
    dir: &Path,
    model: &str,
) -> anyhow::Result<BTreeSet<String>> {
    let mut since = Vec::new();
    for environment in asking(project) {
        match baseline(client, environment, model).await? {
            Some(commits) if commits.iter().all(|c| git::has_commit(dir, c)) => since.extend(commits),
            // It serves nothing yet, or nothing of this history: then all of it is new there.
            _ => {
                since.clear();
                break;
            }
        }
    }
    if since.is_empty() && git::is_shallow(dir) {
        bail!(
            "the history is cut off here (a shallow clone), so nobody can say who wrote this code\n  hint: git fetch --unshallow (in GitHub Actions: fetch-depth: 0 of actions/checkout)"
        );
    }
    git::authors(dir, &since)
}

/// The environments whose rule it is that an author doesn't approve; else those that come last.
fn asking(project: &Project) -> Vec<&EnvironmentName> {
    let all = &project.environments;
    let asking: Vec<&EnvironmentName> =
        all.iter().filter(|e| e.approve.as_ref().is_some_and(|a| a.not_author)).map(|e| &e.name).collect();
    if !asking.is_empty() {
        return asking;
    }
    all.iter().map(|e| &e.name).filter(|name| !all.iter().any(|e| e.after.contains(name))).collect()
}

/// The commits of what an environment serves; none where it serves nothing, or something without a commit.
async fn baseline(
    client: &Client,
    environment: &EnvironmentName,
    model: &str,
) -> anyhow::Result<Option<Vec<String>>> {
    let path = format!("history?environment={environment}&model={}", super::super::encode(model));
    let Some(rows) = known(client.get::<Vec<HistoryRow>>(&path).await)? else { return Ok(None) };
    let mut commits = Vec::new();
    for served in rows.last().into_iter().flat_map(|row| &row.serving) {
        let view: ReleaseView = client.get(&format!("releases/{}", served.release)).await?;
        match view.manifest.code {
            Some(code) => commits.push(code.commit),
            None => return Ok(None),
        }
    }
    Ok(Some(commits).filter(|commits| !commits.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::tests::{commit, repository};
    use serde_json::json;

    fn project(toml: &str) -> Project {
        lockgate_config::parse(
            &format!("project = \"p\"\n[model.m]\ntask = \"other\"\n{toml}"),
            "lockgate.toml",
        )
        .unwrap()
    }

    const PIPELINE: &str = "[pipeline.train]\nrun = \"python train.py\"\ndeps = [\"train.py\"]\n[env.dev]\n";

    #[test]
    fn a_run_of_another_commit_is_doubted_unless_what_the_pipeline_reads_is_the_same() {
        let dir = repository();
        let base = commit(dir.path(), "alice@example.com", "Second");
        let project = project(PIPELINE);
        let doubt = |project: &Project, head: &str, from: &str| doubt(dir.path(), project, head, Some(from));
        assert_eq!(super::doubt(dir.path(), &project, &base, None), None);
        assert_eq!(doubt(&project, &base, &base), None);
        std::fs::write(dir.path().join("README.md"), "words").unwrap();
        let head = commit(dir.path(), "bob@example.com", "Words");
        assert_eq!(doubt(&project, &head, &base), None);
        std::fs::write(dir.path().join("train.py"), "print(2)\n").unwrap();
        let head = commit(dir.path(), "bob@example.com", "Other training");
        let said = doubt(&project, &head, &base).unwrap();
        assert!(said.contains(&base[..12]) && said.contains(&head[..12]), "{said}");
        let foreign = "0123456789".repeat(4);
        assert!(doubt(&project, &head, &foreign).unwrap().contains("doesn't have"));
        // Without a pipeline nothing says what the training reads.
        assert!(doubt(&super::tests::project("[env.dev]\n"), &head, &base).is_some());
    }

    #[test]
    fn the_runs_commit_is_read_from_its_tags() {
        let answer = json!({"run": {"data": {"tags": [
            {"key": "mlflow.user", "value": "root"}, {"key": "mlflow.source.git.commit", "value": "abc"}
        ]}}});
        assert_eq!(commit_of(&answer).as_deref(), Some("abc"));
        assert_eq!(commit_of(&json!({"run": {"data": {}}})), None);
    }

    fn commit_of(answer: &serde_json::Value) -> Option<String> {
        super::commit(answer)
    }

    #[test]
    fn the_environments_that_forbid_an_authors_yes_decide_how_far_back_authors_are_sought() {
        let rule = "approve = { count = 1, not = \"author\" }\n";
        let names = |p: &Project| asking(p).iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let chain = |rule: &str| {
            project(&format!(
                "[env.dev]\n[env.staging]\nafter = \"dev\"\n{rule}[env.production]\nafter = \"staging\"\n"
            ))
        };
        assert_eq!(names(&chain(rule)), ["staging"]);
        assert_eq!(names(&chain("")), ["production"]);
    }
}
