//! Test bench: a fresh database per test, on either engine, and a clock that stands still.

mod cluster;

use crate::open;
use crate::place::{Engine, Place};
use crate::store::{Store, StoreOptions};
use lockgate_core::actor::Actor;
use lockgate_core::clock::{Clock, Millis};
use lockgate_core::entry::{Effect, Resource, ResourceKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A clock that is set by hand.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn set(&self, now: Millis) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

/// When tests take place: 2026-11-24T12:00:00Z.
pub(crate) const NOON: Millis = 1_795_521_600_000;

/// One fresh database on one engine.
pub(crate) struct Bench {
    pub(crate) url: String,
    pub(crate) clock: Arc<TestClock>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn at(url: impl FnOnce(PathBuf) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = url(folder.path().join("deep").join("store.db"));
        Self { url, clock: Arc::new(TestClock(AtomicI64::new(NOON))), folder }
    }

    pub(crate) fn sqlite() -> Self {
        Self::at(|path| path.to_str().unwrap().to_owned())
    }

    pub(crate) async fn postgres() -> Self {
        let url = cluster::fresh_database().await;
        Self::at(|_| url)
    }

    pub(crate) fn options(&self) -> StoreOptions {
        let clock: Arc<dyn Clock> = self.clock.clone();
        StoreOptions::new(clock)
    }

    /// Opens the store as a server does.
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url, self.options()).await.unwrap()
    }

    /// The SQLite file.
    pub(crate) fn file(&self) -> PathBuf {
        PathBuf::from(&self.url)
    }

    /// A folder of this test's own.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Changes the database behind the store's back, as a forger would.
    pub(crate) async fn tamper(&self, sql: &str) {
        let place = Place::parse(&self.url).unwrap();
        let mut connection = open::writer(&place, Duration::from_secs(10)).await.unwrap();
        connection.batch(&place, sql).await.unwrap();
        open::close(connection, &place).await.unwrap();
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        Place::parse(&self.url).unwrap().engine == Engine::Sqlite
    }
}

/// An entry of the log about one promotion.
pub(crate) fn note(resource: &str, reason: &str) -> crate::log::NewEntry {
    crate::log::NewEntry {
        actor: Actor::system(),
        action: "promotion:note".to_owned(),
        effect: Effect::Allow,
        resource: Resource {
            kind: ResourceKind::Promotion,
            id: resource.to_owned(),
            project: Some("parcels".parse().unwrap()),
            environment: Some("production".parse().unwrap()),
        },
        event: None,
        reason: reason.to_owned(),
        source: None,
    }
}

/// Runs each test on a fresh SQLite file and on a fresh PostgreSQL database.
macro_rules! both_engines {
    ($($(#[$meta:meta])* async fn $name:ident($bench:ident: Bench) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn check($bench: Bench) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                check(Bench::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                check(Bench::postgres().await).await;
            }
        }
    )+};
}

pub(crate) use both_engines;
