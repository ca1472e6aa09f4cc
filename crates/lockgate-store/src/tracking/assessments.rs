//! What was said about traces.

use super::rows_of;
use super::trace_types::Assessment;
use crate::conn::{Conn, Row, Tx, int, opt_text, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;

statements! {
    BY_ID = "SELECT assessment_id, trace_id, name, kind, value, error, source_type, source_id, run_id, span_id, \
             rationale, overrides, valid, metadata, of_session, created, updated FROM assessments \
             WHERE trace_id = $1 AND assessment_id = $2 AND EXISTS (SELECT 1 FROM traces t \
             WHERE t.trace_id = $1 AND t.workspace = $3)";
    PUT = "INSERT INTO assessments (assessment_id, trace_id, name, kind, value, amount, error, source_type, source_id, \
           run_id, span_id, rationale, overrides, valid, metadata, of_session, created, updated) \
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) \
           ON CONFLICT (trace_id, assessment_id) DO UPDATE SET name = excluded.name, \
           kind = excluded.kind, value = excluded.value, amount = excluded.amount, error = excluded.error, \
           source_type = excluded.source_type, source_id = excluded.source_id, run_id = excluded.run_id, \
           span_id = excluded.span_id, rationale = excluded.rationale, overrides = excluded.overrides, \
           valid = excluded.valid, metadata = excluded.metadata, of_session = excluded.of_session, \
           created = excluded.created, updated = excluded.updated";
    SET_VALID = "UPDATE assessments SET valid = $3 WHERE trace_id = $1 AND assessment_id = $2";
    DELETE = "DELETE FROM assessments WHERE trace_id = $1 AND assessment_id = $2";
}

fn assessment(row: &Row) -> Result<Assessment, StoreError> {
    Ok(Assessment {
        assessment_id: text(row, "assessment_id")?,
        trace_id: text(row, "trace_id")?,
        name: text(row, "name")?,
        kind: text(row, "kind")?,
        value: text(row, "value")?,
        amount: None,
        error: opt_text(row, "error")?,
        source_type: text(row, "source_type")?,
        source_id: opt_text(row, "source_id")?,
        run_id: opt_text(row, "run_id")?,
        span_id: opt_text(row, "span_id")?,
        rationale: opt_text(row, "rationale")?,
        overrides: opt_text(row, "overrides")?,
        valid: int(row, "valid")? != 0,
        metadata: opt_text(row, "metadata")?,
        of_session: int(row, "of_session")? != 0,
        created: int(row, "created")?,
        updated: int(row, "updated")?,
    })
}

/// What was said about these traces.
pub(super) async fn of_traces(conn: &mut Conn, traces: &[String]) -> Result<Vec<Assessment>, StoreError> {
    let head = "SELECT assessment_id, trace_id, name, kind, value, error, source_type, source_id, run_id, span_id, \
                rationale, overrides, valid, metadata, of_session, created, updated FROM assessments \
                WHERE trace_id IN";
    rows_of(conn, head, traces).await?.iter().map(assessment).collect()
}

impl Conn {
    /// One assessment of a trace.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn assessment(&mut self, trace: &str, id: &str) -> Result<Option<Assessment>, StoreError> {
        let statement = query(BY_ID).bind(trace.to_owned()).bind(id.to_owned());
        let row = self.fetch_optional(statement.bind(self.workspace().to_owned())).await?;
        row.as_ref().map(assessment).transpose()
    }
}

impl Tx {
    /// Keeps an assessment; one of the same id is replaced.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn put_assessment(&mut self, new: &Assessment) -> Result<(), StoreError> {
        let texts = [&new.assessment_id, &new.name, &new.value, &new.source_type];
        let more = [&new.error, &new.source_id, &new.run_id, &new.span_id, &new.rationale, &new.overrides];
        for part in texts.into_iter().chain(more.into_iter().flatten()) {
            no_nul("an assessment", part)?;
        }
        let statement = query(PUT).bind(new.assessment_id.clone()).bind(new.trace_id.clone());
        let statement = statement.bind(new.name.clone()).bind(new.kind.clone()).bind(new.value.clone());
        let statement = statement.bind(new.amount).bind(new.error.clone()).bind(new.source_type.clone());
        let statement =
            statement.bind(new.source_id.clone()).bind(new.run_id.clone()).bind(new.span_id.clone());
        let statement = statement.bind(new.rationale.clone()).bind(new.overrides.clone());
        let statement = statement.bind(i64::from(new.valid)).bind(new.metadata.clone());
        let statement = statement.bind(i64::from(new.of_session)).bind(new.created).bind(new.updated);
        self.execute(statement).await.map(|_| ())
    }

    /// Says that an assessment counts, or that another took its place; says whether there is one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn set_assessment_valid(
        &mut self,
        trace: &str,
        id: &str,
        valid: bool,
    ) -> Result<bool, StoreError> {
        let statement = query(SET_VALID).bind(trace.to_owned()).bind(id.to_owned()).bind(i64::from(valid));
        self.execute(statement).await.map(|rows| rows > 0)
    }

    /// Deletes an assessment.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_assessment(&mut self, trace: &str, id: &str) -> Result<(), StoreError> {
        self.execute(query(DELETE).bind(trace.to_owned()).bind(id.to_owned())).await.map(|_| ())
    }
}
