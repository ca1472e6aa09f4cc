//! The event log: entries are appended, linked to the one before, and never changed.

use crate::conn::{Conn, Row, Tx, count, int, opt_int, parsed, query, signed, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::actor::Actor;
use lockgate_core::clock::{Millis, rfc3339};
use lockgate_core::digest::Digest;
use lockgate_core::entry::{self, ChainError, Effect, Entry, Resource, ResourceKind, Source, StoredEntry};
use lockgate_core::event::Event;

statements! {
    HEAD = "SELECT next, chain FROM head WHERE one = 1";
    MOVE_HEAD = "UPDATE head SET next = $1, chain = $2 WHERE one = 1 AND next = $3";
    INSERT = "INSERT INTO entries (seq, id, at_ms, resource_type, resource_id, project, environment, action, text, leaf, chain) \
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    PAGE = "SELECT seq, at_ms, id, resource_type, resource_id, project, environment, action, text, leaf, chain \
            FROM entries WHERE seq >= $1 ORDER BY seq LIMIT $2";
    FOR_RESOURCE = "SELECT seq, text, leaf, chain FROM entries \
                    WHERE resource_type = $1 AND resource_id = $2 AND seq >= $3 ORDER BY seq LIMIT $4";
    FOR_SCOPE = "SELECT seq, text, leaf, chain FROM entries \
                 WHERE project = $1 AND (environment = $2 OR $2 = '') AND seq >= $3 ORDER BY seq LIMIT $4";
    UNTIL = "SELECT seq, text, leaf, chain FROM entries WHERE seq >= $1 \
             AND seq < (SELECT COALESCE(MIN(late.seq), 9223372036854775807) FROM entries AS late WHERE late.at_ms > $2) \
             ORDER BY seq LIMIT $3";
    SOURCE = "SELECT leaf FROM sources WHERE agent = $1 AND seq = $2";
    INSERT_SOURCE = "INSERT INTO sources (agent, seq, leaf, entry_seq) VALUES ($1, $2, $3, $4)";
    LAST_SOURCE = "SELECT MAX(seq) AS last FROM sources WHERE agent = $1";
}

/// An entry before it has a place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// Who acted.
    pub actor: Actor,
    /// The action as the one door knows it.
    pub action: String,
    /// Carried out or refused.
    pub effect: Effect,
    /// What it was done to.
    pub resource: Resource,
    /// What changed.
    pub event: Option<Event>,
    /// Why.
    pub reason: String,
    /// The agent's journal entry that it repeats.
    pub source: Option<Source>,
}

/// The log's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are: the next one's number.
    pub count: u64,
    /// The chain's hash after the last entry.
    pub chain: Digest,
}

/// A noun as the log's column holds it.
pub(crate) fn kind_name(kind: ResourceKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{kind:?}"),
    }
}

impl Tx {
    /// Appends an entry. `id` is its ULID, `now` its time. An agent's entry (with a source) that is there already is a
    /// conflict; see [`Tx::append_once`].
    ///
    /// # Errors
    /// Where the id is taken or the entry can't be stored so that it reads as it was.
    pub async fn append(&mut self, new: NewEntry, id: &str, now: Millis) -> Result<Entry, StoreError> {
        let head = self.head().await?;
        let entry = Entry {
            v: entry::VERSION,
            seq: head.count,
            id: id.to_owned(),
            ts: rfc3339(now),
            actor: new.actor,
            action: new.action,
            effect: new.effect,
            resource: new.resource,
            event: new.event,
            reason: new.reason,
            source: new.source,
        };
        let canonical = readable(&entry)?;
        let leaf = entry::leaf(&canonical);
        let chain = entry::link(&head.chain, &leaf);
        if let Some(source) = &entry.source {
            self.insert_source(source, entry.seq).await?;
        }
        self.insert(&entry, canonical, leaf, chain).await?;
        self.move_head(head, Head { count: head.count + 1, chain }).await?;
        Ok(entry)
    }

    /// Appends an agent's entry unless it is there already; then nothing happens and `None` is returned.
    ///
    /// # Errors
    /// As [`Tx::append`]; where the entry has no source; and [`StoreError::Forked`] where the agent has sent another
    /// entry under the same number.
    pub async fn append_once(
        &mut self,
        new: NewEntry,
        id: &str,
        now: Millis,
    ) -> Result<Option<Entry>, StoreError> {
        let Some(source) = &new.source else {
            return Err(StoreError::Invalid { what: "an agent's entry", why: "it has no source".to_owned() });
        };
        let number = signed("an agent's sequence number", source.seq)?;
        let seen =
            self.fetch_optional(query(SOURCE).bind(source.agent.as_str().to_owned()).bind(number)).await?;
        match seen {
            None => self.append(new, id, now).await.map(Some),
            Some(row) if parsed::<Digest>(&row, "leaf", "digest")? == source.leaf => Ok(None),
            Some(_) => Err(StoreError::Forked { agent: source.agent.to_string(), seq: source.seq }),
        }
    }

    pub(crate) async fn insert_source(&mut self, source: &Source, entry_seq: u64) -> Result<(), StoreError> {
        let statement = query(INSERT_SOURCE)
            .bind(source.agent.as_str().to_owned())
            .bind(signed("an agent's sequence number", source.seq)?)
            .bind(source.leaf.to_string())
            .bind(signed("an entry's number", entry_seq)?);
        self.execute(statement).await.map(|_| ())
    }

    async fn insert(
        &mut self,
        entry: &Entry,
        text: String,
        leaf: Digest,
        chain: Digest,
    ) -> Result<(), StoreError> {
        no_nul("an entry's id", &entry.id)?;
        no_nul("a resource's id", &entry.resource.id)?;
        no_nul("an action", &entry.action)?;
        let columns = Columns::of(entry);
        let statement = query(INSERT)
            .bind(signed("an entry's number", entry.seq)?)
            .bind(columns.id)
            .bind(columns.at_ms)
            .bind(columns.resource_type)
            .bind(columns.resource_id)
            .bind(columns.project)
            .bind(columns.environment)
            .bind(columns.action)
            .bind(text)
            .bind(leaf.to_string())
            .bind(chain.to_string());
        self.execute(statement).await.map(|_| ())
    }

    async fn move_head(&mut self, from: Head, to: Head) -> Result<(), StoreError> {
        let statement = query(MOVE_HEAD)
            .bind(signed("an entry's number", to.count)?)
            .bind(to.chain.to_string())
            .bind(signed("an entry's number", from.count)?);
        match self.execute(statement).await? {
            1 => Ok(()),
            // Can't happen while the writer's lock holds; if it does, the whole job must go.
            _ => {
                Err(StoreError::Conflict { detail: format!("another writer appended entry {}", from.count) })
            }
        }
    }
}

/// The entry's canonical JSON, if reading it gives the same entry: a log that can't be read back proves nothing.
fn readable(entry: &Entry) -> Result<String, StoreError> {
    let why = |why: String| StoreError::Invalid { what: "an audit entry", why };
    let text = entry.canonical().map_err(|e| why(e.to_string()))?;
    match entry::read(entry.seq, &text) {
        Ok(read) if read == *entry => Ok(text),
        Ok(_) => Err(why("it does not read as it was written (a number that is not finite?)".to_owned())),
        Err(error) => Err(why(error.to_string())),
    }
}

/// What the log's query columns repeat of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) id: String,
    pub(crate) at_ms: Millis,
    pub(crate) resource_type: String,
    pub(crate) resource_id: String,
    pub(crate) project: String,
    pub(crate) environment: String,
    pub(crate) action: String,
}

impl Columns {
    pub(crate) fn of(entry: &Entry) -> Self {
        let scope = |name: Option<&str>| name.unwrap_or_default().to_owned();
        Self {
            id: entry.id.clone(),
            at_ms: entry.at(),
            resource_type: kind_name(entry.resource.kind),
            resource_id: entry.resource.id.clone(),
            project: scope(entry.resource.project.as_ref().map(AsRef::as_ref)),
            environment: scope(entry.resource.environment.as_ref().map(AsRef::as_ref)),
            action: entry.action.clone(),
        }
    }

    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: text(row, "id")?,
            at_ms: int(row, "at_ms")?,
            resource_type: text(row, "resource_type")?,
            resource_id: text(row, "resource_id")?,
            project: text(row, "project")?,
            environment: text(row, "environment")?,
            action: text(row, "action")?,
        })
    }
}

fn stored(row: &Row) -> Result<StoredEntry, StoreError> {
    Ok(StoredEntry {
        seq: count(row, "seq")?,
        text: text(row, "text")?,
        leaf: parsed(row, "leaf", "digest")?,
        chain: parsed(row, "chain", "digest")?,
    })
}

/// Reads an entry whose text is the one that was hashed.
fn genuine(row: &Row) -> Result<Entry, StoreError> {
    let stored = stored(row)?;
    if entry::leaf(&stored.text) != stored.leaf {
        return Err(ChainError::Leaf(stored.seq).into());
    }
    Ok(entry::read(stored.seq, &stored.text)?)
}

fn page(limit: u32) -> i64 {
    i64::from(limit)
}

impl Conn {
    /// The log's end.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn head(&mut self) -> Result<Head, StoreError> {
        let row = self.fetch_one(query(HEAD)).await?;
        Ok(Head { count: count(&row, "next")?, chain: parsed(&row, "chain", "digest")? })
    }

    /// Up to `limit` entries from number `from` on, as they are stored.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn entries(&mut self, from: u64, limit: u32) -> Result<Vec<StoredEntry>, StoreError> {
        let rows = self.page(from, limit).await?;
        rows.iter().map(stored).collect()
    }

    /// Like [`Conn::entries`], each with the columns that repeat parts of it.
    pub(crate) async fn rows(
        &mut self,
        from: u64,
        limit: u32,
    ) -> Result<Vec<(StoredEntry, Columns)>, StoreError> {
        let rows = self.page(from, limit).await?;
        rows.iter().map(|row| Ok((stored(row)?, Columns::read(row)?))).collect()
    }

    async fn page(&mut self, from: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        let from = signed("an entry's number", from)?;
        self.fetch_all(query(PAGE).bind(from).bind(page(limit))).await
    }

    /// Up to `limit` entries about one resource, from number `from` on.
    ///
    /// # Errors
    /// Where the database can't be read or an entry was changed.
    pub async fn entries_for(
        &mut self,
        kind: ResourceKind,
        id: &str,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        no_nul("a resource's id", id)?;
        let statement = query(FOR_RESOURCE).bind(kind_name(kind)).bind(id.to_owned());
        let rows =
            self.fetch_all(statement.bind(signed("an entry's number", from)?).bind(page(limit))).await?;
        rows.iter().map(genuine).collect()
    }

    /// Up to `limit` entries about a project (and, if given, one environment of it), from number `from` on.
    ///
    /// # Errors
    /// Where the database can't be read or an entry was changed.
    pub async fn entries_in(
        &mut self,
        project: &str,
        environment: Option<&str>,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        no_nul("a project", project)?;
        let environment = environment.unwrap_or_default();
        no_nul("an environment", environment)?;
        let statement = query(FOR_SCOPE).bind(project.to_owned()).bind(environment.to_owned());
        let rows =
            self.fetch_all(statement.bind(signed("an entry's number", from)?).bind(page(limit))).await?;
        rows.iter().map(genuine).collect()
    }

    /// Up to `limit` entries from number `from` on out of the log as it stood at `at`: all before the first entry
    /// that is later than `at`.
    ///
    /// # Errors
    /// Where the database can't be read or an entry was changed.
    pub async fn entries_until(
        &mut self,
        at: Millis,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let statement = query(UNTIL).bind(signed("an entry's number", from)?).bind(at).bind(page(limit));
        let rows = self.fetch_all(statement).await?;
        rows.iter().map(genuine).collect()
    }

    /// The leaf that the log repeats of one entry of an agent's journal; none where it has no such entry.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn source_leaf(&mut self, agent: &str, seq: u64) -> Result<Option<Digest>, StoreError> {
        no_nul("an agent", agent)?;
        let Ok(number) = signed("an agent's sequence number", seq) else { return Ok(None) };
        let row = self.fetch_optional(query(SOURCE).bind(agent.to_owned()).bind(number)).await?;
        row.map(|row| parsed(&row, "leaf", "digest")).transpose()
    }

    /// The largest number of an agent's journal that the log repeats.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn last_source_seq(&mut self, agent: &str) -> Result<Option<u64>, StoreError> {
        no_nul("an agent", agent)?;
        let row = self.fetch_one(query(LAST_SOURCE).bind(agent.to_owned())).await?;
        let last: Option<i64> = opt_int(&row, "last")?;
        Ok(last.and_then(|last| u64::try_from(last).ok()))
    }
}
