//! Governed state and its audit log in SQL, on SQLite and on PostgreSQL from one text.
//!
//! | module | subject |
//! |---|---|
//! | [`store`] | [`Store`]: opening, reading from snapshots, writing in jobs |
//! | `writer` | group commit: what is acknowledged is durable |
//! | `conn`, `query`, `row` | connections within a transaction; statements; answers |
//! | `sqlite`, `postgres` | the engines behind them |
//! | `statistics` | what PostgreSQL's planner goes by |
//! | `pattern` | regular expressions that mean the same to both |
//! | `open`, `steps` | opening; the steps of the schema |
//! | [`log`] | the event log: appending, reading, agents' reports |
//! | [`verify`] | the proof that the log was not changed |
//! | [`states`] | the aggregates' states, derived from the log |
//! | [`rebuild`] | comparing or replacing what is derived |
//! | [`people`] | names, commitments and tokens, which can be erased |
//! | [`tracking`] | experiments, runs, the model registry, artifacts' places |
//! | [`feedback`] | outcomes that come after the prediction |
//! | [`foreign`] | databases of MLflow itself, read only |
//! | [`settings`] | small values by name |
//! | [`upkeep`] | bringing the schema forward, the engine's own check, snapshots of a SQLite file |
//! | [`error`] | what can go wrong, and what to do about it |
//!
//! # One text for two engines
//!
//! Statements are portable SQL with `$1` placeholders over columns of only TEXT, BIGINT and DOUBLE PRECISION; every one
//! of them stands in a `statements!` table and is prepared on both engines by a test. What differs, and what we do:
//!
//! * NaN becomes NULL in SQLite and stays NaN in PostgreSQL: keep a flag column beside a number that may be NaN.
//! * LIKE ignores case in SQLite only: compare `lower(..)`, or don't use it.
//! * PostgreSQL's TEXT can't hold NUL, SQLite's can: refused on both (`error::no_nul`).
//! * A failed statement dooms a PostgreSQL transaction; SQLite goes on, or has silently rolled back when the disk is full.
//!   [`Conn`] refuses every further statement of the job on both.
//! * PostgreSQL sorts text by its locale: no answer may depend on the order of texts; [`states::States::dump`] sorts itself.
//! * Writers exclude each other from the first statement on (`BEGIN IMMEDIATE`; on PostgreSQL, where several servers may
//!   write, a lock on the head's row), so that a job's reads are still true when it commits.
//! * A PostgreSQL `COMMIT` of a doomed transaction succeeds and keeps nothing: each job's savepoint is released before,
//!   which fails in that case.

mod conn;
pub mod error;
pub mod feedback;
pub mod foreign;
mod lock;
pub mod log;
mod open;
mod pattern;
pub mod people;
mod place;
mod postgres;
mod query;
pub mod rebuild;
mod row;
pub mod settings;
mod sqlite;
mod statements;
pub mod states;
mod statistics;
mod steps;
pub mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tracking;
pub mod upkeep;
pub mod verify;
mod writer;

pub use conn::{Conn, DEFAULT_WORKSPACE, Tx};
pub use error::StoreError;
pub use lock::FileLock;
pub use log::{Head, NewEntry};
pub use place::{is_postgres, sqlite_file, without_password};
pub use states::{StateFilter, StateRow, States};
pub use store::{Access, Store, StoreOptions};
