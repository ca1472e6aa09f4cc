//! When to start again, and when to give up.

use super::WorkerSpec;
use std::time::Duration;

/// Counts deaths.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    in_a_row: u32,
}

/// What to do after a death.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Again { attempt: u32, pause: Duration },
    GiveUp,
}

impl Backoff {
    /// A worker died that had served for so long; one that never did died quickly, however long it took to load.
    pub(super) fn died(&mut self, served: Option<Duration>, spec: &WorkerSpec) -> Next {
        let quickly = served.is_none_or(|served| served < spec.quick);
        self.in_a_row = if quickly { self.in_a_row.saturating_add(1) } else { 1 };
        if quickly && self.in_a_row >= spec.crash_loop_after.max(1) {
            return Next::GiveUp;
        }
        let doublings = (self.in_a_row - 1).min(20);
        Next::Again {
            attempt: self.in_a_row,
            pause: spec.pause.saturating_mul(1 << doublings).min(spec.max_pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_a_long_life_starts_over() {
        let mut spec = WorkerSpec::new("x".into(), vec![], "s".into(), "l".into(), "n".to_owned());
        spec.crash_loop_after = 12;
        let mut backoff = Backoff::default();
        let quick = Some(Duration::from_secs(1));
        for millis in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let Next::Again { pause, .. } = backoff.died(quick, &spec) else { panic!("given up") };
            assert_eq!(pause, Duration::from_millis(millis));
        }
        assert_eq!(backoff.died(Some(spec.quick), &spec), Next::Again { attempt: 1, pause: spec.pause });
        for _ in 0..10 {
            assert_ne!(backoff.died(quick, &spec), Next::GiveUp);
        }
        assert_eq!(backoff.died(None, &spec), Next::GiveUp);
    }
}
