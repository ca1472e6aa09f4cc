//! `release create --optimise`: fetches the model's files and the rows to compare on, and has the model converted.

use crate::client::Client;
use crate::context::Context;
use anyhow::Context as _;
use lockgate_agent::optimise::{Job, Outcome, Rows, optimise};
use lockgate_config::Project;
use lockgate_control::view::{NewGraph, NewRelease, ReleaseView};
use lockgate_core::digest::Digest;
use lockgate_core::release::Manifest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// MLflow's file with the rows that a model was logged with.
const EXAMPLE: &str = "input_example.json";

/// Puts a graph into `body` where the model can be shown to have one; says otherwise why it stays as it is, to the person who
/// waits and for the record.
pub(super) async fn graph(
    ctx: &Context,
    client: &Client,
    project: &Project,
    body: &mut NewRelease,
    tolerance: f64,
) -> anyhow::Result<Option<String>> {
    let preview = NewRelease { preview: true, ..body.clone() };
    let view: ReleaseView = client.post("releases", &preview).await?;
    // A version that is looked at by its alias must stay this one.
    body.version = view.manifest.model_version.to_string();
    let state = ctx.state_dir()?;
    let below = state.join("optimise");
    std::fs::create_dir_all(&below).with_context(|| format!("can't make the folder {}", below.display()))?;
    let work = tempfile::Builder::new().prefix("model-").tempdir_in(&below)?;
    let files = work.path().join("files");
    fetch(client, &view.manifest, &files).await?;
    let rows = rows(ctx, project, &view.manifest, &files)?;
    let (own, venvs, hidden): (PathBuf, _, _) = (work.path().join("work"), state.join("venvs"), [state]);
    std::fs::create_dir_all(&own)?;
    let job = Job {
        manifest: &view.manifest,
        files: &files,
        work: &own,
        venvs: &venvs,
        hidden: &hidden,
        tolerance,
        rows: &rows,
    };
    match optimise(&job, &|text| ctx.out.aside(text)).await? {
        Outcome::Stays(why) => {
            ctx.out.say(&format!("not optimised: {why}"));
            let before = std::mem::take(&mut body.reason);
            let and = if before.is_empty() { "" } else { "; " };
            body.reason = format!("{before}{and}not optimised: {why}");
            Ok(Some(why))
        }
        Outcome::Graph { bytes, proof } => {
            let (size, sha256) = (bytes.len() as u64, Digest::of(&bytes));
            client
                .put_bytes(&format!("blobs/{sha256}"), bytes)
                .await
                .context("the graph can't be uploaded")?;
            body.graph = Some(NewGraph { size, sha256, proof: *proof });
            Ok(None)
        }
    }
}

/// The model's files as the release lists them, each checked.
async fn fetch(client: &Client, manifest: &Manifest, folder: &Path) -> anyhow::Result<()> {
    for file in &manifest.files {
        let path = folder.join(&file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let bytes = client.get_bytes(&format!("blobs/{}", file.sha256)).await?;
        anyhow::ensure!(Digest::of(&bytes) == file.sha256, "the model's file `{}` came damaged", file.path);
        std::fs::write(&path, &bytes).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// The golden set, the input example, the environments' datasets, and the data that the pipeline read.
fn rows(ctx: &Context, project: &Project, manifest: &Manifest, files: &Path) -> anyhow::Result<Vec<Rows>> {
    let mut found = Vec::new();
    let golden = manifest.golden.as_deref().map(|path| ("golden set", path));
    let has = |path: &&str| manifest.files.iter().any(|f| f.path == *path);
    let example = Some(EXAMPLE).filter(has).map(|path| ("input example", path));
    for (source, path) in golden.into_iter().chain(example) {
        found.extend(Rows::of_json(source, &std::fs::read(files.join(path))?));
    }
    let dir = ctx.project_dir()?;
    let named = project.environments.iter().flat_map(|e| e.data.values().cloned());
    let names: BTreeSet<String> = named.chain(manifest.data.iter().map(|d| d.name.clone())).collect();
    let tables = names.iter().filter(|n| n.ends_with(".csv") || n.ends_with(".parquet"));
    for name in tables {
        // A dataset that isn't on this machine, or is no table, proves nothing; others may.
        match Rows::of_data(name, &dir.join(name)) {
            Ok(rows) => found.push(rows),
            Err(error) => ctx.out.aside(&format!("not compared on {name}: {error}")),
        }
    }
    Ok(found)
}
