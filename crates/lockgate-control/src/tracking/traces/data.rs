//! A trace's spans as a file, and the files beside it.

use super::super::{Span, Tracking, TrackingError, may_read};
use super::{info::has_spans_here, own_location};
use lockgate_core::actor::Actor;

/// Where a trace's spans are.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceData {
    /// In the database, as far as they have arrived.
    Spans(Vec<Span>),
    /// In a file below this URI.
    File(String),
}

impl Tracking {
    /// A trace's spans, or where they lie.
    ///
    /// # Errors
    /// Where there is no such trace.
    pub async fn trace_data(&self, actor: &Actor, id: &str) -> Result<TraceData, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| {
            Box::pin(async move {
                let found = conn.trace(&id).await?;
                let missing = || TrackingError::missing(format!("Trace with ID {id} is not found."));
                let trace = found.ok_or_else(missing)?;
                Ok(match has_spans_here(&trace) {
                    true => TraceData::Spans(conn.spans(std::slice::from_ref(&id)).await?),
                    false => TraceData::File(own_location(conn, &trace).await?),
                })
            })
        })
        .await
    }

    /// Where a trace's own files lie.
    ///
    /// # Errors
    /// Where there is no such trace.
    pub async fn trace_location(&self, actor: &Actor, id: &str) -> Result<String, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| Box::pin(async move { super::location(conn, &id).await })).await
    }
}
