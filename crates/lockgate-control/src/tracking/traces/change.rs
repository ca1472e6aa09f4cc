//! Tagging, linking and deleting traces.

use super::super::{KeyValue, Tracking, TrackingError, checks, may_track, places};
use super::{LOCATION, SPANS_LOCATION, found, missing};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;

/// How many traces can be linked to a run at once.
const LINKS: usize = 100;
/// What a client may take away, but not set.
const FAILURE: &str = "mlflow.trace.archivalFailure";
/// Tags that say where a trace's spans and files are: not the client's to change.
pub(in super::super) const FIXED_TAGS: [&str; 4] =
    [LOCATION, SPANS_LOCATION, "mlflow.trace.archiveLocation", FAILURE];
/// So many traces are deleted at a time: others who write wait for no more.
const BATCH: usize = 500;

impl Tracking {
    /// Sets a tag.
    ///
    /// # Errors
    /// Where there is no such trace or the tag is not allowed.
    pub async fn set_trace_tag(&self, actor: &Actor, id: &str, tag: KeyValue) -> Result<(), TrackingError> {
        may_track(actor)?;
        changeable(&tag.key, "set")?;
        let tag = checks::trace_tag(tag)?;
        let id = id.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                Ok(tx.set_trace_tags(&id, &[tag]).await?)
            })
        })
        .await
    }

    /// Removes a tag.
    ///
    /// # Errors
    /// Where there is none, or it is not the client's.
    pub async fn delete_trace_tag(&self, actor: &Actor, id: &str, key: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        if key != FAILURE {
            changeable(key, "deleted")?;
        }
        let (id, key) = (id.to_owned(), key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                if tx.delete_trace_tag(&id, &key).await? {
                    return Ok(());
                }
                Err(TrackingError::missing(format!("No trace tag with key '{key}' for trace with ID '{id}'")))
            })
        })
        .await
    }

    /// Notes that traces belong to a run.
    ///
    /// # Errors
    /// Where they are too many.
    pub async fn link_traces_to_run(
        &self,
        actor: &Actor,
        ids: Vec<String>,
        run: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        if ids.len() > LINKS {
            return Err(TrackingError::invalid(format!(
                "Cannot link more than {LINKS} traces to a run in a single request. Provided {} traces.",
                ids.len()
            )));
        }
        let run = run.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                for id in &ids {
                    if tx.trace_is_elsewhere(id).await? {
                        return Err(missing(id));
                    }
                    tx.link_trace("run", &run, id).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Notes which versions of prompts (`name/version`) a trace used.
    ///
    /// # Errors
    /// Where there is no such trace.
    pub async fn link_prompts_to_trace(
        &self,
        actor: &Actor,
        id: &str,
        prompts: Vec<String>,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let id = id.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                for prompt in &prompts {
                    tx.link_trace("prompt", prompt, &id).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Deletes traces of an experiment for good: those with these ids, or those that began until a time, the oldest
    /// first and not more than `most`. Says how many there were. Many are deleted some at a time, and stay deleted where a
    /// later part fails.
    ///
    /// # Errors
    /// Where neither or both are said.
    pub async fn delete_traces(
        &self,
        actor: &Actor,
        experiment: &str,
        until: Option<Millis>,
        most: Option<i64>,
        ids: Vec<String>,
    ) -> Result<u64, TrackingError> {
        may_track(actor)?;
        deletable(until, most, &ids)?;
        let experiment = checks::experiment_id(experiment)?;
        let mut deleted = 0;
        if let Some(until) = until {
            let mut left = most.unwrap_or(i64::MAX);
            while left > 0 {
                let batch = left.min(BATCH as i64);
                let doomed = Doomed::Oldest { until, most: batch };
                let (found, gone) = self.delete_some(experiment, doomed).await?;
                deleted += gone;
                left -= found;
                if found < batch {
                    break;
                }
            }
        }
        for ids in ids.chunks(BATCH) {
            deleted += self.delete_some(experiment, Doomed::Named(ids.to_vec())).await?.1;
        }
        Ok(deleted)
    }

    /// Says how many were found, and how many of them were still there to be deleted.
    async fn delete_some(&self, experiment: i64, doomed: Doomed) -> Result<(i64, u64), TrackingError> {
        self.write(move |tx| {
            Box::pin(async move {
                let Some(experiment) = tx.experiment_row(experiment).await? else { return Ok((0, 0)) };
                let ids: Vec<String> = match doomed {
                    Doomed::Oldest { until, most } => tx.oldest_traces(experiment.id, until, most).await?,
                    Doomed::Named(ids) => {
                        let traces = tx.traces(&ids).await?.into_iter();
                        traces
                            .filter(|one| one.experiment_id == experiment.id)
                            .map(|one| one.trace_id)
                            .collect()
                    }
                };
                for id in &ids {
                    let location = places::of_trace(&experiment.artifact_location, id);
                    if let Some(root) = places::root_of(&location) {
                        tx.delete_artifacts(root, "").await?;
                    }
                }
                Ok((ids.len() as i64, tx.delete_traces(&ids).await?))
            })
        })
        .await
    }
}

/// Which traces are deleted.
enum Doomed {
    Oldest { until: Millis, most: i64 },
    Named(Vec<String>),
}

fn deletable(until: Option<Millis>, most: Option<i64>, ids: &[String]) -> Result<(), TrackingError> {
    let refuse = |why: String| Err(TrackingError::invalid(why));
    match (until, most) {
        (None, _) if ids.is_empty() => {
            refuse("Either `max_timestamp_millis` or `trace_ids` must be specified.".to_owned())
        }
        (Some(_), _) if !ids.is_empty() => {
            refuse("Only one of `max_timestamp_millis` and `trace_ids` can be specified.".to_owned())
        }
        (_, Some(_)) if !ids.is_empty() => {
            refuse("`max_traces` can't be specified if `trace_ids` is specified.".to_owned())
        }
        (_, Some(most)) if most <= 0 => {
            refuse(format!("`max_traces` must be a positive integer, received {most}."))
        }
        _ => Ok(()),
    }
}

fn changeable(key: &str, done: &str) -> Result<(), TrackingError> {
    if FIXED_TAGS.contains(&key) {
        return Err(TrackingError::invalid(format!(
            "Tag '{key}' is immutable and cannot be {done} on a trace."
        )));
    }
    Ok(())
}
