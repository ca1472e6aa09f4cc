//! The one task that takes feedback, writes it down and counts it.

use super::{Inner, Outcomes, draw, number};
use crate::AgentError;
use crate::goals::Needed;
use crate::predictions::{PredictionLog, Search};
use lockgate_core::clock::Millis;
use lockgate_gateway::feedback::QUEUE;
use lockgate_gateway::{FeedbackCall, TellStatus, Told};
use lockgate_store::Tx;
use lockgate_store::feedback::{Drawn, Feedback, Kept, NAMES, Said};
use lockgate_wire::feedback::{Item, Outcome};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a drawn prediction waits until it is written down, at the most.
const WRITE_EVERY: Duration = Duration::from_millis(200);

/// How often predictions whose time is over are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What is said of predictions, one batch's worth.
struct Batch<'c> {
    items: Vec<&'c Item>,
    /// What is to be written down of each.
    rows: Vec<Vec<Feedback>>,
    /// The drawn ones among the predictions.
    found: HashMap<String, Drawn>,
    search: Search,
    now: Millis,
}

impl Outcomes {
    /// Takes feedback until the gateway is gone.
    pub(crate) async fn keep(self: Arc<Self>, mut calls: mpsc::Receiver<FeedbackCall>, log: PredictionLog) {
        let mut forgot = Instant::now();
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
                say_late(self.flush().await);
            } else {
                self.take(batch, &log).await;
            }
            if forgot.elapsed() >= FORGET_EVERY {
                forgot = Instant::now();
                if let Err(error) = self.forget_passed().await {
                    tracing::error!(%error, "predictions whose time is over can't be forgotten; it is tried again");
                }
            }
        }
    }

    /// The time, which never goes back.
    fn now(&self) -> Millis {
        let now = self.clock.now_ms();
        let mut inner = self.lock();
        inner.now = inner.now.max(now);
        inner.now
    }

    /// Takes what waits to be written down, but for what no outcome can count for.
    fn waiting(&self, now: Millis) -> Vec<Drawn> {
        let mut inner = self.lock();
        let Inner { followed, waiting, .. } = &mut *inner;
        let mut taken = std::mem::take(waiting);
        taken.retain_mut(|one| {
            one.noted = now;
            let Some(followed) = followed.get(&one.promotion) else { return false };
            // Before the disk was read nobody can tell.
            let needed = followed.book.as_ref().map_or(Needed::Always, |book| book.needs(&draw(one)));
            one.kept = needed == Needed::Always;
            needed != Needed::Never
        });
        taken
    }

    /// Numbers for so many, in their order. Each is given once, also where what it was for could not be written.
    fn numbers(&self, count: usize) -> Range<i64> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let first = self.next.fetch_add(count, Ordering::AcqRel);
        first..first.saturating_add(count)
    }

    /// Writes down which predictions were drawn.
    pub(super) async fn flush(&self) -> Result<(), AgentError> {
        let now = self.now();
        let drawn = self.waiting(now);
        if !drawn.is_empty() {
            let (rows, mut numbers) = (drawn.clone(), self.numbers(drawn.len()));
            let written = self
                .store
                .load_full()
                .write(move |tx: &mut Tx| {
                    Box::pin(async move {
                        for (one, number) in rows.iter().zip(&mut numbers) {
                            tx.draw(one, number).await?;
                        }
                        Ok::<_, AgentError>(())
                    })
                })
                .await;
            if written.is_err() {
                self.put_back(drawn);
                return written;
            }
        }
        self.apply(now, &drawn);
        Ok(())
    }

    fn put_back(&self, mut drawn: Vec<Drawn>) {
        let mut inner = self.lock();
        drawn.append(&mut inner.waiting);
        inner.waiting = drawn;
    }

    /// Tells the books what time it is, and which predictions were written down.
    fn apply(&self, now: Millis, drawn: &[Drawn]) {
        let mut inner = self.lock();
        for followed in inner.followed.values_mut() {
            if let Some(book) = &mut followed.book {
                followed.changed |= book.advance(now);
            }
        }
        for one in drawn {
            if let Some(followed) = inner.followed.get_mut(&one.promotion)
                && let Some(book) = &mut followed.book
            {
                book.drawn(&draw(one));
                followed.changed = true;
            }
        }
    }

    /// Keeps what waits, and answers.
    async fn take(&self, batch: Vec<FeedbackCall>, log: &PredictionLog) {
        let told = match self.record(&batch, log).await {
            Ok(told) => told,
            Err(error) => {
                tracing::error!(%error, "feedback can't be kept");
                let failed = failed("it could not be kept; send it again");
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
        calls: &[FeedbackCall],
        log: &PredictionLog,
    ) -> Result<Vec<Vec<Told>>, AgentError> {
        let ids: HashSet<String> =
            calls.iter().flat_map(|c| &c.items).map(|item| item.prediction.clone()).collect();
        // Whoever has an answer has its record: the gateway hands it over first.
        log.drain();
        let found = self.find(&ids).await?;
        let search = self.search(log, calls, &found).await?;
        let now = self.now();
        let items: Vec<&Item> = calls.iter().flat_map(|call| &call.items).collect();
        let is_known =
            |item: &Item| found.contains_key(&item.prediction) || search.found.contains(&item.prediction);
        let rows: Vec<Vec<Feedback>> =
            items.iter().map(|item| if is_known(item) { feedback(item, now) } else { Vec::new() }).collect();
        let batch = Batch { items, rows, found, search, now };
        let kept = self.write(&batch).await?;
        let mut told =
            (0..).zip(&kept).map(|(n, kept)| self.tell(&batch, n, kept)).collect::<Vec<_>>().into_iter();
        Ok(calls.iter().map(|call| told.by_ref().take(call.items.len()).collect()).collect())
    }

    /// Writes down what is said, and before it the predictions that wait for that.
    async fn write(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Kept>>, AgentError> {
        let drawn = self.waiting(batch.now);
        let (draws, says) = (drawn.clone(), batch.rows.clone());
        let mut numbers = self.numbers(draws.len() + says.iter().map(Vec::len).sum::<usize>());
        let written = self
            .store
            .load_full()
            .write(move |tx: &mut Tx| {
                Box::pin(async move {
                    for (one, number) in draws.iter().zip(&mut numbers) {
                        tx.draw(one, number).await?;
                    }
                    let mut kept = Vec::with_capacity(says.len());
                    for says in &says {
                        let mut of = Vec::with_capacity(says.len());
                        for (one, number) in says.iter().zip(&mut numbers) {
                            of.push(tx.say(one, number).await?);
                        }
                        kept.push(of);
                    }
                    Ok::<_, AgentError>(kept)
                })
            })
            .await;
        match &written {
            Ok(_) => self.apply(batch.now, &drawn),
            Err(_) => self.put_back(drawn),
        }
        written
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

    /// Which of the other predictions there are: something was said of them before, or the log has them. (An agent that is killed
    /// loses the last seconds of its log, but nothing that was said.)
    async fn search(
        &self,
        log: &PredictionLog,
        calls: &[FeedbackCall],
        found: &HashMap<String, Drawn>,
    ) -> Result<Search, AgentError> {
        let of = |call: &FeedbackCall| -> Vec<String> {
            let ids = call.items.iter().map(|item| &item.prediction);
            ids.filter(|id| !found.contains_key(*id)).cloned().collect()
        };
        let mut asked: Vec<Vec<String>> = calls.iter().map(of).collect();
        let all = asked.clone();
        let store = self.store.load_full();
        let said = store
            .read(move |conn| {
                Box::pin(async move {
                    let mut said = HashSet::new();
                    for id in all.into_iter().flatten() {
                        if !conn.feedback_of(&id).await?.is_empty() {
                            said.insert(id);
                        }
                    }
                    Ok::<_, AgentError>(said)
                })
            })
            .await?;
        asked.iter_mut().for_each(|ids| ids.retain(|id| !said.contains(id)));
        asked.retain(|ids| !ids.is_empty());
        let mut search = Search::default();
        if !asked.is_empty() {
            let log = log.clone();
            let searched = tokio::task::spawn_blocking(move || log.search(&asked)).await;
            search = searched.map_err(|e| AgentError::State(format!("a search ended: {e}")))?;
        }
        search.found.extend(said);
        Ok(search)
    }

    /// Counts what is new of one prediction, and says what became of it.
    fn tell(&self, batch: &Batch<'_>, n: usize, kept: &[Kept]) -> Told {
        let (Some(item), Some(rows)) = (batch.items.get(n), batch.rows.get(n)) else {
            return failed("it could not be kept; send it again");
        };
        if rows.is_empty() && batch.search.unsearched.contains(&item.prediction) {
            return failed(
                "the log of so many different times can't be searched at once; send it again, which goes on where this ended",
            );
        }
        if rows.is_empty() {
            let note = "no prediction with this id is known in this environment".to_owned();
            return Told { status: TellStatus::Unknown, note: Some(note) };
        }
        let drawn = batch.found.get(&item.prediction);
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
                Kept::Full => {
                    if status != TellStatus::Conflict {
                        status = TellStatus::TooMany;
                    }
                    notes.push(format!(
                        "`{}` is not kept: {NAMES} other names were said of this prediction, and no more than these may be",
                        row.name
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
}

fn failed(note: &str) -> Told {
    Told { status: TellStatus::Failed, note: Some(note.to_owned()) }
}

fn refuse(call: FeedbackCall) {
    let told = vec![failed("another agent takes over just now; send it again"); call.items.len()];
    // Whoever asked may have gone.
    let _ = call.answer.send(told);
}

pub(super) fn say_late(written: Result<(), AgentError>) {
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

fn shown(value: &Said) -> String {
    match value {
        Said::Number(number) => number.to_string(),
        Said::Text(text) => format!("`{text}`"),
    }
}
