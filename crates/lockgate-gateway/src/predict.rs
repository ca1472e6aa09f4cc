//! One prediction: from assignment to answer, count and record.

use crate::answer::{self, Reply, header};
use crate::assign;
use crate::attempt::{self, Answer, Answered, End, Outbound, Outcome, Payload};
use crate::body::{Broken, Stream};
use crate::examine::{self, Look, Unexamined};
use crate::intake::{self, Refused, Taken};
use crate::log::{BodyForm, DrawnFor, LogRecord, Protocol};
use crate::meter::{ErrorClass, SideMeter, Work, micros};
use crate::reactor::Reactor;
use crate::rollout;
use crate::shadow::{self, Primary};
use crate::table::{Route, Side, SplitRoute};
use crate::tally::{Begun, Tally};
use crate::testers::{self, Forced};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use lockgate_core::clock::Millis;
use lockgate_core::route::{Role, WHOLE};
use lockgate_wire::oip::BINARY_HEADER;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) model: String,
    /// The model version that the path names, where it does: such a request is no part of a rollout's draw.
    pub(crate) version: Option<u64>,
    pub(crate) path: PathAndQuery,
    pub(crate) protocol: Protocol,
}

/// Which side a request belongs to.
struct Assignment {
    side: Arc<Side>,
    /// Its part in the rollout's statistics: only where it was drawn.
    drawn: Option<Role>,
    unit: u64,
    named: bool,
    /// Whether it is the unit's first request in its arm.
    first: bool,
    /// Who said that this side is to answer. Then nobody draws, counts or mirrors it.
    forced: Option<String>,
}

impl Assignment {
    /// One without a part in a rollout's draw.
    fn fixed(side: &Arc<Side>, reactor: &Reactor, forced: Option<String>) -> Self {
        let unit = reactor.random.next();
        Self { side: Arc::clone(side), drawn: None, unit, named: false, first: false, forced }
    }

    /// Where it is counted.
    fn meter(&self) -> &Arc<SideMeter> {
        if self.forced.is_some() { &self.side.forced } else { &self.side.meter }
    }
}

/// Answers one prediction.
pub(crate) async fn predict(reactor: &Rc<Reactor>, target: Target, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    match read(reactor, body).await {
        Ok(payload) => forward(reactor, target, parts.method, &parts.headers, payload).await,
        Err(refused) => answer::failed(refused.0, &refused.1, target.protocol),
    }
}

/// Answers one prediction whose body is here, or comes in.
pub(crate) async fn forward(
    reactor: &Rc<Reactor>,
    target: Target,
    method: Method,
    from: &HeaderMap,
    payload: Payload,
) -> Reply {
    let protocol = target.protocol;
    // Only now: the table may have changed while the body came in.
    let Some(route) = reactor.route(&target.model) else { return unknown_model(reactor, &target) };
    let unit = route.unit.as_ref().and_then(|name| from.get(name)).map(HeaderValue::as_bytes);
    let forced = match testers::asked(reactor, &route, from, target.version) {
        Ok(forced) => forced,
        Err((status, message)) => return answer::failed(status, &message, protocol),
    };
    let assignment = match (forced, target.version) {
        (Some(Forced { side, by }), _) => Assignment::fixed(&side, reactor, Some(by)),
        (None, Some(version)) => match pinned(&route, version, reactor) {
            Some(assignment) => assignment,
            None => return unknown_version(&route, version, protocol),
        },
        (None, None) => match assign(&route, unit, reactor) {
            Some(assignment) => assignment,
            None => {
                let message = format!("model `{}` has nothing to serve with yet", target.model);
                return answer::failed(StatusCode::SERVICE_UNAVAILABLE, &message, protocol);
            }
        },
    };
    let (role, revision) = (assignment.side.role, assignment.side.revision);
    let is_forced = assignment.forced.is_some();
    let of = shadow::Unit { hash: assignment.unit, named: assignment.named };
    let mut pending = Pending::start(reactor, &route, assignment, protocol);
    pending.keep(unit, from, &payload);
    let headers = attempt::forwarded(from);
    let out = Outbound { method, path: target.path, headers, payload, protocol };
    let outcome = if is_forced {
        attempt::send_only(reactor, &target.model, &revision, &out).await
    } else {
        attempt::send(reactor, &target.model, role, &out).await
    };
    let (reply, primary) = pending.finish(outcome);
    // A request that names a version or a side is nobody's but its sender's.
    if target.version.is_none() && !is_forced {
        shadow::mirror(reactor, &target.model, of, out, primary);
    }
    reply
}

/// Reads the body as far as it is held in memory.
async fn read(reactor: &Reactor, body: Incoming) -> Result<Payload, Refused> {
    let limits = (reactor.options.replay_limit, reactor.options.max_body);
    Ok(match intake::take(reactor, body, limits, intake::larger_than).await? {
        Taken::Whole(bytes) => Payload::Whole(bytes),
        Taken::Start(pieces, body) => {
            let here: usize = pieces.iter().map(Bytes::len).sum();
            Payload::once(Stream::going_on(pieces, body, limits.1.saturating_sub(here)))
        }
    })
}

fn assign(route: &Route, unit: Option<&[u8]>, reactor: &Reactor) -> Option<Assignment> {
    let named = unit.is_some_and(|u| !u.is_empty());
    let drawn_number = reactor.random.next();
    let hash = unit.filter(|_| named).map_or(drawn_number, assign::unit_hash);
    let split = route.split.as_ref().filter(|s| !s.meter.breaker.is_open());
    let arm = split.map(|s| {
        let place = match unit.filter(|_| named) {
            Some(unit) => assign::bucket(s.salt.as_bytes(), unit),
            None => (drawn_number % u64::from(WHOLE)) as u32,
        };
        if place < s.weight { Role::Candidate } else { Role::Baseline }
    });
    let side = route.side(arm.unwrap_or(Role::Baseline)).or(route.backup.as_ref());
    // A candidate alone serves all, and a breaker can't send its share anywhere else.
    let side = side.or_else(|| route.side(Role::Candidate))?;
    let drawn = arm.filter(|_| split.is_some_and(|s| s.counted));
    Some(Assignment { side: Arc::clone(side), drawn, unit: hash, named, first: false, forced: None })
}

/// The side that runs this version of the model, for a request that names it. A candidate that has no traffic gets none
/// in this way either.
fn pinned(route: &Route, version: u64, reactor: &Reactor) -> Option<Assignment> {
    let side = route.open_to_users().find(|s| s.model_version == version)?;
    Some(Assignment::fixed(side, reactor, None))
}

fn unknown_model(reactor: &Reactor, target: &Target) -> Reply {
    let known = reactor.model_names().join("`, `");
    let model = lockgate_wire::tensor::shown(&target.model);
    let message = if known.is_empty() {
        format!(
            "there is no model `{model}`: nothing is deployed in environment `{}` yet",
            reactor.options.environment
        )
    } else {
        format!(
            "there is no model `{model}` in environment `{}`; it serves `{known}`",
            reactor.options.environment
        )
    };
    answer::failed(StatusCode::NOT_FOUND, &message, target.protocol)
}

fn unknown_version(route: &Route, version: u64, protocol: Protocol) -> Reply {
    let known: Vec<String> = route.open_to_users().map(|s| s.model_version.to_string()).collect();
    let message = format!(
        "model `{}` has no version {version} here; this environment serves {}",
        route.model,
        known.join(", ")
    );
    answer::failed(StatusCode::NOT_FOUND, &message, protocol)
}

/// What there is to note of a worker's answer.
#[derive(Default)]
pub(crate) struct Given {
    served: Option<Arc<Side>>,
    pub(crate) body: Option<Bytes>,
    form: BodyForm,
    hash: Option<u64>,
    unexamined: Option<Unexamined>,
    work: Work,
}

/// A prediction that is being worked on. However it ends, it is counted once: where the client goes away, the request is
/// dropped with it and counts as abandoned.
pub(crate) struct Pending {
    reactor: Rc<Reactor>,
    route: Arc<Route>,
    assignment: Assignment,
    protocol: Protocol,
    id: String,
    at_ms: Millis,
    started: Instant,
    unit_text: Option<String>,
    request_id: Option<HeaderValue>,
    request: Option<Bytes>,
    form: BodyForm,
    finished: bool,
}

impl Pending {
    fn start(reactor: &Rc<Reactor>, route: &Arc<Route>, assignment: Assignment, protocol: Protocol) -> Self {
        let started = Instant::now();
        let at_ms = reactor.clock.now_ms();
        if assignment.forced.is_none() {
            reactor.budget.request();
        }
        assignment.meter().inflight.fetch_add(1, Ordering::Relaxed);
        let mut pending = Self {
            id: reactor.random.ulid(at_ms),
            reactor: Rc::clone(reactor),
            route: Arc::clone(route),
            assignment,
            protocol,
            at_ms,
            started,
            unit_text: None,
            request_id: None,
            request: None,
            form: BodyForm::default(),
            finished: false,
        };
        if let Some((arm, split)) = pending.split() {
            let Assignment { unit, named, .. } = pending.assignment;
            let first = split.meter.start((arm, split.cell(arm)), unit, named, pending.started_us());
            pending.assignment.first = first;
        }
        pending
    }

    /// Keeps what the record will need.
    fn keep(&mut self, unit: Option<&[u8]>, headers: &HeaderMap, payload: &Payload) {
        self.request_id = headers.get(header::REQUEST_ID).cloned();
        if self.reactor.log.is_on() {
            self.unit_text = unit.map(|u| String::from_utf8_lossy(u).into_owned());
            self.form = BodyForm::of(headers);
            let limit = self.reactor.options.log_body_limit;
            // A copy: the bytes are part of a connection's read buffer, which a record would keep from being used again.
            self.request = payload.bytes().filter(|b| b.len() <= limit).map(|b| Bytes::copy_from_slice(b));
        }
    }

    fn started_us(&self) -> u64 {
        self.reactor.counters.meters.micros(self.started)
    }

    fn split(&self) -> Option<(Role, &SplitRoute)> {
        self.assignment.drawn.zip(self.route.split.as_ref())
    }

    fn finish(mut self, outcome: Outcome) -> (Reply, Primary) {
        let Outcome { end, error } = outcome;
        let failed = |status: StatusCode, message: &str| answer::failed(status, message, self.protocol);
        let mut given = Given::default();
        let mut passing = None;
        let mut reply = match end {
            End::Answered(mut answered) => {
                let sent = answered.sent.take();
                let (reply, look) = self.answer(*answered, &mut given);
                passing = look.map(|look| (look, sent));
                reply
            }
            End::TimedOut => {
                let message = format!("the model didn't answer within {} ms", self.route.timeout.as_millis());
                failed(StatusCode::GATEWAY_TIMEOUT, &message)
            }
            End::Unreachable => {
                let message = format!("no worker of model `{}` can be reached", self.route.model);
                failed(StatusCode::SERVICE_UNAVAILABLE, &message)
            }
            End::Client(Broken::TooLarge) => {
                failed(StatusCode::PAYLOAD_TOO_LARGE, &Broken::TooLarge.to_string())
            }
            End::Client(broken) => failed(StatusCode::BAD_REQUEST, &broken.to_string()),
        };
        let headers = reply.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(HeaderName::from_static(header::PREDICTION), id);
        }
        if let Some(id) = self.request_id.clone() {
            headers.insert(HeaderName::from_static(header::REQUEST_ID), id);
        }
        let status = reply.status().as_u16();
        let outcome = rollout::Outcome {
            latency_us: micros(self.started.elapsed()),
            error,
            client_error: (400..500).contains(&status) && error.is_none(),
            abandoned: false,
            answer: given.hash,
            unexamined: given.unexamined.is_some(),
        };
        let own =
            given.served.as_ref().is_some_and(|s| s.role == Role::Baseline) && reply.status().is_success();
        let comparable = own && error.is_none() && given.unexamined.is_none();
        let kept = given.body.clone().filter(|_| comparable);
        let form = BodyForm::of(reply.headers());
        let protocol = self.protocol;
        let streamed = passing.is_some();
        let primary =
            Primary { outcome, started_us: self.started_us(), body: kept, form, protocol, streamed };
        let Some((look, sent)) = passing else {
            self.count(status, given, &outcome);
            return (reply, primary);
        };
        // It is counted and recorded when it ends.
        let until = Instant::now() + self.may_take(&given);
        let keep = if examine::is_events(reply.headers()) { self.kept_bytes() } else { 0 };
        let length = reply.body().size_hint().exact();
        let begun = Begun { status, latency_us: outcome.latency_us, error, length, keep };
        let tally = Tally::new(self, given, begun, look, sent);
        (reply.map(|body| body.passing(Box::new(tally), until)), primary)
    }

    /// How long an answer may take that is passed on as it comes: a server's own limit for streams, or as long as a worker of
    /// ours and a client's connection may take.
    fn may_take(&self, given: &Given) -> Duration {
        let server = given.served.as_ref().and_then(|side| side.server.as_ref());
        let usual = self.route.timeout + self.reactor.options.body_timeout;
        server.map_or(usual, |server| Duration::from_millis(server.stream_ms))
    }

    /// Counts an answer that was streamed.
    pub(crate) fn conclude(
        mut self,
        given: Given,
        status: u16,
        latency_us: u64,
        error: Option<ErrorClass>,
        abandoned: bool,
    ) {
        let outcome = rollout::Outcome {
            latency_us,
            error,
            client_error: (400..500).contains(&status) && error.is_none(),
            abandoned,
            answer: given.hash.filter(|_| error.is_none() && !abandoned),
            unexamined: given.unexamined.is_some(),
        };
        self.count(status, given, &outcome);
    }

    /// How much of an answer is kept for the record.
    fn kept_bytes(&self) -> usize {
        if self.reactor.log.is_on() { self.reactor.options.log_body_limit } else { 0 }
    }

    /// The worker's answer as the client gets it, and how it is looked at where it is still on its way; what there is to note of
    /// it goes into `given`.
    fn answer(&self, answered: Answered, given: &mut Given) -> (Reply, Option<Look>) {
        // The hash speaks for the assigned side only where that side answered.
        let is_own = answered.side.role == self.assignment.side.role;
        given.hash = shadow::answer_hash(&answered).filter(|_| is_own);
        given.unexamined = answered.unexamined.filter(|_| is_own);
        let Answered { parts, body, side, .. } = answered;
        let (stream, look) = match body {
            Answer::Whole(bytes) => {
                given.body = Some(bytes.clone());
                (Stream::whole(bytes), None)
            }
            Answer::Streaming(stream, look) | Answer::Events(stream, look) => (stream, Some(look)),
        };
        let mut reply = Reply::new(stream);
        *reply.status_mut() = parts.status;
        let headers = reply.headers_mut();
        for name in [
            CONTENT_TYPE,
            CONTENT_ENCODING,
            CACHE_CONTROL,
            VARY,
            RETRY_AFTER,
            HeaderName::from_static(BINARY_HEADER),
        ] {
            if let Some(value) = parts.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(HeaderName::from_static(header::RELEASE), side.release_header.clone());
        headers.insert(HeaderName::from_static(header::VERSION), side.version_header.clone());
        let variant = HeaderValue::from_static(side.role.as_str());
        headers.insert(HeaderName::from_static(header::VARIANT), variant);
        let number = |name| {
            let text = parts.headers.get(name).and_then(|v| v.to_str().ok());
            text.and_then(|t| t.parse().ok()).unwrap_or(0)
        };
        given.work = Work { rows: number(header::ROWS), model_us: number(header::INFER_US) };
        if self.reactor.log.is_on() {
            given.form = BodyForm::of(&parts.headers);
        }
        given.served = Some(side);
        (reply, look)
    }

    fn count(&mut self, status: u16, given: Given, outcome: &rollout::Outcome) {
        self.finished = true;
        let assigned = &self.assignment.side;
        let meter = self.assignment.meter();
        meter.inflight.fetch_sub(1, Ordering::Relaxed);
        if let Some(class) = outcome.error {
            meter.errors.add(class);
        }
        if let Some(why) = given.unexamined {
            meter.unexamined.add(why);
        }
        if given.served.as_ref().is_some_and(|s| s.role != assigned.role) {
            meter.failovers.fetch_add(1, Ordering::Relaxed);
        }
        meter.finish(status, outcome.latency_us);
        if (200..300).contains(&status) {
            meter.work.add(given.work, outcome.latency_us, self.at_ms);
        }
        self.judge(outcome);
        self.record(status, given, outcome.latency_us);
    }

    fn judge(&self, outcome: &rollout::Outcome) {
        let Some((arm, split)) = self.split() else { return };
        let Assignment { unit, named, first, .. } = self.assignment;
        let drawn = rollout::Drawn { unit, named, first };
        let opened = split.meter.record((arm, split.cell(arm)), drawn, self.started_us(), *outcome);
        if let Some((bad, units)) = opened {
            let (model, salt) = (&self.route.model, &split.salt);
            tracing::warn!(%model, promotion = %salt, bad, units, "the breaker takes the candidate's traffic away");
        }
    }

    fn record(&mut self, status: u16, given: Given, latency_us: u64) {
        if !self.reactor.log.is_on() {
            return;
        }
        let limit = self.reactor.options.log_body_limit;
        let Given { served, body, form, unexamined, .. } = given;
        let forced = self.assignment.forced.take();
        let side = served.as_ref().unwrap_or(&self.assignment.side);
        let request_id = self.request_id.as_ref().and_then(|v| v.to_str().ok());
        let drawn = self.split().map(|(arm, split)| DrawnFor {
            salt: Arc::clone(&split.salt),
            weight: split.weight,
            arm,
            unit: self.assignment.unit,
        });
        self.reactor.log.put(LogRecord {
            id: std::mem::take(&mut self.id),
            at_ms: self.at_ms,
            model: Arc::clone(&self.route.model),
            release: side.release,
            revision: side.revision,
            assigned: self.assignment.side.role,
            served: served.as_ref().map(|s| s.role),
            forced,
            unit: self.unit_text.take(),
            status,
            latency_us,
            protocol: self.protocol,
            request: self.request.take(),
            request_form: self.form,
            response: body.filter(|b| b.len() <= limit).map(|b| Bytes::copy_from_slice(&b)),
            response_form: form,
            request_id: request_id.map(str::to_owned),
            unexamined,
            drawn,
        });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.finished {
            let latency_us = micros(self.started.elapsed());
            let outcome = rollout::Outcome { latency_us, abandoned: true, ..rollout::Outcome::default() };
            self.count(499, Given::default(), &outcome);
        }
    }
}
