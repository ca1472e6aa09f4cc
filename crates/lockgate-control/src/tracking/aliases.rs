//! Aliases: names that point to a version and can be moved; every move is remembered.

use super::webhooks::{Event, notify};
use super::{
    AliasMove, ModelVersion, RegisteredModel, Tracking, TrackingError, checks, governed, may_read, may_track,
    registry, sources, versions,
};
use lockgate_core::actor::Actor;
use lockgate_store::Conn;

/// The version behind a number, an alias or `latest`.
pub(super) async fn version(
    conn: &mut Conn,
    name: &str,
    version: &str,
) -> Result<ModelVersion, TrackingError> {
    let model = registry::found(conn, name).await?;
    let number = match version.parse() {
        Ok(number) => number,
        Err(_) if version.eq_ignore_ascii_case("latest") => {
            model.latest.iter().map(|latest| latest.version).max().ok_or_else(|| {
                TrackingError::missing(format!("Latest version not found for model {name}."))
            })?
        }
        Err(_) => aliased(&model, version)?,
    };
    versions::found(conn, name, number).await
}

fn aliased(model: &RegisteredModel, alias: &str) -> Result<i64, TrackingError> {
    let found = model.aliases.iter().find(|(name, _)| name == alias).map(|(_, number)| *number);
    // MLflow answers so, not with "missing".
    found.ok_or_else(|| TrackingError::invalid(format!("Registered model alias {alias} not found.")))
}

/// The version behind an alias, which may look like a number, or `latest`.
pub(super) async fn pointed_to(
    conn: &mut Conn,
    name: &str,
    alias: &str,
) -> Result<ModelVersion, TrackingError> {
    if alias.parse::<i64>().is_err() {
        return version(conn, name, alias).await;
    }
    let number = aliased(&registry::found(conn, name).await?, alias)?;
    versions::found(conn, name, number).await
}

impl Tracking {
    /// The version that an alias points to; `latest` is the newest.
    ///
    /// # Errors
    /// Where there is no such model or alias.
    pub async fn version_by_alias(
        &self,
        actor: &Actor,
        name: &str,
        alias: &str,
    ) -> Result<ModelVersion, TrackingError> {
        may_read(actor)?;
        checks::alias_form(alias)?;
        let (name, alias) = (name.to_owned(), alias.to_owned());
        self.read(move |conn| Box::pin(async move { pointed_to(conn, &name, &alias).await })).await
    }

    /// Points an alias to a version.
    ///
    /// # Errors
    /// Where there is no such version, the alias is not allowed, or it says what an environment serves, and that is
    /// something else.
    pub async fn set_alias(
        &self,
        actor: &Actor,
        name: &str,
        alias: &str,
        version: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::model_name(name)?;
        checks::alias(alias)?;
        let number = versions::number(version)?;
        let new = AliasMove { version: Some(number), ..self.moved(actor, name, alias) };
        self.write(move |tx| {
            Box::pin(async move {
                let version = versions::found(tx, &new.name, number).await?;
                governed::check_alias(tx, &new.name, &new.alias, new.version).await?;
                // A repeated request is no move, but MLflow tells webhooks of it.
                if tx.alias(&new.name, &new.alias).await? != new.version {
                    tx.move_alias(&new).await?;
                }
                let prompt = sources::is_prompt(&version);
                notify(tx, &Event::alias(&new.name, prompt, &new.alias, new.version)).await
            })
        })
        .await
    }

    /// Takes an alias away; nothing happens where there is none.
    ///
    /// # Errors
    /// Where there is no such model, or the alias says what an environment serves.
    pub async fn delete_alias(&self, actor: &Actor, name: &str, alias: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::alias_form(alias)?;
        let new = self.moved(actor, name, alias);
        self.write(move |tx| {
            Box::pin(async move {
                registry::found(tx, &new.name).await?;
                governed::check_alias(tx, &new.name, &new.alias, None).await?;
                let Some(number) = tx.alias(&new.name, &new.alias).await? else { return Ok(()) };
                let version = versions::found(tx, &new.name, number).await?;
                tx.move_alias(&new).await?;
                let prompt = sources::is_prompt(&version);
                notify(tx, &Event::alias(&new.name, prompt, &new.alias, None)).await
            })
        })
        .await
    }

    /// Every move of a model's aliases, the oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn alias_history(&self, actor: &Actor, name: &str) -> Result<Vec<AliasMove>, TrackingError> {
        may_read(actor)?;
        let name = name.to_owned();
        self.read(move |conn| Box::pin(async move { Ok(conn.alias_history(&name).await?) })).await
    }

    fn moved(&self, actor: &Actor, name: &str, alias: &str) -> AliasMove {
        AliasMove {
            name: name.to_owned(),
            alias: alias.to_owned(),
            version: None,
            actor: actor.id.to_string(),
            at: self.clock.now_ms(),
            promotion: String::new(),
        }
    }
}
