//! Jobs: each is a unit, a failing one goes alone, and what is acknowledged is there.

use crate::conn::{Tx, query};
use crate::error::StoreError;
use crate::store::{Store, StoreOptions};
use crate::testing::{Bench, NOON, both_engines, note};
use futures_util::future::join_all;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How a job of the property test ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kept,
    Refused,
    BadStatement,
    SwallowsBadStatement,
    Panics,
    HangsUntilTimeout,
    /// Ends before its first statement, well or badly.
    Idle,
    RefusedAtOnce,
    /// Its first statement writes, and is kept or not.
    WritesFirst,
    WritesFirstAndIsRefused,
}

#[derive(Debug, Clone)]
struct Step {
    key: u8,
    value: u8,
    end: End,
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("refused")]
    Refused,
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn run(store: &Store, n: usize, step: Step) -> Result<(), JobError> {
    let work = store.write(move |tx| {
        Box::pin(async move {
            match step.end {
                End::Idle => return Ok(()),
                End::RefusedAtOnce => return Err(JobError::Refused),
                End::WritesFirst | End::WritesFirstAndIsRefused => {
                    tx.set_setting(&format!("first{}", step.key), &step.value.to_string()).await?;
                }
                _ => {}
            }
            let old = tx.setting(&format!("k{}", step.key)).await?.unwrap_or_default();
            tx.set_setting(&format!("k{}", step.key), &format!("{old},{}", step.value)).await?;
            tx.append(note("p", &format!("k{}={}", step.key, step.value)), &format!("id{n}"), NOON).await?;
            match step.end {
                End::Kept | End::Idle | End::WritesFirst => Ok(()),
                End::Refused | End::RefusedAtOnce | End::WritesFirstAndIsRefused => Err(JobError::Refused),
                End::BadStatement => {
                    Ok(tx.execute(query("INSERT INTO head VALUES (1, 0, '')")).await.map(|_| ())?)
                }
                End::SwallowsBadStatement => {
                    assert!(tx.execute(query("INSERT INTO head VALUES (1, 0, '')")).await.is_err());
                    assert!(tx.set_setting("swallowed", "kept").await.is_err());
                    Ok(())
                }
                End::Panics => panic!("this job panics on purpose"),
                End::HangsUntilTimeout => std::future::pending().await,
            }
        })
    });
    work.await
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![
        6 => Just(End::Kept),
        2 => Just(End::Refused),
        1 => Just(End::BadStatement),
        1 => Just(End::SwallowsBadStatement),
        1 => Just(End::Panics),
        1 => Just(End::HangsUntilTimeout),
        2 => Just(End::Idle),
        1 => Just(End::RefusedAtOnce),
        2 => Just(End::WritesFirst),
        1 => Just(End::WritesFirstAndIsRefused),
    ];
    let step = (0..4_u8, any::<u8>(), end).prop_map(|(key, value, end)| Step { key, value, end });
    prop::collection::vec(step, 1..40)
}

fn check_outcome(step: &Step, outcome: &Result<(), JobError>) {
    let as_expected = match step.end {
        End::Kept | End::Idle | End::WritesFirst => outcome.is_ok(),
        End::Refused | End::RefusedAtOnce | End::WritesFirstAndIsRefused => {
            matches!(outcome, Err(JobError::Refused))
        }
        End::BadStatement | End::SwallowsBadStatement => {
            matches!(outcome, Err(JobError::Store(StoreError::Conflict { .. })))
        }
        End::Panics => {
            matches!(outcome, Err(JobError::Store(StoreError::Panicked { what })) if what.contains("on purpose"))
        }
        End::HangsUntilTimeout => matches!(outcome, Err(JobError::Store(StoreError::TimedOut { .. }))),
    };
    assert!(as_expected, "{step:?}: {outcome:?}");
}

/// Runs the steps at the same time (so that they share transactions) and compares with the fold of those that succeed.
async fn state_is_the_fold(store: &Store, steps: Vec<Step>) {
    let before = store.verify().await.unwrap().count;
    // Polled in this order for the first time, so they queue in this order.
    let running = steps
        .iter()
        .enumerate()
        .map(|(n, step)| run(store, usize::try_from(before).unwrap() * 1000 + n, step.clone()));
    let outcomes = join_all(running).await;
    let (mut expected, mut first): (BTreeMap<u8, String>, BTreeMap<u8, String>) = Default::default();
    let mut kept = 0;
    for (step, outcome) in steps.iter().zip(&outcomes) {
        check_outcome(step, outcome);
        if outcome.is_ok() && step.end != End::Idle {
            if step.end == End::WritesFirst {
                first.insert(step.key, step.value.to_string());
            }
            let value = expected.entry(step.key).or_default();
            *value = format!("{value},{}", step.value);
            kept += 1;
        }
    }
    assert_eq!(store.verify().await.unwrap().count - before, kept);
    let found = store.write(move |tx| {
        Box::pin(async move {
            assert_eq!(tx.setting("swallowed").await?, None);
            let (mut found, mut found_first) = (BTreeMap::new(), BTreeMap::new());
            for key in 0..4_u8 {
                if let Some(value) = tx.setting(&format!("k{key}")).await? {
                    found.insert(key, value);
                }
                tx.remove_setting(&format!("k{key}")).await?;
                if let Some(value) = tx.setting(&format!("first{key}")).await? {
                    found_first.insert(key, value);
                }
                tx.remove_setting(&format!("first{key}")).await?;
            }
            Ok::<_, StoreError>((found, found_first))
        })
    });
    assert_eq!(found.await.unwrap(), (expected, first));
}

both_engines! {
    async fn any_sequence_of_jobs_leaves_the_fold_of_the_successful_ones(bench: Bench) {
        std::panic::set_hook(Box::new(|_| {}));
        let options = StoreOptions { job_timeout: Duration::from_millis(150), batch: 16, ..bench.options() };
        let store = Store::open(&bench.url, options).await.unwrap();
        let runtime = tokio::runtime::Handle::current();
        let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        tokio::task::block_in_place(|| {
            runner.run(&steps(), |steps| {
                runtime.block_on(state_is_the_fold(&store, steps));
                Ok(())
            })
        }).unwrap();
    }

    async fn writes_at_the_same_time_share_commits_and_all_are_there(bench: Bench) {
        let store = bench.open().await;
        let tasks = (0..400).map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.write(move |tx| Box::pin(async move { tx.append(note("p", ""), &format!("id{n}"), NOON).await })).await
            })
        });
        let mut numbers: Vec<u64> = join_all(tasks).await.into_iter().map(|e| e.unwrap().unwrap().seq).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..400).collect::<Vec<_>>());
        assert_eq!(store.verify().await.unwrap().count, 400);
    }

    async fn a_failing_job_does_not_take_its_neighbours_numbers(bench: Bench) {
        let store = bench.open().await;
        let one = |id: &'static str, fail: bool| store.write(move |tx| Box::pin(async move {
            let entry = tx.append(note("p", ""), id, NOON).await?;
            if fail { Err(JobError::Refused) } else { Ok(entry.seq) }
        }));
        let (a, b, c) = tokio::join!(one("a", false), one("b", true), one("c", false));
        assert_eq!((a.unwrap(), c.unwrap()), (0, 1));
        assert!(matches!(b, Err(JobError::Refused)));
        assert_eq!(store.verify().await.unwrap().count, 2);
    }

    async fn a_read_sees_one_snapshot_and_is_not_blocked_by_a_write(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move { tx.set_setting("a", "old").await })).await.unwrap();
        let (inside, entered) = tokio::sync::oneshot::channel::<()>();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let writing = tokio::spawn({
            let store = store.clone();
            async move {
                store.write(move |tx| Box::pin(async move {
                    tx.set_setting("a", "new").await?;
                    inside.send(()).unwrap();
                    released.await.unwrap();
                    Ok::<_, StoreError>(())
                })).await
            }
        });
        entered.await.unwrap();
        let reading = store.read(move |conn| Box::pin(async move {
            let first = conn.setting("a").await?;
            release.send(()).unwrap();
            writing.await.unwrap()?;
            Ok::<_, StoreError>((first, conn.setting("a").await?))
        }));
        let (first, second) = reading.await.unwrap();
        assert_eq!((first.as_deref(), second.as_deref()), (Some("old"), Some("old")));
        let after = store.read(|conn| Box::pin(async move { conn.setting("a").await })).await.unwrap();
        assert_eq!(after.as_deref(), Some("new"));
    }

    async fn closing_finishes_what_waits(bench: Bench) {
        let store = bench.open().await;
        let waiting: Vec<_> = (0..50).map(|n| {
            let store = store.clone();
            Box::pin(async move {
                store.write(move |tx| Box::pin(async move { tx.append(note("p", ""), &format!("id{n}"), NOON).await })).await
            })
        }).collect();
        let all = Arc::new(store.clone());
        let (answers, ()) = tokio::join!(join_all(waiting), all.close());
        let kept = answers.iter().filter(|a| a.is_ok()).count();
        assert!(answers.iter().all(|a| matches!(a, Ok(_) | Err(StoreError::Closed))));
        assert_eq!(bench.open().await.verify().await.unwrap().count, u64::try_from(kept).unwrap());
    }

    async fn a_write_whose_caller_has_gone_is_not_run(bench: Bench) {
        let store = bench.open().await;
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let (inside, entered) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let store = store.clone();
            async move {
                store.write(move |tx| Box::pin(async move {
                    inside.send(()).unwrap();
                    released.await.unwrap();
                    tx.set_setting("first", "yes").await
                })).await
            }
        });
        entered.await.unwrap();
        let mut gone = Box::pin(store.write(|tx| Box::pin(async move { tx.set_setting("gone", "yes").await })));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        let found = store.write(|tx| Box::pin(async move { tx.setting("gone").await })).await.unwrap();
        assert_eq!(found, None);
    }
}

#[tokio::test]
async fn the_writer_connects_again_when_the_server_has_dropped_it() {
    let bench = Bench::postgres().await;
    let store = bench.open().await;
    store.write(|tx| Box::pin(async move { tx.set_setting("a", "1").await })).await.unwrap();
    bench.tamper("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
    store.write(|tx| Box::pin(async move { tx.set_setting("a", "2").await })).await.unwrap();
    let value = store.read(|conn| Box::pin(async move { conn.setting("a").await })).await.unwrap();
    assert_eq!(value.as_deref(), Some("2"));
}

#[tokio::test]
async fn two_servers_on_one_postgresql_append_to_one_chain() {
    let bench = Bench::postgres().await;
    let stores = [bench.open().await, bench.open().await];
    let tasks = (0..200).map(|n| {
        let store = stores[n % 2].clone();
        tokio::spawn(async move {
            store
                .write(move |tx| {
                    Box::pin(async move {
                        let counted: i64 = tx.setting("n").await?.map_or(0, |text| text.parse().unwrap());
                        tx.set_setting("n", &(counted + 1).to_string()).await?;
                        tx.append(note("p", ""), &format!("id{n}"), NOON).await
                    })
                })
                .await
        })
    });
    assert!(join_all(tasks).await.into_iter().all(|done| done.unwrap().is_ok()));
    assert_eq!(stores[0].verify().await.unwrap().count, 200);
    let counted = stores[1].read(|conn| Box::pin(async move { conn.setting("n").await })).await.unwrap();
    assert_eq!(counted.as_deref(), Some("200"), "no update was lost");
}

/// Counts for far longer than any job may take.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000000) \
                       SELECT COUNT(*) FROM n";

both_engines! {
    async fn a_statement_without_end_is_given_up_and_nothing_else_is(bench: Bench) {
        let mut options = bench.options();
        options.job_timeout = Duration::from_millis(300);
        let store = Store::open(&bench.url, options).await.unwrap();
        let endless = store.write(|tx| Box::pin(async move {
            tx.set_setting("lost", "1").await?;
            tx.scalar(query(ENDLESS)).await
        }));
        let after = store.write(|tx| Box::pin(async move { tx.set_setting("kept", "1").await }));
        let (endless, after) = futures_util::future::join(endless, after).await;
        assert!(matches!(endless, Err(StoreError::TimedOut { .. } | StoreError::Busy { .. })), "{endless:?}");
        after.unwrap();
        let found = store
            .read(|conn| Box::pin(async move { Ok::<_, StoreError>((conn.setting("lost").await?, conn.setting("kept").await?)) }))
            .await
            .unwrap();
        assert_eq!(found, (None, Some("1".to_owned())));
    }
}

async fn count(tx: &mut Tx, n: usize) -> Result<(), StoreError> {
    let old: usize = tx.setting("n").await?.map_or(0, |text| text.parse().unwrap());
    tx.set_setting("n", &(old + 1).to_string()).await?;
    tx.append(note("p", ""), &format!("id{n}"), NOON).await.map(drop)
}

both_engines! {
    async fn brief_writes_and_queued_ones_are_kept_alike(bench: Bench) {
        let store = bench.open().await;
        let add = |n: usize| {
            let store = store.clone();
            tokio::spawn(async move {
                if n.is_multiple_of(3) {
                    store.write(move |tx| Box::pin(count(tx, n))).await
                } else {
                    store.write_brief(move |tx| Box::pin(count(tx, n))).await
                }
            })
        };
        assert!(join_all((0..300).map(add)).await.into_iter().all(|done| done.unwrap().is_ok()));
        assert_eq!(store.verify().await.unwrap().count, 300);
        let refused: Result<(), JobError> = store.write_brief(|tx| Box::pin(async move {
            tx.set_setting("n", "0").await?;
            Err(JobError::Refused)
        })).await;
        assert!(matches!(refused, Err(JobError::Refused)));
        let panicked: Result<(), StoreError> = store.write_brief(|tx| Box::pin(async move {
            tx.set_setting("n", "0").await?;
            panic!("on purpose")
        })).await;
        assert!(matches!(panicked, Err(StoreError::Panicked { .. })));
        let n = store.read(|conn| Box::pin(async move { conn.setting("n").await })).await.unwrap();
        assert_eq!(n.as_deref(), Some("300"));
        store.close().await;
        let late = store.write_brief(|tx| Box::pin(async move { tx.set_setting("n", "0").await })).await;
        assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    }
}

#[tokio::test]
async fn a_brief_write_that_waits_for_something_else_is_not_kept_and_the_next_one_is() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    let waits: Result<(), StoreError> = store
        .write_brief(|tx| {
            Box::pin(async move {
                tx.set_setting("a", "lost").await?;
                std::future::pending().await
            })
        })
        .await;
    assert!(matches!(waits, Err(StoreError::Closed)), "{waits:?}");
    store.write_brief(|tx| Box::pin(async move { tx.set_setting("b", "kept").await })).await.unwrap();
    let found = store.read(|conn| {
        Box::pin(async move { Ok::<_, StoreError>((conn.setting("a").await?, conn.setting("b").await?)) })
    });
    assert_eq!(found.await.unwrap(), (None, Some("kept".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brief_write_waits_its_turn_where_another_program_has_the_lock() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    let other = rusqlite::Connection::open(bench.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writer = store.clone();
    let write = tokio::spawn(async move {
        writer.write_brief(|tx| Box::pin(async move { tx.set_setting("a", "1").await })).await
    });
    // The thread that was asked is free meanwhile.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!write.is_finished());
    other.execute_batch("COMMIT").unwrap();
    write.await.unwrap().unwrap();
    let found = store.read(|conn| Box::pin(async move { conn.setting("a").await })).await.unwrap();
    assert_eq!(found.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_ends_when_nobody_waits_for_it_any_more() {
    let bench = Bench::sqlite();
    let mut options = bench.options();
    options.readers = 1;
    let store = Store::open(&bench.url, options).await.unwrap();
    let endless = store.read(|conn| Box::pin(async move { conn.scalar(query(ENDLESS)).await }));
    assert!(tokio::time::timeout(Duration::from_millis(200), endless).await.is_err());
    let next = store.read(|conn| Box::pin(async move { conn.setting("a").await }));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), next).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_job_of_many_small_statements_has_its_limit_too() {
    let bench = Bench::sqlite();
    let mut options = bench.options();
    options.job_timeout = Duration::from_millis(200);
    let store = Store::open(&bench.url, options).await.unwrap();
    let work = store.write(|tx| {
        Box::pin(async move {
            loop {
                tx.set_setting("a", "1").await?;
            }
        })
    });
    let done: Result<(), StoreError> = work.await;
    assert!(matches!(done, Err(StoreError::TimedOut { .. })), "{done:?}");
}

#[tokio::test]
async fn statistics_follow_what_is_written() {
    let bench = Bench::postgres().await;
    let store = bench.open().await;
    let written: Result<(), StoreError> = store
        .write(|tx| {
            Box::pin(async move {
                for n in 0..2000 {
                    tx.set_setting(&format!("k{n}"), "v").await?;
                }
                Ok(())
            })
        })
        .await;
    written.unwrap();
    // Autovacuum's own are counted elsewhere.
    let gathered =
        "SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'settings' AND last_analyze IS NOT NULL";
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let found: Result<_, StoreError> =
            store.read(move |conn| Box::pin(async move { conn.scalar(query(gathered)).await })).await;
        if found.unwrap() == Some(1) {
            break;
        }
        assert!(std::time::Instant::now() < end, "no statistics were gathered");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    store.close().await;
}
