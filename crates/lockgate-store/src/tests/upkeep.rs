//! Upkeep: older schemas go forward with what they hold, snapshots are whole, damage is told.

use crate::error::StoreError;
use crate::lock::FileLock;
use crate::open;
use crate::place::Place;
use crate::query::query;
use crate::steps;
use crate::store::{Access, Store, StoreOptions};
use crate::testing::{Bench, NOON, both_engines, note};
use crate::tracking::Artifact;
use crate::upkeep::{Migrated, migrate, snapshot};
use lockgate_core::digest::Digest;

/// What a program that knew only the first schema steps left behind: some rows of that time.
async fn older(bench: &Bench, version: i64) {
    let place = Place::parse(&bench.url).unwrap();
    std::fs::create_dir_all(bench.folder().join("deep")).unwrap();
    if bench.is_sqlite() {
        std::fs::write(bench.file(), "").unwrap();
    }
    let mut connection = steps::migrate_to(&place, version).await;
    let mut rows = vec!["INSERT INTO settings (key, value) VALUES ('a', 'kept')".to_owned()];
    if version >= 2 {
        rows.push(format!(
            "INSERT INTO artifacts (root, path, digest, size, updated) VALUES ('0/r/artifacts', 'm', '{}', 3, 1)",
            Digest::of(b"abc")
        ));
    }
    if version >= 9 {
        rows.push("INSERT INTO metrics (run_id, key, logged_at, step, value, is_nan) VALUES ('r', 'm', 1, 2, 0.5, 0), ('r', 'm', 1, 1, 0, 1)".to_owned());
        rows.push("INSERT INTO latest_metrics (run_id, key, logged_at, step, value, is_nan, experiment_id) VALUES ('r', 'm', 1, 2, 0.5, 0, 7)".to_owned());
        rows.push(format!(
            "INSERT INTO params (run_id, key, value) VALUES ('r', 'p', '{}')",
            "x".repeat(6000)
        ));
        rows.push("INSERT INTO run_tags (run_id, key, value) VALUES ('r', 't', '')".to_owned());
    }
    for sql in rows {
        connection.batch(&place, &sql).await.unwrap();
    }
    open::close(connection, &place).await.unwrap();
}

async fn kept(store: &Store) -> Option<String> {
    store.read(|conn| Box::pin(async move { conn.setting("a").await })).await.unwrap()
}

async fn artifacts(store: &Store) -> Vec<(String, Artifact)> {
    store.read(|conn| Box::pin(async move { conn.every_artifact(None, 100).await })).await.unwrap()
}

async fn append(store: &Store, count: usize) {
    for n in 0..count {
        let id = format!("id{n}");
        store
            .write(move |tx| Box::pin(async move { tx.append(note("p", "why"), &id, NOON).await }))
            .await
            .unwrap();
    }
}

both_engines! {
    async fn the_first_schema_goes_forward_with_its_rows(bench: Bench) {
        older(&bench, 1).await;
        let to = steps::known_version();
        assert_eq!(migrate(&bench.url).await.unwrap(), Migrated { from: 1, to });
        assert_eq!(migrate(&bench.url).await.unwrap(), Migrated { from: to, to });
        let store = bench.open().await;
        assert_eq!(kept(&store).await.as_deref(), Some("kept"));
        assert_eq!(store.schema_version().await.unwrap(), to);
        append(&store, 1).await;
        assert_eq!(store.verify().await.unwrap().count, 1);
    }

    async fn the_second_schema_goes_forward_with_its_rows(bench: Bench) {
        older(&bench, 2).await;
        assert_eq!(migrate(&bench.url).await.unwrap().from, 2);
        let store = bench.open().await;
        assert_eq!(kept(&store).await.as_deref(), Some("kept"));
        let found = artifacts(&store).await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.as_str(), found[0].1.path.as_str(), found[0].1.size), ("0/r/artifacts", "m", 3));
    }

    async fn what_was_logged_is_kept_when_it_is_put_in_order(bench: Bench) {
        older(&bench, 12).await;
        migrate(&bench.url).await.unwrap();
        let store = bench.open().await;
        let found = store.read(|conn| Box::pin(async move {
            let mut found = Vec::new();
            for sql in [
                "SELECT COUNT(*) FROM metrics m JOIN latest_metrics l ON l.run_id = m.run_id AND l.key = m.key AND l.experiment_id = 7",
                "SELECT step FROM metrics WHERE value = 0.5 AND is_nan = 0",
                "SELECT step FROM metrics WHERE is_nan = 1",
                "SELECT length(p.value) + length(t.value) FROM params p JOIN run_tags t ON t.run_id = p.run_id",
            ] {
                found.push(conn.fetch_one(query(sql)).await?.at::<i64>(0)?);
            }
            Ok::<_, StoreError>(found)
        })).await.unwrap();
        assert_eq!(found, [2, 2, 1, 6000]);
    }

    async fn a_server_brings_an_older_schema_forward_by_itself(bench: Bench) {
        older(&bench, 1).await;
        assert_eq!(kept(&bench.open().await).await.as_deref(), Some("kept"));
    }

    async fn an_older_schema_can_be_inspected_but_not_read(bench: Bench) {
        older(&bench, 1).await;
        let with = |access| StoreOptions { access, ..bench.options() };
        let error = Store::open(&bench.url, with(Access::ReadOnly)).await.unwrap_err();
        assert!(matches!(error, StoreError::OlderSchema { found: 1, .. }), "{error}");
        let store = Store::open(&bench.url, with(Access::Inspect)).await.unwrap();
        assert_eq!(store.schema_version().await.unwrap(), 1);
        assert_eq!(store.verify().await.unwrap().count, 0);
    }

    async fn artifacts_are_listed_page_by_page(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            for name in ["b", "a", "Z", "ü", "c"] {
                for root in ["1/x/artifacts", "0/x/artifacts"] {
                    let new = Artifact { path: name.to_owned(), digest: Digest::of(name.as_bytes()), size: 1 };
                    tx.put_artifact(root, &new, NOON).await?;
                }
            }
            Ok::<_, StoreError>(())
        })).await.unwrap();
        let (mut found, mut last) = (Vec::new(), None);
        loop {
            let after: Option<(String, Artifact)> = last.take();
            let page = store.read(move |conn| Box::pin(async move { conn.every_artifact(after.as_ref(), 3).await })).await.unwrap();
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            found.extend(page);
        }
        assert_eq!(found.len(), 10);
        found.dedup();
        assert_eq!(found.len(), 10);
    }

    async fn a_newer_schema_does_not_go_back(bench: Bench) {
        bench.open().await.close().await;
        let checksum = if bench.is_sqlite() { "x''" } else { "''" };
        bench.tamper(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99999, 'future', true, {checksum}, 0)"
        )).await;
        let error = migrate(&bench.url).await.unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 99999, .. }), "{error}");
    }

    async fn a_sound_database_has_no_damage(bench: Bench) {
        let store = bench.open().await;
        append(&store, 3).await;
        assert!(store.integrity().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_snapshot_beside_the_writer_holds_what_was_committed() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    append(&store, 5).await;
    let secret = "5ec7e7".repeat(40);
    let value = secret.clone();
    let set = store.write(|tx| {
        Box::pin(async move {
            tx.set_setting("secret", &value).await?;
            tx.set_setting("other", "kept").await
        })
    });
    set.await.unwrap();
    let copy = bench.folder().join("it's a copy.db");
    snapshot(&bench.url, &copy, &["secret"]).await.unwrap();
    append_more(&store).await;
    let bytes = std::fs::read(&copy).unwrap();
    let there = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(there("kept") && !there(&secret), "not even in what SQLite has freed");
    let options = StoreOptions { access: Access::ReadOnly, ..bench.options() };
    let copied = Store::open(copy.to_str().unwrap(), options).await.unwrap();
    assert_eq!(copied.verify().await.unwrap().count, 5);
    assert!(copied.integrity().await.unwrap().is_empty());
    copied.close().await;
    // A server takes it as its own.
    let opened = Store::open(copy.to_str().unwrap(), bench.options()).await.unwrap();
    assert_eq!(opened.verify().await.unwrap().count, 5);
    opened.close().await;
    let refused = snapshot(&bench.url, &copy, &["secret"]).await;
    assert!(refused.is_err(), "a file that is there stays");
}

async fn append_more(store: &Store) {
    store
        .write(|tx| Box::pin(async move { tx.append(note("p", "later"), "later", NOON).await }))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_snapshot_needs_no_server() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    append(&store, 2).await;
    store.close().await;
    let copy = bench.folder().join("copy.db");
    snapshot(&bench.url, &copy, &["secret"]).await.unwrap();
    let options = StoreOptions { access: Access::ReadOnly, ..bench.options() };
    assert_eq!(Store::open(copy.to_str().unwrap(), options).await.unwrap().verify().await.unwrap().count, 2);
    // One file that asks for none beside it: bytes 18 and 19 are 2 with a write-ahead log, see sqlite.org/fileformat.html.
    assert_eq!(std::fs::read(&copy).unwrap()[18..20], [1, 1]);
    let missing = snapshot("/nowhere/store.db", &bench.folder().join("other.db"), &[]).await.unwrap_err();
    assert!(matches!(missing, StoreError::Unavailable { .. }), "{missing}");
    let postgres = snapshot("postgres://u:geheim@h/d", &copy, &[]).await.unwrap_err();
    assert!(!postgres.to_string().contains("geheim"), "{postgres}");
}

#[tokio::test]
async fn damage_is_told_in_the_engines_words() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    append(&store, 200).await;
    store.close().await;
    let mut bytes = std::fs::read(bench.file()).unwrap();
    // A page in the middle of the log's own table or of an index of it.
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(bench.file(), bytes).unwrap();
    let options = StoreOptions { access: Access::ReadOnly, ..bench.options() };
    let store = Store::open(&bench.url, options).await.unwrap();
    assert!(!store.integrity().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_schema_is_brought_forward_only_while_no_server_runs() {
    let bench = Bench::sqlite();
    let missing = migrate(&bench.url).await.unwrap_err();
    assert!(missing.to_string().contains("no such file"), "{missing}");
    assert!(!bench.file().exists(), "nothing is made");
    let store = bench.open().await;
    assert!(matches!(migrate(&bench.url).await, Err(StoreError::InUse { .. })));
    assert!(matches!(FileLock::hold(&bench.file()), Err(StoreError::InUse { .. })));
    store.close().await;
    let _held = FileLock::hold(&bench.file()).unwrap();
    assert!(matches!(Store::open(&bench.url, bench.options()).await, Err(StoreError::InUse { .. })));
}
