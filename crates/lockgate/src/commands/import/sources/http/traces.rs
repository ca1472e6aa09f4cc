//! Traces of a server.

use super::{Http, encode, parse};
use crate::commands::import::sources::{Cursor, FoundTrace, Spans, message};
use anyhow::Context as _;
use lockgate_control::tracking::exchange::TraceLinkRecord;
use lockgate_control::tracking::{Experiment, Tree};
use serde_json::{Value, json};

/// How many traces are read at a time.
const PAGE: usize = 100;
/// How much of a piece of metadata the interface shows; what is as long may be longer.
pub(super) const SHOWN: usize = 250;
/// How stack traces begin that the interface cut.
const CUT: &str = "[Stack trace is truncated]";
const SOURCE_RUN: &str = "mlflow.sourceRun";

/// What traces may be linked to, and who of an experiment is.
#[derive(Debug, Default)]
pub(super) struct Linked {
    /// Pairs of `run` or `prompt` and the target.
    targets: Vec<(&'static str, String)>,
    /// The versions of prompts, once they were asked for.
    prompts: Option<Vec<String>>,
    /// The experiments that have traces.
    with_traces: std::collections::HashSet<i64>,
}

fn search(experiment: i64, filter: &str, at: &Cursor) -> Value {
    let place =
        json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment.to_string()}});
    let mut body = json!({"locations": [place], "max_results": PAGE, "order_by": ["timestamp_ms ASC"]});
    if let Some(at) = &at.token {
        body["page_token"] = json!(at);
    }
    if !filter.is_empty() {
        body["filter"] = json!(filter);
    }
    body
}

impl Http {
    /// The next page of an experiment's traces to which the filter applies.
    async fn asked(&self, of: &Experiment, filter: &str, at: &mut Cursor) -> anyhow::Result<Vec<Tree>> {
        while !at.done {
            // A cursor that has a number reads from a release before 3.
            let asked = if at.number == 0 {
                self.client.post_to("api/3.0/mlflow/traces/search", &search(of.id, filter, at)).await
            } else {
                let page =
                    at.token.as_ref().map(|at| format!("&page_token={}", encode(at))).unwrap_or_default();
                let path = format!("traces?experiment_ids={}&max_results={PAGE}{page}", of.id);
                self.client.mlflow(&path).await
            };
            let mut answer = match asked {
                Err(error) if parse::is_missing(&error) && at.number == 0 && filter.is_empty() => {
                    at.number = 1;
                    continue;
                }
                Err(error) if parse::is_missing(&error) => Value::Null,
                answer => answer.with_context(|| format!("asking for the traces of experiment {}", of.id))?,
            };
            at.token = parse::token(&answer);
            at.done = at.token.is_none();
            let found = parse::list(&mut answer, "traces");
            if !found.is_empty() {
                return found.into_iter().map(|one| Ok(serde_json::from_value(one)?)).collect();
            }
        }
        Ok(Vec::new())
    }

    pub(super) async fn page_of_traces(
        &mut self,
        of: &Experiment,
        at: &mut Cursor,
    ) -> anyhow::Result<Vec<FoundTrace>> {
        loop {
            let page = self.asked(of, "", at).await?;
            if page.is_empty() {
                return Ok(Vec::new());
            }
            self.linked.with_traces.insert(of.id);
            let mut found = Vec::with_capacity(page.len());
            for one in &page {
                match message::trace(one, of) {
                    Ok(trace) => found.push(trace),
                    Err(error) => self.broken.push(format!("traces that can't be read: {error:#}")),
                }
            }
            for one in &found {
                self.note_cut(one);
            }
            // A page of unreadable ones is not the end.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Remembers what of a trace the interface may not have shown.
    fn note_cut(&mut self, trace: &FoundTrace) {
        let record = &trace.record;
        let long = record.metadata.iter().filter(|(_, value)| value.chars().count() >= SHOWN);
        let mut cut: Vec<String> =
            long.map(|(key, _)| format!("its metadata `{}`", key.escape_debug())).collect();
        let errors =
            record.assessments.iter().filter(|one| one.error.as_ref().is_some_and(|text| text.contains(CUT)));
        cut.extend(errors.map(|one| format!("the stack trace of its assessment {}", one.id)));
        if !cut.is_empty() {
            self.notes.push((record.trace_id.clone(), cut.join(", ")));
        }
    }

    /// A trace's spans. The server tells them all at once.
    pub(super) async fn all_spans(&self, of: &FoundTrace, at: &mut Cursor) -> anyhow::Result<Spans> {
        if std::mem::replace(&mut at.done, true) {
            return Ok(Vec::new());
        }
        let path =
            format!("ajax-api/2.0/mlflow/get-trace-artifact?request_id={}", encode(&of.record.trace_id));
        let text = self.client.text_of(&path).await?;
        message::spans(&text)
    }

    /// All versions of prompts, as `name/version`.
    async fn prompts(&self) -> anyhow::Result<Vec<String>> {
        let path = format!("registered-models/search?max_results=100&filter={}", encode(super::PROMPTS));
        let prompts = match self.all(&path, "registered_models").await {
            Err(error) if parse::is_unsupported(&error) => Vec::new(),
            asked => asked?,
        };
        let mut found = Vec::new();
        for name in prompts.iter().map(|prompt| parse::text(prompt, "name")) {
            let filter = format!("name = {} AND {}", super::quoted(&name), super::PROMPTS);
            let path = format!("model-versions/search?max_results=1000&filter={}", encode(&filter));
            for version in self.all(&path, "model_versions").await? {
                if parse::text(&version, "name") == name {
                    found.push(format!("{name}/{}", parse::text(&version, "version")));
                }
            }
        }
        Ok(found)
    }

    async fn targets(&mut self, of: &Experiment) -> anyhow::Result<Vec<(&'static str, String)>> {
        let (mut found, mut at) = (Vec::new(), Cursor::default());
        loop {
            let body = json!({
                "experiment_ids": [of.id.to_string()], "run_view_type": "ALL", "max_results": 1000,
                "order_by": ["attributes.start_time ASC"],
            });
            let page = self.page("runs/search", "runs", body, &mut at).await?;
            if page.is_empty() {
                break;
            }
            found.extend(page.iter().map(|run| ("run", parse::text(&run["info"], "run_id"))));
        }
        if self.linked.prompts.is_none() {
            self.linked.prompts = Some(self.prompts().await?);
        }
        let prompts = self.linked.prompts.iter().flatten().filter(|name| name.matches('/').count() == 1);
        found.extend(prompts.map(|name| ("prompt", name.clone())));
        Ok(found)
    }

    /// The next links: nobody lists them, so each run and each prompt is asked for its traces.
    pub(super) async fn page_of_links(
        &mut self,
        of: &Experiment,
        at: &mut Cursor,
    ) -> anyhow::Result<Vec<TraceLinkRecord>> {
        if !self.linked.with_traces.contains(&of.id) {
            return Ok(Vec::new());
        }
        if at.number == 0 && at.token.is_none() {
            self.linked.targets = self.targets(of).await?;
        }
        while let Some((link, target)) =
            self.linked.targets.get(usize::try_from(at.number).unwrap_or(usize::MAX))
        {
            let field = if *link == "run" { "run_id" } else { "prompt" };
            let mut within = Cursor { token: at.token.take(), ..Cursor::default() };
            let filter = format!("{field} = {}", super::quoted(target));
            let page = match self.asked(of, &filter, &mut within).await {
                Err(error) if parse::is_unsupported(&error) => Vec::new(),
                asked => asked?,
            };
            let mut found = Vec::new();
            for one in &page {
                let trace = message::trace(one, of)?.record;
                // What a trace says of itself is no link beside it.
                if *link != "run" || trace.metadata.get(SOURCE_RUN) != Some(target) {
                    let (link, target) = ((*link).to_owned(), target.clone());
                    found.push(TraceLinkRecord { link, target, trace_id: trace.trace_id });
                }
            }
            at.token = within.token;
            at.number += i64::from(at.token.is_none());
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}
