//! PostgreSQL: statements and rows by way of sqlx.

use crate::error::{StoreError, classify};
use crate::place::Place;
use crate::query::{Kind, Query, Value};
use crate::row::{Answer, Row};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{AssertSqlSafe, Column as _, PgConnection, Postgres, Row as _, TypeInfo as _, ValueRef as _};

/// The text with the kinds of its values in a comment: sqlx finds a prepared statement by its text alone, and one that was
/// prepared for a float would read an integer's bytes as a float.
fn told_apart(query: &Query) -> String {
    let kinds = query.values.iter().map(|value| match value {
        Value::Int(_) | Value::Null(Kind::Int) => 'i',
        Value::Real(_) | Value::Null(Kind::Real) => 'r',
        Value::Text(_) | Value::Null(Kind::Text) => 't',
    });
    query.sql.chars().chain("\n--".chars()).chain(kinds).collect()
}

fn prepared(query: Query) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    let statement = sqlx::query(AssertSqlSafe(told_apart(&query)));
    query.values.into_iter().fold(statement, |statement, value| match value {
        Value::Null(Kind::Int) => statement.bind(None::<i64>),
        Value::Null(Kind::Real) => statement.bind(None::<f64>),
        Value::Null(Kind::Text) => statement.bind(None::<String>),
        Value::Int(number) => statement.bind(number),
        Value::Real(number) => statement.bind(number),
        Value::Text(text) => statement.bind(text),
    })
}

fn read(row: &PgRow, at: usize, answer: &mut Answer) -> Result<(), sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        answer.null();
        return Ok(());
    }
    match raw.type_info().name() {
        "INT8" => answer.int(row.try_get(at)?),
        "INT4" => answer.int(row.try_get::<i32, _>(at)?.into()),
        "FLOAT8" => answer.real(row.try_get(at)?),
        _ => answer.text(row.try_get(at)?),
    }
    Ok(())
}

fn rows(found: &[PgRow]) -> Result<Vec<Row>, sqlx::Error> {
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    let names = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut answer = Answer::new(names);
    for row in found {
        for at in 0..answer.width() {
            read(row, at, &mut answer)?;
        }
    }
    Ok(answer.rows())
}

/// Runs a statement; says how many rows it touched.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    place: &Place,
    query: Query,
) -> Result<u64, StoreError> {
    let done = prepared(query).execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(|error| classify(place, error))
}

/// The rows of a statement's answer.
pub(crate) async fn fetch(
    connection: &mut PgConnection,
    place: &Place,
    query: Query,
) -> Result<Vec<Row>, StoreError> {
    let found = prepared(query).fetch_all(connection).await;
    found.and_then(|found| rows(&found)).map_err(|error| classify(place, error))
}

/// Runs statements without values.
pub(crate) async fn batch(
    connection: &mut PgConnection,
    place: &Place,
    sql: String,
) -> Result<(), StoreError> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.map(drop).map_err(|error| classify(place, error))
}
