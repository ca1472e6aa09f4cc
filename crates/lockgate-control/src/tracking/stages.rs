//! MLflow's stages, for old clients. New ones use aliases.

use super::{ModelVersion, StageMove, Tracking, TrackingError, governed, may_track, versions};
use lockgate_core::actor::Actor;

/// Where a version stands, as old clients say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStage {
    /// Nowhere yet.
    None,
    /// On trial.
    Staging,
    /// In use.
    Production,
    /// Not in use any more.
    Archived,
}

impl VersionStage {
    /// Every stage, in MLflow's order.
    pub const ALL: [Self; 4] = [Self::None, Self::Staging, Self::Production, Self::Archived];

    /// MLflow's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Staging => "Staging",
            Self::Production => "Production",
            Self::Archived => "Archived",
        }
    }

    /// The stage of a name; case makes no difference.
    #[must_use]
    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str().eq_ignore_ascii_case(name))
    }
}

impl std::fmt::Display for VersionStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Tracking {
    /// Moves a version to another stage; with `archive`, those that are there go to the archive. Gives the version as it is
    /// then.
    ///
    /// # Errors
    /// Where there is no such version, or the stage says what an environment serves, and it serves something else.
    pub async fn transition_stage(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
        stage: VersionStage,
        archive: bool,
    ) -> Result<ModelVersion, TrackingError> {
        may_track(actor)?;
        let (name, number, at) = (name.to_owned(), versions::number(version)?, self.clock.now_ms());
        let actor = actor.id.to_string();
        self.write(move |tx| {
            Box::pin(async move {
                let found = versions::found(tx, &name, number).await?;
                let from = VersionStage::read(&found.stage).unwrap_or(VersionStage::None);
                governed::check_stage(tx, &name, number, from, stage).await?;
                let to = |version: i64, from: &str, to: VersionStage| StageMove {
                    name: name.clone(),
                    version,
                    from: from.to_owned(),
                    to: to.as_str().to_owned(),
                    actor: actor.clone(),
                    at,
                    promotion: String::new(),
                };
                if archive {
                    for other in tx.versions_in_stage(&name, stage.as_str()).await? {
                        if other != number {
                            tx.move_stage(&to(other, stage.as_str(), VersionStage::Archived)).await?;
                        }
                    }
                }
                tx.move_stage(&to(number, &found.stage, stage)).await?;
                versions::found(tx, &name, number).await
            })
        })
        .await
    }
}
