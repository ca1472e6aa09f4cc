//! A running server that speaks MLflow's REST API: stock MLflow's, or Lockgate's own.

mod parse;
mod traces;

use super::{Bytes, Cursor, File, FoundTrace, Listing, Located, Odd, Source, Spans, open_file};
use crate::client::Client;
use crate::commands::encode;
use crate::commands::import::{places, walk};
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::exchange::{Point, TraceLinkRecord};
use lockgate_control::tracking::{Experiment, LoggedModel, ModelVersion, RegisteredModel, Run};
use lockgate_core::release::is_safe_path;
use lockgate_store::foreign::ForeignVersion;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How many runs or models are read at a time.
const PAGE: usize = 100;
/// How many points are read at a time.
const POINTS: usize = 5000;
/// What tells a prompt from a model, which a search leaves out unless it is asked for.
const PROMPTS: &str = "tags.`mlflow.prompt.is_prompt` = 'true'";

/// A server of MLflow's REST API.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    /// Stock servers leave some of a run out of searches.
    terse: bool,
    /// The folder in which paths of the server's own machine may be read here.
    artifacts: Option<PathBuf>,
    /// What traces may be linked to.
    linked: traces::Linked,
    /// What could not be read, for the report.
    broken: Vec<String>,
    /// Traces of which the interface may not have shown all.
    notes: Vec<(String, String)>,
}

impl Http {
    /// A stock server, with the credentials that MLflow's own clients would use.
    pub(crate) fn stock(address: &str, artifacts: Option<&Path>) -> anyhow::Result<Self> {
        let token = std::env::var("MLFLOW_TRACKING_TOKEN").ok();
        let password =
            match (std::env::var("MLFLOW_TRACKING_USERNAME"), std::env::var("MLFLOW_TRACKING_PASSWORD")) {
                (Ok(user), Ok(password)) => Some((user, password)),
                _ => None,
            };
        let client = Client::new(address, None, token)?.with_password(password);
        let artifacts = super::real(artifacts)?;
        Ok(Self::new(client, true, artifacts))
    }

    /// This program's own server.
    pub(crate) fn ours(client: Client) -> Self {
        Self::new(client, false, None)
    }

    fn new(client: Client, terse: bool, artifacts: Option<PathBuf>) -> Self {
        let (broken, notes) = (Vec::new(), Vec::new());
        Self { client, terse, artifacts, linked: traces::Linked::default(), broken, notes }
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.client.mlflow_post(path, body).await.with_context(|| format!("asking for {path}"))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.client.mlflow(path).await.with_context(|| format!("asking for {path}"))
    }

    /// Every page of a search by GET.
    async fn all(&self, path: &str, list: &str) -> anyhow::Result<Vec<Value>> {
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let page =
                token.as_ref().map(|token| format!("&page_token={}", encode(token))).unwrap_or_default();
            let mut answer = self.get(&format!("{path}{page}")).await?;
            found.extend(parse::list(&mut answer, list));
            token = parse::token(&answer);
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// The next page of a search by POST.
    async fn page(
        &self,
        path: &str,
        list: &str,
        mut body: Value,
        at: &mut Cursor,
    ) -> anyhow::Result<Vec<Value>> {
        loop {
            if at.done {
                return Ok(Vec::new());
            }
            if let Some(token) = &at.token {
                body["page_token"] = json!(token);
            }
            let mut answer = self.post(path, &body).await?;
            at.token = parse::token(&answer);
            at.done = at.token.is_none();
            let found = parse::list(&mut answer, list);
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
}

/// A text in quotes for MLflow's filters.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') { '"' } else { '\'' };
    format!("{quote}{text}{quote}")
}

#[async_trait]
impl Source for Http {
    fn name(&self) -> String {
        self.client.base().to_owned()
    }

    async fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>> {
        let (mut at, mut found) = (Cursor::default(), Vec::new());
        loop {
            let body = json!({"max_results": 1000, "view_type": "ALL"});
            let page = self.page("experiments/search", "experiments", body, &mut at).await?;
            if page.is_empty() {
                break;
            }
            for experiment in &page {
                found.push(parse::experiment(experiment)?);
            }
        }
        found.sort_by_key(|experiment| experiment.id);
        Ok(found)
    }

    async fn runs(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<Run>> {
        // The oldest first, so that runs that begin meanwhile come last and move nothing.
        let body = json!({
            "experiment_ids": [of.id.to_string()], "run_view_type": "ALL", "max_results": PAGE,
            "order_by": ["attributes.start_time ASC"],
        });
        let page = self.page("runs/search", "runs", body, at).await?;
        let mut found = Vec::with_capacity(page.len());
        for run in &page {
            let run = parse::run(run)?;
            found.push(if self.terse { self.whole(&run.run_id).await? } else { run });
        }
        Ok(found)
    }

    async fn points(&mut self, of: &Run, at: &mut Cursor) -> anyhow::Result<Vec<Point>> {
        let mut keys: Vec<&str> = of.metrics.iter().map(|metric| metric.key.as_str()).collect();
        keys.sort_unstable();
        let mut found = Vec::new();
        while let Some(key) = keys.get(usize::try_from(at.number).unwrap_or(usize::MAX)) {
            if found.len() >= POINTS {
                break;
            }
            let page =
                at.token.as_ref().map(|token| format!("&page_token={}", encode(token))).unwrap_or_default();
            let path = format!(
                "metrics/get-history?run_id={}&metric_key={}&max_results={POINTS}{page}",
                encode(&of.run_id),
                encode(key)
            );
            let mut answer = self.get(&path).await?;
            for metric in parse::list(&mut answer, "metrics") {
                found.push(parse::point(&metric)?);
            }
            at.token = parse::token(&answer);
            if at.token.is_none() {
                at.number += 1;
            }
        }
        Ok(found)
    }

    async fn logged_models(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<LoggedModel>> {
        // The largest page that the stock server gives.
        let body = json!({"experiment_ids": [of.id.to_string()], "max_results": 50});
        let found = self.page("logged-models/search", "models", body, at).await;
        match found {
            Ok(found) => found.iter().map(parse::logged_model).collect(),
            // Releases before 3 have none.
            Err(error) if parse::is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn traces(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<FoundTrace>> {
        self.page_of_traces(of, at).await
    }

    async fn spans(&mut self, of: &FoundTrace, at: &mut Cursor) -> anyhow::Result<Spans> {
        self.all_spans(of, at).await
    }

    async fn trace_links(
        &mut self,
        of: &Experiment,
        at: &mut Cursor,
    ) -> anyhow::Result<Vec<TraceLinkRecord>> {
        self.page_of_links(of, at).await
    }

    async fn registered_models(&mut self) -> anyhow::Result<Vec<(RegisteredModel, i64)>> {
        let path = "registered-models/search?max_results=100";
        let mut all = self.all(path, "registered_models").await?;
        let prompts = match self.all(&format!("{path}&filter={}", encode(PROMPTS)), "registered_models").await
        {
            // Releases without prompts don't know the filter.
            Err(error) if parse::is_unsupported(&error) => Vec::new(),
            asked => asked?,
        };
        for prompt in prompts {
            if !all.iter().any(|known| known["name"] == prompt["name"]) {
                all.push(prompt);
            }
        }
        let mut found = Vec::new();
        for model in &all {
            // The numbers of deleted versions are not told: the next one is what follows the newest that is there.
            found.push((parse::registered(model)?, 1));
        }
        Ok(found)
    }

    async fn versions(&mut self, of: &RegisteredModel) -> anyhow::Result<Vec<ForeignVersion>> {
        let is_prompt = of.tags.iter().any(|tag| tag.key == "mlflow.prompt.is_prompt");
        let more = if is_prompt { format!(" AND {PROMPTS}") } else { String::new() };
        let filter = format!("name = {}{more}", quoted(&of.name));
        let path = format!("model-versions/search?max_results=1000&filter={}", encode(&filter));
        let mut found = Vec::new();
        for version in self.all(&path, "model_versions").await? {
            let version = parse::version(&version)?;
            // A filter may be read more widely than it was meant.
            if version.version.name == of.name {
                found.push(version);
            }
        }
        found.sort_by_key(|one: &ForeignVersion| one.version.version);
        for one in &mut found {
            one.version.storage_location = self.download_uri(&one.version).await;
        }
        Ok(found)
    }

    async fn others(&mut self) -> anyhow::Result<Vec<(String, u64)>> {
        Ok(self.broken.iter().map(|what| (what.clone(), 1)).collect())
    }

    fn cut(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.notes)
    }

    fn unseen(&self) -> Option<&'static str> {
        Some(
            "deleted logged models, deleted registered versions (their numbers may be given again), webhooks, scorers, \
             evaluation datasets, other workspaces",
        )
    }

    fn locate(&self, uri: &str) -> Located {
        match (places::proxied(uri), places::local(uri)) {
            (Some(path), _) => Located::Proxied(path),
            // The server's disk is not this one's, and what it says is not to be sent on unasked.
            (None, Some(path)) => match &self.artifacts {
                Some(_) if walk::is_within(&path, self.roots(), false) => Located::Folder(path),
                _ => Located::Outside(path),
            },
            (None, None) => Located::Elsewhere,
        }
    }

    fn roots(&self) -> &[PathBuf] {
        self.artifacts.as_slice()
    }

    fn reads_proxied(&self) -> bool {
        true
    }

    async fn list(&mut self, at: &Located) -> anyhow::Result<Listing> {
        let root = match at {
            Located::Folder(folder) => return walk::files(folder, self.roots()),
            Located::Outside(_) | Located::Elsewhere => return Ok(Listing::default()),
            Located::Proxied(root) => root,
        };
        let (mut found, mut open) = (Listing::default(), vec![String::new()]);
        while let Some(folder) = open.pop() {
            let below = if folder.is_empty() { root.clone() } else { format!("{root}/{folder}") };
            let mut answer = self.client.artifacts(&below).await?;
            for item in parse::list(&mut answer, "files") {
                let name = parse::text(&item, "path");
                let name = name.rsplit('/').next().unwrap_or_default();
                let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                if !is_safe_path(name) || !is_safe_path(&path) {
                    found
                        .odd
                        .push(Odd { path, why: "the server names a path that leads elsewhere".to_owned() });
                    continue;
                }
                if item["is_dir"] == json!(true) {
                    open.push(path);
                } else {
                    let size = u64::try_from(parse::whole(&item, "file_size").unwrap_or_default());
                    found.files.push(File { path, size: size.unwrap_or_default() });
                }
            }
        }
        found.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    async fn open(&mut self, at: &Located, path: &str) -> anyhow::Result<Bytes> {
        match at {
            Located::Folder(folder) => open_file(&folder.join(path)).await,
            Located::Outside(_) | Located::Elsewhere => bail!("{path} can't be read"),
            Located::Proxied(root) => {
                let path = format!("{root}/{path}");
                let answer = self.client.download(&places::encoded(&path)).await?;
                let stream = answer.bytes_stream().map_err(std::io::Error::other);
                Ok(Box::new(tokio_util::io::StreamReader::new(Box::pin(stream))))
            }
        }
    }
}

impl Http {
    /// A run with all that belongs to it.
    async fn whole(&self, id: &str) -> anyhow::Result<Run> {
        parse::run(&self.get(&format!("runs/get?run_id={}", encode(id))).await?["run"])
    }

    /// Where a version's files lie; its source where the server doesn't say.
    async fn download_uri(&self, version: &ModelVersion) -> String {
        let path = format!(
            "model-versions/get-download-uri?name={}&version={}",
            encode(&version.name),
            version.version
        );
        match self.get(&path).await {
            Ok(answer) => parse::text(&answer, "artifact_uri"),
            Err(_) => version.source.clone(),
        }
    }
}
