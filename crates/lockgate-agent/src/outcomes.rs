//! What came of predictions: takes feedback from the gateway, keeps it, and tells the judge what goals have seen.
//!
//! An answer goes out only when what was said is durable. One task, the [`keeper`], does everything in its order: what waits at a
//! time becomes one transaction, and then goes into the books of the rollouts that it is about, in that very order. So a restart,
//! which reads the same in the same order ([`replay`]), makes the same books to the last bit. Predictions that a rollout
//! with a goal drew are written down within a moment of their answers, so that their outcomes find them by key, and a restart loses
//! nothing but that moment; any other prediction is looked for in the log.

mod keeper;
mod replay;

use crate::AgentError;
use crate::goals::{Draw, GoalBook, is_compared};
use crate::judge::Goals;
use arc_swap::ArcSwap;
use lockgate_core::clock::{Clock, Millis};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::RolloutPlan;
use lockgate_core::route::Role;
use lockgate_gateway::LogRecord;
use lockgate_store::feedback::{Drawn, Said};
use lockgate_store::{Store, StoreOptions};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often what goals have seen is worked out anew, at the most.
const JUDGE_EVERY: Duration = Duration::from_millis(500);

/// So many times as long as that took it rests. Outcomes with many different values take longer.
const REST: u32 = 20;

/// How many drawn predictions may wait for a disk that takes none.
const WAITING: usize = if cfg!(test) { 1_000 } else { 500_000 };

/// Feedback, and the rollouts whose goals wait for it.
pub(crate) struct Outcomes {
    path: PathBuf,
    store: ArcSwap<Store>,
    /// Whether the file is this agent's now: another one may have taken over.
    is_open: AtomicBool,
    clock: Arc<dyn Clock>,
    /// The number of the next prediction, or thing said, that is written down.
    next: AtomicI64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Rollouts with goals.
    followed: BTreeMap<String, Followed>,
    /// Whether it was said yet which these are.
    told: bool,
    /// Drawn predictions that are not written down yet.
    waiting: Vec<Drawn>,
    /// The latest time that there was. Books must not see time go back, which clocks do.
    now: Millis,
}

struct Followed {
    plan: RolloutPlan,
    /// None until what the disk knows was read.
    book: Option<GoalBook>,
    goals: Goals,
    /// When that was, and how long it took.
    worked_out: Option<(Instant, Duration)>,
    changed: bool,
    /// Predictions that there was no room for.
    lost: u64,
    /// Up to when predictions whose time is over were forgotten.
    forgotten: Millis,
}

impl Followed {
    fn new(plan: &RolloutPlan) -> Self {
        Self {
            plan: plan.clone(),
            book: None,
            goals: Goals::default(),
            worked_out: None,
            changed: true,
            lost: 0,
            forgotten: Millis::MIN,
        }
    }

    /// What its goals say by the present book; nothing without one.
    fn work_out(&self) -> Option<Goals> {
        let book = self.book.as_ref()?;
        let mut numbers = book.numbers(&self.plan);
        if self.lost > 0 {
            let lost = format!("; {} predictions could not be kept, and do not count", self.lost);
            numbers.values_mut().for_each(|goal| goal.words.push_str(&lost));
        }
        Some(Goals { needed: false, numbers, mismatches: book.mismatches() })
    }
}

impl Outcomes {
    pub(crate) async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, AgentError> {
        let (store, next) = store(path, &clock).await?;
        Ok(Self {
            path: path.to_owned(),
            store: ArcSwap::from_pointee(store),
            is_open: AtomicBool::new(true),
            clock,
            next: AtomicI64::new(next),
            inner: Mutex::default(),
        })
    }

    /// Opens the file again after [`Outcomes::close`]: somebody else may have gone on with it meanwhile, so that all is read again.
    ///
    /// # Errors
    /// Where it can't be opened, also while another agent has it.
    pub(crate) async fn reopen(&self) -> Result<(), AgentError> {
        if self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let (store, next) = store(&self.path, &self.clock).await?;
        self.store.store(Arc::new(store));
        self.next.store(next, Ordering::Release);
        self.lock().followed.values_mut().for_each(|followed| followed.book = None);
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which rollouts there are now. From before their first request on, so that none is missed.
    pub(crate) fn follow<'p>(&self, rollouts: impl Iterator<Item = (&'p PromotionId, &'p RolloutPlan)>) {
        let mut inner = self.lock();
        inner.told = true;
        let mut wanted = HashSet::new();
        for (promotion, plan) in rollouts {
            if plan.guards.values().any(|g| matches!(g, GuardSpec::Goal(_))) {
                let promotion = promotion.as_str().to_owned();
                wanted.insert(promotion.clone());
                inner.followed.entry(promotion).or_insert_with(|| Followed::new(plan));
            }
        }
        inner.followed.retain(|promotion, _| wanted.contains(promotion));
    }

    /// What the goals of a rollout say. Nothing until all that is known of them was read.
    pub(crate) fn goals(&self, promotion: &PromotionId, needed: bool) -> Goals {
        let mut inner = self.lock();
        let Some(followed) = inner.followed.get_mut(promotion.as_str()) else {
            return Goals { needed, ..Goals::default() };
        };
        let due = followed
            .worked_out
            .is_none_or(|(at, took)| at.elapsed() >= JUDGE_EVERY.max(took.saturating_mul(REST)));
        let begun = Instant::now();
        if due
            && followed.changed
            && let Some(goals) = followed.work_out()
        {
            followed.goals = goals;
            followed.worked_out = Some((Instant::now(), begun.elapsed()));
            followed.changed = false;
        }
        Goals { needed, ..followed.goals.clone() }
    }

    /// Notes a prediction of the log, where a rollout with goals drew it and there was something to compare.
    pub(crate) fn note(&self, record: &LogRecord) {
        let Some(drawn) = record.drawn.as_ref().filter(|drawn| is_compared(drawn.weight)) else { return };
        let mut inner = self.lock();
        let Inner { followed, waiting, .. } = &mut *inner;
        let Some(followed) = followed.get_mut(&*drawn.salt) else { return };
        if waiting.len() >= WAITING {
            followed.lost += 1;
            followed.changed = true;
            return;
        }
        waiting.push(Drawn {
            id: record.id.clone(),
            promotion: drawn.salt.to_string(),
            weight: drawn.weight,
            candidate: drawn.arm == Role::Candidate,
            // Whoever gave it: by intention to treat it is the drawn side's all the same.
            answered: (200..300).contains(&record.status),
            unit: drawn.unit,
            at: record.at_ms,
            // Both follow when it is written down.
            noted: 0,
            kept: true,
        });
    }

    /// What was said of a prediction, as JSON.
    pub(crate) async fn of(&self, prediction: &str) -> Result<serde_json::Value, AgentError> {
        let id = prediction.to_owned();
        let said = self
            .store
            .load_full()
            .read(move |conn| Box::pin(async move { Ok::<_, AgentError>(conn.feedback_of(&id).await?) }))
            .await?;
        let fields = said.into_iter().map(|f| {
            let value = match f.value {
                Said::Number(number) => number.into(),
                Said::Text(text) => serde_json::Value::from(text),
            };
            (f.name, serde_json::json!({ "value": value, "at_ms": f.at }))
        });
        Ok(serde_json::Value::Object(fields.collect()))
    }

    /// Gives the file away; nothing where it was given away before.
    pub(crate) async fn close(&self) {
        if !self.is_open.load(Ordering::Acquire) {
            return;
        }
        keeper::say_late(self.flush().await);
        self.is_open.store(false, Ordering::Release);
        self.store.load_full().close().await;
    }
}

/// Opens the file, and says what number comes next in it.
async fn store(path: &Path, clock: &Arc<dyn Clock>) -> Result<(Store, i64), AgentError> {
    let url =
        path.to_str().ok_or_else(|| AgentError::State(format!("{} is no UTF-8 path", path.display())))?;
    let store = Store::open(url, StoreOptions::new(clock.clone())).await?;
    let next =
        store.read(|conn| Box::pin(async move { Ok::<_, AgentError>(conn.next_event().await?) })).await?;
    Ok((store, next))
}

fn draw(one: &Drawn) -> Draw {
    Draw { weight: one.weight, candidate: one.candidate, answered: one.answered, unit: one.unit, at: one.at }
}

fn number(value: &Said) -> Option<f64> {
    match value {
        Said::Number(number) => Some(*number),
        Said::Text(_) => None,
    }
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
