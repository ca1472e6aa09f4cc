//! The prediction log's near end: a bounded channel. It never makes a request wait: what doesn't fit is dropped and counted.
//! Feedback leaves by another one, whose other end answers.

use crate::examine::Unexamined;
use crate::feedback::{FeedbackCall, QUEUE};
use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::route::Role;
use lockgate_wire::oip::binary::header_length;
use lockgate_wire::oip::grpc::parse_response;
use lockgate_wire::oip::{BINARY_HEADER, InferResponse};
use lockgate_wire::{Encoding, Limits, WireError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::mpsc;

/// Whose protocol a request spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Open Inference Protocol V2.
    Oip,
    /// MLflow's `/invocations`.
    Mlflow,
    /// TensorFlow Serving's REST API.
    Tfs,
    /// Open Inference Protocol V2 over gRPC.
    Grpc,
    /// OpenAI's API.
    Openai,
}

impl Protocol {
    /// The word for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oip => "oip",
            Self::Mlflow => "mlflow",
            Self::Tfs => "tfs",
            Self::Grpc => "grpc",
            Self::Openai => "openai",
        }
    }
}

/// How a body is written, as its headers say: what a reader of the log needs to make sense of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BodyForm {
    /// How it is packed.
    pub encoding: Option<Encoding>,
    /// How many of its bytes (unpacked) are JSON, where tensors follow in binary form.
    pub json: Option<usize>,
}

impl BodyForm {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let encoding =
            headers.get(CONTENT_ENCODING).and_then(|v| Encoding::parse(v.as_bytes()).ok().flatten());
        let json = headers.get(BINARY_HEADER).and_then(|v| header_length(v.as_bytes()).ok());
        Self { encoding, json }
    }
}

impl BodyForm {
    /// An answer's body as its protocol's JSON, which may be `most` bytes large once it is unpacked.
    ///
    /// # Errors
    /// Where it can't be read as what it says it is, or is larger.
    pub fn answer(&self, body: &Bytes, protocol: Protocol, most: usize) -> Result<Bytes, WireError> {
        let limits = Limits { max_elements: most, ..Limits::default() };
        let plain = match self.encoding {
            Some(encoding) => encoding.unpack(body, most)?.into(),
            None if body.len() > most => {
                return Err(WireError::too_large(format!("it is larger than {most} bytes")));
            }
            None => body.clone(),
        };
        match (protocol, self.json) {
            // An error comes as JSON from the worker.
            (Protocol::Grpc, _) if plain.starts_with(b"{") => Ok(plain),
            (Protocol::Grpc, _) => parse_response(plain, &limits).map(|answer| answer.to_bytes().into()),
            (Protocol::Mlflow | Protocol::Tfs | Protocol::Openai, _) | (Protocol::Oip, None) => Ok(plain),
            (Protocol::Oip, Some(json)) => {
                InferResponse::parse_binary(&plain, json, &limits).map(|answer| answer.to_bytes().into())
            }
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
    /// Who said which side is to answer; none where the gateway chose it.
    pub forced: Option<String>,
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
    /// How the request's body is written.
    pub request_form: BodyForm,
    /// The answer's body, unless it was too large.
    pub response: Option<Bytes>,
    /// How the answer's body is written.
    pub response_form: BodyForm,
    /// The client's `x-request-id`.
    pub request_id: Option<String>,
    /// Why the answer could not be looked at, where it had to be.
    pub unexamined: Option<Unexamined>,
    /// The rollout that drew it, where one did and counts it.
    pub drawn: Option<DrawnFor>,
}

/// How a request was drawn into a side of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnFor {
    /// The split's salt: the promotion.
    pub salt: Arc<str>,
    /// The candidate's share, in parts of 10,000.
    pub weight: u32,
    /// The side that it was drawn into.
    pub arm: Role,
    /// What statistics know its unit by.
    pub unit: u64,
}

/// Where a gateway puts its records.
#[derive(Debug, Clone, Default)]
pub struct LogSink {
    sender: Option<SyncSender<LogRecord>>,
    dropped: Arc<AtomicU64>,
    keeper: Option<mpsc::Sender<FeedbackCall>>,
}

impl LogSink {
    /// A sink and the end to read from, with room for `capacity` records. The reader sees the end of the channel when the
    /// gateway is gone. A reader that blocks in `recv` is woken for every record, which costs the gateway a system call each:
    /// better to sleep some milliseconds and then take all with `try_iter`.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, Receiver<LogRecord>) {
        let (sender, receiver) = sync_channel(capacity.max(1));
        (Self { sender: Some(sender), ..Self::default() }, receiver)
    }

    /// The same sink, which takes feedback, too; and the end to read that from.
    #[must_use]
    pub fn with_feedback(self) -> (Self, mpsc::Receiver<FeedbackCall>) {
        let (keeper, calls) = mpsc::channel(QUEUE);
        (Self { keeper: Some(keeper), ..self }, calls)
    }

    pub(crate) fn keeper(&self) -> Option<&mpsc::Sender<FeedbackCall>> {
        self.keeper.as_ref()
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

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_wire::oip::{ResponseHead, grpc, write_binary_response};
    use lockgate_wire::{Data, Tensor};

    #[test]
    fn answers_of_all_forms_say_the_same_as_json() {
        let tensors = [Tensor::new("y", vec![2], Data::Fp32(vec![1.5, f32::NAN])).unwrap()];
        let head = ResponseHead { model_name: "m", ..ResponseHead::default() };
        let json = Bytes::from(lockgate_wire::oip::write_response(&head, &tensors));
        let packed = Bytes::from(Encoding::Gzip.pack(&json).unwrap());
        let (binary, length) = write_binary_response(&head, &tensors, |_| true);
        let message = Bytes::from(grpc::write_response(&head, &tensors, true));
        let plain = BodyForm::default();
        for (body, form, protocol) in [
            (&json, plain, Protocol::Oip),
            (&packed, BodyForm { encoding: Some(Encoding::Gzip), json: None }, Protocol::Oip),
            (&binary.into(), BodyForm { encoding: None, json: Some(length) }, Protocol::Oip),
            (&message, plain, Protocol::Grpc),
        ] {
            assert_eq!(form.answer(body, protocol, 4096).unwrap(), json, "{form:?}");
        }
        for (body, form, protocol) in [
            (&json, plain, Protocol::Oip),
            (&packed, BodyForm { encoding: Some(Encoding::Gzip), json: None }, Protocol::Oip),
            (&json.slice(1..), plain, Protocol::Grpc),
        ] {
            assert!(form.answer(body, protocol, 10).is_err(), "{form:?}");
        }
    }
}
