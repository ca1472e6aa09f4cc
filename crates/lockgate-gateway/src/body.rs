//! Bodies: held in memory where they are small, so that a request can be sent again, and streaming where they are large.

use crate::passing::{Passing, Watch};
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
    /// Whoever it is for takes it more slowly than allowed.
    #[error("the body was not taken in time")]
    Untaken,
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
    source: Source,
    /// What follows the last piece.
    trailers: Option<HeaderMap>,
    /// Where the sender of a request body learns why it broke.
    broken: Option<Rc<Cell<Option<Broken>>>>,
}

/// Where the rest of a body comes from.
#[derive(Debug)]
enum Source {
    /// Nothing more comes.
    Nothing,
    /// A connection.
    Rest(Rest),
    /// Pieces that others send in, until one of them is the end.
    Feed(mpsc::Receiver<Fed>),
    /// An answer that is looked at, and has its time.
    Passing(Passing),
}

/// What is sent into a body.
#[derive(Debug)]
pub(crate) enum Fed {
    /// Some bytes.
    Piece(Bytes),
    /// The end, with its trailers.
    End(HeaderMap),
}

/// What is still to come over a connection.
#[derive(Debug)]
pub(crate) struct Rest {
    body: Incoming,
    /// How many bytes it may still have.
    left: usize,
}

impl Rest {
    /// The next piece.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            return Poll::Ready(match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => None,
                Some(Err(_)) => Some(Err(Broken::Peer)),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let left = self.left.checked_sub(data.len());
                    self.left = left.unwrap_or_default();
                    Some(left.map(|_| data).ok_or(Broken::TooLarge))
                }
            });
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Stream {
    fn new(pieces: VecDeque<Bytes>, source: Source) -> Self {
        Self { pieces, source, trailers: None, broken: None }
    }

    /// A body that is whole.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let pieces = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([bytes]) };
        Self::new(pieces, Source::Nothing)
    }

    /// A body of which only the beginning is here. Its rest may have `left` bytes.
    pub(crate) fn going_on(pieces: VecDeque<Bytes>, rest: Incoming, left: usize) -> Self {
        Self::new(pieces, Source::Rest(Rest { body: rest, left }))
    }

    /// A body whose pieces are sent in one after the other.
    pub(crate) fn fed(feed: mpsc::Receiver<Fed>) -> Self {
        Self::new(VecDeque::new(), Source::Feed(feed))
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
    pub(crate) fn passing(self, watch: Box<dyn Watch>, until: Instant) -> Self {
        let Self { pieces, source, trailers, broken } = self;
        let rest = match source {
            Source::Rest(rest) => Some(rest),
            // Nothing else is an answer that is on its way.
            source @ (Source::Nothing | Source::Feed(_) | Source::Passing(_)) => {
                return Self { pieces, source, trailers, broken };
            }
        };
        let source = Source::Passing(Passing::new(pieces, rest, watch, until));
        Self { pieces: VecDeque::new(), source, trailers, broken }
    }

    fn fail(&mut self, why: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(told) = &self.broken {
            told.set(Some(why));
        }
        match std::mem::replace(&mut self.source, Source::Nothing) {
            Source::Rest(rest) if why == Broken::TooLarge => discard(rest.body),
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
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let next = match &mut this.source {
            Source::Nothing => None,
            Source::Rest(rest) => std::task::ready!(rest.poll(cx)),
            Source::Passing(passing) => std::task::ready!(passing.poll(cx)),
            Source::Feed(feed) => match std::task::ready!(feed.poll_recv(cx)) {
                Some(Fed::Piece(piece)) => Some(Ok(piece)),
                Some(Fed::End(trailers)) => {
                    this.trailers = Some(trailers);
                    None
                }
                // Whoever sends has stopped without an end.
                None => Some(Err(Broken::Peer)),
            },
        };
        match next {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err(why)) => this.fail(why),
            None => {
                this.source = Source::Nothing;
                Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let over = match &self.source {
            Source::Nothing => true,
            Source::Rest(rest) => rest.body.is_end_stream(),
            Source::Feed(_) | Source::Passing(_) => false,
        };
        over && self.trailers.is_none() && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let here: u64 = self.pieces.iter().map(|p| p.len() as u64).sum();
        let rest = match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Rest(rest) => rest.size_hint(),
            Source::Passing(passing) => passing.size_hint(),
            Source::Feed(_) => return SizeHint::new(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(here + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(here + upper);
        }
        hint
    }
}
