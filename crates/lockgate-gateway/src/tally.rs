//! The count and the record of an answer that is streamed: made when it ends, however it ends.

use crate::body::{Broken, Watch};
use crate::log::Protocol;
use crate::meter::{ErrorClass, Sent};
use crate::predict::{Given, Pending};
use bytes::Bytes;
use lockgate_wire::openai::Events;

/// One answer on its way to its client.
pub(crate) struct Tally {
    pending: Option<Pending>,
    given: Given,
    status: u16,
    /// Until the first byte.
    latency_us: u64,
    /// How the assigned side failed before this answer, made good or not.
    error: Option<ErrorClass>,
    /// Whether its end is an event of its own.
    ends_itself: bool,
    events: Events,
    /// The beginning of what was sent.
    kept: Vec<u8>,
    keep: usize,
    /// The server is at work for as long as this is here.
    _sent: Option<Sent>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

impl Tally {
    pub(crate) fn new(
        pending: Pending,
        given: Given,
        (status, latency_us): (u16, u64),
        error: Option<ErrorClass>,
        sent: Option<Sent>,
    ) -> Self {
        let ends_itself = pending.protocol() == Protocol::Openai;
        let keep = pending.kept_bytes();
        let events = Events::default();
        Self {
            pending: Some(pending),
            given,
            status,
            latency_us,
            error,
            ends_itself,
            events,
            kept: Vec::new(),
            keep,
            _sent: sent,
        }
    }

    fn conclude(&mut self, failed: Option<ErrorClass>, abandoned: bool) {
        let Some(pending) = self.pending.take() else { return };
        let mut given = std::mem::take(&mut self.given);
        given.body = Some(std::mem::take(&mut self.kept).into());
        pending.conclude(given, self.status, self.latency_us, self.error.or(failed), abandoned);
    }
}

impl Watch for Tally {
    fn piece(&mut self, bytes: &Bytes) {
        let room = self.keep.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.events.see(bytes);
    }

    fn end(&mut self, outcome: Result<(), Broken>) {
        let failed = match outcome {
            Err(Broken::Late) => Some(ErrorClass::Timeout),
            Err(Broken::Peer | Broken::TooLarge) => Some(ErrorClass::Connect),
            Ok(()) if self.events.has_failed() => Some(ErrorClass::Http5xx),
            // A server that dies over a connection without lengths looks as if it had said all.
            Ok(()) if self.ends_itself && !self.events.is_done() => Some(ErrorClass::Connect),
            Ok(()) => None,
        };
        self.conclude(failed, false);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // The client went away, or had all that it wanted.
        let failed = self.events.has_failed().then_some(ErrorClass::Http5xx);
        let abandoned = failed.is_none() && !(self.ends_itself && self.events.is_done());
        self.conclude(failed, abandoned);
    }
}
