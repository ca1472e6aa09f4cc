//! Requests' bodies as they come in: read as far as they are held in memory, within a size and a time.

use crate::body::{self, Read};
use crate::reactor::Reactor;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use std::collections::VecDeque;
use std::time::Instant;

/// Why a body is not taken: a status, and the words for it.
pub(crate) type Refused = (StatusCode, String);

/// A body that was taken.
#[derive(Debug)]
pub(crate) enum Taken {
    /// All of it.
    Whole(Bytes),
    /// Its beginning, and where the rest comes from.
    Start(VecDeque<Bytes>, Incoming),
}

/// The words for a body that is larger than a gateway takes.
pub(crate) fn larger_than(most: usize) -> String {
    format!("the body is larger than {most} bytes, this gateway's limit")
}

/// Reads a body of at most `most` bytes until it ends, or more than `held` of them are here.
pub(crate) async fn take(
    reactor: &Reactor,
    mut body: Incoming,
    (held, most): (usize, usize),
    too_large: impl Fn(usize) -> String,
) -> Result<Taken, Refused> {
    let refuse = |body| {
        body::discard(body);
        Err((StatusCode::PAYLOAD_TOO_LARGE, too_large(most)))
    };
    if body.size_hint().lower() > most as u64 {
        return refuse(body);
    }
    let read = body::read(&mut body, held.min(most));
    match tokio::time::timeout(reactor.options.body_timeout, read).await {
        Err(_) => Err(late()),
        Ok(Err(broken)) => Err((StatusCode::BAD_REQUEST, broken.to_string())),
        Ok(Ok(Read::Whole(bytes))) => Ok(Taken::Whole(bytes)),
        Ok(Ok(Read::Start(pieces))) if length(&pieces) > most => refuse(body),
        Ok(Ok(Read::Start(pieces))) => Ok(Taken::Start(pieces, body)),
    }
}

/// Reads all of a body of at most `most` bytes. A large one needs room, which all requests share.
pub(crate) async fn whole(
    reactor: &Reactor,
    body: Incoming,
    most: usize,
    too_large: impl Fn(usize) -> String,
) -> Result<Bytes, Refused> {
    let options = &reactor.options;
    let until = Instant::now() + options.body_timeout;
    let (pieces, mut body) = match take(reactor, body, (options.replay_limit, most), &too_large).await? {
        Taken::Whole(bytes) => return Ok(bytes),
        Taken::Start(pieces, body) => (pieces, body),
    };
    let here = length(&pieces);
    let rest = body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
    let Some(room) = reactor.core.large.take(rest.map_or(most, |rest| here.saturating_add(rest)).min(most))
    else {
        body::discard(body);
        let words = "too many large bodies are under way here; try again later";
        return Err((StatusCode::SERVICE_UNAVAILABLE, words.to_owned()));
    };
    match tokio::time::timeout_at(until.into(), body::go_on(pieces, &mut body, most)).await {
        Err(_) => Err(late()),
        Ok(Err(broken)) => Err((StatusCode::BAD_REQUEST, broken.to_string())),
        Ok(Ok(Read::Whole(bytes))) => Ok(room.hold(bytes)),
        Ok(Ok(Read::Start(_))) => {
            body::discard(body);
            Err((StatusCode::PAYLOAD_TOO_LARGE, too_large(most)))
        }
    }
}

fn late() -> Refused {
    (StatusCode::REQUEST_TIMEOUT, "the body didn't arrive in time".to_owned())
}

fn length(pieces: &VecDeque<Bytes>) -> usize {
    pieces.iter().map(Bytes::len).sum()
}
