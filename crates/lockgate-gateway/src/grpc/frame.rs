//! Messages in their frames: a byte that says whether it is packed, four for its length, the message.

use super::status::{self, Status};
use crate::answer::Reply;
use crate::body::{self, Broken, Read, Stream};
use crate::large::Room;
use crate::reactor::Reactor;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use lockgate_wire::{Encoding, WireError};
use std::rc::Rc;
use std::sync::Arc;
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
    let read = tokio::time::timeout(options.body_timeout, whole(reactor, &mut body, limit)).await;
    let (mut framed, room) = match read {
        Err(_) => return Err(Status::deadline("the message didn't arrive in time")),
        Ok(Err(status)) => {
            body::discard(body);
            return Err(status);
        }
        Ok(Ok(read)) => read,
    };
    let Some((packed, length)) = head(&framed) else {
        return Err(Status::invalid("the call has no message"));
    };
    framed.advance(HEAD);
    if framed.len() != length {
        let message = format!("the message's frame says {length} bytes, but {} follow", framed.len());
        return Err(Status::invalid(message));
    }
    let message = room.map_or(framed.clone(), |room| room.hold(framed));
    unpacked(reactor, packed?, message, encoding).await
}

/// All of a call's body; where it is large, with the room that it takes.
async fn whole(
    reactor: &Reactor,
    body: &mut Incoming,
    limit: usize,
) -> Result<(Bytes, Option<Room>), Status> {
    let broken = |broken: Broken| Status::invalid(broken.to_string());
    let pieces = match body::read(body, reactor.options.replay_limit).await.map_err(broken)? {
        Read::Whole(bytes) => return Ok((bytes, None)),
        Read::Start(pieces) => pieces,
    };
    // The frame says how much is to come; more than that is not read.
    let said = pieces.front().and_then(|first| head(first)).map_or(limit, |(_, length)| length);
    if said.saturating_add(HEAD) > limit {
        return Err(too_large(reactor.options.max_body));
    }
    let room = room(reactor, said)?;
    match body::go_on(pieces, body, said.saturating_add(HEAD)).await.map_err(broken)? {
        Read::Whole(bytes) => Ok((bytes, Some(room))),
        Read::Start(_) => {
            Err(Status::invalid(format!("more follows than the {said} bytes of the message's frame")))
        }
    }
}

/// Room for a message that is larger than what every call may hold.
fn room(reactor: &Reactor, bytes: usize) -> Result<Room, Status> {
    let full = || Status::too_large("too many large messages are under way here; try again later");
    reactor.core.large.take(bytes).ok_or_else(full)
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
    reactor: &Reactor,
    packed: bool,
    message: Bytes,
    encoding: Option<Encoding>,
) -> Result<Bytes, Status> {
    if !packed {
        return Ok(message);
    }
    let Some(encoding) = encoding else {
        return Err(Status::invalid("the message is packed, but the call has no grpc-encoding"));
    };
    let (small, most) = (reactor.options.replay_limit, reactor.options.max_body);
    match unpack(encoding, message.clone(), small.min(most)).await? {
        Err(error) if error.status == 413 && small < most => {}
        unpacked => return unpacked.map_err(|e| Status::of_wire(&e)),
    }
    let room = room(reactor, most)?;
    let unpacked = unpack(encoding, message, most).await?;
    unpacked.map(|bytes| room.hold(bytes)).map_err(|e| Status::of_wire(&e))
}

/// A small message may unpack to a large one, which must not hold up others.
async fn unpack(
    encoding: Encoding,
    message: Bytes,
    limit: usize,
) -> Result<Result<Bytes, WireError>, Status> {
    let unpacked = tokio::task::spawn_blocking(move || encoding.unpack(&message, limit).map(Bytes::from));
    unpacked.await.map_err(|_| Status::internal("the message can't be unpacked"))
}

/// The messages of a call that sends several.
pub(super) struct Messages {
    reactor: Rc<Reactor>,
    body: Incoming,
    buffer: BytesMut,
    encoding: Option<Encoding>,
}

impl Messages {
    pub(super) fn of(reactor: &Rc<Reactor>, body: Incoming, encoding: Option<Encoding>) -> Self {
        Self { reactor: Rc::clone(reactor), body, buffer: BytesMut::new(), encoding }
    }

    /// The next message; none at the end. A client may be silent for as long as a connection may be idle; a message that has
    /// begun has to arrive in time.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let options = Arc::clone(&self.reactor.options);
        if self.buffer.is_empty() {
            let silent = |_| Status::deadline("no further message came");
            if !tokio::time::timeout(options.header_timeout, self.more()).await.map_err(silent)?? {
                return Ok(None);
            }
        }
        let late = |_| Status::deadline("the message didn't arrive in time");
        let (packed, message) =
            tokio::time::timeout(options.body_timeout, self.whole()).await.map_err(late)??;
        unpacked(&self.reactor, packed, message, self.encoding).await.map(Some)
    }

    /// The message whose beginning is here.
    async fn whole(&mut self) -> Result<(bool, Bytes), Status> {
        let mut taken = None;
        loop {
            if let Some((packed, length)) = head(&self.buffer) {
                let options = &self.reactor.options;
                if length > options.max_body {
                    return Err(too_large(options.max_body));
                }
                if length > options.replay_limit && taken.is_none() {
                    taken = Some(room(&self.reactor, length)?);
                }
                if self.buffer.len() >= HEAD + length {
                    self.buffer.advance(HEAD);
                    let message = self.buffer.split_to(length).freeze();
                    return Ok((packed?, taken.map_or(message.clone(), |room| room.hold(message))));
                }
            }
            if !self.more().await? {
                return Err(Status::invalid("the call ends within a message"));
            }
        }
    }

    /// Reads on; says whether anything came.
    async fn more(&mut self) -> Result<bool, Status> {
        loop {
            match self.body.frame().await {
                None => return Ok(false),
                Some(Err(_)) => return Err(Status::invalid(Broken::Peer.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        self.buffer.extend_from_slice(&data);
                        return Ok(true);
                    }
                    _ => {}
                },
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
