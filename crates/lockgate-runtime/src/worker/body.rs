//! Bodies: read within limits, unpacked where they are packed, and answers packed where the client likes that.

use super::answer::Reply;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Body;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use lockgate_wire::{Encoding, WireError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bodies that unpack to no more than this are as many as there are requests.
const SMALL: usize = 1 << 20;

/// How many bodies that unpack to more may be here at a time.
static LARGE: Semaphore = Semaphore::const_new(4);

/// Answers below this size are not packed: that would take longer than sending them.
const WORTH_PACKING: usize = 4096;

/// A request's body: on its way from a client, or in memory already.
pub(super) trait Payload: Body<Data = Bytes> + Unpin {}

impl<B: Body<Data = Bytes> + Unpin> Payload for B {}

/// Reads a body and unpacks it, within the limit.
pub(super) async fn read<B: Payload>(request: Request<B>, limit: usize) -> Result<Bytes, WireError> {
    let header = request.headers().get(CONTENT_ENCODING);
    let encoding = header.map_or(Ok(None), |value| Encoding::parse(value.as_bytes()))?;
    let body = collect(request.into_body(), limit).await?;
    match encoding {
        None => Ok(body),
        Some(encoding) => unpack(encoding, body, limit).await,
    }
}

/// A small body may unpack to a large one: that must not hold up others, and there are few such at a time.
async fn unpack(encoding: Encoding, body: Bytes, limit: usize) -> Result<Bytes, WireError> {
    let small = limit.min(SMALL);
    match unpack_within(encoding, body.clone(), small).await {
        Err(error) if error.status == 413 && small < limit => {}
        unpacked => return unpacked,
    }
    let room = LARGE.acquire().await.map_err(|_| WireError::internal("the worker is ending"))?;
    let bytes = unpack_within(encoding, body, limit).await?;
    Ok(Bytes::from_owner(Held { bytes, _room: room }))
}

async fn unpack_within(encoding: Encoding, body: Bytes, limit: usize) -> Result<Bytes, WireError> {
    let unpacked = tokio::task::spawn_blocking(move || encoding.unpack(&body, limit)).await;
    unpacked.map_err(|_| WireError::internal("the body can't be unpacked"))?.map(Bytes::from)
}

/// A large body, and its place among the few.
struct Held {
    bytes: Bytes,
    _room: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Packs an answer as the request's headers like it.
pub(super) async fn pack(reply: Reply, encoding: Option<Encoding>) -> Reply {
    let size = reply.body().size_hint().lower();
    let Some(encoding) = encoding.filter(|_| size >= WORTH_PACKING as u64 && reply.status().is_success())
    else {
        return reply;
    };
    let (mut parts, body) = reply.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let plain = bytes.clone();
    let packed = tokio::task::spawn_blocking(move || encoding.pack(&bytes)).await;
    let body = match packed {
        Ok(Some(packed)) if packed.len() < plain.len() => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
            Bytes::from(packed)
        }
        _ => plain,
    };
    parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Reply::from_parts(parts, Full::new(body))
}

/// How the client likes its answer packed.
pub(super) fn liked(headers: &HeaderMap) -> Option<Encoding> {
    headers.get(ACCEPT_ENCODING).and_then(|value| Encoding::accepted(value.as_bytes()))
}

/// Reads a body within the limit of size and time.
async fn collect(mut body: impl Payload, limit: usize) -> Result<Bytes, WireError> {
    let too_large = || WireError::too_large(format!("the body is larger than {limit} bytes"));
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    let all = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| WireError::bad("the connection broke before the body was complete");
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if first.len() + rest.len() + data.len() > limit {
                return Err(too_large());
            }
            // Most bodies come in one piece, which is then not copied.
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.reserve(usize::try_from(announced).unwrap_or(0).max(first.len() + data.len()));
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    };
    match tokio::time::timeout(BODY_TIMEOUT, all).await {
        Ok(outcome) => outcome,
        Err(_) => Err(WireError { status: 408, ..WireError::bad("the body didn't arrive in time") }),
    }
}
