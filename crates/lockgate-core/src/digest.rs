//! SHA-256 digests and canonical JSON.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256 digest, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of several byte strings, one after the other.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        Self(hasher.finalize().into())
    }

    /// The digest of `value` as canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// Where the value has no JSON form (a map key that is no text, a number that is not finite).
    pub fn of_json<T: Serialize>(value: &T) -> Result<Self, NotCanonical> {
        canonical_json(value).map(|text| Self::of(text.as_bytes()))
    }

    /// Wraps the 32 bytes of a finished SHA-256.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the prefix.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDigest(text.to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(invalid)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A value that has no canonical JSON form.
#[derive(Debug, thiserror::Error)]
#[error("this value has no canonical JSON form: {0}")]
pub struct NotCanonical(pub(crate) String);

/// Writes `value` as canonical JSON (RFC 8785).
///
/// # Errors
/// Where the value has no JSON form.
pub fn canonical_json<T: Serialize>(value: &T) -> Result<String, NotCanonical> {
    serde_json_canonicalizer::to_string(value).map_err(|e| NotCanonical(e.to_string()))
}

/// A salted commitment to a text: base64 of HMAC-SHA256(salt, canonical JSON of the text). Whoever deletes the salt and the
/// text erases what was committed to; what was hashed stays valid.
#[must_use]
pub fn commitment(salt: &[u8], text: &str) -> String {
    use base64::Engine as _;
    // HMAC (RFC 2104) with SHA-256's block of 64 bytes; salts are shorter than that.
    let mut key = [0_u8; 64];
    for (slot, byte) in key.iter_mut().zip(salt) {
        *slot = *byte;
    }
    let value = serde_json::Value::from(text).to_string();
    let inner = Digest::of_parts(&[&key.map(|b| b ^ 0x36), value.as_bytes()]);
    let outer = Digest::of_parts(&[&key.map(|b| b ^ 0x5c), inner.as_bytes()]);
    base64::engine::general_purpose::STANDARD.encode(outer.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        assert!("sha256:e3".parse::<Digest>().is_err());
        assert!("md5:e3b0".parse::<Digest>().is_err());
    }

    #[test]
    fn a_commitment_is_hmac_sha256() {
        // python3: base64.b64encode(hmac.new(b"salt", b'"a@b"', "sha256").digest())
        assert_eq!(commitment(b"salt", "a@b"), "tPdOLIGCCrJmJ/vR7wVaU9SaiVsDaNsP9x9no/lDkCc=");
    }

    #[test]
    fn canonical_json_sorts_keys_and_writes_numbers_the_ecmascript_way() {
        let value = serde_json::json!({"b": 1.0, "a": [1e21, "é\n"]});
        assert_eq!(canonical_json(&value).unwrap(), "{\"a\":[1e+21,\"é\\n\"],\"b\":1}");
    }
}
