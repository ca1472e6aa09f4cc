//! Books that are made again from what was written down, and what need not be kept for that any more.

use super::{Outcomes, draw, number};
use crate::AgentError;
use crate::goals::GoalBook;
use lockgate_core::clock::Millis;
use lockgate_core::plan::RolloutPlan;
use lockgate_store::feedback::{Drawn, Feedback};
use lockgate_store::{Store, Tx};
use std::collections::VecDeque;
use std::ops::Range;

/// How many rows are read at a time, and forgotten at a time.
const PAGE: i64 = if cfg!(test) { 7 } else { 5_000 };

/// Which page comes next, and what of the present one is left.
struct Pages<T> {
    rows: VecDeque<(i64, T)>,
    last: i64,
    ended: bool,
}

impl<T> Pages<T> {
    fn after(last: i64) -> Self {
        Self { rows: VecDeque::new(), last, ended: false }
    }

    fn is_due(&self) -> bool {
        self.rows.is_empty() && !self.ended
    }

    fn fill(&mut self, rows: Vec<(i64, T)>) {
        match rows.last() {
            Some((last, _)) => self.last = *last,
            None => self.ended = true,
        }
        self.rows = rows.into();
    }

    fn next(&self) -> i64 {
        self.rows.front().map_or(i64::MAX, |(number, _)| *number)
    }
}

impl Outcomes {
    /// Reads what the disk knows of rollouts that are new here, and forgets the predictions of those that are over.
    pub(super) async fn tidy(&self) -> Result<(), AgentError> {
        let (new, told) = {
            let inner = self.lock();
            let new = inner.followed.iter().filter(|(_, f)| f.book.is_none());
            (new.map(|(promotion, f)| (promotion.clone(), f.plan.clone())).collect::<Vec<_>>(), inner.told)
        };
        if new.is_empty() || !told {
            return Ok(());
        }
        self.flush().await?;
        let store = self.store.load_full();
        for (promotion, plan) in new {
            let book = read(&store, &promotion, &plan).await?;
            if let Some(followed) = self.lock().followed.get_mut(&promotion) {
                followed.book = Some(book);
                followed.changed = true;
            }
        }
        let kept = store
            .read(|conn| Box::pin(async move { Ok::<_, AgentError>(conn.drawn_promotions().await?) }))
            .await?;
        for over in kept.into_iter().filter(|p| !self.lock().followed.contains_key(p)) {
            forget(&store, &over, None).await?;
        }
        Ok(())
    }

    /// Forgets the predictions of which nothing that counts can be said any more, and that are not needed for anything else.
    pub(super) async fn forget_passed(&self) -> Result<(), AgentError> {
        let passed: Vec<(String, Millis, Millis)> = {
            let inner = self.lock();
            let each = inner.followed.iter().filter_map(|(promotion, followed)| {
                let within = followed.book.as_ref()?.within_ms()?;
                Some((promotion.clone(), followed.forgotten, inner.now.saturating_sub(within)))
            });
            each.collect()
        };
        let store = self.store.load_full();
        for (promotion, from, to) in passed.into_iter().filter(|(_, from, to)| from < to) {
            forget(&store, &promotion, Some(from..to)).await?;
            if let Some(followed) = self.lock().followed.get_mut(&promotion) {
                followed.forgotten = to;
            }
        }
        Ok(())
    }
}

/// Makes a rollout's book again: all that was written down of it, in its order and with its times.
async fn read(store: &Store, promotion: &str, plan: &RolloutPlan) -> Result<GoalBook, AgentError> {
    let mut book = GoalBook::new(plan);
    let mut drawn: Pages<Drawn> = Pages::after(i64::MIN);
    let mut said: Option<Pages<(Feedback, Drawn)>> = None;
    loop {
        if drawn.is_due() {
            let (of, after) = (promotion.to_owned(), drawn.last);
            let page = store.read(move |conn| {
                Box::pin(async move { Ok::<_, AgentError>(conn.drawn_after(&of, after, PAGE).await?) })
            });
            drawn.fill(page.await?);
        }
        // Nothing can have been said of a rollout's predictions before the first of them.
        let first = drawn.next();
        let said = said.get_or_insert_with(|| Pages::after(first));
        if said.is_due() {
            let (of, after) = (promotion.to_owned(), said.last);
            let page = store.read(move |conn| {
                Box::pin(async move { Ok::<_, AgentError>(conn.feedback_after(&of, after, PAGE).await?) })
            });
            said.fill(page.await?);
        }
        if drawn.next() < said.next() {
            let Some((_, one)) = drawn.rows.pop_front() else { return Ok(book) };
            book.advance(one.noted);
            book.drawn(&draw(&one));
        } else {
            let Some((_, (said, one))) = said.rows.pop_front() else { return Ok(book) };
            book.advance(said.at);
            // It was answered then whether it counts.
            let _ = book.outcome(&draw(&one), &said.name, number(&said.value), said.at);
        }
    }
}

/// Forgets a rollout's predictions, or those of a time that are not needed any more. Page by page, so that nobody waits for long.
async fn forget(store: &Store, promotion: &str, passed: Option<Range<Millis>>) -> Result<(), AgentError> {
    loop {
        let (of, passed) = (promotion.to_owned(), passed.clone());
        let forgotten = store.write(move |tx: &mut Tx| {
            Box::pin(async move {
                Ok::<_, AgentError>(match passed {
                    Some(during) => tx.forget_passed(&of, during, PAGE).await?,
                    None => tx.forget_drawn(&of, PAGE).await?,
                })
            })
        });
        if forgotten.await? < PAGE.unsigned_abs() {
            return Ok(());
        }
    }
}
