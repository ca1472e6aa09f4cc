//! Whether a revision's golden set was answered rightly, and may still be taken to be: the state, without the asking.
//!
//! Workers that are started here run the release's own files, so the first one is asked, once. What somebody else runs may be
//! another model at each address, and another one whenever it comes back: each is asked by itself, and again when it may have
//! changed. One that is wrong gets no request, and is asked again later: it is somebody else's to mend.

use lockgate_runtime::supervisor::{WorkerState, WorkerStatus};
use std::time::{Duration, Instant};

/// How long after a refusal for the moment a worker is asked again, at first and at the most.
const BUSY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// How often workers that are started here may be busy in a row.
const BUSY_MOST: u32 = 8;

/// How long after a wrong answer somebody else's server is asked again.
const WRONG_AGAIN: Duration = Duration::from_secs(30);

/// Which of its lives a worker is in, as far as that is seen: how often it came back, and how often it faltered.
pub(super) type Life = (u64, u64);

/// What came of asking for a golden set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Right,
    Wrong(String),
    /// It could not answer now.
    Busy(String),
}

/// The checks of one revision.
#[derive(Debug)]
pub(super) struct Checks {
    /// One for each address of somebody else's; one in all for workers that are started here.
    each: Vec<Check>,
    /// Whether somebody else runs them.
    elsewhere: bool,
}

#[derive(Debug, Clone, Default)]
struct Check {
    /// None while nothing is known.
    found: Option<Result<(), String>>,
    /// The life in which it was found.
    of: Life,
    /// The life in which it was asked last, how often it was busy in a row, and when it may be asked again.
    asked: Life,
    busy: u32,
    again: Option<Instant>,
}

impl Check {
    /// Whether it has answered rightly in this life, or in one that ended in no more than a moment's silence.
    fn is_good(&self, status: &WorkerStatus) -> bool {
        self.found == Some(Ok(())) && self.of.0 == status.returns
    }

    fn found(&mut self, of: Life, outcome: Result<(), String>, again: Option<Instant>) {
        *self = Self { found: Some(outcome), of, asked: of, busy: 0, again };
    }

    fn is_due(&self, status: &WorkerStatus, now: Instant, elsewhere: bool) -> bool {
        let life = (status.returns, status.doubts);
        let may = self.asked != life || self.again.is_none_or(|again| now >= again);
        let unknown = match &self.found {
            None => true,
            Some(Ok(())) => elsewhere && self.of != life,
            Some(Err(_)) => elsewhere,
        };
        status.state == WorkerState::Ready && unknown && may
    }
}

impl Checks {
    pub(super) fn new(workers: usize, elsewhere: bool) -> Self {
        let count = if elsewhere { workers } else { 1 };
        Self { each: vec![Check::default(); count], elsewhere }
    }

    /// Which workers have to be asked now, and the life that each is in.
    pub(super) fn due(&self, all: &[WorkerStatus], now: Instant) -> Vec<(usize, Life)> {
        if !self.elsewhere && all.iter().any(|w| w.state != WorkerState::Ready) {
            return Vec::new();
        }
        let each = self.each.iter().zip(all).enumerate();
        let due = each.filter(|(_, (check, status))| check.is_due(status, now, self.elsewhere));
        due.map(|(index, (_, status))| (index, (status.returns, status.doubts))).collect()
    }

    /// Notes what a worker said.
    pub(super) fn note(&mut self, index: usize, life: Life, said: Said, now: Instant) {
        let elsewhere = self.elsewhere;
        let Some(check) = self.each.get_mut(index) else { return };
        if check.asked != life {
            check.busy = 0;
        }
        check.asked = life;
        match said {
            Said::Right => check.found(life, Ok(()), None),
            Said::Wrong(why) => check.found(life, Err(why), Some(now + WRONG_AGAIN)),
            Said::Busy(why) if !elsewhere && check.busy + 1 >= BUSY_MOST => {
                check.found(life, Err(format!("{why}, {BUSY_MOST} times in a row")), None);
            }
            Said::Busy(_) => {
                let pause = BUSY.0 * 2_u32.saturating_pow(check.busy.min(16));
                check.busy += 1;
                check.again = Some(now + pause.min(BUSY.1));
            }
        }
    }

    /// Whether a worker may get requests, as far as its golden set says.
    pub(super) fn may_serve(&self, index: usize, status: &WorkerStatus) -> bool {
        if !self.elsewhere {
            return self.is_good();
        }
        status.state == WorkerState::Ready && self.each.get(index).is_some_and(|c| c.is_good(status))
    }

    /// Whether any worker has answered rightly.
    pub(super) fn is_good(&self) -> bool {
        self.each.iter().any(|c| c.found == Some(Ok(())))
    }

    /// Why the revision can't serve: no worker is right, one is wrong, and nothing is open any more.
    pub(super) fn failed(&self, all: &[WorkerStatus]) -> Option<String> {
        let known = |(check, status): &(&Check, &WorkerStatus)| match &status.state {
            WorkerState::Ready => check.found.is_some() && (check.of.0 == status.returns || !self.elsewhere),
            WorkerState::Starting => !self.elsewhere && check.found.is_some(),
            _ => true,
        };
        let serves = all.iter().enumerate().any(|(index, status)| self.may_serve(index, status));
        if serves || !self.each.iter().zip(all).all(|pair| known(&pair)) {
            return None;
        }
        self.each.iter().zip(all).find_map(|(check, status)| match &check.found {
            Some(Err(why)) if !self.elsewhere || status.state == WorkerState::Ready => Some(why.clone()),
            _ => None,
        })
    }

    /// What is wrong with some of somebody else's servers, by their places.
    pub(super) fn troubles<'a>(&'a self, all: &'a [WorkerStatus]) -> impl Iterator<Item = (usize, &'a str)> {
        let each = self.each.iter().zip(all).enumerate().filter(|_| self.elsewhere);
        each.filter_map(|(index, (check, status))| match (&status.state, &check.found) {
            (WorkerState::Away { last_error }, _) => Some((index, last_error.as_str())),
            (WorkerState::Ready, Some(Err(why))) => Some((index, why.as_str())),
            _ => None,
        })
    }
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
