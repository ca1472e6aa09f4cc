//! Traces: their own rows, tags, metadata and links.

use super::experiments::key_value;
use super::trace_types::Trace;
use super::types::KeyValue;
use super::{CHUNK, assessments, entity, places, rows_of, tuples};
use crate::conn::{Conn, Row, Tx, int, opt_int, opt_text, query, query_dynamic, text};
use crate::error::{StoreError, no_nul, without_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;
use std::collections::HashMap;

statements! {
    BY_ID = "SELECT trace_id, experiment_id, state, started, duration, client_request_id, request_preview, \
             response_preview, session_id FROM traces WHERE trace_id = $1 AND workspace = $2";
    ELSEWHERE = "SELECT COUNT(*) FROM traces WHERE trace_id = $1 AND workspace <> $2";
    PUT = "INSERT INTO traces (trace_id, experiment_id, state, started, duration, client_request_id, request_preview, \
           response_preview, session_id, workspace) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
           ON CONFLICT (trace_id) DO UPDATE SET experiment_id = excluded.experiment_id, state = excluded.state, \
           started = excluded.started, duration = excluded.duration, \
           client_request_id = excluded.client_request_id, request_preview = excluded.request_preview, \
           response_preview = excluded.response_preview, session_id = excluded.session_id \
           WHERE traces.workspace = excluded.workspace";
    TAGS = "INSERT INTO trace_tags (trace_id, key, value) VALUES ($1, $2, $3) \
            ON CONFLICT (trace_id, key) DO UPDATE SET value = excluded.value";
    METADATA = "INSERT INTO trace_metadata (trace_id, key, value) VALUES ($1, $2, $3) \
                ON CONFLICT (trace_id, key) DO UPDATE SET value = excluded.value";
    DELETE_TAG = "DELETE FROM trace_tags WHERE trace_id = $1 AND key = $2 AND EXISTS (SELECT 1 FROM traces t \
                  WHERE t.trace_id = $1 AND t.workspace = $3)";
    LINK = "INSERT INTO trace_links (kind, target, trace_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    LINKS = "SELECT kind, target FROM trace_links WHERE trace_id = $1";
    OLDEST = "SELECT trace_id FROM traces WHERE experiment_id = $1 AND started <= $2 AND workspace = $4 \
              ORDER BY started, trace_id LIMIT $3";
}

/// One row's places in the statements that write several.
const ONE_ROW: &str = "($1, $2, $3)";

/// What belongs to a trace and goes with it.
const PARTS: [&str; 6] = ["trace_tags", "trace_metadata", "trace_links", "spans", "assessments", "traces"];

fn trace(row: &Row) -> Result<Trace, StoreError> {
    Ok(Trace {
        trace_id: text(row, "trace_id")?,
        experiment_id: int(row, "experiment_id")?,
        state: text(row, "state")?,
        started: int(row, "started")?,
        duration: opt_int(row, "duration")?,
        client_request_id: opt_text(row, "client_request_id")?,
        request_preview: opt_text(row, "request_preview")?,
        response_preview: opt_text(row, "response_preview")?,
        session_id: opt_text(row, "session_id")?,
        tags: Vec::new(),
        metadata: Vec::new(),
        assessments: Vec::new(),
    })
}

impl Conn {
    /// The trace with its tags, its metadata and what was said about it, but without spans.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn trace(&mut self, id: &str) -> Result<Option<Trace>, StoreError> {
        let row =
            self.fetch_optional(query(BY_ID).bind(id.to_owned()).bind(self.workspace().to_owned())).await?;
        let found = row.as_ref().map(trace).transpose()?;
        Ok(self.filled_traces(found.into_iter().collect()).await?.pop())
    }

    /// Those of the traces that exist, in the order in which they were asked for, each once.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn traces(&mut self, ids: &[String]) -> Result<Vec<Trace>, StoreError> {
        let head = "SELECT trace_id, experiment_id, state, started, duration, client_request_id, request_preview, \
                    response_preview, session_id, workspace FROM traces WHERE trace_id IN";
        let rows = rows_of(self, head, ids).await?;
        let mut found: HashMap<String, Trace> = HashMap::new();
        for row in &rows {
            if text(row, "workspace")? != self.workspace() {
                continue;
            }
            let one = trace(row)?;
            found.insert(one.trace_id.clone(), one);
        }
        let ordered = ids.iter().filter_map(|id| found.remove(id)).collect();
        self.filled_traces(ordered).await
    }

    /// Whether there is a trace with this id in another workspace: ids are used once.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn trace_is_elsewhere(&mut self, id: &str) -> Result<bool, StoreError> {
        let statement = query(ELSEWHERE).bind(id.to_owned()).bind(self.workspace().to_owned());
        Ok(self.scalar(statement).await?.is_some_and(|count| count > 0))
    }

    /// What a trace is linked to: pairs of the kind (`run` or `prompt`) and the target.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn trace_links(&mut self, trace: &str) -> Result<Vec<(String, String)>, StoreError> {
        let rows = self.fetch_all(query(LINKS).bind(trace.to_owned())).await?;
        rows.iter().map(|row| Ok((text(row, "kind")?, text(row, "target")?))).collect()
    }

    /// Searches traces.
    ///
    /// # Errors
    /// Where a condition is not about traces or the database can't be read.
    pub async fn search_traces(&mut self, search: &super::Search) -> Result<Vec<Trace>, StoreError> {
        let rows = self.search(&entity::TRACES, search).await?;
        let found = rows.iter().map(trace).collect::<Result<_, _>>()?;
        self.filled_traces(found).await
    }

    /// The ids of an experiment's traces that began until then, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn oldest_traces(
        &mut self,
        experiment: i64,
        until: Millis,
        most: i64,
    ) -> Result<Vec<String>, StoreError> {
        let statement = query(OLDEST).bind(experiment).bind(until).bind(most);
        let rows = self.fetch_all(statement.bind(self.workspace().to_owned())).await?;
        rows.iter().map(|row| text(row, "trace_id")).collect()
    }

    async fn filled_traces(&mut self, mut traces: Vec<Trace>) -> Result<Vec<Trace>, StoreError> {
        let ids: Vec<String> = traces.iter().map(|trace| trace.trace_id.clone()).collect();
        let place: HashMap<String, usize> = ids.iter().enumerate().map(|(i, id)| (id.clone(), i)).collect();
        let of = |row: &Row| text(row, "trace_id").map(|id| place.get(&id).copied());
        for row in
            rows_of(self, "SELECT trace_id, key, value FROM trace_tags WHERE trace_id IN", &ids).await?
        {
            if let Some(i) = of(&row)? {
                traces[i].tags.push(key_value(&row)?);
            }
        }
        let metadata = "SELECT trace_id, key, value FROM trace_metadata WHERE trace_id IN";
        for row in rows_of(self, metadata, &ids).await? {
            if let Some(i) = of(&row)? {
                traces[i].metadata.push(key_value(&row)?);
            }
        }
        for found in assessments::of_traces(self, &ids).await? {
            if let Some(i) = place.get(&found.trace_id) {
                traces[*i].assessments.push(found);
            }
        }
        for trace in &mut traces {
            trace
                .assessments
                .sort_by(|a, b| (a.created, &a.assessment_id).cmp(&(b.created, &b.assessment_id)));
        }
        Ok(traces)
    }
}

impl Tx {
    /// Makes a trace, or changes its own row; what belongs to it is not looked at. Says whether it did: it doesn't where
    /// the trace is another workspace's.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn put_trace(&mut self, new: &Trace) -> Result<bool, StoreError> {
        no_nul("a trace's id", &new.trace_id)?;
        let kept = |text: &Option<String>| text.as_deref().map(without_nul);
        let statement = query(PUT).bind(new.trace_id.clone()).bind(new.experiment_id).bind(new.state.clone());
        let statement = statement.bind(new.started).bind(new.duration).bind(kept(&new.client_request_id));
        let statement = statement.bind(kept(&new.request_preview)).bind(kept(&new.response_preview));
        let workspace = self.workspace().to_owned();
        let rows = self.execute(statement.bind(kept(&new.session_id)).bind(workspace)).await?;
        Ok(rows > 0)
    }

    /// Sets tags; those of one call have different keys.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn set_trace_tags(&mut self, trace: &str, tags: &[KeyValue]) -> Result<(), StoreError> {
        self.set_trace_pairs(TAGS, trace, tags).await
    }

    /// Sets metadata; the pieces of one call have different keys.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn set_trace_metadata(&mut self, trace: &str, pairs: &[KeyValue]) -> Result<(), StoreError> {
        self.set_trace_pairs(METADATA, trace, pairs).await
    }

    async fn set_trace_pairs(
        &mut self,
        sql: &str,
        trace: &str,
        pairs: &[KeyValue],
    ) -> Result<(), StoreError> {
        for pair in pairs {
            no_nul("a trace's key", &pair.key)?;
        }
        for chunk in pairs.chunks(CHUNK) {
            let mut statement = query_dynamic(sql.replacen(ONE_ROW, &tuples(0, chunk.len(), 3), 1));
            for pair in chunk {
                statement =
                    statement.bind(trace.to_owned()).bind(pair.key.clone()).bind(without_nul(&pair.value));
            }
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Removes a tag; says whether there was one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_trace_tag(&mut self, trace: &str, key: &str) -> Result<bool, StoreError> {
        let statement = query(DELETE_TAG).bind(trace.to_owned()).bind(key.to_owned());
        let workspace = self.workspace().to_owned();
        self.execute(statement.bind(workspace)).await.map(|rows| rows > 0)
    }

    /// Notes that a trace belongs to a run (`kind` is `run`) or used a prompt's version (`prompt`); says whether that is new.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn link_trace(
        &mut self,
        kind: &'static str,
        target: &str,
        trace: &str,
    ) -> Result<bool, StoreError> {
        no_nul("what a trace is linked to", target)?;
        no_nul("a trace's id", trace)?;
        let statement = query(LINK).bind(kind).bind(target.to_owned()).bind(trace.to_owned());
        self.execute(statement).await.map(|rows| rows > 0)
    }

    /// Deletes traces for good, with all that belongs to them; says how many there were.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_traces(&mut self, ids: &[String]) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for chunk in ids.chunks(CHUNK) {
            for table in PARTS {
                let text = format!("DELETE FROM {table} WHERE trace_id IN {}", places(0, chunk.len()));
                let statement = query_dynamic(text);
                let statement = chunk.iter().fold(statement, |statement, id| statement.bind(id.clone()));
                let count = self.execute(statement).await?;
                deleted += if table == "traces" { count } else { 0 };
            }
        }
        Ok(deleted)
    }
}
