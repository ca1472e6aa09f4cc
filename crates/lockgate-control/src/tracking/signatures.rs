//! Signatures of URLs that clients use without signing in: for one thing, for a while.

use super::{Tracking, TrackingError};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lockgate_core::access::Refused;
use lockgate_core::clock::Millis;
use sha2::Sha256;

/// The setting that holds the key: all servers over one database, and each after a restart, have the same.
pub const SETTING: &str = "artifact-url-key";

/// How long an URL may be good for, with what the clocks of two servers may differ.
const LONGEST: Millis = 24 * 3_600_000 + 300_000;

/// The key of the signatures; never shown.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// What a signature allows, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// When it ends, in milliseconds.
    pub expires: Millis,
    /// The signature in hexadecimal digits.
    pub signature: String,
}

impl Key {
    /// Signs a list of texts, which say what is allowed. Each is preceded by its length: none can be shifted into its
    /// neighbour.
    fn mac(&self, what: &[&str], expires: Millis) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for text in what {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        }
        mac.update(&expires.to_be_bytes());
        Some(mac)
    }

    /// Allows something until then.
    pub(super) fn sign(&self, what: &[&str], expires: Millis) -> Signed {
        let signature = self.mac(what, expires).map(|mac| hex::encode(mac.finalize().into_bytes()));
        Signed { expires, signature: signature.unwrap_or_default() }
    }

    /// Whether this was allowed, and still is.
    pub(super) fn check(&self, what: &[&str], signed: &Signed, now: Millis) -> Result<(), TrackingError> {
        let refused = |why: &str| Err(Refused(why.to_owned()).into());
        let given = hex::decode(&signed.signature).unwrap_or_default();
        let right = self.mac(what, signed.expires).is_some_and(|mac| mac.verify_slice(&given).is_ok());
        match right {
            // None is made for longer, so that a key which got out makes none that lasts.
            _ if signed.expires > now.saturating_add(LONGEST) => {
                refused("This URL is for longer than any that is made")
            }
            false => refused("This URL was not made by this server, or it was made for something else"),
            true if now >= signed.expires => refused("This URL has expired: ask for a new one"),
            true => Ok(()),
        }
    }
}

impl Tracking {
    /// The key, which is made when it is first needed.
    pub(super) async fn key(&self) -> Result<&Key, TrackingError> {
        self.signing.get_or_try_init(|| self.find_key()).await
    }

    async fn find_key(&self) -> Result<Key, TrackingError> {
        let mut new = [0; 32];
        self.entropy.fill(&mut new);
        let text = self
            .write(move |tx| {
                Box::pin(async move {
                    if let Some(there) = tx.setting(SETTING).await? {
                        return Ok(there);
                    }
                    let new = hex::encode(new);
                    tx.set_setting(SETTING, &new).await?;
                    Ok(new)
                })
            })
            .await?;
        let bytes = hex::decode(&text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Key).ok_or_else(|| {
            TrackingError::State(format!(
                "the setting {SETTING} is no key: delete its row, then a new one is made"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_allows_one_thing_until_it_expires() {
        let key = Key([7; 32]);
        let signed = key.sign(&["part", "upload", "1"], 100);
        assert!(key.check(&["part", "upload", "1"], &signed, 99).is_ok());
        assert!(key.check(&["part", "upload", "1"], &signed, 100).is_err());
        for other in [&["part", "upload", "2"][..], &["part", "upload1", ""], &["part", "uploa", "d1"], &[]] {
            assert!(key.check(other, &signed, 99).is_err(), "{other:?}");
        }
        let later = Signed { expires: 1000, ..signed.clone() };
        assert!(key.check(&["part", "upload", "1"], &later, 99).is_err());
        for signature in ["", "00", "no hex"] {
            let forged = Signed { signature: signature.to_owned(), expires: 100 };
            assert!(key.check(&["part", "upload", "1"], &forged, 99).is_err());
        }
        let far = key.sign(&["part", "upload", "1"], LONGEST + 100);
        assert!(key.check(&["part", "upload", "1"], &far, 100).is_ok());
        assert!(key.check(&["part", "upload", "1"], &far, 99).is_err(), "it is for too long");
        assert!(Key([8; 32]).check(&["part", "upload", "1"], &signed, 99).is_err());
    }
}
