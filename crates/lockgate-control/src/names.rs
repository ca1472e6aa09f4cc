//! Opening the log's commitments: the names that people see must be those that the log committed to.

use crate::error::ControlError;
use lockgate_core::digest::commitment;
use lockgate_core::entry;
use lockgate_core::id::PrincipalId;
use lockgate_store::people::Sealed;
use lockgate_store::{Conn, Store};
use std::collections::BTreeMap;

/// How many entries are looked at a time.
const PAGE: u32 = 512;

/// The first entry whose actor's name is not what it committed to, in words. A name that was erased leaves nothing to
/// compare, neither here nor for people.
pub(crate) async fn verify(store: &Store) -> Result<Option<String>, ControlError> {
    let mut from = Some(0);
    while let Some(next) = from {
        let (after, problem) =
            store.read(move |conn| Box::pin(async move { page(conn, next).await })).await?;
        if problem.is_some() {
            return Ok(problem);
        }
        from = after;
    }
    Ok(None)
}

/// Looks at the entries from number `from` on; says where to go on, and what doesn't fit.
async fn page(conn: &mut Conn, from: u64) -> Result<(Option<u64>, Option<String>), ControlError> {
    let entries = conn.entries(from, PAGE).await?;
    let Some(last) = entries.last().map(|e| e.seq) else { return Ok((None, None)) };
    let names: BTreeMap<PrincipalId, String> =
        conn.principals().await?.into_iter().map(|p| (p.id, p.name)).collect();
    let sealed = conn.sealed_between(from, last + 1).await?;
    for stored in &entries {
        // Whether entries can be read at all is for the chain's verification to say.
        let Ok(entry) = entry::read(stored.seq, &stored.text) else { continue };
        let Some(committed) = &entry.actor.sealed else { continue };
        let name = names.get(&entry.actor.id).map(String::as_str);
        if let Err(what) = open(committed, sealed.get(&entry.seq), name) {
            let problem = format!("entry {}: {what} ({})", entry.seq, entry.actor.id);
            return Ok((None, Some(problem)));
        }
    }
    Ok((Some(last + 1), None))
}

/// Opens one commitment and compares it with the name that people see.
fn open(committed: &str, sealed: Option<&Sealed>, name: Option<&str>) -> Result<(), &'static str> {
    let Some(sealed) = sealed else {
        return match name {
            None => Ok(()),
            Some(_) => Err("what opens its actor's name was removed, though the name is still there"),
        };
    };
    let opened: Option<(Vec<u8>, String)> =
        hex::decode(&sealed.salt).ok().zip(serde_json::from_str(&sealed.value).ok());
    match opened {
        Some((salt, value)) if commitment(&salt, &value) == committed => match name {
            Some(name) if name != value => Err("its actor has another name now than was committed to"),
            Some(_) => Ok(()),
            None => Err("its actor's name was removed without being erased"),
        },
        _ => Err("its actor's name is not the one that was committed to"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_opens_to_the_name_and_to_no_other() {
        let sealed = |salt: &str, name: &str| Sealed {
            salt: hex::encode(salt),
            value: serde_json::Value::from(name).to_string(),
        };
        let committed = commitment(b"salt", "ana");
        let fits = sealed("salt", "ana");
        assert_eq!(open(&committed, Some(&fits), Some("ana")), Ok(()));
        assert_eq!(open(&committed, None, None), Ok(()), "erased");
        for (sealed, name) in [
            (Some(&fits), Some("ben")),
            (Some(&sealed("salt", "ben")), Some("ben")),
            (Some(&sealed("other", "ana")), Some("ana")),
            (Some(&fits), None),
            (None, Some("ana")),
        ] {
            assert!(open(&committed, sealed, name).is_err(), "{sealed:?} {name:?}");
        }
    }
}
