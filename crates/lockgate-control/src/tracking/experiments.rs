//! Experiments.

use super::{
    Comparator, Experiment, KeyValue, Lifecycle, Search, Tracking, TrackingError, View, checks, locations,
    may_read, may_track, places,
};
use lockgate_core::actor::Actor;
use lockgate_store::{Conn, Tx};

/// What an experiment is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewExperiment {
    /// Its name, used once.
    pub name: String,
    /// Where its artifacts are to lie, where not here.
    pub artifact_location: Option<String>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
}

/// The experiment with this number.
pub(super) async fn found(conn: &mut Conn, id: &str) -> Result<Experiment, TrackingError> {
    let number = checks::experiment_id(id)?;
    conn.experiment(number).await?.ok_or_else(|| missing(number))
}

fn missing(number: i64) -> TrackingError {
    TrackingError::missing(format!("No Experiment with id={number} exists"))
}

/// The experiment's own row, where it is in use.
pub(super) async fn active(conn: &mut Conn, id: &str) -> Result<Experiment, TrackingError> {
    let number = checks::experiment_id(id)?;
    let experiment = conn.experiment_row(number).await?.ok_or_else(|| missing(number))?;
    if experiment.lifecycle == Lifecycle::Active {
        return Ok(experiment);
    }
    Err(TrackingError::invalid(format!(
        "The experiment {} must be in the 'active' state. Current state is deleted.",
        experiment.id
    )))
}

/// Names are used once, also by what was deleted.
async fn name_is_free(tx: &mut Tx, name: &str) -> Result<(), TrackingError> {
    match tx.experiment_named(name).await? {
        None => Ok(()),
        Some(other) if other.lifecycle == Lifecycle::Active => {
            Err(TrackingError::Exists(format!("Experiment(name={name}) already exists.")))
        }
        Some(other) => Err(TrackingError::Exists(format!(
            "Experiment(name={name}) already exists. It was deleted: restore it (its id is {}) or use another name.",
            other.id
        ))),
    }
}

impl Tracking {
    /// Makes an experiment; gives its number.
    ///
    /// # Errors
    /// Where the name is in use or not allowed.
    pub async fn create_experiment(&self, actor: &Actor, new: NewExperiment) -> Result<i64, TrackingError> {
        may_track(actor)?;
        checks::experiment_name(&new.name)?;
        let given = new.artifact_location.filter(|location| !location.is_empty());
        given.as_deref().map_or(Ok(()), locations::check)?;
        new.tags.iter().try_for_each(checks::experiment_tag)?;
        let (name, tags, now) = (new.name, new.tags, self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                name_is_free(tx, &name).await?;
                let id = tx.next_experiment_id().await?;
                let workspace = tx.workspace().to_owned();
                let root = tx.find_workspace(&workspace).await?.and_then(|found| found.artifact_root);
                let artifact_location =
                    given.unwrap_or_else(|| places::of_experiment(&workspace, root.as_deref(), id));
                let lifecycle = Lifecycle::Active;
                let experiment =
                    Experiment { id, name, artifact_location, lifecycle, created: now, updated: now, tags };
                tx.insert_experiment(&experiment).await?;
                Ok(id)
            })
        })
        .await
    }

    /// The experiment with this number.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn experiment(&self, actor: &Actor, id: &str) -> Result<Experiment, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| Box::pin(async move { found(conn, &id).await })).await
    }

    /// The experiment with this name, also where it was deleted.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn experiment_named(&self, actor: &Actor, name: &str) -> Result<Experiment, TrackingError> {
        may_read(actor)?;
        let name = name.to_owned();
        self.read(move |conn| {
            Box::pin(async move {
                let found = conn.experiment_named(&name).await?;
                found.ok_or_else(|| {
                    TrackingError::missing(format!("Could not find experiment with name '{name}'"))
                })
            })
        })
        .await
    }

    /// Searches experiments.
    ///
    /// # Errors
    /// Where a condition is not about experiments.
    pub async fn search_experiments(
        &self,
        actor: &Actor,
        view: View,
        mut search: Search,
    ) -> Result<Vec<Experiment>, TrackingError> {
        may_read(actor)?;
        search.clauses.extend(view.clause());
        self.read(move |conn| Box::pin(async move { Ok(conn.search_experiments(&search).await?) })).await
    }

    /// Renames an experiment.
    ///
    /// # Errors
    /// Where it was deleted or the name is in use or not allowed.
    pub async fn rename_experiment(&self, actor: &Actor, id: &str, name: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::experiment_name(name)?;
        let (id, name, now) = (id.to_owned(), name.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let old = found(tx, &id).await?;
                if old.lifecycle != Lifecycle::Active {
                    return Err(TrackingError::State("Cannot rename a non-active experiment.".to_owned()));
                }
                if old.name != name {
                    name_is_free(tx, &name).await?;
                }
                Ok(tx.update_experiment(&Experiment { name, updated: now, ..old }).await?)
            })
        })
        .await
    }

    /// Deletes an experiment with its runs. They stay readable and can be restored.
    ///
    /// # Errors
    /// Where there is none in use.
    pub async fn delete_experiment(&self, actor: &Actor, id: &str) -> Result<(), TrackingError> {
        self.set_experiment_lifecycle(actor, id, Lifecycle::Deleted).await
    }

    /// Restores a deleted experiment with its runs.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn restore_experiment(&self, actor: &Actor, id: &str) -> Result<(), TrackingError> {
        self.set_experiment_lifecycle(actor, id, Lifecycle::Active).await
    }

    async fn set_experiment_lifecycle(
        &self,
        actor: &Actor,
        id: &str,
        lifecycle: Lifecycle,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let old = found(tx, &id).await?;
                if old.lifecycle == lifecycle {
                    return Err(TrackingError::missing(format!("No Experiment with id={id} exists")));
                }
                tx.set_lifecycle_of_runs(old.id, lifecycle, now).await?;
                Ok(tx.update_experiment(&Experiment { lifecycle, updated: now, ..old }).await?)
            })
        })
        .await
    }

    /// Sets an experiment's tag.
    ///
    /// # Errors
    /// Where the experiment is not in use or the tag not allowed.
    pub async fn set_experiment_tag(
        &self,
        actor: &Actor,
        id: &str,
        tag: KeyValue,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::experiment_tag(&tag)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let experiment = active(tx, &id).await?;
                Ok(tx.set_experiment_tag(experiment.id, &tag, now).await?)
            })
        })
        .await
    }

    /// Removes an experiment's tag.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_experiment_tag(
        &self,
        actor: &Actor,
        id: &str,
        key: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (id, key, now) = (id.to_owned(), key.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let experiment = active(tx, &id).await?;
                if tx.delete_experiment_tag(experiment.id, &key, now).await? {
                    return Ok(());
                }
                Err(TrackingError::missing(format!("No tag with name: {key} in experiment with id {id}")))
            })
        })
        .await
    }
}

/// The condition that something belongs to one of these experiments.
pub(super) fn among(ids: &[String]) -> Result<super::Clause, TrackingError> {
    let numbers = ids.iter().map(|id| checks::experiment_id(id)).collect::<Result<Vec<i64>, _>>()?;
    Ok(super::Clause {
        field: super::Field::Attribute("experiment_id"),
        comparator: Comparator::In,
        operand: super::Operand::Ints(numbers),
    })
}
