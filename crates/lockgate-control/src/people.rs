//! People and machines: opaque ids in the log, names in a table of their own.

use crate::Control;
use crate::error::ControlError;
use lockgate_core::actor::{Actor, ActorKind, Via};
use lockgate_core::id::{PrincipalId, ulid};
use std::collections::BTreeMap;

/// Names of principals by their opaque ids.
pub(crate) type Names = BTreeMap<PrincipalId, String>;

/// The accounts of a server with login: who holds which token.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    by_hash: BTreeMap<String, (ActorKind, String)>,
}

impl Accounts {
    /// Reads accounts: one a line, `user|service|agent NAME SHA256-OF-TOKEN`; empty lines and `#` comments are skipped.
    ///
    /// # Errors
    /// A sentence with the line's number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut by_hash = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let fail = |what: &str| format!("line {}: {what}", number + 1);
            let [kind, name, hash] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                return Err(fail(
                    "expected three words: user|service|agent, a name, and the SHA-256 of the token",
                ));
            };
            let kind = match kind {
                "user" => ActorKind::User,
                "service" => ActorKind::Service,
                "agent" => ActorKind::Agent,
                other => {
                    return Err(fail(&format!(
                        "`{other}` is no kind of account; use user, service or agent"
                    )));
                }
            };
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(fail("the token's SHA-256 must be 64 hexadecimal digits"));
            }
            if by_hash.insert(hash.to_ascii_lowercase(), (kind, name.to_owned())).is_some() {
                return Err(fail("this token belongs to two accounts"));
            }
        }
        Ok(Self { by_hash })
    }

    /// Whose token this is.
    #[must_use]
    pub fn find(&self, token: &str) -> Option<(ActorKind, &str)> {
        let hash = lockgate_core::digest::Digest::of(token.as_bytes()).hex();
        self.by_hash.get(&hash).map(|(kind, name)| (*kind, name.as_str()))
    }
}

/// Whether a name is how the record calls what nobody did by hand.
fn is_ours(name: &str) -> bool {
    let name = folded(name);
    name == "system" || name == "lockgate" || name.starts_with("agent of ")
}

impl Control {
    /// The actor behind a name, who gets an opaque id at first sight.
    ///
    /// # Errors
    /// Where the name is empty or too long, or the database fails.
    pub async fn actor(&self, kind: ActorKind, name: &str, via: Via) -> Result<Actor, ControlError> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err(ControlError::invalid(
                "a name must have 1 to 200 characters, and no control characters",
            ));
        }
        if kind != ActorKind::Agent && is_ours(name) {
            return Err(ControlError::invalid(format!(
                "`{name}` would look like Lockgate itself in the record, so nobody may be called so"
            )));
        }
        let id = match self.agents.principal(kind, &folded(name)) {
            Some(id) => id,
            None => self.principal(kind, name).await?,
        };
        Ok(Actor { kind, id, via, sealed: None })
    }

    /// Makes somebody known whom the configuration names to approve: a person.
    ///
    /// # Errors
    /// Where the name is a service account's; the message names the line.
    pub(crate) async fn person(&self, name: &str, toml: &str) -> Result<(), ControlError> {
        let all = self
            .store
            .read(|conn| Box::pin(async move { Ok::<_, ControlError>(conn.principals().await?) }))
            .await?;
        let is_service = |p: &lockgate_store::people::Principal| {
            p.kind == ActorKind::Service && folded(&p.name) == folded(name)
        };
        if all.iter().any(is_service) {
            let quoted = [format!("\"{name}\""), format!("'{name}'")];
            let line = toml.lines().position(|line| quoted.iter().any(|q| line.contains(q.as_str())));
            let place = line.map_or_else(String::new, |line| format!(":{}", line + 1));
            return Err(ControlError::invalid(format!(
                "lockgate.toml{place}: `{name}` is a service account, and only people approve"
            ))
            .with_hint("name a person there"));
        }
        self.actor(ActorKind::User, name, Via::Internal).await.map(|_| ())
    }

    async fn principal(&self, kind: ActorKind, name: &str) -> Result<PrincipalId, ControlError> {
        let prefix = if kind == ActorKind::Service { "svc" } else { "u" };
        let new = PrincipalId::new(format!(
            "{prefix}_{}",
            ulid(self.clock.now_ms(), &*self.entropy).to_lowercase()
        ))?;
        let owned = name.to_owned();
        // One name is one principal, whatever its case and whoever came first: a service account may be called as a run's
        // user is. What an actor may do follows from how it came in, not from this table.
        let id = self
            .write(move |tx| {
                Box::pin(async move {
                    let all = tx.principals().await?;
                    if let Some(known) = all.into_iter().find(|p| folded(&p.name) == folded(&owned)) {
                        return Ok(known.id);
                    }
                    Ok(tx.principal(kind, &owned, &new).await?.id)
                })
            })
            .await?;
        self.agents.remember(kind, &folded(name), id.clone());
        Ok(id)
    }

    /// All principals' ids by [`folded`] name.
    pub(crate) async fn principals_by_name(&self) -> Result<BTreeMap<String, PrincipalId>, ControlError> {
        Ok(self.names().await?.into_iter().map(|(id, name)| (folded(&name), id)).collect())
    }

    /// All principals' names by id.
    pub(crate) async fn names(&self) -> Result<Names, ControlError> {
        let all = self
            .store
            .read(|conn| Box::pin(async move { Ok::<_, ControlError>(conn.principals().await?) }))
            .await?;
        Ok(all.into_iter().map(|p| (p.id, p.name)).collect())
    }

    /// One principal's name; its id where the name was erased.
    pub(crate) async fn name_of(&self, id: &PrincipalId) -> Result<String, ControlError> {
        Ok(named(&self.names().await?, id))
    }
}

/// A name as names are compared: people write their e-mail addresses in more than one way.
pub(crate) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// A principal's name, or its id where the name was erased.
pub(crate) fn named(names: &Names, id: &PrincipalId) -> String {
    names.get(id).cloned().unwrap_or_else(|| id.to_string())
}
