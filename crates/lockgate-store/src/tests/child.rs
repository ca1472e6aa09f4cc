//! The other process of a fault test: this test binary once more, told by its environment what to do.

use crate::error::StoreError;
use crate::store::{Store, StoreOptions};
use crate::testing::{NOON, note};
use lockgate_core::clock::{Clock, Millis};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DATABASE: &str = "LOCKGATE_STORE_TEST_DATABASE";
const ROUND: &str = "LOCKGATE_STORE_TEST_ROUND";

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> Millis {
        NOON
    }
}

/// Starts the child through `wrapper` (a program and its arguments, may be empty).
pub(super) fn command(wrapper: &[&str], database: &str, round: u32) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(&binary),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&binary);
            command
        }
    };
    command.args(["--exact", "tests::child::writes_until_it_is_killed", "--ignored", "--nocapture"]);
    command.env(DATABASE, database).env(ROUND, round.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Appends entries in eight tasks and says `ack <id>` for each that is acknowledged, `error <why>` for each that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the fault tests start it as a process of its own"]
async fn writes_until_it_is_killed() {
    let database =
        std::env::var(DATABASE).expect("started by a fault test, which says where the database is");
    let round = std::env::var(ROUND).unwrap();
    let store = match Store::open(&database, StoreOptions::new(Arc::new(Noon))).await {
        Ok(store) => store,
        Err(error) => return say(&format!("refused {error}")),
    };
    let tasks = (0..8).map(|task| {
        let (store, round) = (store.clone(), round.clone());
        tokio::spawn(async move {
            for n in 0.. {
                let id = format!("{round}-{task}-{n}");
                match append(&store, id.clone()).await {
                    Ok(()) => say(&format!("ack {id}")),
                    Err(error) => say(&format!("error {error}")),
                }
            }
        })
    });
    futures_util::future::join_all(tasks).await;
}

async fn append(store: &Store, id: String) -> Result<(), StoreError> {
    let work = store.write(move |tx| {
        Box::pin(async move {
            let entry = tx.append(note("p", &"x".repeat(2000)), &id, NOON).await?;
            tx.set_setting(&id, &entry.seq.to_string()).await
        })
    });
    work.await
}
