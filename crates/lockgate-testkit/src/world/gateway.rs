//! Gateways: each applies a whole table, later than it was published, or not at all.

use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::rollout::Deployment;

/// One versioned table of routes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Table {
    pub(crate) epoch: u64,
    pub(crate) routes: Routes,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Routes {
    pub(crate) main: Option<Digest>,
    pub(crate) split: Option<(Digest, u32, String)>,
    /// What is mirrored to the candidate instead.
    pub(crate) shadow: u32,
    pub(crate) backup: Option<Digest>,
}

impl Routes {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let traffic = deployment.routed();
        Self {
            main: traffic.main.map(|r| r.release),
            split: traffic.split.map(|(r, weight, salt)| (r.release, weight, salt.to_string())),
            shadow: traffic.shadow,
            backup: traffic.backup.map(|r| r.release),
        }
    }
}

/// One gateway. What it has applied stands on its own disk, so it lives on while the agent is dead or out of reach.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) applied: Table,
    inbox: Option<(Millis, Table)>,
    pub(crate) lag: Millis,
    pub(crate) is_partitioned: bool,
}

impl Gateway {
    /// A table is on its way. A newer one replaces it.
    pub(crate) fn send(&mut self, now: Millis, table: &Table) {
        let on_its_way = self.inbox.as_ref().is_some_and(|(_, t)| t.epoch >= table.epoch);
        if !self.is_partitioned && self.applied.epoch < table.epoch && !on_its_way {
            self.inbox = Some((now + self.lag, table.clone()));
        }
    }

    /// Applies what has arrived: only ever a larger epoch.
    pub(crate) fn tick(&mut self, now: Millis) {
        if let Some((_, table)) = self.inbox.take_if(|(due, _)| *due <= now)
            && table.epoch > self.applied.epoch
        {
            self.applied = table;
        }
    }
}
