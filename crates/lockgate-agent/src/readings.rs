//! What workers and the agent itself take of the machine, read every few seconds: for `/metrics` and for people. Nothing is decided
//! by it.

use crate::Shared;
use crate::fleet::Seen;
use lockgate_core::digest::Digest;
use lockgate_gateway::readings::{ProcessReading, Readings, WorkerReading};
use lockgate_runtime::supervisor::WorkerState;
use lockgate_runtime::supervisor::usage::{self, Usage};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often it is read.
const EVERY: Duration = Duration::from_secs(2);

/// What a revision's workers take together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Taken {
    /// Resident memory in bytes.
    pub(crate) resident: u64,
    /// Cores that were busy for it since the reading before; none after the first one.
    pub(crate) cores: Option<f64>,
}

/// What was read last, by revision.
#[derive(Debug, Default)]
pub(crate) struct Taking(Mutex<BTreeMap<Digest, Taken>>);

impl Taking {
    /// What a revision's workers take, where they are processes of this machine.
    pub(crate) fn of(&self, revision: &Digest) -> Option<Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(revision).copied()
    }
}

/// CPU time by process at the last reading, and when that was.
type Before = (Instant, BTreeMap<u32, Duration>);

/// Reads for as long as the agent lives.
pub(crate) async fn keep(shared: Weak<Shared>) {
    let mut before: Option<Before> = None;
    while let Some(shared) = shared.upgrade() {
        let seen = shared.fleet.seen();
        let pids: Vec<u32> = seen.iter().filter_map(|s| s.status.pid).collect();
        // Thousands of small files may have to be read.
        let read = tokio::task::spawn_blocking(move || (usage::of_groups(&pids), usage::of_self()));
        if let Ok((groups, own)) = read.await {
            let now = Instant::now();
            let taken = by_revision(&seen, &groups, before.as_ref(), now);
            *shared.taking.0.lock().unwrap_or_else(PoisonError::into_inner) = taken;
            shared.gateway.set_readings(readings(&seen, &groups, own));
            before = Some((now, groups.iter().map(|(pid, usage)| (*pid, usage.cpu)).collect()));
        }
        drop(shared);
        tokio::time::sleep(EVERY).await;
    }
}

fn by_revision(
    seen: &[Seen],
    groups: &BTreeMap<u32, Usage>,
    before: Option<&Before>,
    now: Instant,
) -> BTreeMap<Digest, Taken> {
    let mut all: BTreeMap<Digest, Taken> = BTreeMap::new();
    for one in seen {
        let Some((pid, usage)) = one.status.pid.and_then(|pid| Some((pid, groups.get(&pid)?))) else {
            continue;
        };
        let taken = all.entry(one.revision).or_default();
        taken.resident += usage.resident;
        let cores = before.and_then(|(at, cpu)| {
            let span = now.saturating_duration_since(*at).as_secs_f64();
            let more = usage.cpu.saturating_sub(*cpu.get(&pid)?).as_secs_f64();
            (span > 0.0).then(|| more / span)
        });
        taken.cores = match (taken.cores, cores) {
            (Some(sum), Some(cores)) => Some(sum + cores),
            (sum, cores) => sum.or(cores),
        };
    }
    all
}

fn readings(seen: &[Seen], groups: &BTreeMap<u32, Usage>, own: Option<Usage>) -> Readings {
    let workers = seen.iter().map(|one| WorkerReading {
        model: one.model.clone(),
        release: one.release,
        revision: one.revision,
        worker: one.worker,
        is_ready: one.status.state == WorkerState::Ready,
        restarts: one.status.restarts,
        process: one.status.pid.and_then(|pid| groups.get(&pid)).map(reading),
    });
    Readings { own: own.as_ref().map(reading), workers: workers.collect() }
}

fn reading(usage: &Usage) -> ProcessReading {
    ProcessReading {
        cpu_seconds: usage.cpu.as_secs_f64(),
        resident_bytes: usage.resident,
        open_files: usage.files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_runtime::supervisor::WorkerStatus;

    fn seen(worker: u32, pid: Option<u32>) -> Seen {
        Seen {
            model: "delay".parse().unwrap(),
            revision: Digest::of(b"revision"),
            release: Digest::of(b"release"),
            worker,
            status: WorkerStatus { state: WorkerState::Ready, pid, restarts: 3, returns: 0, doubts: 0 },
        }
    }

    fn usage(cpu_ms: u64, resident: u64) -> Usage {
        Usage { cpu: Duration::from_millis(cpu_ms), resident, files: 5, processes: 1 }
    }

    #[test]
    fn a_revisions_workers_count_together_and_a_new_one_from_its_second_reading_on() {
        let all = [seen(0, Some(10)), seen(1, Some(11)), seen(2, None)];
        let groups = BTreeMap::from([(10, usage(1500, 100)), (11, usage(9000, 50))]);
        let now = Instant::now();
        let key = Digest::of(b"revision");
        let first = by_revision(&all, &groups, None, now)[&key];
        assert_eq!(first, Taken { resident: 150, cores: None });
        let before = (now, BTreeMap::from([(10, Duration::from_millis(500))]));
        let second = by_revision(&all, &groups, Some(&before), now + Duration::from_secs(2))[&key];
        assert_eq!(second, Taken { resident: 150, cores: Some(0.5) });
        // Another process under the same number: less than before is none.
        let before = (now, BTreeMap::from([(10, Duration::from_secs(50))]));
        let third = by_revision(&all, &groups, Some(&before), now + Duration::from_secs(2))[&key];
        assert_eq!(third.cores, Some(0.0));
    }

    #[test]
    fn a_worker_without_a_process_is_said_to_be_there() {
        let all = [seen(0, Some(10)), seen(1, None)];
        let said = readings(&all, &BTreeMap::from([(10, usage(1500, 100))]), None);
        assert_eq!(said.workers.len(), 2);
        assert_eq!(said.workers[0].process.unwrap().cpu_seconds, 1.5);
        assert!(said.workers[1].process.is_none() && said.workers[1].restarts == 3 && said.own.is_none());
    }
}
