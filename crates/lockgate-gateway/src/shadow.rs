//! Mirrored requests: what users asked is asked of a candidate as well, whose answers nobody gets.
//!
//! A request is mirrored once its user has been answered, from the body that is held in memory, in a task of its own. There
//! are few such tasks at a time; what finds none free is dropped, so shadow traffic is the first to go. It goes to the
//! candidate's workers alone, and reaches one of them at most once. Nothing of it touches what live traffic is counted,
//! retried or cut off by: a candidate that is only mirrored to is not among a route's sides.
//!
//! A request counts for both arms or for neither, once the candidate's answer is there. Of the requests that a baseline
//! answered well, one in [`SAMPLED`] is asked of the baseline again, which says how much of a difference is the model's own
//! noise. Mirrored answers are no rows of the prediction log: nobody acted on them.

use crate::answer::header;
use crate::attempt::{self, Answer, Answered, Outbound};
use crate::exchange::{Exchanged, exchange};
use crate::log::{BodyForm, Protocol};
use crate::meter::{ErrorClass, micros};
use crate::pool::Unanswered;
use crate::reactor::Reactor;
use crate::rollout::{Drawn, Outcome};
use crate::server;
use crate::shadow_meter::ShadowMeter;
use crate::table::{Route, ShadowRoute, Side};
use crate::units;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use lockgate_core::route::{Role, WHOLE};
use lockgate_wire::compare::{Difference, difference};
use lockgate_wire::json::Limits;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::spawn_local;

/// Tells a worker, and a model that has effects beyond its answer, that nobody will get this one.
pub(crate) const HEADER: &str = "x-lockgate-shadow";

/// One in so many mirrored requests is asked of the baseline again.
const SAMPLED: u64 = 4;

/// Answers up to this size are compared value by value; of larger ones only the hash.
const COMPARED: usize = 64 << 10;

/// How often a request that waits for a worker looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells the two arms of one unit apart: in a shadow a unit meets both, and what it met of one says nothing of the other.
const ARMS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) hash: u64,
    pub(crate) named: bool,
}

/// What the user got.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) outcome: Outcome,
    pub(crate) started_us: u64,
    /// The answer's bytes, where the baseline itself answered well and can be read.
    pub(crate) body: Option<Bytes>,
    /// How they are written.
    pub(crate) form: BodyForm,
    pub(crate) protocol: Protocol,
    /// Whether it is on its way still: such requests are not mirrored.
    pub(crate) streamed: bool,
}

/// One of the few places for mirrored requests.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(places: &Rc<Cell<usize>>, most: usize) -> Option<Self> {
        let taken = places.get();
        (taken < most).then(|| {
            places.set(taken + 1);
            Self(Rc::clone(places))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Mirrors a request whose user has been answered, where the route of this moment asks for it.
pub(crate) fn mirror(reactor: &Rc<Reactor>, model: &str, unit: Unit, out: Outbound, primary: Primary) {
    let Some(route) = reactor.route(model) else { return };
    let Some(shadow) = route.shadow.as_ref().filter(|s| s.counted && !s.meter.is_open()) else { return };
    if reactor.random.next() % u64::from(WHOLE) >= u64::from(shadow.share) {
        return;
    }
    if primary.streamed || out.payload.bytes().is_none_or(|bytes| bytes.len() > reactor.options.replay_limit)
    {
        shadow.meter.streaming();
        return;
    }
    let Some(place) = Place::take(&reactor.mirrors, reactor.options.shadow_inflight) else {
        shadow.meter.dropped();
        return;
    };
    let mirrored = Mirrored { reactor: Rc::clone(reactor), route: Arc::clone(&route), unit, out, primary };
    spawn_local(async move {
        // Whoever is waiting for an answer comes first.
        tokio::task::yield_now().await;
        mirrored.run().await;
        drop(place);
    });
}

/// What came of asking a side.
enum Asked {
    Answered(Box<Answered>),
    Failed(ErrorClass),
    /// It never left for a worker.
    Unreached,
    /// The candidate is not mirrored to any more.
    Over,
}

struct Mirrored {
    reactor: Rc<Reactor>,
    route: Arc<Route>,
    unit: Unit,
    out: Outbound,
    primary: Primary,
}

impl Mirrored {
    async fn run(mut self) {
        let route = Arc::clone(&self.route);
        let Some(shadow) = &route.shadow else { return };
        self.out.headers.insert(HeaderName::from_static(HEADER), HeaderValue::from_static("1"));
        // Nobody gets the answer, so nobody needs it packed.
        self.out.headers.remove(ACCEPT_ENCODING);
        let started = Instant::now();
        let asked = self.candidate(shadow, started).await;
        let (error, status) = match &asked {
            Asked::Answered(answer) => (attempt::failure(answer), answer.parts.status.as_u16()),
            Asked::Failed(class) => (Some(*class), 0),
            Asked::Unreached => (Some(ErrorClass::Connect), 0),
            Asked::Over => return,
        };
        let outcome = Outcome {
            latency_us: micros(started.elapsed()),
            error,
            client_error: (400..500).contains(&status) && error.is_none(),
            abandoned: false,
            answer: hash(&asked),
            unexamined: matches!(&asked, Asked::Answered(answer) if answer.unexamined.is_some()),
        };
        self.count(shadow, started, outcome);
        self.sample(shadow, &asked).await;
    }

    /// Counts the request for both arms.
    fn count(&self, shadow: &ShadowRoute, started: Instant, outcome: Outcome) {
        let meter = &shadow.meter;
        let now = self.reactor.counters.meters.micros(started);
        let both = [
            (Role::Baseline, self.primary.started_us, self.primary.outcome),
            (Role::Candidate, now, outcome),
        ];
        for (arm, started_us, outcome) in both {
            let cell = shadow.cell(arm);
            let unit = unit_in(self.unit.hash, arm);
            let first = meter.split.start((arm, cell), unit, self.unit.named, started_us);
            let drawn = Drawn { unit, named: self.unit.named, first };
            if let Some((bad, units)) = meter.split.record((arm, cell), drawn, started_us, outcome) {
                let (model, salt) = (&self.route.model, &meter.split.salt);
                tracing::warn!(%model, promotion = %salt, bad, units, "the breaker ends the mirroring to the candidate");
            }
        }
    }

    /// Asks the candidate, and waits for a worker of it as long as a user's request would.
    async fn candidate(&self, shadow: &ShadowRoute, started: Instant) -> Asked {
        loop {
            let now = self.reactor.route(self.route.model.as_str());
            let now = now.as_ref().and_then(|r| r.shadow.as_ref());
            let Some(now) = now.filter(|s| Arc::ptr_eq(&s.meter, &shadow.meter) && !s.meter.is_open()) else {
                return Asked::Over;
            };
            match self.ask(&now.candidate).await {
                Asked::Unreached if started.elapsed() < self.reactor.options.hold => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// Asks one of a side's workers, once. Live traffic's view of that worker stays as it is.
    async fn ask(&self, side: &Arc<Side>) -> Asked {
        let reactor = &self.reactor;
        // Drawn, not in turn: every second turn would leave the others to the same worker.
        let place = reactor.random.next() % side.workers.len().max(1) as u64;
        let worker = usize::try_from(place).ok().and_then(|place| side.workers.get(place));
        if let Some(refused) = server::refusal(side, self.out.protocol) {
            return Asked::Answered(Box::new(refused));
        }
        let Some(worker) = worker else { return Asked::Unreached };
        let upstream = reactor.upstream(worker);
        let Some(request) = self.out.request(reactor, side, &upstream) else { return Asked::Unreached };
        let _sent = reactor.counters.meters.send(&side.flow, Instant::now());
        let asked = exchange(&reactor.options, &upstream, request, side, self.out.protocol);
        // Of an answer that is still on its way nothing is known before it is over.
        let asked = async { to_its_end(asked.await?).await };
        match tokio::time::timeout(self.route.timeout, asked).await {
            Err(_) => Asked::Failed(ErrorClass::Timeout),
            Ok(Err(Unanswered::Unsent(_))) => Asked::Unreached,
            Ok(Err(Unanswered::Broke)) => Asked::Failed(ErrorClass::Connect),
            Ok(Ok((exchanged, None))) => {
                let Exchanged { parts, body, unexamined } = exchanged;
                let side = Arc::clone(side);
                Asked::Answered(Box::new(Answered { parts, body, unexamined, side, sent: None }))
            }
            Ok(Ok((_, Some(failed)))) => Asked::Failed(failed),
        }
    }

    /// Compares both answers, and the baseline's with another one of its own, for one in so many requests: drawn before
    /// anything is known of them, and once for each unit.
    async fn sample(&self, shadow: &ShadowRoute, candidate: &Asked) {
        let Some(tolerance) = shadow.tolerance else { return };
        // Two texts that say the same are hardly ever equal.
        if self.primary.protocol == Protocol::Openai {
            return;
        }
        // One that can't be compared is left out before anything is known of the others.
        let Some(first) = self.primary.body.as_ref().and_then(|body| self.plain(body, self.primary.form))
        else {
            return;
        };
        if !self.reactor.random.next().is_multiple_of(SAMPLED) || !self.is_first_sample(&shadow.meter) {
            return;
        }
        let Some(baseline) = &self.route.baseline else { return };
        let again = self.ask(baseline).await;
        // What failed says nothing of how much a good answer varies.
        let Some(noise) = self.says(&again) else { return };
        let noise = self.differs(&first, noise, tolerance);
        let found = match self.says(candidate) {
            Some(answer) => self.differs(&first, answer, tolerance),
            None => Some(Differs::Failed),
        };
        shadow.meter.pairs.note(found, noise);
    }

    /// An answer's body as JSON; none where it can't be read as one, or is larger than what is compared.
    fn plain(&self, body: &Bytes, form: BodyForm) -> Option<Bytes> {
        form.answer(body, self.primary.protocol, COMPARED).ok()
    }

    /// A good answer.
    fn says<'a>(&self, asked: &'a Asked) -> Option<&'a Answered> {
        let Asked::Answered(answer) = asked else { return None };
        (answer.parts.status.is_success() && attempt::failure(answer).is_none()).then_some(answer)
    }

    /// How an answer differs from the one that the user got.
    fn differs(&self, first: &Bytes, answer: &Answered, tolerance: f64) -> Option<Differs> {
        let hash = self.primary.outcome.answer;
        if hash.is_some() && hash == answer_hash(answer) {
            return None;
        }
        let other = match &answer.body {
            Answer::Whole(body) => self.plain(body, BodyForm::of(&answer.parts.headers)),
            Answer::Streaming(..) | Answer::Events(..) => None,
        };
        let limits = Limits { max_elements: COMPARED, ..Limits::default() };
        // The first one could be read.
        other
            .map_or(Some(Difference::Shape), |other| difference(first, &other, tolerance, &limits))
            .map(Differs::Says)
    }

    fn is_first_sample(&self, meter: &ShadowMeter) -> bool {
        let arm = Role::Candidate;
        let fresh = meter.split.note(unit_in(self.unit.hash, arm), self.unit.named, arm, units::SAMPLED);
        fresh.is_some_and(|fresh| fresh & units::SAMPLED != 0)
    }
}

/// Reads what is still to come of an answer, and says how it failed where it did.
async fn to_its_end(mut answer: Exchanged) -> Result<(Exchanged, Option<ErrorClass>), Unanswered> {
    let (Answer::Streaming(stream, look) | Answer::Events(stream, look)) = &mut answer.body else {
        return Ok((answer, None));
    };
    while let Some(frame) = stream.frame().await {
        if let Ok(bytes) = frame.map_err(|_| Unanswered::Broke)?.into_data() {
            look.see(&bytes);
        }
    }
    let failed = look.failed().or(look.is_cut_short().then_some(ErrorClass::Connect));
    Ok((answer, failed))
}

/// What a unit's one arm is known by among mirrored requests.
pub(crate) fn unit_in(unit: u64, arm: Role) -> u64 {
    unit ^ ARMS[usize::from(arm == Role::Candidate)]
}

fn hash(asked: &Asked) -> Option<u64> {
    let Asked::Answered(answer) = asked else { return None };
    answer_hash(answer)
}

/// The worker's own hash of a good answer.
pub(crate) fn answer_hash(answer: &Answered) -> Option<u64> {
    let text = answer.parts.headers.get(header::ANSWER).filter(|_| answer.parts.status.is_success())?;
    u64::from_str_radix(text.to_str().ok()?, 16).ok()
}

/// How an answer differs from the baseline's good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Differs {
    /// It is no good answer at all.
    Failed,
    /// It says something else.
    Says(Difference),
}
