//! Sending a request to a side's workers, and to the next side's where they can't answer.
//!
//! Inference changes nothing, so a request whose body is in memory may be sent again: freely where it never reached a
//! worker, within the [`budget`](crate::budget) where it may have.

use crate::answer::header;
use crate::body::{Broken, Stream};
use crate::examine::{Look, Unexamined};
use crate::exchange::{Exchanged, Live, exchange};
use crate::inline::{Inside, Lane};
use crate::log::Protocol;
use crate::meter::{ErrorClass, Sent};
use crate::pool::{Unanswered, Upstream};
use crate::reactor::Reactor;
use crate::server;
use crate::table::{Route, Side};
use bytes::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, VIA,
};
use hyper::http::response::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri};
use lockgate_core::digest::Digest;
use lockgate_core::route::{Role, WorkerAddress};
use lockgate_wire::oip::BINARY_HEADER;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often a request that waits for a worker looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A request on its way to a worker.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) protocol: Protocol,
}

/// Its body.
#[derive(Debug)]
pub(crate) enum Payload {
    /// In memory: it can be sent again.
    Whole(Bytes),
    /// Streaming: it can be sent once. Says there why it broke.
    Once(RefCell<Option<Stream>>, Rc<Cell<Option<Broken>>>),
}

impl Payload {
    pub(crate) fn once(stream: Stream) -> Self {
        let (stream, told) = stream.watched();
        Self::Once(RefCell::new(Some(stream)), told)
    }

    /// The body's bytes, where they are in memory.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Once(..) => None,
        }
    }

    fn take(&self) -> Option<Stream> {
        match self {
            Self::Whole(bytes) => Some(Stream::whole(bytes.clone())),
            Self::Once(stream, _) => stream.borrow_mut().take(),
        }
    }

    fn put_back(&self, body: Stream) {
        if let Self::Once(stream, _) = self {
            *stream.borrow_mut() = Some(body);
        }
    }

    fn broken(&self) -> Option<Broken> {
        match self {
            Self::Whole(_) => None,
            Self::Once(_, told) => told.get(),
        }
    }
}

impl Outbound {
    /// The request as a side's worker gets it.
    pub(crate) fn request(
        &self,
        reactor: &Reactor,
        side: &Side,
        upstream: &Upstream,
    ) -> Option<Request<Stream>> {
        let server = side.server.as_ref();
        let body = match (server, self.payload.bytes()) {
            (Some(server), Some(bytes)) => {
                Stream::whole(server::body(server, self.protocol, bytes).into_owned())
            }
            _ => self.payload.take()?,
        };
        let path = server.map_or_else(|| self.path.clone(), |server| server::path(server, self));
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(path);
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, upstream.host());
        if server.is_some() {
            server::accept(headers, self.protocol);
            reactor.core.name.sign(headers);
        }
        Some(request)
    }
}

/// Headers that a worker has use for.
pub(crate) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let others =
        [BINARY_HEADER, header::REQUEST_ID, "traceparent", "tracestate"].map(HeaderName::from_static);
    let names = [CONTENT_TYPE, CONTENT_ENCODING, ACCEPT, ACCEPT_ENCODING].into_iter().chain(others);
    let mut kept: HeaderMap =
        names.filter_map(|name| headers.get(&name).map(|value| (name, value.clone()))).collect();
    for passed in headers.get_all(VIA) {
        kept.append(VIA, passed.clone());
    }
    kept
}

/// A worker's answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) parts: Parts,
    pub(crate) body: Answer,
    /// Why it could not be looked at, where it had to be.
    pub(crate) unexamined: Option<Unexamined>,
    pub(crate) side: Arc<Side>,
    /// Says that the worker is at it still, where its answer is.
    pub(crate) sent: Option<Sent>,
}

impl Answered {
    pub(crate) fn new(exchanged: Exchanged, side: &Arc<Side>, sent: Sent) -> Self {
        let Exchanged { parts, body, unexamined } = exchanged;
        let sent = (!matches!(body, Answer::Whole(_))).then_some(sent);
        Self { parts, body, unexamined, side: Arc::clone(side), sent }
    }
}

/// Its body.
#[derive(Debug)]
pub(crate) enum Answer {
    Whole(Bytes),
    /// Too large to be held: the rest comes while it is passed on.
    Streaming(Stream, Look),
    /// Server-sent events, from the first one on: the rest comes as it is made.
    Events(Stream, Look),
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum End {
    /// A worker answered.
    Answered(Box<Answered>),
    /// None did in time.
    TimedOut,
    /// None could be reached, or the connection broke too often.
    Unreachable,
    /// The request itself broke.
    Client(Broken),
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// How the side that it was assigned to failed, whether or not another one made it good.
    pub(crate) error: Option<ErrorClass>,
}

/// What came of one attempt.
pub(crate) enum Attempt {
    Answered(Box<Answered>),
    Unreachable,
    Broke,
    TimedOut,
    Client(Broken),
}

/// What follows from an attempt.
enum Next {
    /// The request is at its end.
    Done(Outcome),
    /// On to the next worker; and with what this one failed.
    Try(ErrorClass),
}

/// Sends a request to the side with the role `assigned`, and to others where it fails.
pub(crate) async fn send(reactor: &Reactor, model: &str, assigned: Role, out: &Outbound) -> Outcome {
    let give_up = Instant::now() + reactor.options.hold;
    let mut own_error = None;
    let (mut tries, mut within) = (0_u64, Within::default());
    'table: loop {
        // The table of this moment: a side that was taken off it while the request waited gets no request any more.
        let Some(route) = reactor.route(model) else {
            return Outcome { end: End::Unreachable, error: own_error };
        };
        if tries == 0 {
            match within.ask(reactor, &route, assigned, out).await {
                Some(outcome) => return outcome,
                None => tries += u64::from(within.failed.is_some()),
            }
        }
        let list = targets(reactor, &route, assigned);
        let mut broke = false;
        for (i, (side, upstream)) in list.iter().enumerate() {
            if i > 0 && !reactor.is_current(&route) {
                // Another table came while a worker was asked: what it took off gets no request any more.
                continue 'table;
            }
            if tries > 0 {
                side.meter.retries.fetch_add(1, Ordering::Relaxed);
            }
            tries += 1;
            let attempt = attempt(reactor, upstream, side, out, route.timeout).await;
            broke |= matches!(attempt, Attempt::Broke);
            let at = At { assigned, side, next: list.get(i + 1).map(|(side, _)| &**side), own_error };
            match at.conclude(reactor, &route, out, attempt) {
                Next::Done(outcome) => {
                    within.compare(&outcome);
                    return outcome;
                }
                Next::Try(class) if side.role == assigned => own_error = Some(class),
                Next::Try(_) => {}
            }
        }
        let now = Instant::now();
        if now >= give_up {
            return Outcome { end: End::Unreachable, error: own_error.or(Some(ErrorClass::Connect)) };
        }
        // A worker that broke off may be there again at once; one that can't be reached needs a moment.
        if !broke {
            tokio::time::sleep(LOOK_AGAIN.min(give_up - now)).await;
        }
    }
}

/// The way of a request inside the gateway, before it is sent to a worker.
#[derive(Default)]
struct Within {
    /// The lane in which the model failed, and how.
    failed: Option<(Arc<Lane>, String)>,
}

impl Within {
    /// Asks the side's lane, where it has one for this request. None where a worker is to be asked.
    async fn ask(
        &mut self,
        reactor: &Reactor,
        route: &Route,
        assigned: Role,
        out: &Outbound,
    ) -> Option<Outcome> {
        let (side, lane) = route.lane(assigned)?;
        let attempt = match lane.ask(reactor, side, lane.takes(out)?, route.timeout).await {
            Inside::Passed => return None,
            Inside::Failed(_, why) if reactor.budget.retry(Instant::now()) => {
                self.failed = Some((Arc::clone(lane), why));
                return None;
            }
            Inside::Ended(attempt) | Inside::Failed(attempt, _) => attempt,
        };
        match (At { assigned, side, next: None, own_error: None }).conclude(reactor, route, out, attempt) {
            Next::Done(outcome) => Some(outcome),
            Next::Try(_) => None,
        }
    }

    /// Leaves a lane in which the model failed where a worker answered: what fails everywhere is the request's fault.
    fn compare(&self, outcome: &Outcome) {
        let Some((lane, why)) = &self.failed else { return };
        if outcome.error.is_none() && matches!(outcome.end, End::Answered(_)) {
            lane.demote(why.clone());
        }
    }
}

/// Where a request is when an attempt ends.
struct At<'a> {
    assigned: Role,
    side: &'a Side,
    /// Whose worker would be next.
    next: Option<&'a Side>,
    /// How the assigned side failed so far.
    own_error: Option<ErrorClass>,
}

impl At<'_> {
    /// Whether the request is at its end. What counts against the assigned side is how it ended for that side: what it
    /// failed first doesn't where it made it good itself, and does where another side did.
    fn conclude(&self, reactor: &Reactor, route: &Route, out: &Outbound, attempt: Attempt) -> Next {
        let own = self.side.role == self.assigned;
        let ended =
            |end, class| Next::Done(Outcome { end, error: if own { Some(class) } else { self.own_error } });
        let may_again = || out.payload.bytes().is_some() && reactor.budget.retry(Instant::now());
        match attempt {
            Attempt::Unreachable => Next::Try(ErrorClass::Connect),
            Attempt::Client(broken) => Next::Done(Outcome { end: End::Client(broken), error: None }),
            Attempt::TimedOut => ended(End::TimedOut, ErrorClass::Timeout),
            Attempt::Broke if may_again() => Next::Try(ErrorClass::Connect),
            Attempt::Broke => ended(End::Unreachable, ErrorClass::Connect),
            Attempt::Answered(answer) => {
                let class = failure(&answer);
                if let Some(class) =
                    class.filter(|_| self.helps_elsewhere(answer.parts.status) && may_again())
                {
                    return Next::Try(class);
                }
                let made_good = self.own_error.or(Some(ErrorClass::Connect));
                // A side that is off the table by now was not asked, and is not to blame.
                let made_good = made_good.filter(|_| route.side(self.assigned).is_some());
                Next::Done(Outcome { end: End::Answered(answer), error: if own { class } else { made_good } })
            }
        }
    }

    /// Whether another worker may answer better. A full queue is no reason to load another side.
    fn helps_elsewhere(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::TOO_MANY_REQUESTS => self.next.is_some_and(|next| next.role == self.side.role),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => self.next.is_some(),
            _ => false,
        }
    }
}

/// Sends a tester's request to the side that runs `revision`, and nowhere else. What live traffic knows of its workers stays
/// as it is, and so does the budget for retries.
pub(crate) async fn send_only(reactor: &Reactor, model: &str, revision: &Digest, out: &Outbound) -> Outcome {
    let mut tried: Vec<WorkerAddress> = Vec::new();
    let turn = reactor.turn();
    loop {
        // The table of this moment, as for everybody: the last try may have taken as long as a rollback.
        let route = reactor.route(model);
        let side = route.as_ref().and_then(|r| r.all_sides().find(|side| side.revision == *revision));
        let Some((route, side)) = route.as_ref().zip(side) else { break };
        if let Some(refused) = server::refusal(side, out.protocol) {
            return Outcome { error: failure(&refused), end: End::Answered(Box::new(refused)) };
        }
        let count = side.workers.len();
        let mut left = side.workers.iter().cycle().skip(turn % count.max(1)).take(count);
        let Some(worker) = left.find(|worker| !tried.contains(worker)) else { break };
        tried.push(worker.clone());
        if let Some(outcome) = ask_only(reactor, route, side, worker, out).await {
            return outcome;
        }
    }
    Outcome { end: End::Unreachable, error: Some(ErrorClass::Connect) }
}

/// Sends a tester's request to one worker. None where it never left.
async fn ask_only(
    reactor: &Reactor,
    route: &Route,
    side: &Arc<Side>,
    worker: &WorkerAddress,
    out: &Outbound,
) -> Option<Outcome> {
    let upstream = reactor.upstream(worker);
    let request = out.request(reactor, side, &upstream)?;
    let sent = reactor.counters.meters.send(&side.flow, Instant::now());
    let asked = exchange(&reactor.options, &upstream, request, side, out.protocol);
    let failed = match tokio::time::timeout(route.timeout, asked).await {
        Err(_) => Outcome { end: End::TimedOut, error: Some(ErrorClass::Timeout) },
        Ok(Ok(exchanged)) => {
            let answer = Answered::new(exchanged, side, sent);
            let error = failure(&answer);
            return Some(Outcome { end: End::Answered(Box::new(answer)), error });
        }
        Ok(Err(Unanswered::Unsent(request))) => {
            out.payload.put_back(request.into_body());
            return None;
        }
        Ok(Err(Unanswered::Broke)) => Outcome { end: End::Unreachable, error: Some(ErrorClass::Connect) },
    };
    Some(match out.payload.broken() {
        Some(broken) => Outcome { end: End::Client(broken), error: None },
        None => failed,
    })
}

/// The workers to try, in order: the assigned side's, the baseline's, the backup's, and the candidate's where nothing else is
/// there; within all of them those that answered lately before those that didn't.
fn targets(reactor: &Reactor, route: &Route, assigned: Role) -> Vec<(Arc<Side>, Rc<Upstream>)> {
    let now = Instant::now();
    let alone = route.baseline.is_none() && route.backup.is_none();
    let last = alone.then_some(Role::Candidate);
    let mut list: Vec<(Arc<Side>, Rc<Upstream>)> = Vec::with_capacity(4);
    let mut down = Vec::new();
    // One turn a request: one a side would leave a side's every second worker out where there are two.
    let turn = reactor.turn();
    for role in [Some(assigned), Some(Role::Baseline), Some(Role::Backup), last].into_iter().flatten() {
        let Some(side) = route.side(role) else { continue };
        let known = list.iter().chain(&down).any(|(s, _): &(Arc<Side>, _)| s.role == role);
        if known {
            continue;
        }
        let count = side.workers.len();
        for worker in side.workers.iter().cycle().skip(turn % count.max(1)).take(count) {
            let upstream = reactor.upstream(worker);
            let place = if upstream.is_down(now) { &mut down } else { &mut list };
            place.push((Arc::clone(side), upstream));
        }
    }
    list.append(&mut down);
    list
}

/// Whether an answer is its side's failure.
pub(crate) fn failure(answer: &Answered) -> Option<ErrorClass> {
    let status = answer.parts.status;
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Some(ErrorClass::Http5xx);
    }
    answer.parts.headers.contains_key(header::NONFINITE).then_some(ErrorClass::Nonfinite)
}

async fn attempt(
    reactor: &Reactor,
    upstream: &Rc<Upstream>,
    side: &Arc<Side>,
    out: &Outbound,
    timeout: Duration,
) -> Attempt {
    if let Some(refused) = server::refusal(side, out.protocol) {
        return Attempt::Answered(Box::new(refused));
    }
    let Some(request) = out.request(reactor, side, upstream) else { return Attempt::Broke };
    let now = Instant::now();
    upstream.tried(now, timeout);
    let sent = reactor.counters.meters.send(&side.flow, now);
    // Where the body still streams in, the client may be the slow one.
    let telling = out.payload.bytes().is_some();
    let asked = exchange(&reactor.options, upstream, request, side, out.protocol);
    let mut live = Live::new(upstream, asked, timeout, telling);
    match tokio::time::timeout(timeout, &mut live).await {
        Err(_) => {
            live.end();
            if telling {
                upstream.timed_out(Instant::now());
            }
            out.payload.broken().map_or(Attempt::TimedOut, Attempt::Client)
        }
        Ok(Ok(exchanged)) => Attempt::Answered(Box::new(Answered::new(exchanged, side, sent))),
        Ok(Err(Unanswered::Unsent(request))) => {
            upstream.evict(Instant::now() + reactor.options.evict);
            out.payload.put_back(request.into_body());
            Attempt::Unreachable
        }
        Ok(Err(Unanswered::Broke)) => out.payload.broken().map_or(Attempt::Broke, Attempt::Client),
    }
}
