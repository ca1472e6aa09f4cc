//! What refers to what, seen at one moment: nothing is taken away that this finds named.

use super::choice::Choice;
use super::tokens;
use crate::error::ControlError;
use crate::tracking::places;
use lockgate_core::digest::Digest;
use lockgate_core::entry;
use lockgate_core::event::{Event, PromotionEvent};
use lockgate_store::tracking::gc::{Doomed, Kind};
use lockgate_store::{Conn, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How many rows are read at a time.
const PAGE: u32 = 4096;

/// What is named, and by what.
#[derive(Debug, Default)]
pub(super) struct Survey {
    digests: Vec<[u8; 32]>,
    by_version: HashMap<String, String>,
    governed: HashSet<String>,
    /// How many entries the log had.
    entries: u64,
}

/// What will have gone when files are looked at: of a trial run, whose choice was not carried out.
#[derive(Debug, Default, Clone)]
pub(super) struct Without {
    roots: HashSet<String>,
}

impl Without {
    /// What a choice would take away, and what an earlier call left half done.
    pub(super) async fn of(store: &Store, choice: &Choice) -> Result<Self, ControlError> {
        let mut doomed = choice.doomed.clone();
        let roots = store.read(move |conn| {
            Box::pin(async move {
                doomed.extend(conn.doomed(i64::MAX).await?);
                let mut roots = HashSet::new();
                for one in doomed {
                    match one.kind {
                        Kind::Experiment => trace_roots(conn, &one, &mut roots).await?,
                        _ => drop(roots.insert(one.place)),
                    }
                }
                Ok::<_, ControlError>(roots)
            })
        });
        Ok(Self { roots: roots.await? })
    }

    fn has(&self, root: &str) -> bool {
        self.roots.contains(root)
    }
}

/// The roots of an experiment's traces.
async fn trace_roots(
    conn: &mut Conn,
    experiment: &Doomed,
    roots: &mut HashSet<String>,
) -> Result<(), ControlError> {
    let (number, mut last) = (experiment.id.parse::<i64>().unwrap_or(-1), String::new());
    loop {
        let page = conn.traces_in(number, &last, i64::from(PAGE)).await?;
        let Some(end) = page.last() else { return Ok(()) };
        last.clone_from(end);
        roots.extend(page.iter().filter_map(|id| trace_root(&experiment.place, id)));
    }
}

/// The root of a trace's files, of an experiment at this location; none where they lie with somebody else.
pub(super) fn trace_root(location: &str, trace: &str) -> Option<String> {
    places::root_of(&places::of_trace(location, trace)).map(str::to_owned)
}

impl Survey {
    /// Reads all that can name anything, from one snapshot.
    pub(super) async fn take(store: &Store, without: Without) -> Result<Self, ControlError> {
        let without = Arc::new(without);
        let survey = store.read(move |conn| {
            Box::pin(async move {
                let mut survey = Self::default();
                survey.files(conn, &without).await?;
                survey.versions(conn).await?;
                survey.log(conn, 0).await?;
                survey.governed(conn).await?;
                survey.settle();
                Ok::<_, ControlError>(survey)
            })
        });
        survey.await
    }

    /// Adds what the log has said since.
    pub(super) async fn catch_up(mut self, store: &Store) -> Result<Self, ControlError> {
        let survey = store.read(move |conn| {
            Box::pin(async move {
                let before = self.entries;
                self.log(conn, before).await?;
                if self.entries > before {
                    self.settle();
                }
                Ok::<_, ControlError>(self)
            })
        });
        survey.await
    }

    /// Adds digests that something else names.
    pub(super) fn add(&mut self, digests: &[Digest]) {
        self.digests.extend(digests.iter().filter_map(tokens::bytes));
        self.settle();
    }

    pub(super) fn names(&self, digest: &Digest) -> bool {
        tokens::bytes(digest).is_none_or(|bytes| self.digests.binary_search(&bytes).is_ok())
    }

    /// What names a run, a logged model or the list of a version's files, in words.
    pub(super) fn why_kept(&self, id: &str) -> Option<String> {
        let id = id.strip_prefix("m-").unwrap_or(id);
        if let Some(version) = self.by_version.get(id) {
            return Some(format!("{version} was registered from it"));
        }
        self.governed.contains(id).then(|| "a release, a promotion or evidence names it".to_owned())
    }

    /// Whether anything names the root of a version's files.
    pub(super) fn names_root(&self, root: &str) -> bool {
        let mut parts = root.split('/');
        let id = parts.nth(1).unwrap_or_default();
        self.by_version.contains_key(id) || self.governed.contains(id)
    }

    fn settle(&mut self) {
        self.digests.sort_unstable();
        self.digests.dedup();
    }

    fn read(&mut self, text: &str) {
        let (digests, governed) = (&mut self.digests, &mut self.governed);
        tokens::each(
            text,
            |digest| digests.push(digest),
            |id| {
                if !governed.contains(id) {
                    governed.insert(id.to_owned());
                }
            },
        );
    }

    async fn files(&mut self, conn: &mut Conn, without: &Without) -> Result<(), ControlError> {
        let mut last = None;
        loop {
            let page = conn.every_artifact(last.as_ref(), PAGE).await?;
            for (root, file) in &page {
                if !without.has(root) {
                    self.digests.extend(tokens::bytes(&file.digest));
                }
            }
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            if self.digests.len() > 1 << 20 {
                self.settle();
            }
        }
        Ok(())
    }

    async fn versions(&mut self, conn: &mut Conn) -> Result<(), ControlError> {
        let mut last = (String::new(), 0);
        loop {
            let page = conn.version_origins((&last.0, last.1), i64::from(PAGE)).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = (end.name.clone(), end.version);
            for version in &page {
                let named = format!("version {} of `{}`", version.version, version.name);
                for text in &version.texts {
                    tokens::each(
                        text,
                        |_| {},
                        |id| {
                            self.by_version.entry(id.to_owned()).or_insert_with(|| named.clone());
                        },
                    );
                }
            }
        }
    }

    async fn log(&mut self, conn: &mut Conn, from: u64) -> Result<(), ControlError> {
        let mut next = from;
        loop {
            let page = conn.entries(next, PAGE).await?;
            let Some(last) = page.last() else { break };
            next = last.seq + 1;
            for stored in &page {
                let entry = entry::read(stored.seq, &stored.text).map_err(StoreError::from)?;
                self.read(&stored.text);
                if let Some(evidence) = evidence(stored.seq, entry.event.as_ref())? {
                    self.read(&evidence);
                }
            }
        }
        self.entries = next;
        Ok(())
    }

    async fn governed(&mut self, conn: &mut Conn) -> Result<(), ControlError> {
        conn.governed_texts(|text| self.read(text)).await?;
        Ok(())
    }
}

/// What a gate found, out of its signed envelope.
fn evidence(seq: u64, event: Option<&Event>) -> Result<Option<String>, ControlError> {
    let Some(Event::Promotion(event)) = event else { return Ok(None) };
    let PromotionEvent::EvidenceRecorded { envelope, gate, .. } = event.as_ref() else { return Ok(None) };
    let unreadable = || {
        ControlError::conflict(format!(
            "the evidence of gate `{gate}` in entry {seq} of the audit log can't be read"
        ))
        .with_hint("nothing was deleted; run `lockgate db check`")
    };
    let finding = envelope.finding_unverified().ok_or_else(unreadable)?;
    serde_json::to_string(&finding).map(Some).map_err(|_| unreadable())
}

/// The root that an artifact URI leads to, where it is the one of this run or logged model and nothing else's.
pub(super) fn own_root(uri: &str, id: &str) -> String {
    let place = places::root_of(uri).and_then(places::split).filter(|place| place.path.is_empty());
    let own = place.filter(|place| match &place.owner {
        places::Owner::Run(owner) | places::Owner::Model(owner) => owner == id,
        places::Owner::Trace(_) | places::Owner::Version => false,
    });
    own.map(|place| place.root).unwrap_or_default()
}
