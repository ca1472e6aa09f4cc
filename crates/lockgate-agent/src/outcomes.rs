//! What came of predictions: takes feedback from the gateway, keeps it, and tells the judge what goals have seen.
//!
//! An answer goes out only when what was said is durable. One task does everything in its order: what waits at a time becomes one
//! transaction. Predictions that a rollout with a goal drew are written down within a moment of their answers, so that
//! their outcomes find them by key, and a restart loses nothing but that moment; any other prediction is looked for in the log.

use crate::AgentError;
use crate::goals::{Draw, GoalBook};
use crate::judge::Goals;
use crate::predictions::PredictionLog;
use arc_swap::ArcSwap;
use lockgate_core::clock::Clock;
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::RolloutPlan;
use lockgate_core::route::Role;
use lockgate_gateway::feedback::QUEUE;
use lockgate_gateway::{FeedbackCall, LogRecord, TellStatus, Told};
use lockgate_store::feedback::{Drawn, Feedback, Kept, Said};
use lockgate_store::{Store, StoreOptions, Tx};
use lockgate_wire::feedback::{Item, Outcome};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a drawn prediction waits until it is written down, at the most.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// How often what goals have seen is worked out anew, at the most.
const JUDGE_EVERY: Duration = Duration::from_millis(500);

/// So many times as long as that took it rests. Outcomes with many different values take longer.
const REST: u32 = 20;

/// How many drawn predictions may wait for a disk that takes none.
const WAITING: usize = 500_000;

/// Feedback, and the rollouts whose goals wait for it.
pub(crate) struct Outcomes {
    path: PathBuf,
    store: ArcSwap<Store>,
    /// Whether the file is this agent's now: another one may have taken over.
    is_open: AtomicBool,
    clock: Arc<dyn Clock>,
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
    lost: u64,
}

struct Followed {
    plan: RolloutPlan,
    /// None until what the disk knows was read.
    book: Option<GoalBook>,
    goals: Goals,
    /// When that was, and how long it took.
    worked_out: Option<(Instant, Duration)>,
    changed: bool,
}

impl Outcomes {
    pub(crate) async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, AgentError> {
        let store = ArcSwap::from_pointee(store(path, &clock).await?);
        let is_open = AtomicBool::new(true);
        Ok(Self { path: path.to_owned(), store, is_open, clock, inner: Mutex::default() })
    }

    /// Opens the file again after [`Outcomes::close`]: somebody else may have gone on with it meanwhile, so that all is read again.
    ///
    /// # Errors
    /// Where it can't be opened, also while another agent has it.
    pub(crate) async fn reopen(&self) -> Result<(), AgentError> {
        if self.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        self.store.store(Arc::new(store(&self.path, &self.clock).await?));
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
            if !plan.guards.values().any(|g| matches!(g, GuardSpec::Goal(_))) {
                continue;
            }
            wanted.insert(promotion.as_str().to_owned());
            inner.followed.entry(promotion.as_str().to_owned()).or_insert_with(|| Followed {
                plan: plan.clone(),
                book: None,
                goals: Goals::default(),
                worked_out: None,
                changed: true,
            });
        }
        inner.followed.retain(|promotion, _| wanted.contains(promotion));
    }

    /// What the goals of a rollout say. Nothing until all that is known of them was read.
    pub(crate) fn goals(&self, promotion: &PromotionId, plan: &RolloutPlan, needed: bool) -> Goals {
        let mut inner = self.lock();
        let Some(followed) = inner.followed.get_mut(promotion.as_str()) else {
            return Goals { needed, ..Goals::default() };
        };
        let due = followed
            .worked_out
            .is_none_or(|(at, took)| at.elapsed() >= JUDGE_EVERY.max(took.saturating_mul(REST)));
        if let Some(book) = followed.book.as_mut().filter(|_| due) {
            followed.changed |= book.mature(self.clock.now_ms());
        }
        if let Some(book) = followed.book.as_ref().filter(|_| followed.changed && due) {
            let begun = Instant::now();
            followed.goals = Goals { needed, numbers: book.numbers(plan), mismatches: book.mismatches() };
            followed.worked_out = Some((Instant::now(), begun.elapsed()));
            followed.changed = false;
        }
        Goals { needed, ..followed.goals.clone() }
    }

    /// Notes a prediction of the log, where a rollout with goals drew it.
    pub(crate) fn note(&self, record: &LogRecord) {
        let Some(drawn) = &record.drawn else { return };
        let mut inner = self.lock();
        let Some(followed) = inner.followed.get_mut(&*drawn.salt) else { return };
        let one = Drawn {
            id: record.id.clone(),
            promotion: drawn.salt.to_string(),
            weight: drawn.weight,
            candidate: drawn.arm == Role::Candidate,
            answered: record.served == Some(drawn.arm) && (200..300).contains(&record.status),
            unit: drawn.unit,
            at: record.at_ms,
        };
        if let Some(book) = &mut followed.book {
            book.drawn(&draw(&one));
            followed.changed = true;
        }
        if inner.waiting.len() < WAITING {
            inner.waiting.push(one);
        } else {
            inner.lost += 1;
        }
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

    /// Takes feedback until the gateway is gone.
    pub(crate) async fn keep(self: Arc<Self>, mut calls: mpsc::Receiver<FeedbackCall>, log: PredictionLog) {
        loop {
            let mut batch = Vec::new();
            let got = tokio::time::timeout(WRITE_EVERY, calls.recv_many(&mut batch, QUEUE)).await;
            if matches!(got, Ok(0)) {
                return;
            }
            if !self.is_open.load(Ordering::Acquire) {
                // Another agent keeps feedback now, or soon: whoever asks here has to ask again.
                batch.into_iter().for_each(refuse);
                continue;
            }
            if let Err(error) = self.tidy().await {
                tracing::error!(%error, "what goals have seen can't be read; it is tried again");
            }
            if batch.is_empty() {
                say_lost(self.flush().await);
            } else {
                self.take(batch, &log).await;
            }
        }
    }

    /// Writes down which predictions were drawn.
    pub(crate) async fn flush(&self) -> Result<(), AgentError> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let rows = waiting.clone();
        let store = self.store.load_full();
        let written = store.write(move |tx: &mut Tx| {
            Box::pin(async move {
                for one in &rows {
                    tx.draw(one).await?;
                }
                Ok::<_, AgentError>(())
            })
        });
        let written = written.await;
        self.put_back(written.is_err(), waiting);
        written
    }

    fn put_back(&self, failed: bool, mut waiting: Vec<Drawn>) {
        if failed {
            let mut inner = self.lock();
            waiting.append(&mut inner.waiting);
            inner.waiting = waiting;
        }
    }

    /// Reads what the disk knows of rollouts that are new here, and forgets the draws of those that are over.
    async fn tidy(&self) -> Result<(), AgentError> {
        let (new, told) = {
            let inner = self.lock();
            let new = inner.followed.iter().filter(|(_, f)| f.book.is_none());
            (new.map(|(promotion, _)| promotion.clone()).collect::<Vec<_>>(), inner.told)
        };
        if new.is_empty() || !told {
            return Ok(());
        }
        self.flush().await?;
        for promotion in new {
            self.read(promotion).await?;
        }
        let kept = self
            .store
            .load_full()
            .read(|conn| Box::pin(async move { Ok::<_, AgentError>(conn.drawn_promotions().await?) }))
            .await?;
        for over in kept.into_iter().filter(|p| !self.lock().followed.contains_key(p)) {
            self.store
                .load_full()
                .write(move |tx: &mut Tx| {
                    Box::pin(async move { Ok::<_, AgentError>(tx.forget_drawn(&over).await?) })
                })
                .await?;
        }
        Ok(())
    }

    async fn read(&self, promotion: String) -> Result<(), AgentError> {
        let of = promotion.clone();
        let (drawn, said) = self
            .store
            .load_full()
            .read(move |conn| {
                Box::pin(async move {
                    Ok::<_, AgentError>((conn.drawn_for(&of).await?, conn.feedback_for(&of).await?))
                })
            })
            .await?;
        let draws: HashMap<&str, Draw> = drawn.iter().map(|d| (d.id.as_str(), draw(d))).collect();
        let mut inner = self.lock();
        let Inner { followed, waiting, .. } = &mut *inner;
        let Some(followed) = followed.get_mut(&promotion) else { return Ok(()) };
        let mut book = GoalBook::new(&followed.plan);
        let newer = waiting.iter().filter(|d| d.promotion == promotion && !draws.contains_key(d.id.as_str()));
        drawn.iter().chain(newer).for_each(|d| book.drawn(&draw(d)));
        for one in &said {
            if let Some(draw) = draws.get(one.prediction.as_str()) {
                book.outcome(draw, &one.name, number(&one.value), one.at);
            }
        }
        followed.book = Some(book);
        followed.changed = true;
        Ok(())
    }

    /// Keeps what waits, and answers.
    async fn take(&self, batch: Vec<FeedbackCall>, log: &PredictionLog) {
        let told = match self.record(&batch, log).await {
            Ok(told) => told,
            Err(error) => {
                tracing::error!(%error, "feedback can't be kept");
                let note = "it could not be kept; send it again".to_owned();
                let failed = Told { status: TellStatus::Failed, note: Some(note) };
                batch.iter().map(|call| vec![failed.clone(); call.items.len()]).collect()
            }
        };
        for (call, told) in batch.into_iter().zip(told) {
            // Whoever asked may have gone; what was said is kept all the same.
            let _ = call.answer.send(told);
        }
    }

    async fn record(
        &self,
        batch: &[FeedbackCall],
        log: &PredictionLog,
    ) -> Result<Vec<Vec<Told>>, AgentError> {
        let ids: HashSet<String> =
            batch.iter().flat_map(|c| &c.items).map(|item| item.prediction.clone()).collect();
        // Whoever has an answer has its record: the gateway hands it over first.
        log.drain();
        let found = self.find(&ids).await?;
        let missing: Vec<String> = ids.into_iter().filter(|id| !found.contains_key(id)).collect();
        let known = self.known(log, missing).await?;
        let now = self.clock.now_ms();
        let items: Vec<&Item> = batch.iter().flat_map(|call| &call.items).collect();
        let is_known = |item: &Item| found.contains_key(&item.prediction) || known.contains(&item.prediction);
        let rows: Vec<Vec<Feedback>> =
            items.iter().map(|item| if is_known(item) { feedback(item, now) } else { Vec::new() }).collect();
        let waiting = std::mem::take(&mut self.lock().waiting);
        let (draws, says) = (waiting.clone(), rows.clone());
        let written = self
            .store
            .load_full()
            .write(move |tx: &mut Tx| {
                Box::pin(async move {
                    for one in &draws {
                        tx.draw(one).await?;
                    }
                    let mut kept = Vec::with_capacity(says.len());
                    for says in &says {
                        let mut of = Vec::with_capacity(says.len());
                        for one in says {
                            of.push(tx.say(one).await?);
                        }
                        kept.push(of);
                    }
                    Ok::<_, AgentError>(kept)
                })
            })
            .await;
        self.put_back(written.is_err(), waiting);
        let mut told = rows
            .iter()
            .zip(written?)
            .zip(&items)
            .map(|((rows, kept), item)| self.tell(rows, &kept, found.get(&item.prediction)))
            .collect::<Vec<_>>()
            .into_iter();
        Ok(batch.iter().map(|call| told.by_ref().take(call.items.len()).collect()).collect())
    }

    /// The drawn predictions among these.
    async fn find(&self, ids: &HashSet<String>) -> Result<HashMap<String, Drawn>, AgentError> {
        let mut found: HashMap<String, Drawn> = {
            let inner = self.lock();
            let waiting = inner.waiting.iter().filter(|d| ids.contains(&d.id));
            waiting.map(|d| (d.id.clone(), d.clone())).collect()
        };
        let rest: Vec<String> = ids.iter().filter(|id| !found.contains_key(*id)).cloned().collect();
        let store = self.store.load_full();
        let read = store.read(move |conn| {
            Box::pin(async move {
                let mut found = Vec::new();
                for id in &rest {
                    found.extend(conn.drawn(id).await?);
                }
                Ok::<_, AgentError>(found)
            })
        });
        found.extend(read.await?.into_iter().map(|d| (d.id.clone(), d)));
        Ok(found)
    }

    /// Which of these predictions there are: something was said of them before, or the log has them. (An agent that is killed
    /// loses the last seconds of its log, but nothing that was said.)
    async fn known(&self, log: &PredictionLog, ids: Vec<String>) -> Result<HashSet<String>, AgentError> {
        let asked = ids.clone();
        let store = self.store.load_full();
        let read = store.read(move |conn| {
            Box::pin(async move {
                let mut said = HashSet::new();
                for id in asked {
                    if !conn.feedback_of(&id).await?.is_empty() {
                        said.insert(id);
                    }
                }
                Ok::<_, AgentError>(said)
            })
        });
        let mut known = read.await?;
        let rest: Vec<String> = ids.into_iter().filter(|id| !known.contains(id)).collect();
        if !rest.is_empty() {
            let log = log.clone();
            let search = tokio::task::spawn_blocking(move || log.known(&rest)).await;
            known.extend(search.map_err(|e| AgentError::State(format!("a search ended: {e}")))??);
        }
        Ok(known)
    }

    /// Counts what is new of one prediction, and says what became of it.
    fn tell(&self, rows: &[Feedback], kept: &[Kept], drawn: Option<&Drawn>) -> Told {
        if rows.is_empty() {
            let note = "no prediction with this id is known in this environment".to_owned();
            return Told { status: TellStatus::Unknown, note: Some(note) };
        }
        let mut notes = Vec::new();
        let mut status = TellStatus::Known;
        for (row, kept) in rows.iter().zip(kept) {
            match kept {
                Kept::New => {
                    if status == TellStatus::Known {
                        status = TellStatus::Recorded;
                    }
                    notes.extend(drawn.and_then(|drawn| self.count(drawn, row)));
                }
                Kept::Known(_) => {}
                Kept::Other(before) => {
                    status = TellStatus::Conflict;
                    notes.push(format!(
                        "`{}` of this prediction is {} since {}, and the first value stands: evidence was made from it",
                        row.name,
                        shown(&before.value),
                        lockgate_core::clock::rfc3339(before.at)
                    ));
                }
            }
        }
        Told { status, note: (!notes.is_empty()).then(|| notes.join("; ")) }
    }

    /// Counts an outcome for its rollout; the words say why it does not count, where a goal asked for it.
    fn count(&self, drawn: &Drawn, row: &Feedback) -> Option<String> {
        let mut inner = self.lock();
        let followed = inner.followed.get_mut(&drawn.promotion)?;
        let book = followed.book.as_mut()?;
        let counted = book.outcome(&draw(drawn), &row.name, number(&row.value), row.at)?;
        followed.changed = true;
        counted.err().map(|why| format!("`{}` is kept, but does not count: {}", row.name, why.words()))
    }

    /// Gives the file away; nothing where it was given away before.
    pub(crate) async fn close(&self) {
        if !self.is_open.load(Ordering::Acquire) {
            return;
        }
        say_lost(self.flush().await);
        self.is_open.store(false, Ordering::Release);
        self.store.load_full().close().await;
    }
}

async fn store(path: &Path, clock: &Arc<dyn Clock>) -> Result<Store, AgentError> {
    let url =
        path.to_str().ok_or_else(|| AgentError::State(format!("{} is no UTF-8 path", path.display())))?;
    Ok(Store::open(url, StoreOptions::new(clock.clone())).await?)
}

fn refuse(call: FeedbackCall) {
    let note = Some("another agent takes over just now; send it again".to_owned());
    let told = vec![Told { status: TellStatus::Failed, note }; call.items.len()];
    // Whoever asked may have gone.
    let _ = call.answer.send(told);
}

fn say_lost(written: Result<(), AgentError>) {
    if let Err(error) = written {
        tracing::error!(%error, "drawn predictions can't be written down; they are kept and tried again");
    }
}

fn feedback(item: &Item, at: i64) -> Vec<Feedback> {
    let value = |outcome: &Outcome| match outcome {
        Outcome::Number(number) => Said::Number(*number),
        Outcome::Text(text) => Said::Text(text.clone()),
    };
    item.values
        .iter()
        .map(|(name, outcome)| Feedback {
            prediction: item.prediction.clone(),
            name: name.clone(),
            value: value(outcome),
            at,
        })
        .collect()
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

fn shown(value: &Said) -> String {
    match value {
        Said::Number(number) => number.to_string(),
        Said::Text(text) => format!("`{text}`"),
    }
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
