//! Every statement is understood by both engines.

use crate::conn::{Raw, query};
use crate::open;
use crate::place::{Engine, Place};
use crate::query::Value;
use crate::testing::{Bench, both_engines};
use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};

fn every() -> Vec<(&'static str, &'static str)> {
    let governed = [crate::log::ALL, crate::states::ALL, crate::people::ALL, crate::settings::ALL].concat();
    [governed, crate::tracking::statements(), crate::feedback::ALL.to_vec()].concat()
}

both_engines! {
    async fn every_statement_is_prepared(bench: Bench) {
        bench.open().await.close().await;
        let place = Place::parse(&bench.url).unwrap();
        let mut connection = open::writer(&place, bench.options().job_timeout).await.unwrap();
        assert!(every().len() > 30);
        for (name, sql) in every() {
            let prepared = match &mut connection {
                Raw::Sqlite(connection) => connection.prepare(sql).map_err(|e| e.to_string()),
                Raw::Postgres(connection) => {
                    connection.prepare(AssertSqlSafe(sql).into_sql_str()).await.map(drop).map_err(|e| e.to_string())
                }
                Raw::Pooled(_) => unreachable!(),
            };
            assert_eq!(prepared, Ok(()), "{name}: {sql}");
        }
    }

    async fn one_text_takes_values_of_several_kinds(bench: Bench) {
        bench.open().await.close().await;
        let place = Place::parse(&bench.url).unwrap();
        let mut connection = open::writer(&place, bench.options().job_timeout).await.unwrap();
        for (value, expected) in [(Value::Real(0.5), 0), (Value::Int(1), 1), (Value::Real(1.0), 1), (Value::Int(0), 0)] {
            let sql = "SELECT CASE WHEN 0.9 < $1 THEN 1 ELSE 0 END";
            let row = connection.fetch(&place, query(sql).bind(value.clone()), 1).await.unwrap().remove(0);
            assert_eq!(row.at::<i64>(0).unwrap(), expected, "{value:?}");
        }
    }

    async fn what_is_acknowledged_is_on_disk(bench: Bench) {
        bench.open().await.close().await;
        let place = Place::parse(&bench.url).unwrap();
        let mut connection = open::writer(&place, bench.options().job_timeout).await.unwrap();
        let settings = match place.engine {
            Engine::Sqlite => [("PRAGMA synchronous", "2"), ("PRAGMA journal_mode", "wal"), ("PRAGMA foreign_keys", "1")],
            Engine::Postgres => [("SHOW synchronous_commit", "on"), ("SHOW transaction_isolation", "read committed"), ("SHOW statement_timeout", "10s")],
        };
        for (sql, expected) in settings {
            let row = connection.fetch(&place, query(sql), 1).await.unwrap().remove(0);
            let found = row.at::<String>(0).unwrap_or_else(|_| row.at::<i64>(0).unwrap().to_string());
            assert_eq!(found, expected, "{sql}");
        }
    }
}

#[test]
fn only_portable_column_types_are_used() {
    let banned = "BOOLEAN TIMESTAMP TIMESTAMPTZ BYTEA BLOB JSON JSONB INT INTEGER SERIAL AUTOINCREMENT REAL VARCHAR NUMERIC";
    let banned: Vec<&str> = banned.split(' ').collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut read = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap().to_uppercase();
        let statements = text.lines().map(|line| line.split("--").next().unwrap_or_default());
        for word in statements.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')) {
            assert!(!banned.contains(&word), "{word} is not the same on both engines");
        }
        read += 1;
    }
    assert!(read > 0);
}
