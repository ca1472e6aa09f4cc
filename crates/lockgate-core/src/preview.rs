//! Preview tokens: who may say which release is to answer a request, in which environment, of which model, and until when.
//!
//! A token is `lgp1.CLAIMS.MAC`: the claims as JSON and their HMAC-SHA256, each in base64 for addresses. The agent makes it with a
//! key of its own that never leaves it, and its gateway checks it by itself, without the server. A token moves nobody but
//! whoever sends it.

use crate::clock::Millis;
use crate::id::{EnvironmentName, ModelName, PrincipalId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What every token begins with; the form may change with it.
const PREFIX: &str = "lgp1.";

/// The longest text that is looked at as a token.
const LONGEST: usize = 2048;

/// The longest time that a token may be good for, in milliseconds.
pub const LONGEST_MS: i64 = 7 * 24 * 3_600_000;

/// An agent's key for preview tokens.
#[derive(Clone)]
pub struct PreviewKey([u8; 32]);

impl PreviewKey {
    /// The key of these bytes, which must be random.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn mac(&self, claims: &str) -> Option<Hmac<Sha256>> {
        // Keys of all lengths are taken.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(PREFIX.as_bytes());
        mac.update(claims.as_bytes());
        Some(mac)
    }
}

impl std::fmt::Debug for PreviewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PreviewKey(…)")
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The environment.
    #[serde(rename = "env")]
    pub environment: EnvironmentName,
    /// The model.
    pub model: ModelName,
    /// Which side answers where a request doesn't say: `candidate`, `baseline` or the beginning of a release's digest.
    pub side: String,
    /// Whom it was made for; none for the smoke test.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<PrincipalId>,
    /// From when on it is good for nothing.
    #[serde(rename = "exp")]
    pub expires: Millis,
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It was not made by this agent, or was changed since.
    #[error("the preview token is not one of this environment's")]
    Foreign,
    /// Its time is over.
    #[error("the preview token has expired")]
    Expired,
}

impl Claims {
    /// The token that says this.
    ///
    /// # Errors
    /// Never with these claims; serialization could fail.
    pub fn sign(&self, key: &PreviewKey) -> Result<String, serde_json::Error> {
        let claims = BASE64.encode(serde_json::to_vec(self)?);
        let mac = key.mac(&claims).map(|mac| BASE64.encode(mac.finalize().into_bytes())).unwrap_or_default();
        Ok(format!("{PREFIX}{claims}.{mac}"))
    }

    /// What a token says, if `key` made it and its time is not over at `now`.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn verify(token: &str, key: &PreviewKey, now: Millis) -> Result<Self, BadToken> {
        let signed = Self::signed(token, key).ok_or(BadToken::Foreign)?;
        if now >= signed.expires { Err(BadToken::Expired) } else { Ok(signed) }
    }

    fn signed(token: &str, key: &PreviewKey) -> Option<Self> {
        let rest = token.strip_prefix(PREFIX).filter(|_| token.len() <= LONGEST)?;
        let (claims, mac) = rest.split_once('.')?;
        // Compared in constant time, and before anything in it is read.
        key.mac(claims)?.verify_slice(&BASE64.decode(mac).ok()?).ok()?;
        serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
    }
}

/// What stands in a text where a token was.
const REDACTED: &str = "[preview token]";

/// A text without a token that whoever wrote it knew: whoever reads it later may not use it.
///
/// Programs wrap long lines and draw frames around them, so what no token consists of is passed over. The end of a token, its
/// MAC, is what makes it one: it is found by itself, too.
#[must_use]
pub fn redacted(text: &str, token: &str) -> String {
    let Some(mac) = token.rsplit('.').next().filter(|mac| !mac.is_empty()) else { return text.to_owned() };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let (places, plain): (Vec<usize>, String) = text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| is_part(*byte))
        .map(|(at, byte)| (at, char::from(byte)))
        .unzip();
    let (mut shown, mut through) = (String::with_capacity(text.len()), 0);
    for (found, _) in plain.match_indices(mac) {
        let end = found + mac.len();
        let known = plain.as_bytes()[..end].iter().rev().zip(token.bytes().rev());
        let length = known.take_while(|(here, token)| **here == *token).count();
        let (from, to) = (places[end - length].max(through), places[end - 1] + 1);
        shown.push_str(&text[through..from]);
        shown.push_str(REDACTED);
        through = to;
    }
    shown.push_str(&text[through..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims() -> Claims {
        Claims {
            environment: "production".parse().unwrap(),
            model: "delay".parse().unwrap(),
            side: "candidate".to_owned(),
            by: Some("u_ann".parse().unwrap()),
            expires: 1000,
        }
    }

    fn key(n: u8) -> PreviewKey {
        PreviewKey::new([n; 32])
    }

    #[test]
    fn a_token_is_good_for_its_agent_until_its_time_is_over() {
        let token = claims().sign(&key(1)).unwrap();
        assert_eq!(Claims::verify(&token, &key(1), 999), Ok(claims()));
        assert_eq!(Claims::verify(&token, &key(1), 1000), Err(BadToken::Expired));
        assert_eq!(Claims::verify(&token, &key(2), 999), Err(BadToken::Foreign));
        // What is not signed is not even said to have expired.
        assert_eq!(Claims::verify(&token, &key(2), 5000), Err(BadToken::Foreign));
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{token}");
        assert!(!format!("{:?}", key(7)).contains('7'), "a key is not printed");
    }

    #[test]
    fn a_token_is_redacted_also_where_it_is_wrapped_or_its_beginning_is_lost() {
        let token = claims().sign(&key(1)).unwrap();
        let mac = token.rsplit('.').next().unwrap();
        let url = format!("GET http://127.0.0.1:1/preview/{token}/v2 failed, {token} and …{mac}!");
        let shown =
            "GET http://127.0.0.1:1/preview/[preview token]/v2 failed, [preview token] and …[preview token]!";
        assert_eq!(redacted(&url, &token), shown);
        let framed: Vec<String> =
            token.as_bytes().chunks(30).map(|c| format!("│ {} │", std::str::from_utf8(c).unwrap())).collect();
        assert_eq!(redacted(&framed.join("\n"), &token), "│ [preview token] │");
        assert_eq!(redacted("20 rows are right", &token), "20 rows are right");
        assert_eq!((redacted("a.b", ""), redacted("", &token)), ("a.b".to_owned(), String::new()));
    }

    proptest! {
        #[test]
        fn nobody_gets_a_token_out_of_a_redacted_text(
            before in ".{0,40}",
            after in ".{0,40}",
            junk in prop::collection::vec("[ \n│|\"'>]{0,3}", 300),
            lost in 0..200_usize,
            times in 1..3_usize,
        ) {
            let token = claims().sign(&key(1)).unwrap();
            let mac = token.rsplit('.').next().unwrap();
            let rest = &token[lost.min(token.len() - mac.len())..];
            let written: String = rest.chars().zip(&junk).flat_map(|(c, junk)| [c.to_string(), junk.clone()]).collect();
            let text = format!("{before} {} {after}", vec![written; times].join(" and "));
            let shown: String = redacted(&text, &token)
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
                .collect();
            prop_assert!(!shown.contains(mac), "{}", shown);
        }

        #[test]
        fn a_text_without_a_token_stays_as_it_is(text in ".{0,200}") {
            prop_assert_eq!(redacted(&text, &claims().sign(&key(1)).unwrap()), text);
        }

        #[test]
        fn no_other_text_is_a_token(at in 0..400_usize, byte in any::<u8>(), junk in ".{0,80}") {
            let token = claims().sign(&key(1)).unwrap();
            let mut changed = token.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            if let Ok(text) = String::from_utf8(changed) && text != token {
                prop_assert_eq!(Claims::verify(&text, &key(1), 0), Err(BadToken::Foreign));
            }
            prop_assert!(Claims::verify(&junk, &key(1), 0).is_err());
            let longer = format!("{token}{junk}x");
            prop_assert!(Claims::verify(&longer, &key(1), 0).is_err());
        }
    }
}
