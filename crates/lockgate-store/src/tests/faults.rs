//! Killed processes, a second server, a full disk: nothing that was acknowledged is lost.

use super::child;
use crate::error::StoreError;
use crate::store::Store;
use crate::testing::{Bench, both_engines};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

/// A writing child and what it says.
struct Writer {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acknowledged: HashSet<String>,
    errors: Vec<String>,
}

impl Writer {
    fn start(wrapper: &[&str], database: &str, round: u32) -> Self {
        let mut process = child::command(wrapper, database, round).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, acknowledged: HashSet::new(), errors: Vec::new() }
    }

    /// Reads one line; false at the end.
    fn listen(&mut self) -> bool {
        let Some(Ok(line)) = self.lines.next() else { return false };
        if let Some(id) = line.strip_prefix("ack ") {
            self.acknowledged.insert(id.to_owned());
        } else if let Some(why) = line.strip_prefix("error ").or_else(|| line.strip_prefix("refused ")) {
            self.errors.push(why.to_owned());
        }
        true
    }

    fn listen_until(&mut self, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !enough(self) {
            assert!(
                Instant::now() < deadline,
                "{} acknowledged, {} errors",
                self.acknowledged.len(),
                self.errors.len()
            );
            assert!(self.listen(), "the writer ended early: {:?}", self.errors);
        }
    }

    /// `kill -9`, then what was still in the pipe.
    fn kill(mut self) -> (HashSet<String>, Vec<String>) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        while self.listen() {}
        (std::mem::take(&mut self.acknowledged), std::mem::take(&mut self.errors))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A failed test must not leave a process that writes for ever. It may have ended already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

async fn ids(store: &Store) -> HashSet<String> {
    let count = u32::try_from(store.verify().await.unwrap().count).unwrap();
    let read = store.read(move |conn| {
        Box::pin(async move {
            let mut ids = HashSet::new();
            for stored in conn.entries(0, count).await? {
                let entry = lockgate_core::entry::read(stored.seq, &stored.text)?;
                // The entry and the setting were written by one job: both or neither.
                assert_eq!(conn.setting(&entry.id).await?, Some(entry.seq.to_string()));
                ids.insert(entry.id);
            }
            Ok::<_, StoreError>(ids)
        })
    });
    read.await.unwrap()
}

both_engines! {
    async fn a_killed_process_loses_nothing_that_it_acknowledged(bench: Bench) {
        let mut acknowledged = HashSet::new();
        for round in 0..5 {
            let mut writer = Writer::start(&[], &bench.url, round);
            let enough = 20 + usize::try_from(round).unwrap() * 37;
            writer.listen_until(|w| w.acknowledged.len() >= enough);
            let (acks, errors) = writer.kill();
            assert!(errors.is_empty(), "{errors:?}");
            acknowledged.extend(acks);
            let store = bench.open().await;
            let found = ids(&store).await;
            let lost: Vec<_> = acknowledged.difference(&found).collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
            store.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_file_is_told_who_has_it() {
    let bench = Bench::sqlite();
    let mut writer = Writer::start(&[], &bench.url, 0);
    writer.listen_until(|w| !w.acknowledged.is_empty());
    let error = Store::open(&bench.url, bench.options()).await.unwrap_err();
    assert_eq!(
        error,
        StoreError::InUse { path: bench.url.clone(), by: format!("pid {}", writer.process.id()) }
    );
    writer.kill();
    bench.open().await.close().await;
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_at_its_file_size_limit_says_so_and_goes_on_when_there_is_room() {
    let bench = Bench::sqlite();
    // A soft limit of 1.5 MB on every file that the child writes; the signal is ignored, so that writing fails instead.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -S -f 3000; exec \"$@\"", "limited"];
    let mut writer = Writer::start(&limited, &bench.url, 0);
    writer.listen_until(|w| w.errors.len() >= 20);
    assert!(!writer.acknowledged.is_empty(), "there was room at first");
    let clear =
        |why: &String| why.starts_with("no space is left to write") && why.contains("free some space");
    assert!(writer.errors.iter().all(clear), "{:?}", writer.errors.first());
    run("prlimit", &["--fsize=unlimited:", "--pid", &writer.process.id().to_string()]);
    let before = writer.acknowledged.len();
    writer.listen_until(|w| w.acknowledged.len() >= before + 50);
    let (acknowledged, _) = writer.kill();
    let found = ids(&bench.open().await).await;
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
