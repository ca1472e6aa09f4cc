//! Messages in their frames: a byte that says whether it is packed, four for its length, the message.

use super::status::{self, Status};
use crate::answer::Reply;
use crate::body::{self, Broken, Read, Stream};
use crate::reactor::Reactor;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use lockgate_wire::Encoding;
use std::time::Duration;

pub(super) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODING: &str = "grpc-encoding";
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const TIMEOUT: &str = "grpc-timeout";
const HEAD: usize = 5;

/// How long the client waits, where it says so: up to eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let wrong =
        || Status::invalid("grpc-timeout: up to eight digits and one of H, M, S, m, u, n were expected");
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(wrong()),
    }))
}

/// How packed messages of a call are packed.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Status> {
    match headers.get(ENCODING) {
        None => Ok(None),
        Some(value) => Encoding::parse(value.as_bytes()).map_err(|_| {
            let name = String::from_utf8_lossy(value.as_bytes());
            Status { code: 12, message: format!("grpc-encoding: `{name}` is not gzip, deflate or identity") }
        }),
    }
}

/// The one message of a call.
pub(super) async fn only_message(
    reactor: &Reactor,
    headers: &HeaderMap,
    mut body: Incoming,
) -> Result<Bytes, Status> {
    let options = &reactor.options;
    let encoding = encoding(headers)?;
    let limit = options.max_body.saturating_add(HEAD);
    if body.size_hint().lower() > limit as u64 {
        body::discard(body);
        return Err(too_large(options.max_body));
    }
    let mut framed = match tokio::time::timeout(options.body_timeout, body::read(&mut body, limit)).await {
        Err(_) => return Err(Status::deadline("the message didn't arrive in time")),
        Ok(Err(broken)) => return Err(Status::invalid(broken.to_string())),
        Ok(Ok(Read::Start(_))) => {
            body::discard(body);
            return Err(too_large(options.max_body));
        }
        Ok(Ok(Read::Whole(bytes))) => bytes,
    };
    let Some((packed, length)) = head(&framed) else {
        return Err(Status::invalid("the call has no message"));
    };
    framed.advance(HEAD);
    if framed.len() != length {
        let message = format!("the message's frame says {length} bytes, but {} follow", framed.len());
        return Err(Status::invalid(message));
    }
    unpacked(packed?, framed, encoding, options.max_body).await
}

fn too_large(limit: usize) -> Status {
    Status::too_large(format!("the message is larger than {limit} bytes, this gateway's limit"))
}

/// What a frame's head says: whether the message is packed, and its length.
fn head(bytes: &[u8]) -> Option<(Result<bool, Status>, usize)> {
    let [flag, length @ ..] = bytes.first_chunk::<HEAD>()?;
    let packed = match flag {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Status::invalid("the message's frame begins with neither 0 nor 1")),
    };
    Some((packed, usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX)))
}

async fn unpacked(
    packed: bool,
    message: Bytes,
    encoding: Option<Encoding>,
    limit: usize,
) -> Result<Bytes, Status> {
    if !packed {
        return Ok(message);
    }
    let Some(encoding) = encoding else {
        return Err(Status::invalid("the message is packed, but the call has no grpc-encoding"));
    };
    // A small message may unpack to a large one, which must not hold up others.
    let unpacked = tokio::task::spawn_blocking(move || encoding.unpack(&message, limit)).await;
    let unpacked = unpacked.map_err(|_| Status::internal("the message can't be unpacked"))?;
    unpacked.map(Bytes::from).map_err(|e| Status::of_wire(&e))
}

/// The messages of a call that sends several.
pub(super) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    encoding: Option<Encoding>,
    limit: usize,
}

impl Messages {
    pub(super) fn of(body: Incoming, encoding: Option<Encoding>, limit: usize) -> Self {
        Self { body, buffer: BytesMut::new(), encoding, limit }
    }

    /// The next message; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some((packed, length)) = head(&self.buffer) {
                if length > self.limit {
                    return Err(too_large(self.limit));
                }
                if self.buffer.len() >= HEAD + length {
                    self.buffer.advance(HEAD);
                    let message = self.buffer.split_to(length).freeze();
                    return unpacked(packed?, message, self.encoding, self.limit).await.map(Some);
                }
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid("the call ends within a message")),
                Some(Err(_)) => return Err(Status::invalid(Broken::Peer.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// A message in its frame.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + message.len());
    out.put(head_of(message.len() as u64));
    out.put(message);
    out.freeze()
}

/// A frame's head; messages of four gigabytes and more are refused before.
fn head_of(length: u64) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD);
    head.put_u8(0);
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    head.freeze()
}

/// An answer of one message.
pub(super) fn message(message: Vec<u8>) -> Reply {
    complete(Stream::whole(framed(&message)))
}

/// An answer whose one message is a body of known length.
pub(super) fn of_body(body: Stream) -> Result<Reply, Status> {
    let length = body.size_hint().exact().filter(|length| u32::try_from(*length).is_ok());
    let length = length.ok_or_else(|| Status::internal("the model's answer is too large for one message"))?;
    Ok(complete(body.after(head_of(length))))
}

fn complete(body: Stream) -> Reply {
    of_frames(body.with_trailers(status::ok()))
}

/// An answer of frames, with its trailers.
pub(super) fn of_frames(body: Stream) -> Reply {
    let mut reply = Reply::new(body);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(ACCEPTED, HeaderValue::from_static("identity,gzip,deflate"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit_and_a_bound() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
        assert_eq!(of("100m").unwrap(), Some(Duration::from_millis(100)));
        assert_eq!(of("99999999H").unwrap(), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "5", "S", "-5S", "999999999S", "5 S", "5d", "1.5S"] {
            assert_eq!(of(bad).unwrap_err().code, 3, "{bad}");
        }
    }

    #[test]
    fn heads_say_length_and_form() {
        assert_eq!(head(&[0, 0, 0, 1, 2, 9]), Some((Ok(false), 258)));
        assert_eq!(head(&[1, 255, 255, 255, 255]), Some((Ok(true), 0xffff_ffff)));
        assert!(matches!(head(&[2, 0, 0, 0, 0]), Some((Err(_), 0))));
        assert_eq!(head(&[0, 0, 0, 0]), None);
        assert_eq!(&framed(b"ab")[..], [0, 0, 0, 0, 2, b'a', b'b']);
    }
}
