//! Traces of MLflow's store: their rows, their spans, and what they are linked to.

use super::runs::{pairs, word};
use super::tables::Kind::{Int, Real, Text};
use super::{Bind, Foreign};
use crate::conn::{Row, int, opt_int, opt_text, text};
use crate::error::StoreError;
use crate::tracking::{Assessment, KeyValue, Trace};

const TRACE: [(&str, super::tables::Kind); 8] = [
    ("request_id", Text),
    ("experiment_id", Int),
    ("timestamp_ms", Int),
    ("execution_time_ms", Int),
    ("status", Text),
    ("client_request_id", Text),
    ("request_preview", Text),
    ("response_preview", Text),
];
/// What newer releases keep in columns of the trace instead of its tags and metadata.
const NAME: &str = "mlflow.traceName";
const SESSION: &str = "mlflow.trace.session";
const TOKENS: (&str, [&str; 6]) = (
    "mlflow.trace.tokenUsage",
    [
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation_input_tokens_above_1hr",
    ],
);
const COST: (&str, [&str; 3]) = ("mlflow.trace.cost", ["input_cost", "output_cost", "total_cost"]);
const SAID: [(&str, super::tables::Kind); 15] = [
    ("assessment_id", Text),
    ("name", Text),
    ("assessment_type", Text),
    ("value", Text),
    ("error", Text),
    ("created_timestamp", Int),
    ("last_updated_timestamp", Int),
    ("source_type", Text),
    ("source_id", Text),
    ("run_id", Text),
    ("span_id", Text),
    ("rationale", Text),
    ("overrides", Text),
    ("valid", Int),
    ("assessment_metadata", Text),
];

/// What a trace is linked to, in MLflow's words and in ours.
const LINKED: [(&str, &str); 2] = [("run", "run"), ("prompt_version", "prompt")];

/// That a trace belongs to a run, or used a version of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLink {
    /// `run` or `prompt`.
    pub kind: String,
    /// The run's id, or the prompt's name and version.
    pub target: String,
    /// The trace.
    pub trace_id: String,
}

fn assessment(row: &Row, trace: &str) -> Result<Assessment, StoreError> {
    let created = opt_int(row, "created_timestamp")?.unwrap_or_default();
    Ok(Assessment {
        assessment_id: text(row, "assessment_id")?,
        trace_id: trace.to_owned(),
        name: word(row, "name")?,
        kind: word(row, "assessment_type")?,
        value: opt_text(row, "value")?.unwrap_or_else(|| "null".to_owned()),
        amount: None,
        error: opt_text(row, "error")?,
        source_type: word(row, "source_type")?,
        source_id: opt_text(row, "source_id")?,
        run_id: opt_text(row, "run_id")?,
        span_id: opt_text(row, "span_id")?,
        rationale: opt_text(row, "rationale")?,
        overrides: opt_text(row, "overrides")?,
        valid: opt_int(row, "valid")? != Some(0),
        metadata: opt_text(row, "assessment_metadata")?,
        of_session: false,
        created,
        updated: opt_int(row, "last_updated_timestamp")?.unwrap_or(created),
    })
}

impl Foreign {
    /// At most `limit` traces of an experiment that follow the place `after`, without their spans; and the place of the
    /// last one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn traces(
        &mut self,
        experiment: i64,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Trace>, i64), StoreError> {
        if !self.has("trace_info") {
            return Ok((Vec::new(), after));
        }
        let sql = format!(
            "{} WHERE experiment_id = $1 AND trace_info.rowid > $2 ORDER BY trace_info.rowid LIMIT $3",
            self.select("trace_info", &TRACE).replacen("SELECT ", "SELECT trace_info.rowid AS place, ", 1)
        );
        let rows = self.rows(sql, &[Bind::Int(experiment), Bind::Int(after), Bind::Int(limit)]).await?;
        let (mut found, mut last) = (Vec::new(), after);
        for row in rows {
            last = int(&row, "place")?;
            found.push(self.trace(&row).await?);
        }
        Ok((found, last))
    }

    async fn trace(&mut self, row: &Row) -> Result<Trace, StoreError> {
        let id = text(row, "request_id")?;
        let of_trace = [Bind::Text(&id)];
        let columns = [("key", Text), ("value", Text)];
        let tags = self.of("trace_tags", &columns, "WHERE request_id = $1", &of_trace).await?;
        let metadata =
            self.of("trace_request_metadata", &columns, "WHERE request_id = $1", &of_trace).await?;
        let said = self.of("assessments", &SAID, "WHERE trace_id = $1", &of_trace).await?;
        let mut tags = pairs(&tags, "key", "value")?;
        let mut metadata = pairs(&metadata, "key", "value")?;
        self.add_columns(&id, &mut tags, &mut metadata).await?;
        Ok(Trace {
            experiment_id: int(row, "experiment_id")?,
            state: word(row, "status")?,
            started: opt_int(row, "timestamp_ms")?.unwrap_or_default(),
            duration: opt_int(row, "execution_time_ms")?,
            client_request_id: opt_text(row, "client_request_id")?,
            request_preview: opt_text(row, "request_preview")?,
            response_preview: opt_text(row, "response_preview")?,
            session_id: None,
            tags,
            metadata,
            assessments: said.iter().map(|row| assessment(row, &id)).collect::<Result<_, _>>()?,
            trace_id: id,
        })
    }

    /// Adds those tags and that metadata of a trace which are columns, where the release has them. As with MLflow, they go
    /// before rows of the same key.
    async fn add_columns(
        &mut self,
        id: &str,
        tags: &mut Vec<KeyValue>,
        metadata: &mut Vec<KeyValue>,
    ) -> Result<(), StoreError> {
        let mut columns = vec![("trace_name", Text), ("session_id", Text)];
        columns.extend(TOKENS.1.map(|column| (column, Int)));
        columns.extend(COST.1.map(|column| (column, Real)));
        let rows = self.of("trace_info", &columns, "WHERE request_id = $1", &[Bind::Text(id)]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let set = |pairs: &mut Vec<KeyValue>, column: &str, key: &str, value: Option<String>| {
            if self.has_column("trace_info", column) {
                pairs.retain(|pair| pair.key != key);
                pairs.extend(value.map(|value| KeyValue { key: key.to_owned(), value }));
            }
        };
        set(tags, "trace_name", NAME, opt_text(row, "trace_name")?);
        set(metadata, "session_id", SESSION, opt_text(row, "session_id")?);
        let mut tokens = Vec::new();
        for column in TOKENS.1 {
            tokens.extend(opt_int(row, column)?.map(|count| format!("\"{column}\": {count}")));
        }
        let mut cost = Vec::new();
        for column in COST.1 {
            let value = row.get::<Option<f64>>(column)?;
            cost.extend(value.map(|value| format!("\"{column}\": {value:?}")));
        }
        let object = |parts: Vec<String>| (!parts.is_empty()).then(|| format!("{{{}}}", parts.join(", ")));
        set(metadata, TOKENS.1[0], TOKENS.0, object(tokens));
        set(metadata, COST.1[0], COST.0, object(cost));
        Ok(())
    }

    /// At most `limit` spans of a trace that follow the place `after`, each as its id and its JSON; and the place of the
    /// last one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn spans(
        &mut self,
        trace: &str,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<(String, String)>, i64), StoreError> {
        if !self.has("spans") {
            return Ok((Vec::new(), after));
        }
        let columns = [("span_id", Text), ("content", Text)];
        let sql = format!(
            "{} WHERE trace_id = $1 AND spans.rowid > $2 ORDER BY spans.rowid LIMIT $3",
            self.select("spans", &columns).replacen("SELECT ", "SELECT spans.rowid AS place, ", 1)
        );
        let rows = self.rows(sql, &[Bind::Text(trace), Bind::Int(after), Bind::Int(limit)]).await?;
        let last = rows.last().map(|row| int(row, "place")).transpose()?.unwrap_or(after);
        let one = |row: &Row| Ok((text(row, "span_id")?, word(row, "content")?));
        Ok((rows.iter().map(one).collect::<Result<_, StoreError>>()?, last))
    }

    /// At most `limit` links of an experiment's traces that follow the place `after`, and the place of the last one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn trace_links(
        &mut self,
        experiment: i64,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<ForeignLink>, i64), StoreError> {
        if !self.has("entity_associations") || !self.has("trace_info") {
            return Ok((Vec::new(), after));
        }
        let columns = [("source_id", Text), ("destination_type", Text), ("destination_id", Text)];
        let table = self.select("entity_associations", &columns);
        let sql = format!(
            "{} WHERE source_type = 'trace' AND destination_type IN ('run', 'prompt_version') \
             AND entity_associations.rowid > $2 AND EXISTS (SELECT 1 FROM trace_info t \
             WHERE t.request_id = entity_associations.source_id AND t.experiment_id = $1) \
             ORDER BY entity_associations.rowid LIMIT $3",
            table.replacen("SELECT ", "SELECT entity_associations.rowid AS place, ", 1)
        );
        let rows = self.rows(sql, &[Bind::Int(experiment), Bind::Int(after), Bind::Int(limit)]).await?;
        let last = rows.last().map(|row| int(row, "place")).transpose()?.unwrap_or(after);
        let one = |row: &Row| {
            let theirs = text(row, "destination_type")?;
            let kind = LINKED.iter().find(|(known, _)| *known == theirs).map_or("run", |(_, ours)| ours);
            let (target, trace_id) = (text(row, "destination_id")?, text(row, "source_id")?);
            Ok(ForeignLink { kind: kind.to_owned(), target, trace_id })
        };
        Ok((rows.iter().map(one).collect::<Result<_, StoreError>>()?, last))
    }
}
