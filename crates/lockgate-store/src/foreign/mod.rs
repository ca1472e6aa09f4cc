//! SQLite databases of MLflow's own store, read only, whichever release of MLflow 1.x to 3.x made them.
//!
//! | module | subject |
//! |---|---|
//! | `tables` | which tables and columns there are |
//! | `runs`, `models`, `registry` | experiments and runs; logged models; the model registry |
//! | `traces` | traces, their spans and links |
//!
//! Columns are looked up by name: what an older release doesn't have reads as nothing. Every value is cast, because an
//! expression's type is what the value is, not what the column was declared as. Each call reads by itself, without a
//! transaction that would keep the other program from writing.

mod models;
mod registry;
mod runs;
mod tables;
#[cfg(test)]
mod tests;
mod traces;

use crate::conn::{Row, query_dynamic};
use crate::error::StoreError;
use crate::place::{Engine, Place};
use crate::sqlite::{Connection, Mode};
use crate::steps;
use std::collections::{HashMap, HashSet};

pub use registry::ForeignVersion;
pub use traces::ForeignLink;

/// A database of MLflow's own store.
pub struct Foreign {
    connection: Connection,
    place: Place,
    columns: HashMap<String, HashSet<String>>,
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreign").field("place", &self.place.name).finish_non_exhaustive()
    }
}

/// A value that is bound to a place of a statement.
enum Bind<'a> {
    Text(&'a str),
    Int(i64),
}

impl Foreign {
    /// Opens the SQLite file at `path` without changing it.
    ///
    /// # Errors
    /// Where there is none or it is not one of MLflow's.
    pub async fn open(path: &str) -> Result<Self, StoreError> {
        let place = Place::parse(path)?;
        let name = place.name.to_string();
        if place.engine != Engine::Sqlite {
            let why = "only SQLite files can be read here".to_owned();
            return Err(StoreError::Address { given: name, why });
        }
        let connection = Connection::open(&place, Mode::ReadOnly)?;
        let mut found = Self { connection, place, columns: HashMap::new() };
        found.columns = found.look_up().await?;
        if steps::is_ours(&mut found.connection)? {
            let why = "it is Lockgate's own database, not MLflow's\n  hint: `lockgate db backup` and `lockgate db restore` \
                       copy it; `lockgate import mlflow http://HOST:PORT` takes from the server that runs on it"
                .to_owned();
            return Err(StoreError::NotForeign { place: name, why });
        }
        if !found.has("experiments") || !found.has("runs") {
            let why = "it has no table of experiments and runs, so it is none of MLflow's".to_owned();
            return Err(StoreError::NotForeign { place: name, why });
        }
        Ok(found)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.place.name
    }

    async fn rows(&mut self, sql: String, binds: &[Bind<'_>]) -> Result<Vec<Row>, StoreError> {
        let statement = binds.iter().fold(query_dynamic(sql), |statement, bind| match bind {
            Bind::Text(text) => statement.bind((*text).to_owned()),
            Bind::Int(number) => statement.bind(*number),
        });
        self.connection.rows(&statement, usize::MAX)
    }
}
