//! The states of the aggregates after their last event: derived from the log, kept for queries.

use crate::conn::{Conn, Row, Tx, count, int, query, signed, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;
use lockgate_core::digest::canonical_json;
use serde::Serialize;
use std::collections::BTreeMap;

statements! {
    LOAD = "SELECT kind, id, project, environment, model, stage, seq, created, state FROM aggregates WHERE kind = $1 AND id = $2";
    SAVE = "INSERT INTO aggregates (kind, id, project, environment, model, stage, seq, created, state) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
            ON CONFLICT (kind, id) DO UPDATE SET project = excluded.project, environment = excluded.environment, \
            model = excluded.model, stage = excluded.stage, seq = excluded.seq, created = excluded.created, state = excluded.state";
    SELECT = "SELECT kind, id, project, environment, model, stage, seq, created, state FROM aggregates \
              WHERE kind = $1 AND (project = $2 OR $2 = '') AND (environment = $3 OR $3 = '') AND (model = $4 OR $4 = '') \
              AND (stage = $5 OR $5 = '') AND (created > $6 OR (created = $6 AND id > $7)) ORDER BY created, id LIMIT $8";
    EVERY = "SELECT kind, id, project, environment, model, stage, seq, created, state FROM aggregates";
    CLEAR = "DELETE FROM aggregates";
    CLEAR_SOURCES = "DELETE FROM sources";
}

/// One aggregate's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateRow {
    /// Which aggregate, for example `promotion`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its project, or nothing.
    pub project: String,
    /// Its environment, or nothing.
    pub environment: String,
    /// Its model, or nothing.
    pub model: String,
    /// Where its state machine stands, or nothing.
    pub stage: String,
    /// The number of the last entry that changed it.
    pub seq: u64,
    /// When it came to be.
    pub created: Millis,
    /// The state as canonical JSON.
    pub state: String,
}

impl StateRow {
    /// A row with nothing but its key and its state, which is written as canonical JSON.
    ///
    /// # Errors
    /// Where the state has no JSON form.
    pub fn new<S: Serialize>(kind: &str, id: &str, state: &S) -> Result<Self, StoreError> {
        let state = canonical_json(state)
            .map_err(|e| StoreError::Invalid { what: "an aggregate's state", why: e.to_string() })?;
        Ok(Self {
            kind: kind.to_owned(),
            id: id.to_owned(),
            project: String::new(),
            environment: String::new(),
            model: String::new(),
            stage: String::new(),
            seq: 0,
            created: 0,
            state,
        })
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            kind: text(row, "kind")?,
            id: text(row, "id")?,
            project: text(row, "project")?,
            environment: text(row, "environment")?,
            model: text(row, "model")?,
            stage: text(row, "stage")?,
            seq: count(row, "seq")?,
            created: int(row, "created")?,
            state: text(row, "state")?,
        })
    }
}

/// Which states are wanted. Nothing in a field means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFilter {
    /// Which aggregate.
    pub kind: String,
    /// Its project.
    pub project: Option<String>,
    /// Its environment.
    pub environment: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Where its state machine stands.
    pub stage: Option<String>,
    /// Only those after this one: `created` and `id` of the last row of the page before.
    pub after: Option<(Millis, String)>,
    /// How many at the most.
    pub limit: u32,
}

impl StateFilter {
    /// Every aggregate of a kind, up to 1000.
    #[must_use]
    pub fn kind(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            project: None,
            environment: None,
            model: None,
            stage: None,
            after: None,
            limit: 1000,
        }
    }
}

/// The aggregates' states in memory, as a fold over the log builds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct States {
    rows: BTreeMap<(String, String), StateRow>,
}

impl States {
    /// The state of one aggregate.
    #[must_use]
    pub fn load(&self, kind: &str, id: &str) -> Option<&StateRow> {
        self.rows.get(&(kind.to_owned(), id.to_owned()))
    }

    /// Replaces or adds the state of one aggregate.
    pub fn save(&mut self, row: StateRow) {
        self.rows.insert((row.kind.clone(), row.id.clone()), row);
    }

    /// Every state, ordered by kind and id.
    pub fn iter(&self) -> impl Iterator<Item = &StateRow> {
        self.rows.values()
    }

    /// Every state as text, one line of canonical JSON each, ordered by kind and id: equal states give equal bytes.
    ///
    /// # Errors
    /// Where a row has no JSON form.
    pub fn dump(&self) -> Result<String, StoreError> {
        let mut out = String::new();
        for row in self.rows.values() {
            let line = canonical_json(row)
                .map_err(|e| StoreError::Invalid { what: "an aggregate's state", why: e.to_string() })?;
            out.push_str(&line);
            out.push('\n');
        }
        Ok(out)
    }

    /// The keys whose rows differ between the two.
    pub(crate) fn differences(&self, other: &Self) -> Vec<(String, String)> {
        let one_sided = other.rows.keys().filter(|key| !self.rows.contains_key(*key));
        let changed =
            self.rows.iter().filter(|(key, row)| other.rows.get(*key) != Some(row)).map(|(key, _)| key);
        let mut keys: Vec<_> = changed.chain(one_sided).cloned().collect();
        keys.sort();
        keys
    }
}

impl Conn {
    /// The state of one aggregate.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn load_state(&mut self, kind: &str, id: &str) -> Result<Option<StateRow>, StoreError> {
        no_nul("an aggregate's id", id)?;
        let row = self.fetch_optional(query(LOAD).bind(kind.to_owned()).bind(id.to_owned())).await?;
        row.as_ref().map(StateRow::read).transpose()
    }

    /// The states that a filter asks for, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn states(&mut self, filter: &StateFilter) -> Result<Vec<StateRow>, StoreError> {
        let wanted = |value: &Option<String>| value.clone().unwrap_or_default();
        let (created, id) = filter.after.clone().unwrap_or((i64::MIN, String::new()));
        let parts = [&filter.project, &filter.environment, &filter.model, &filter.stage].map(wanted);
        for text in parts.iter().chain([&filter.kind, &id]) {
            no_nul("a filter", text)?;
        }
        let statement =
            parts.into_iter().fold(query(SELECT).bind(filter.kind.clone()), |q, part| q.bind(part));
        let rows = self.fetch_all(statement.bind(created).bind(id).bind(i64::from(filter.limit))).await?;
        rows.iter().map(StateRow::read).collect()
    }

    /// Every state of every aggregate.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn all_states(&mut self) -> Result<States, StoreError> {
        let mut states = States::default();
        for row in self.fetch_all(query(EVERY)).await? {
            states.save(StateRow::read(&row)?);
        }
        Ok(states)
    }
}

impl Tx {
    /// Writes the state of one aggregate.
    ///
    /// # Errors
    /// Where a text can't be stored.
    pub async fn save_state(&mut self, row: StateRow) -> Result<(), StoreError> {
        let texts = [&row.kind, &row.id, &row.project, &row.environment, &row.model, &row.stage, &row.state];
        for text in texts {
            no_nul("an aggregate", text)?;
        }
        let statement = query(SAVE)
            .bind(row.kind)
            .bind(row.id)
            .bind(row.project)
            .bind(row.environment)
            .bind(row.model)
            .bind(row.stage)
            .bind(signed("an entry's number", row.seq)?)
            .bind(row.created)
            .bind(row.state);
        self.execute(statement).await.map(|_| ())
    }

    /// Drops everything that is derived from the log: the aggregates' states and the agents' numbers.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub(crate) async fn clear_derived(&mut self) -> Result<(), StoreError> {
        self.execute(query(CLEAR)).await?;
        self.execute(query(CLEAR_SOURCES)).await.map(|_| ())
    }
}
