//! One request to one worker and its answer; watched to its end where whoever asked has gone.
//!
//! A client may wait for a shorter time than the environment gives its workers (`grpc-timeout`, or a client that hangs up). Then its
//! request ends early, and nothing would ever be known of a worker that hangs: each request would be given up before the worker's
//! own time is over. So a few of such requests go on without their clients, for that time at most.

use crate::attempt::Answer;
use crate::body::{self, Read, Stream};
use crate::examine::{self, Look, Unexamined};
use crate::log::Protocol;
use crate::options::GatewayOptions;
use crate::pool::{Unanswered, Upstream};
use crate::table::Side;
use hyper::Request;
use hyper::body::Incoming;
use hyper::http::response::Parts;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::task::spawn_local;

/// What comes of a request.
type Answered = Result<Exchanged, Unanswered>;

/// A worker's answer.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) parts: Parts,
    pub(crate) body: Answer,
    /// Why it could not be looked at, where it had to be.
    pub(crate) unexamined: Option<Unexamined>,
}

/// One request and its answer, read as far as it is held in memory; of a stream of events, its beginning.
pub(crate) fn exchange(
    options: &Arc<GatewayOptions>,
    upstream: &Rc<Upstream>,
    request: Request<Stream>,
    side: &Side,
    protocol: Protocol,
) -> impl Future<Output = Answered> + use<> {
    let (options, upstream) = (Arc::clone(options), Rc::clone(upstream));
    // A worker of ours says of its answer what there is to say.
    let is_brought = side.server.is_some();
    async move {
        let (response, connection) = upstream.send(request, options.connect_timeout).await?;
        let (mut parts, mut body): (Parts, Incoming) = response.into_parts();
        let success = parts.status.is_success();
        let (mut look, mut unexamined) = (Look::Nothing, None);
        if is_brought {
            examine::disbelieve(&mut parts.headers);
            (look, unexamined) = Look::ahead(&parts.headers, protocol, success);
        }
        if examine::is_events(&parts.headers) && success {
            let pieces = body::first(&mut body).await.map_err(|_| Unanswered::Broke)?;
            let body = Answer::Events(Stream::going_on(pieces, body, usize::MAX), look);
            return Ok(Exchanged { parts, body, unexamined });
        }
        match body::read(&mut body, options.replay_limit).await {
            Ok(Read::Whole(bytes)) => {
                upstream.give_back(connection);
                let unexamined = is_brought.then(|| examine::note(&mut parts, &bytes, protocol));
                Ok(Exchanged { parts, body: Answer::Whole(bytes), unexamined: unexamined.flatten() })
            }
            // Nobody else's business how large an answer is; the connection ends with it.
            Ok(Read::Start(pieces)) => {
                let body = Answer::Streaming(Stream::going_on(pieces, body, usize::MAX), look);
                Ok(Exchanged { parts, body, unexamined })
            }
            Err(_) => Err(Unanswered::Broke),
        }
    }
}

/// A request of live traffic. Where it is dropped before its end, it goes on by itself until the worker's time is over.
pub(crate) struct Live {
    upstream: Rc<Upstream>,
    until: Instant,
    /// None once it has ended, or if nothing is to be learned from it.
    work: Option<Pin<Box<dyn Future<Output = Answered>>>>,
    /// Whether only the worker can be to blame for the time that it takes.
    telling: bool,
}

impl Live {
    pub(crate) fn new(
        upstream: &Rc<Upstream>,
        work: impl Future<Output = Answered> + 'static,
        timeout: Duration,
        telling: bool,
    ) -> Self {
        let until = Instant::now() + timeout;
        Self { upstream: Rc::clone(upstream), until, work: Some(Box::pin(work)), telling }
    }

    /// Its time is over: there is nothing more to learn.
    pub(crate) fn end(&mut self) {
        self.work = None;
    }
}

impl Future for Live {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Unanswered::Broke)) };
        let polled = work.as_mut().poll(context);
        if let Poll::Ready(answered) = &polled {
            if answered.is_ok() {
                self.upstream.answered();
            }
            self.work = None;
        }
        polled
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Some(work) = self.work.take().filter(|_| self.telling) else { return };
        if !self.upstream.watch() {
            return;
        }
        let (upstream, until) = (Rc::clone(&self.upstream), self.until);
        spawn_local(async move {
            match tokio::time::timeout_at(until.into(), work).await {
                Err(_) => upstream.timed_out(Instant::now()),
                Ok(Ok(_)) => upstream.answered(),
                // It broke off: the next request finds out by itself.
                Ok(Err(_)) => {}
            }
            upstream.watched();
        });
    }
}
