//! The count and the record of an answer that is passed on as it comes: made when it ends, however it ends.

use crate::body::Broken;
use crate::examine::Look;
use crate::meter::{ErrorClass, Sent};
use crate::passing::Watch;
use crate::predict::{Given, Pending};
use bytes::Bytes;

/// What is known of an answer when it begins to pass.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) status: u16,
    /// Until the first byte.
    pub(crate) latency_us: u64,
    /// How the assigned side failed before this answer, made good or not.
    pub(crate) error: Option<ErrorClass>,
    /// How many bytes it has, where that is known.
    pub(crate) length: Option<u64>,
    /// How much of its beginning is kept for the record.
    pub(crate) keep: usize,
}

/// One answer on its way to its client.
pub(crate) struct Tally {
    pending: Option<Pending>,
    given: Given,
    begun: Begun,
    look: Look,
    /// How many bytes of it have passed.
    passed: u64,
    /// The beginning of what was sent.
    kept: Vec<u8>,
    /// The server is at work for as long as this is here.
    _sent: Option<Sent>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").finish_non_exhaustive()
    }
}

impl Tally {
    pub(crate) fn new(pending: Pending, given: Given, begun: Begun, look: Look, sent: Option<Sent>) -> Self {
        Self { pending: Some(pending), given, begun, look, passed: 0, kept: Vec::new(), _sent: sent }
    }

    fn conclude(&mut self, failed: Option<ErrorClass>, abandoned: bool) {
        let Some(pending) = self.pending.take() else { return };
        let mut given = std::mem::take(&mut self.given);
        given.body = (self.begun.keep > 0).then(|| std::mem::take(&mut self.kept).into());
        let Begun { status, latency_us, error, .. } = self.begun;
        pending.conclude(given, status, latency_us, error.or(failed), abandoned);
    }
}

impl Watch for Tally {
    fn piece(&mut self, bytes: &Bytes) {
        let room = self.begun.keep.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        self.passed += bytes.len() as u64;
        self.look.see(bytes);
    }

    fn end(&mut self, outcome: Result<(), Broken>) {
        let failed = self.look.failed();
        match outcome {
            Err(Broken::Late) => self.conclude(Some(ErrorClass::Timeout), false),
            Err(Broken::Peer | Broken::TooLarge) => self.conclude(Some(ErrorClass::Connect), false),
            // As if it had gone away.
            Err(Broken::Untaken) => self.conclude(failed, failed.is_none()),
            Ok(()) if failed.is_none() && self.look.is_cut_short() => {
                self.conclude(Some(ErrorClass::Connect), false);
            }
            Ok(()) => self.conclude(failed, false),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.begun.length == Some(self.passed) {
            // Nobody asks for more than there is.
            return self.end(Ok(()));
        }
        // The client went away, or had all that it wanted.
        let failed = self.look.failed();
        let abandoned = failed.is_none() && !self.look.is_done();
        self.conclude(failed, abandoned);
    }
}
