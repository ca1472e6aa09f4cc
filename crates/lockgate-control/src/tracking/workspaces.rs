//! Workspaces: each has experiments, runs and a registry of its own. `default` belongs to clients that name none, one to
//! each environment of the project, and people may make more.
//!
//! An environment's registry holds what was promoted there, with its numbers: nothing else can be registered in it.

use super::{Tracking, TrackingError, Workspace, checks, governed, may_read, may_track, places};
use lockgate_core::access::Refused;
use lockgate_core::actor::Actor;
use lockgate_store::{Conn, DEFAULT_WORKSPACE};

/// Names that would be taken for something else in a URL.
const RESERVED: [&str; 4] = ["workspaces", "api", "ajax-api", "static-files"];

/// What of a workspace is changed; nothing where it says nothing, and an empty text takes a value away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceChange {
    /// What it is for.
    pub description: Option<String>,
    /// Below which URI its experiments' artifacts lie.
    pub artifact_root: Option<String>,
}

/// A workspace's name, by MLflow's rule.
fn checked(name: &str) -> Result<(), TrackingError> {
    let refuse = |why: String| Err(TrackingError::invalid(format!("Workspace name '{name}' {why}")));
    if !(2..=63).contains(&name.chars().count()) {
        return refuse("must be between 2 and 63 characters.".to_owned());
    }
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !inner || name.starts_with('-') || name.ends_with('-') {
        return refuse(
            "must match the pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ (lowercase alphanumeric with optional internal \
             hyphens)."
                .to_owned(),
        );
    }
    if RESERVED.contains(&name) {
        return refuse("is reserved and cannot be used.".to_owned());
    }
    Ok(())
}

/// One that is there by itself.
fn built_in(name: &str, description: &str) -> Workspace {
    Workspace { name: name.to_owned(), description: Some(description.to_owned()), artifact_root: None }
}

/// Whether a workspace is an environment's.
async fn is_environment(conn: &mut Conn, name: &str) -> Result<bool, TrackingError> {
    Ok(governed::environments(conn).await?.iter().any(|e| e.name.as_str() == name))
}

async fn found(conn: &mut Conn, name: &str) -> Result<Workspace, TrackingError> {
    if name == DEFAULT_WORKSPACE {
        return Ok(built_in(name, "Default workspace for legacy resources"));
    }
    if is_environment(conn, name).await? {
        return Ok(built_in(name, &format!("Environment {name}")));
    }
    if let Some(found) = conn.find_workspace(name).await? {
        return Ok(found);
    }
    checked(name)?;
    Err(TrackingError::missing(format!("Workspace '{name}' not found")))
}

/// Refuses to change what an environment's registry holds: that follows from promotions.
pub(super) async fn may_register(conn: &mut Conn) -> Result<(), TrackingError> {
    let workspace = conn.workspace().to_owned();
    if workspace == DEFAULT_WORKSPACE || !is_environment(conn, &workspace).await? {
        return Ok(());
    }
    Err(TrackingError::Refused(Refused(format!(
        "The registry of environment `{workspace}` holds what was promoted there, so only promotions change it. Register the \
         model without the environment (no /env/{workspace} in the tracking URI, no workspace), then: lockgate release create \
         MODEL:VERSION; lockgate promote RELEASE --env {workspace}"
    ))))
}

impl Tracking {
    /// The same for one workspace's data.
    ///
    /// # Errors
    /// Where there is no such workspace.
    pub async fn within(&self, workspace: &str) -> Result<Self, TrackingError> {
        if workspace != DEFAULT_WORKSPACE {
            let name = workspace.to_owned();
            self.read(move |conn| Box::pin(async move { found(conn, &name).await.map(drop) })).await?;
        }
        Ok(Self { workspace: workspace.into(), ..self.clone() })
    }

    /// The workspace whose data this is.
    #[must_use]
    pub fn workspace_name(&self) -> &str {
        &self.workspace
    }

    /// All workspaces: `default`, the environments, and those that people made.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn workspaces(&self, actor: &Actor) -> Result<Vec<Workspace>, TrackingError> {
        may_read(actor)?;
        self.read(|conn| {
            Box::pin(async move {
                let mut all = vec![found(conn, DEFAULT_WORKSPACE).await?];
                for environment in governed::environments(conn).await? {
                    all.push(built_in(
                        environment.name.as_str(),
                        &format!("Environment {}", environment.name),
                    ));
                }
                let made = conn.workspaces().await?;
                all.extend(
                    made.into_iter()
                        .filter(|one| !all.iter().any(|known| known.name == one.name))
                        .collect::<Vec<_>>(),
                );
                Ok(all)
            })
        })
        .await
    }

    /// One workspace.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn workspace(&self, actor: &Actor, name: &str) -> Result<Workspace, TrackingError> {
        may_read(actor)?;
        let name = name.to_owned();
        self.read(move |conn| Box::pin(async move { found(conn, &name).await })).await
    }

    /// Makes a workspace.
    ///
    /// # Errors
    /// Where the name is in use or not allowed.
    pub async fn create_workspace(
        &self,
        actor: &Actor,
        name: &str,
        change: WorkspaceChange,
    ) -> Result<Workspace, TrackingError> {
        may_track(actor)?;
        if name == DEFAULT_WORKSPACE {
            return Err(TrackingError::invalid(format!(
                "The '{DEFAULT_WORKSPACE}' workspace is reserved and cannot be created"
            )));
        }
        checked(name)?;
        let change = checked_change(change)?;
        let new =
            changed(Workspace { name: name.to_owned(), description: None, artifact_root: None }, change);
        let (by, now) = (actor.id.to_string(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                match found(tx, &new.name).await {
                    Err(TrackingError::Missing(_)) => {}
                    Ok(_) => {
                        let name = &new.name;
                        return Err(TrackingError::Exists(format!("Workspace '{name}' already exists.")));
                    }
                    Err(error) => return Err(error),
                }
                if tx.workspace_size(&new.name).await? > 0 {
                    return Err(TrackingError::Exists(format!(
                        "Workspace '{}' still holds what an environment of that name left: bring the environment back, or \
                         choose another name.",
                        new.name
                    )));
                }
                tx.put_workspace(&new, &by, now).await?;
                Ok(new)
            })
        })
        .await
    }

    /// Describes a workspace anew; gives it as it is then.
    ///
    /// # Errors
    /// Where there is none that people made.
    pub async fn update_workspace(
        &self,
        actor: &Actor,
        name: &str,
        change: WorkspaceChange,
    ) -> Result<Workspace, TrackingError> {
        may_track(actor)?;
        let change = checked_change(change)?;
        let (name, by, now) = (name.to_owned(), actor.id.to_string(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let new = changed(made(tx, &name).await?, change);
                tx.put_workspace(&new, &by, now).await?;
                Ok(new)
            })
        })
        .await
    }

    /// Takes an empty workspace away.
    ///
    /// # Errors
    /// Where there is none that people made, or something is in it.
    pub async fn delete_workspace(&self, actor: &Actor, name: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        if name == DEFAULT_WORKSPACE {
            return Err(TrackingError::invalid(format!(
                "The '{DEFAULT_WORKSPACE}' workspace is reserved and cannot be deleted"
            )));
        }
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                made(tx, &name).await?;
                let size = tx.workspace_size(&name).await?;
                if size > 0 {
                    return Err(TrackingError::invalid(format!(
                        "Cannot delete workspace '{name}': it still holds {size} experiment(s), registered model(s) and webhook(s)."
                    )));
                }
                Ok(tx.delete_workspace(&name).await?)
            })
        })
        .await
    }
}

/// One that people made, and may change.
async fn made(conn: &mut Conn, name: &str) -> Result<Workspace, TrackingError> {
    let found = found(conn, name).await?;
    if name == DEFAULT_WORKSPACE || is_environment(conn, name).await? {
        return Err(TrackingError::invalid(format!(
            "Workspace '{name}' is there by itself and can't be changed: environments are made in lockgate.toml"
        )));
    }
    Ok(found)
}

/// A change that may be made.
fn checked_change(change: WorkspaceChange) -> Result<WorkspaceChange, TrackingError> {
    let artifact_root = change.artifact_root.map(|root| root.trim().to_owned());
    if let Some(root) = artifact_root.as_deref().filter(|root| !root.is_empty()) {
        if places::is_reserved(root) {
            return Err(TrackingError::invalid(format!(
                "Invalid value for 'default_artifact_root': '{root}' is reserved"
            )));
        }
        checks::artifact_root(root)?;
    }
    Ok(WorkspaceChange { artifact_root, ..change })
}

fn changed(mut workspace: Workspace, change: WorkspaceChange) -> Workspace {
    let set = |value: Option<String>, old: Option<String>| match value {
        None => old,
        Some(text) => Some(text).filter(|text| !text.is_empty()),
    };
    workspace.description = set(change.description, workspace.description.take());
    workspace.artifact_root = set(change.artifact_root, workspace.artifact_root.take());
    workspace
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn names_are_those_that_mlflow_takes() {
        for good in ["ab", "team-a", "2b", "a".repeat(63).as_str()] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["a", "", "Team", "a_b", "-a", "a-", "api", "workspaces", "a/b", "a".repeat(64).as_str()] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
