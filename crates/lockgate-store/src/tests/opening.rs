//! Opening: what is created, what is refused, and with which words.

use crate::error::StoreError;
use crate::store::{Access, Store, StoreOptions};
use crate::testing::{Bench, NOON, both_engines, note};
use std::os::unix::fs::PermissionsExt;

both_engines! {
    async fn what_was_written_is_there_after_opening_again(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move { tx.append(note("p", "why"), "a", NOON).await })).await.unwrap();
        store.close().await;
        let closed = store.write(|tx| Box::pin(async move { tx.set_setting("a", "b").await })).await;
        assert_eq!(closed.unwrap_err(), StoreError::Closed);
        let closed = store.read(|conn| Box::pin(async move { conn.setting("a").await })).await;
        assert_eq!(closed.unwrap_err(), StoreError::Closed);
        assert_eq!(bench.open().await.verify().await.unwrap().count, 1);
    }

    async fn a_newer_schema_is_refused(bench: Bench) {
        bench.open().await.close().await;
        let checksum = if bench.is_sqlite() { "x''" } else { "''" };
        bench.tamper(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99999, 'future', true, {checksum}, 0)"
        )).await;
        let newer = |error: StoreError| match error {
            StoreError::NewerSchema { found, .. } => assert_eq!(found, 99999),
            other => panic!("{other}"),
        };
        newer(Store::open(&bench.url, bench.options()).await.unwrap_err());
        let reading = StoreOptions { access: Access::ReadOnly, ..bench.options() };
        newer(Store::open(&bench.url, reading).await.unwrap_err());
    }

    async fn a_changed_schema_step_is_refused(bench: Bench) {
        bench.open().await.close().await;
        bench.tamper(if bench.is_sqlite() { "UPDATE _sqlx_migrations SET checksum = x'00'" } else { "UPDATE _sqlx_migrations SET checksum = '\\x00'" }).await;
        let error = Store::open(&bench.url, bench.options()).await.unwrap_err();
        assert!(matches!(error, StoreError::Schema { .. }), "{error}");
    }

    async fn a_store_opened_for_reading_reads_beside_the_writer(bench: Bench) {
        let store = bench.open().await;
        let reading = StoreOptions { access: Access::ReadOnly, ..bench.options() };
        let reader = Store::open(&bench.url, reading).await.unwrap();
        store.write(|tx| Box::pin(async move { tx.append(note("p", "why"), "a", NOON).await })).await.unwrap();
        assert_eq!(reader.verify().await.unwrap().count, 1);
        let refused = reader.write(|tx| Box::pin(async move { tx.set_setting("a", "b").await })).await;
        assert_eq!(refused.unwrap_err(), StoreError::OpenedReadOnly);
        reader.close().await;
    }

    async fn a_reader_cannot_write_even_by_sql(bench: Bench) {
        let store = bench.open().await;
        let written = store.read(|conn| Box::pin(async move {
            conn.execute(crate::conn::query("DELETE FROM settings")).await
        })).await;
        assert!(matches!(written, Err(StoreError::ReadOnly { .. })), "{written:?}");
    }
}

#[tokio::test]
async fn a_new_file_and_its_folder_belong_to_this_user_alone() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    store.write(|tx| Box::pin(async move { tx.set_setting("a", "b").await })).await.unwrap();
    let folder = bench.file().parent().unwrap().to_owned();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 4, "database, lock, -shm and -wal: {files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    store.close().await;
}

#[tokio::test]
async fn a_second_store_on_the_file_is_refused_until_the_first_is_gone() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    let error = Store::open(&bench.url, bench.options()).await.unwrap_err();
    assert_eq!(
        error,
        StoreError::InUse { path: bench.url.clone(), by: format!("pid {}", std::process::id()) }
    );
    assert!(error.to_string().contains("already in use by pid"), "{error}");
    store.close().await;
    bench.open().await.close().await;
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_file() {
    let bench = Bench::sqlite();
    drop(bench.open().await);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = Store::open(&bench.url, bench.options()).await {
        assert!(matches!(error, StoreError::InUse { .. }) && std::time::Instant::now() < deadline, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn files_that_are_no_store_are_left_as_they_are() {
    let bench = Bench::sqlite();
    std::fs::create_dir_all(bench.file().parent().unwrap()).unwrap();
    let text = "not a database, but long enough to be read as one ".repeat(40);
    std::fs::write(bench.file(), &text).unwrap();
    let error = Store::open(&bench.url, bench.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(bench.file()).unwrap(), text);

    std::fs::remove_file(bench.file()).unwrap();
    rusqlite::Connection::open(bench.file()).unwrap().execute_batch("CREATE TABLE theirs (a TEXT)").unwrap();
    let theirs = std::fs::read(bench.file()).unwrap();
    let error = Store::open(&bench.url, bench.options()).await.unwrap_err();
    assert!(error.to_string().contains("a SQLite database of another program"), "{error}");
    assert_eq!(std::fs::read(bench.file()).unwrap(), theirs);

    let folder = bench.folder();
    let error = Store::open(folder.to_str().unwrap(), bench.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Files { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_named_as_such() {
    let bench = Bench::sqlite();
    let store = bench.open().await;
    for n in 0..200 {
        let id = format!("id{n}");
        store
            .write(move |tx| Box::pin(async move { tx.append(note("p", "why"), &id, NOON).await }))
            .await
            .unwrap();
    }
    store.close().await;
    let mut bytes = std::fs::read(bench.file()).unwrap();
    // Everything behind the first page, which holds the header and the schema.
    bytes[4096..].fill(0xff);
    std::fs::write(bench.file(), bytes).unwrap();
    let error = match Store::open(&bench.url, bench.options()).await {
        Err(error) => error,
        Ok(store) => match store.verify().await.unwrap_err() {
            crate::verify::VerifyError::Store(error) => error,
            other => panic!("{other}"),
        },
    };
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("restore the last backup"), "{error}");
}

#[tokio::test]
async fn a_read_only_file_and_a_missing_file_are_named_as_such() {
    let bench = Bench::sqlite();
    let reading = || StoreOptions { access: Access::ReadOnly, ..bench.options() };
    let error = Store::open(&bench.url, reading()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!bench.file().exists(), "opening for reading creates nothing");
    let error = Store::open("/proc/nothing/store.db", bench.options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Files { .. } | StoreError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_its_password() {
    let bench = Bench::sqlite();
    for url in ["postgres://me:geheim@127.0.0.1:1/db", "postgres://me:geheim@%2Fnowhere/db"] {
        let error = Store::open(url, bench.options()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_database_of_a_server_is_named_as_such() {
    let bench = Bench::postgres().await;
    let url = format!("{}_missing", bench.url);
    let error = Store::open(&url, bench.options()).await.unwrap_err();
    assert!(error.to_string().contains("createdb"), "{error}");
}
