//! What goes, and what was deleted but stays.

use super::survey::{Survey, own_root};
use super::{Kept, Request};
use crate::error::ControlError;
use lockgate_core::clock::Millis;
use lockgate_store::tracking::Lifecycle;
use lockgate_store::tracking::gc::{Deleted, Doomed, Kind};
use lockgate_store::{Conn, Store};
use std::collections::HashSet;

/// How many rows are read at a time.
const PAGE: i64 = 4096;

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// In the order in which it goes: runs and logged models before their experiments.
    pub(super) doomed: Vec<Doomed>,
    pub(super) kept: Vec<Kept>,
    pub(super) traces: u64,
    seen: HashSet<(Kind, String)>,
}

impl Request {
    /// Since when at the latest what goes must be deleted.
    pub(super) fn until(&self, now: Millis) -> Millis {
        match self.older_than {
            Some(time) => now.saturating_sub(time),
            // Also where the clock was ahead when it was deleted.
            None if self.names_some() => Millis::MAX,
            None => now.saturating_sub(super::OLDER_THAN),
        }
    }

    fn ids(&self, kind: Kind) -> &[String] {
        match kind {
            Kind::Run => &self.run_ids,
            Kind::Model => &self.logged_model_ids,
            Kind::Experiment => &self.experiment_ids,
            Kind::Version => &[],
        }
    }
}

/// What people call it.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Run => "run",
        Kind::Model => "logged model",
        Kind::Experiment => "experiment",
        Kind::Version => "list of files",
    }
}

/// Chooses from one snapshot of the database.
pub(super) async fn choose(
    store: &Store,
    request: &Request,
    survey: Survey,
    now: Millis,
) -> Result<Choice, ControlError> {
    let request = request.clone();
    let chosen = store.read(move |conn| {
        Box::pin(async move {
            if let Some(name) = &request.workspace
                && conn.find_workspace(name).await?.is_none()
            {
                return Err(ControlError::not_found(format!("there is no workspace `{name}`")));
            }
            let mut chooser = Chooser { request: &request, survey: &survey, now, choice: Choice::default() };
            for kind in [Kind::Run, Kind::Model, Kind::Experiment] {
                match request.names_some() {
                    true => chooser.named(conn, kind).await?,
                    false => chooser.all(conn, kind).await?,
                }
            }
            if !request.names_some() && request.workspace.is_none() {
                chooser.lists(conn).await?;
            }
            Ok::<_, ControlError>(chooser.choice)
        })
    });
    chosen.await
}

struct Chooser<'a> {
    request: &'a Request,
    survey: &'a Survey,
    now: Millis,
    choice: Choice,
}

impl Chooser<'_> {
    fn is_old(&self, found: &Deleted) -> bool {
        found.since.unwrap_or(self.now) <= self.request.until(self.now)
    }

    fn is_meant(&self, found: &Deleted) -> bool {
        self.request.workspace.as_ref().is_none_or(|workspace| *workspace == found.workspace)
    }

    async fn all(&mut self, conn: &mut Conn, kind: Kind) -> Result<(), ControlError> {
        let mut last = String::new();
        loop {
            let page = conn.deleted(kind, &last, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last.clone_from(&end.id);
            for found in page {
                if self.is_meant(&found) && self.is_old(&found) {
                    self.take(conn, kind, &found).await?;
                }
            }
        }
    }

    /// Those that were asked for: each must be what can be taken away.
    async fn named(&mut self, conn: &mut Conn, kind: Kind) -> Result<(), ControlError> {
        for id in self.request.ids(kind) {
            let missing = || {
                let capital = if kind == Kind::Model {
                    "Logged model"
                } else if kind == Kind::Run {
                    "Run"
                } else {
                    "Experiment"
                };
                ControlError::not_found(format!("{capital} {id} not found"))
                    .with_hint("nothing was deleted; leave it out")
            };
            let found = conn.deletable(kind, id).await?.filter(|found| self.is_meant(found));
            let found = found.ok_or_else(missing)?;
            let noun = noun(kind);
            if found.lifecycle != Lifecycle::Deleted {
                return Err(ControlError::invalid(format!(
                    "The {noun} {id} is not in the `deleted` lifecycle stage. Only what is in it can be deleted for good."
                ))
                .with_hint("nothing was deleted; delete it first with MLflow, or leave it out"));
            }
            if !self.is_old(&found) {
                return Err(ControlError::invalid(format!(
                    "The {noun} {id} is not older than the required age: it was deleted later than --older-than says."
                ))
                .with_hint("nothing was deleted; leave out --older-than to delete what is named at once"));
            }
            self.take(conn, kind, &found).await?;
        }
        Ok(())
    }

    async fn take(&mut self, conn: &mut Conn, kind: Kind, found: &Deleted) -> Result<(), ControlError> {
        match kind {
            Kind::Experiment => self.take_experiment(conn, found).await,
            _ => {
                self.take_member(kind, found);
                Ok(())
            }
        }
    }

    /// Chooses a run or a logged model.
    fn take_member(&mut self, kind: Kind, found: &Deleted) {
        if let Some(why) = self.survey.why_kept(&found.id) {
            return self.keep(kind, &found.id, why);
        }
        if self.choice.seen.insert((kind, found.id.clone())) {
            let place = own_root(&found.place, &found.id);
            self.choice.doomed.push(Doomed { kind, id: found.id.clone(), place });
        }
    }

    fn keep(&mut self, kind: Kind, id: &str, why: String) {
        let what = format!("{} {id}", noun(kind));
        if !self.choice.kept.iter().any(|kept| kept.what == what) {
            self.choice.kept.push(Kept { what, why });
        }
    }

    /// An experiment goes with all that is in it, or stays; deleted runs in it may go before it.
    async fn take_experiment(&mut self, conn: &mut Conn, found: &Deleted) -> Result<(), ControlError> {
        let held = self.members(conn, found).await?;
        if let Some(why) = held {
            self.keep(Kind::Experiment, &found.id, why);
            return Ok(());
        }
        if found.experiment_id == 0 {
            self.keep(Kind::Experiment, &found.id, "clients that name none log into it".to_owned());
            return Ok(());
        }
        let mut last = String::new();
        loop {
            let page = conn.traces_in(found.experiment_id, &last, PAGE).await?;
            let Some(end) = page.last() else { break };
            last.clone_from(end);
            self.choice.traces += page.len() as u64;
        }
        let (id, place) = (found.id.clone(), found.place.clone());
        self.choice.doomed.push(Doomed { kind: Kind::Experiment, id, place });
        Ok(())
    }

    /// Chooses what is in an experiment; says why it must stay where it must. Logged models that are in use go only with the experiment.
    async fn members(&mut self, conn: &mut Conn, of: &Deleted) -> Result<Option<String>, ControlError> {
        let mut held = None;
        let mut models = Vec::new();
        for kind in [Kind::Run, Kind::Model] {
            let mut last = String::new();
            loop {
                let page = conn.members(kind, of.experiment_id, &last, PAGE).await?;
                let Some(end) = page.last() else { break };
                last.clone_from(&end.id);
                for member in page {
                    let noun = noun(kind);
                    let because = match self.survey.why_kept(&member.id) {
                        Some(why) => Some(format!("{noun} {} is in it: {why}", member.id)),
                        None if kind == Kind::Model => None,
                        None if member.lifecycle != Lifecycle::Deleted => {
                            Some(format!("run {} is in it, which is in use", member.id))
                        }
                        None if !self.is_old(&member) => {
                            Some(format!("run {} in it was deleted later", member.id))
                        }
                        None => None,
                    };
                    match because {
                        Some(why) => drop(held.get_or_insert(why)),
                        None if kind == Kind::Run => self.take_member(kind, &member),
                        None => models.push(member),
                    }
                }
            }
        }
        if held.is_none() && of.experiment_id != 0 {
            for member in models {
                self.take_member(Kind::Model, &member);
            }
        }
        Ok(held)
    }

    /// Lists of files whose registered versions are no more.
    async fn lists(&mut self, conn: &mut Conn) -> Result<(), ControlError> {
        let before = self.now.saturating_sub(self.request.grace);
        let mut last = String::new();
        loop {
            let page = conn.version_roots(&last, PAGE).await?;
            let Some((end, _)) = page.last() else { return Ok(()) };
            last.clone_from(end);
            for (root, updated) in page {
                if updated < before && !self.survey.names_root(&root) {
                    let doomed = Doomed { kind: Kind::Version, id: root.clone(), place: root };
                    self.choice.doomed.push(doomed);
                }
            }
        }
    }
}
