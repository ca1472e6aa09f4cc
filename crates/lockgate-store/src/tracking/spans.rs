//! The steps of traces.

use super::trace_types::Span;
use super::{CHUNK, places, rows_of};
use crate::conn::{Conn, Row, Tx, int, opt_text, query, query_dynamic, text};
use crate::error::{StoreError, without_nul};
use crate::statements::statements;

statements! {
    PAGE = "SELECT trace_id, span_id, parent_id, name, kind, status, start_ns, end_ns, token_use, cost, content \
            FROM spans WHERE trace_id = $1 AND span_id > $2 ORDER BY span_id LIMIT $3";
    PUT = "INSERT INTO spans (trace_id, span_id, parent_id, name, kind, status, start_ns, end_ns, token_use, cost, \
           content) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
           ON CONFLICT (trace_id, span_id) DO UPDATE SET parent_id = excluded.parent_id, name = excluded.name, \
           kind = excluded.kind, status = excluded.status, start_ns = excluded.start_ns, end_ns = excluded.end_ns, \
           token_use = excluded.token_use, cost = excluded.cost, content = excluded.content";
}

fn span(row: &Row) -> Result<Span, StoreError> {
    Ok(Span {
        trace_id: text(row, "trace_id")?,
        span_id: text(row, "span_id")?,
        parent_id: opt_text(row, "parent_id")?,
        name: text(row, "name")?,
        kind: opt_text(row, "kind")?,
        status: text(row, "status")?,
        start_ns: int(row, "start_ns")?,
        end_ns: int(row, "end_ns")?,
        token_use: opt_text(row, "token_use")?,
        cost: opt_text(row, "cost")?,
        content: text(row, "content")?,
    })
}

impl Conn {
    /// The spans of traces: of each those without a parent first, the rest as they began.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn spans(&mut self, traces: &[String]) -> Result<Vec<Span>, StoreError> {
        let head = "SELECT trace_id, span_id, parent_id, name, kind, status, start_ns, end_ns, token_use, cost, \
                    content FROM spans WHERE trace_id IN";
        let mut found: Vec<Span> =
            rows_of(self, head, traces).await?.iter().map(span).collect::<Result<_, _>>()?;
        found.sort_by(|a, b| {
            (a.parent_id.is_some(), a.start_ns, &a.span_id).cmp(&(
                b.parent_id.is_some(),
                b.start_ns,
                &b.span_id,
            ))
        });
        Ok(found)
    }

    /// At most `limit` spans of a trace that follow the id `after` in the database's own order, which is nobody else's.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn spans_after(
        &mut self,
        trace: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Span>, StoreError> {
        let statement = query(PAGE).bind(trace.to_owned()).bind(after.to_owned()).bind(limit);
        self.fetch_all(statement).await?.iter().map(span).collect()
    }

    /// Those of a trace's spans that have these ids.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn spans_named(&mut self, trace: &str, ids: &[String]) -> Result<Vec<Span>, StoreError> {
        let head = "SELECT trace_id, span_id, parent_id, name, kind, status, start_ns, end_ns, token_use, cost, \
                    content FROM spans WHERE trace_id = $1 AND span_id IN";
        let mut found = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let text = self.nameless(format!("{head} {}", places(1, chunk.len())));
            let statement = query_dynamic(text).bind(trace.to_owned());
            let statement = chunk.iter().fold(statement, |statement, id| statement.bind(id.clone()));
            for row in self.fetch_all(statement).await? {
                found.push(span(&row)?);
            }
        }
        Ok(found)
    }
}

impl Tx {
    /// Keeps a span; one of the same id is replaced.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn put_span(&mut self, new: &Span) -> Result<(), StoreError> {
        let statement =
            query(PUT).bind(new.trace_id.clone()).bind(new.span_id.clone()).bind(new.parent_id.clone());
        let statement = statement
            .bind(without_nul(&new.name))
            .bind(new.kind.as_deref().map(without_nul))
            .bind(new.status.clone());
        let statement = statement.bind(new.start_ns).bind(new.end_ns).bind(new.token_use.clone());
        self.execute(statement.bind(new.cost.clone()).bind(new.content.clone())).await.map(|_| ())
    }
}
