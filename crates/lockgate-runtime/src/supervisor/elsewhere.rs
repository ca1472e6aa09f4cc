//! Servers that somebody else runs: asked for their health like workers, and started by nobody here.

use super::health::{self, Heard, Probe};
use super::{WorkerSpec, WorkerState, WorkerStatus};
use lockgate_core::route::WorkerAddress;
use std::time::Duration;
use tokio::sync::watch;

/// How often one that doesn't answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// The watcher of one server.
pub(super) struct Watcher {
    pub(super) spec: WorkerSpec,
    pub(super) index: usize,
    pub(super) address: WorkerAddress,
    pub(super) report: watch::Sender<Vec<WorkerStatus>>,
    pub(super) stop: watch::Receiver<Option<Duration>>,
}

impl Watcher {
    /// Says whether it answers, until it is stopped.
    pub(super) async fn watch(mut self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.look() => {}
            _ = stop.wait_for(Option::is_some) => {}
        }
        self.say(WorkerState::Stopped);
    }

    async fn look(&mut self) {
        loop {
            while let Err(last_error) = health::once(&self.address, &self.spec).await {
                self.say(WorkerState::Away { last_error });
                tokio::time::sleep(AGAIN).await;
            }
            self.say(WorkerState::Ready);
            let last_error = self.lost().await;
            tracing::warn!(address = ?self.address, last_error, "a server does not answer any more");
            self.say(WorkerState::Away { last_error });
        }
    }

    /// Returns when it does not have any more what it is asked for, or does not answer; with what it said last.
    async fn lost(&self) -> String {
        let mut probe = Probe::new(&self.address, &self.spec);
        loop {
            match probe.next().await {
                Heard::Well { again: false } => {}
                Heard::Well { again: true } => self.doubt(),
                Heard::Missed if !probe.is_lost() => {}
                Heard::Missed | Heard::Refused => return probe.last,
            }
        }
    }

    fn say(&self, state: WorkerState) {
        self.report.send_if_modified(|all| match all.get_mut(self.index) {
            Some(own) if own.state != state => {
                own.returns += u64::from(state == WorkerState::Ready);
                own.state = state.clone();
                true
            }
            _ => false,
        });
    }

    /// It answers again: whoever was silent for a moment may have been started anew.
    fn doubt(&self) {
        self.report.send_modify(|all| {
            if let Some(own) = all.get_mut(self.index) {
                own.doubts += 1;
            }
        });
    }
}
