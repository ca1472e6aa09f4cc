//! Bodies: held in memory where they are small, so that a request can be sent again, and streaming where they are large.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::Sleep;

/// What ended a body before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The peer went away or broke the protocol.
    #[error("the connection broke before the body was complete")]
    Peer,
    /// There is more of it than allowed.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// It takes longer than allowed.
    #[error("the body took longer than allowed")]
    Late,
}

/// Whoever looks at an answer's body as it passes.
pub(crate) trait Watch: std::fmt::Debug {
    /// Some of it.
    fn piece(&mut self, bytes: &Bytes);
    /// Its end; where the client goes away there is none.
    fn end(&mut self, outcome: Result<(), Broken>);
}

/// What was read of a body.
#[derive(Debug)]
pub(crate) enum Read {
    /// All of it.
    Whole(Bytes),
    /// Its beginning; the rest is still to come.
    Start(VecDeque<Bytes>),
}

/// Reads a body until it ends or is longer than `limit`.
pub(crate) async fn read(body: &mut Incoming, limit: usize) -> Result<Read, Broken> {
    go_on(VecDeque::new(), body, limit).await
}

/// The same for a body whose beginning was read.
pub(crate) async fn go_on(
    mut pieces: VecDeque<Bytes>,
    body: &mut Incoming,
    limit: usize,
) -> Result<Read, Broken> {
    let mut length: usize = pieces.iter().map(Bytes::len).sum();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken::Peer)?.into_data() else { continue };
        length += data.len();
        pieces.push_back(data);
        if length > limit {
            return Ok(Read::Start(pieces));
        }
    }
    // Most bodies come in one piece, which is then not copied.
    if pieces.len() <= 1 {
        return Ok(Read::Whole(pieces.pop_front().unwrap_or_default()));
    }
    let mut whole = BytesMut::with_capacity(length);
    pieces.iter().for_each(|p| whole.extend_from_slice(p));
    Ok(Read::Whole(whole.freeze()))
}

/// Waits for the first piece of a body; none where it has none.
pub(crate) async fn first(body: &mut Incoming) -> Result<VecDeque<Bytes>, Broken> {
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Broken::Peer)?.into_data() {
            Ok(data) if !data.is_empty() => return Ok(VecDeque::from([data])),
            _ => {}
        }
    }
    Ok(VecDeque::new())
}

/// How much of a refused body is taken and thrown away, and for how long.
const REFUSED: (usize, Duration) = (1 << 30, Duration::from_secs(30));

/// Takes the rest of a refused body, in the background: many clients read no answer before they have sent everything, and
/// would see a broken connection instead of the reason.
pub(crate) fn discard(mut body: Incoming) {
    spawn_local(async move {
        let mut left = REFUSED.0;
        let take = async {
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(REFUSED.1, take).await;
    });
}

/// A body on its way: bytes in memory, then whatever is still to come.
#[derive(Debug)]
pub(crate) struct Stream {
    pieces: VecDeque<Bytes>,
    rest: Option<Incoming>,
    /// How many bytes the rest may still have.
    left: usize,
    /// Pieces that others send in, until one of them is the end.
    feed: Option<mpsc::Receiver<Fed>>,
    /// What follows the last piece.
    trailers: Option<HeaderMap>,
    /// Where the sender of a request body learns why it broke.
    broken: Option<Rc<Cell<Option<Broken>>>>,
    /// Who looks at an answer that is streamed, and when it must be over.
    tallied: Option<Tallied>,
}

/// Who looks at an answer, and when it must be over.
type Tallied = (Box<dyn Watch>, Pin<Box<Sleep>>);

/// What is sent into a body.
#[derive(Debug)]
pub(crate) enum Fed {
    /// Some bytes.
    Piece(Bytes),
    /// The end, with its trailers.
    End(HeaderMap),
}

impl Stream {
    /// A body that is whole.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let pieces = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) };
        Self { pieces, rest: None, left: 0, feed: None, trailers: None, broken: None, tallied: None }
    }

    /// A body of which only the beginning is here. Its rest may have `left` bytes.
    pub(crate) fn going_on(pieces: VecDeque<Bytes>, rest: Incoming, left: usize) -> Self {
        Self { pieces, rest: Some(rest), left, feed: None, trailers: None, broken: None, tallied: None }
    }

    /// A body whose pieces are sent in one after the other.
    pub(crate) fn fed(feed: mpsc::Receiver<Fed>) -> Self {
        Self { feed: Some(feed), ..Self::whole(Bytes::new()) }
    }

    /// The same with a piece before it.
    pub(crate) fn after(mut self, piece: Bytes) -> Self {
        self.pieces.push_front(piece);
        self
    }

    /// The same with trailers behind it.
    pub(crate) fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    /// Says why it broke, where it does.
    pub(crate) fn watched(mut self) -> (Self, Rc<Cell<Option<Broken>>>) {
        let told = Rc::new(Cell::new(None));
        self.broken = Some(Rc::clone(&told));
        (self, told)
    }

    /// The same, looked at as it passes, and broken off where it is not over by `until`.
    pub(crate) fn tallied(mut self, watch: Box<dyn Watch>, until: Instant) -> Self {
        self.tallied = Some((watch, Box::pin(tokio::time::sleep_until(until.into()))));
        self
    }

    fn fail(&mut self, why: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(told) = &self.broken {
            told.set(Some(why));
        }
        match self.rest.take() {
            Some(rest) if why == Broken::TooLarge => discard(rest),
            _ => {}
        }
        Poll::Ready(Some(Err(why)))
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let Some((_, until)) = &mut this.tallied else { return this.next(cx) };
        let late = until.as_mut().poll(cx).is_ready();
        let next = if late { this.fail(Broken::Late) } else { this.next(cx) };
        match (&next, &mut this.tallied) {
            (Poll::Ready(Some(Ok(frame))), Some((watch, _))) => {
                if let Some(bytes) = frame.data_ref() {
                    watch.piece(bytes);
                }
            }
            (Poll::Ready(end), tallied) => {
                if let Some((mut watch, _)) = tallied.take() {
                    watch.end(match end {
                        Some(Err(broken)) => Err(*broken),
                        _ => Ok(()),
                    });
                }
            }
            (Poll::Pending, _) => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        let more = self.feed.is_some() || self.trailers.is_some() || self.tallied.is_some();
        !more && self.pieces.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let here: u64 = self.pieces.iter().map(|p| p.len() as u64).sum();
        if self.feed.is_some() {
            return SizeHint::new();
        }
        let Some(rest) = &self.rest else { return SizeHint::with_exact(here) };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(here + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(here + upper);
        }
        hint
    }
}

impl Stream {
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self;
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(feed) = &mut this.feed {
            return match std::task::ready!(feed.poll_recv(cx)) {
                Some(Fed::Piece(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                Some(Fed::End(trailers)) => {
                    this.feed = None;
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
                // Whoever sends has stopped without an end.
                None => this.fail(Broken::Peer),
            };
        }
        loop {
            let Some(rest) = &mut this.rest else {
                return Poll::Ready(this.trailers.take().map(|t| Ok(Frame::trailers(t))));
            };
            match std::task::ready!(Pin::new(rest).poll_frame(cx)) {
                None => this.rest = None,
                Some(Err(_)) => return this.fail(Broken::Peer),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let Some(left) = this.left.checked_sub(data.len()) else {
                        return this.fail(Broken::TooLarge);
                    };
                    this.left = left;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }
}
