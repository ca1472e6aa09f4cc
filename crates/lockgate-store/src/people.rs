//! Who stands behind the log's opaque ids: names, commitments and tokens, all of which can be erased.

use crate::conn::{Conn, Row, Tx, count, int, parsed, query, signed, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::actor::ActorKind;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::id::PrincipalId;
use std::collections::BTreeMap;

statements! {
    BY_NAME = "SELECT id, kind, name, created FROM principals WHERE name = $1";
    BY_ID = "SELECT id, kind, name, created FROM principals WHERE id = $1";
    INSERT = "INSERT INTO principals (id, kind, name, created) VALUES ($1, $2, $3, $4)";
    DELETE = "DELETE FROM principals WHERE name = $1";
    SEAL = "INSERT INTO sealed (entry_seq, salt, value) VALUES ($1, $2, $3)";
    SEALED = "SELECT salt, value FROM sealed WHERE entry_seq = $1";
    SEALED_FROM = "SELECT entry_seq, salt, value FROM sealed WHERE entry_seq >= $1 AND entry_seq < $2";
    UNSEAL = "DELETE FROM sealed WHERE value = $1";
    INSERT_TOKEN = "INSERT INTO tokens (hash, principal, environment, created) VALUES ($1, $2, $3, $4)";
    TOKEN = "SELECT hash, principal, environment, created FROM tokens WHERE hash = $1";
    TOKENS_OF = "SELECT hash, principal, environment, created FROM tokens WHERE principal = $1 ORDER BY created, hash";
    DELETE_TOKEN = "DELETE FROM tokens WHERE hash = $1";
    PRINCIPALS = "SELECT id, kind, name, created FROM principals ORDER BY created, id";
    DELETE_TOKENS_OF = "DELETE FROM tokens WHERE principal = $1";
}

/// Someone who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The opaque id that the log holds.
    pub id: PrincipalId,
    /// What kind of principal.
    pub kind: ActorKind,
    /// The name that people know.
    pub name: String,
    /// When it became known.
    pub created: Millis,
}

/// What opens one entry's commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The salt, as text.
    pub salt: String,
    /// What was committed to, as canonical JSON.
    pub value: String,
}

/// A bearer token, known by its hash only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token.
    pub hash: Digest,
    /// Whose it is.
    pub principal: PrincipalId,
    /// The environment that it is limited to; none for all.
    pub environment: Option<String>,
    /// When it was made.
    pub created: Millis,
}

const KINDS: [(ActorKind, &str); 4] = [
    (ActorKind::User, "user"),
    (ActorKind::Service, "service"),
    (ActorKind::Agent, "agent"),
    (ActorKind::System, "system"),
];

fn kind_text(kind: ActorKind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("user", |(_, text)| text)
}

fn principal(row: &Row) -> Result<Principal, StoreError> {
    let found = text(row, "kind")?;
    let kind = KINDS.iter().find(|(_, text)| *text == found).map(|(kind, _)| *kind);
    let wrong = || StoreError::Value {
        column: "kind".to_owned(),
        found: found.clone(),
        expected: "kind of principal",
    };
    Ok(Principal {
        id: parsed(row, "id", "principal id")?,
        kind: kind.ok_or_else(wrong)?,
        name: text(row, "name")?,
        created: int(row, "created")?,
    })
}

fn token(row: &Row) -> Result<Token, StoreError> {
    Ok(Token {
        hash: parsed(row, "hash", "digest")?,
        principal: parsed(row, "principal", "principal id")?,
        environment: Some(text(row, "environment")?).filter(|name| !name.is_empty()),
        created: int(row, "created")?,
    })
}

impl Conn {
    /// Who has this name.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn principal_named(&mut self, name: &str) -> Result<Option<Principal>, StoreError> {
        no_nul("a name", name)?;
        let row = self.fetch_optional(query(BY_NAME).bind(name.to_owned())).await?;
        row.as_ref().map(principal).transpose()
    }

    /// Who stands behind this id; nobody where the name was erased.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn principal_by_id(&mut self, id: &PrincipalId) -> Result<Option<Principal>, StoreError> {
        let row = self.fetch_optional(query(BY_ID).bind(id.as_str().to_owned())).await?;
        row.as_ref().map(principal).transpose()
    }

    /// Everybody whose name is known, oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn principals(&mut self) -> Result<Vec<Principal>, StoreError> {
        let rows = self.fetch_all(query(PRINCIPALS)).await?;
        rows.iter().map(principal).collect()
    }

    /// What opens an entry's commitment; nothing where it was erased.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn sealed(&mut self, entry_seq: u64) -> Result<Option<Sealed>, StoreError> {
        let row = self.fetch_optional(query(SEALED).bind(signed("an entry's number", entry_seq)?)).await?;
        row.map(|row| Ok(Sealed { salt: text(&row, "salt")?, value: text(&row, "value")? })).transpose()
    }

    /// What opens the commitments of the entries from number `from` on and before `to`, by the entry's number.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn sealed_between(&mut self, from: u64, to: u64) -> Result<BTreeMap<u64, Sealed>, StoreError> {
        let number = |seq| signed("an entry's number", seq);
        let rows = self.fetch_all(query(SEALED_FROM).bind(number(from)?).bind(number(to)?)).await?;
        rows.iter()
            .map(|row| {
                let sealed = Sealed { salt: text(row, "salt")?, value: text(row, "value")? };
                Ok((count(row, "entry_seq")?, sealed))
            })
            .collect()
    }

    /// The token with this hash.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn token(&mut self, hash: &Digest) -> Result<Option<Token>, StoreError> {
        let row = self.fetch_optional(query(TOKEN).bind(hash.to_string())).await?;
        row.as_ref().map(token).transpose()
    }

    /// Every token of a principal, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn tokens_of(&mut self, principal: &PrincipalId) -> Result<Vec<Token>, StoreError> {
        let rows = self.fetch_all(query(TOKENS_OF).bind(principal.as_str().to_owned())).await?;
        rows.iter().map(token).collect()
    }
}

impl Tx {
    /// The principal with this name, which becomes known as `new_id` where there is none yet.
    ///
    /// # Errors
    /// Where the name belongs to a principal of another kind, or the id to another name.
    pub async fn principal(
        &mut self,
        kind: ActorKind,
        name: &str,
        new_id: &PrincipalId,
    ) -> Result<Principal, StoreError> {
        if name.is_empty() {
            return Err(StoreError::Invalid { what: "a name", why: "it is empty".to_owned() });
        }
        match self.principal_named(name).await? {
            Some(known) if known.kind == kind => return Ok(known),
            Some(known) => {
                let detail = format!("the name belongs to a {} already", kind_text(known.kind));
                return Err(StoreError::Conflict { detail });
            }
            None => {}
        }
        let new = Principal { id: new_id.clone(), kind, name: name.to_owned(), created: self.now() };
        let statement = query(INSERT)
            .bind(new.id.as_str().to_owned())
            .bind(kind_text(kind))
            .bind(new.name.clone())
            .bind(new.created);
        self.execute(statement).await?;
        Ok(new)
    }

    /// Keeps what opens an entry's commitment.
    ///
    /// # Errors
    /// Where the entry has one already.
    pub async fn seal(&mut self, entry_seq: u64, sealed: &Sealed) -> Result<(), StoreError> {
        no_nul("a salt", &sealed.salt)?;
        no_nul("a sealed value", &sealed.value)?;
        let statement = query(SEAL).bind(signed("an entry's number", entry_seq)?);
        self.execute(statement.bind(sealed.salt.clone()).bind(sealed.value.clone())).await.map(|_| ())
    }

    /// Erases a person: the name, what opens commitments to `value` (the name's canonical JSON), and the tokens. The log
    /// and its hashes stay as they are. Says how many commitments were erased.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn erase(&mut self, name: &str, value: &str) -> Result<u64, StoreError> {
        no_nul("a sealed value", value)?;
        if let Some(known) = self.principal_named(name).await? {
            self.execute(query(DELETE_TOKENS_OF).bind(known.id.as_str().to_owned())).await?;
            self.execute(query(DELETE).bind(name.to_owned())).await?;
        }
        self.execute(query(UNSEAL).bind(value.to_owned())).await
    }

    /// Keeps a token by its hash.
    ///
    /// # Errors
    /// Where a token with this hash is there already.
    pub async fn save_token(&mut self, token: &Token) -> Result<(), StoreError> {
        let environment = token.environment.clone().unwrap_or_default();
        no_nul("an environment", &environment)?;
        let statement =
            query(INSERT_TOKEN).bind(token.hash.to_string()).bind(token.principal.as_str().to_owned());
        self.execute(statement.bind(environment).bind(token.created)).await.map(|_| ())
    }

    /// Revokes a token; says whether there was one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn revoke_token(&mut self, hash: &Digest) -> Result<bool, StoreError> {
        self.execute(query(DELETE_TOKEN).bind(hash.to_string())).await.map(|rows| rows > 0)
    }
}
