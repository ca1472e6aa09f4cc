//! PostgreSQL's statistics, kept up while much is written.
//!
//! Its planner chooses by them. Autovacuum gathers them once a minute at the earliest; until then a search of what was just
//! written can take a hundred times as long as after it.

use crate::error::{StoreError, classify};
use crate::place::Place;
use crate::postgres;
use crate::query::query;
use crate::row::text;
use sqlx::{Pool, Postgres};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);

/// How often it is looked after the last write. PostgreSQL counts what a connection changed up to ten seconds after it fell idle.
const LOOKS: u32 = 4;

/// Tables that have changed by a fifth since their statistics were gathered. Each time takes as long, however large a table
/// is, and the next comes only when it has grown by as much again.
const STALE: &str = "SELECT quote_ident(relname) AS name FROM pg_stat_user_tables \
                     WHERE schemaname = current_schema() AND n_mod_since_analyze > 100 + n_live_tup / 5 ORDER BY relname";

/// Gathers statistics of what has changed much, until the pool is closed or the writer, to whom `written` belongs, has gone.
pub(crate) async fn keep(pool: Pool<Postgres>, place: Place, written: Weak<AtomicBool>) {
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = pool.close_event() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(written) = written.upgrade() else { return };
        looks = if written.swap(false, Ordering::Relaxed) { LOOKS } else { looks.saturating_sub(1) };
        drop(written);
        if looks == 0 {
            continue;
        }
        tokio::select! {
            () = pool.close_event() => return,
            gathered = gather(&pool, &place) => if let Err(error) = gathered {
                tracing::warn!(place = %place.name, %error, "the database's statistics are not up to date: searches may be slow");
            }
        }
    }
}

async fn gather(pool: &Pool<Postgres>, place: &Place) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.map_err(|e| classify(place, e))?;
    let stale = postgres::fetch(&mut connection, place, query(STALE)).await?;
    let names = stale.iter().map(|row| text(row, "name")).collect::<Result<Vec<_>, _>>()?;
    for name in names {
        // One at a time: each is locked, against changes of its form only, for as long as its statement takes.
        postgres::batch(&mut connection, place, format!("ANALYZE (SKIP_LOCKED) {name}")).await?;
    }
    Ok(())
}
