//! The prediction log's near end: a bounded channel. It never makes a request wait: what doesn't fit is dropped and counted.

use bytes::Bytes;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::route::Role;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Whose protocol a request spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Open Inference Protocol V2.
    Oip,
    /// MLflow's `/invocations`.
    Mlflow,
    /// TensorFlow Serving's REST API.
    Tfs,
}

impl Protocol {
    /// The word for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oip => "oip",
            Self::Mlflow => "mlflow",
            Self::Tfs => "tfs",
        }
    }
}

/// One prediction that was asked for.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The prediction's id (a ULID), as in the answer's `x-lockgate-prediction-id`.
    pub id: String,
    /// When the request was complete.
    pub at_ms: Millis,
    /// The model.
    pub model: Arc<ModelName>,
    /// The release that answered, or that was to answer.
    pub release: Digest,
    /// Its revision.
    pub revision: Digest,
    /// The side that the request was assigned to.
    pub assigned: Role,
    /// The side that answered; none where no worker did.
    pub served: Option<Role>,
    /// The unit, where the request named one.
    pub unit: Option<String>,
    /// The answer's HTTP status; 499 where the client left before there was one.
    pub status: u16,
    /// From the complete request to the complete answer, in microseconds.
    pub latency_us: u64,
    /// The request's protocol.
    pub protocol: Protocol,
    /// The request's body, unless it was too large.
    pub request: Option<Bytes>,
    /// The answer's body, unless it was too large.
    pub response: Option<Bytes>,
    /// The client's `x-request-id`.
    pub request_id: Option<String>,
}

/// Where a gateway puts its records.
#[derive(Debug, Clone, Default)]
pub struct LogSink {
    sender: Option<SyncSender<LogRecord>>,
    dropped: Arc<AtomicU64>,
}

impl LogSink {
    /// A sink and the end to read from, with room for `capacity` records. The reader sees the end of the channel when the
    /// gateway is gone. A reader that blocks in `recv` is woken for every record, which costs the gateway a system call each:
    /// better to sleep some milliseconds and then take all with `try_iter`.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, Receiver<LogRecord>) {
        let (sender, receiver) = sync_channel(capacity.max(1));
        (Self { sender: Some(sender), dropped: Arc::default() }, receiver)
    }

    /// A sink for gateways without a log.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    pub(crate) fn put(&self, record: LogRecord) {
        if let Some(sender) = &self.sender
            && sender.try_send(record).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many records were dropped because the reader was too slow, or gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The count of drops itself, which doesn't keep the channel open.
    pub(crate) fn drops(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}
