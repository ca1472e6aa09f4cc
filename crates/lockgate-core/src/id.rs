//! Typed names and ids: one newtype per noun, checked when made.

use crate::clock::{Entropy, Millis};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A name or id that breaks its noun's rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {noun}: {rule}")]
pub struct InvalidName {
    /// What the text was meant to name.
    pub noun: &'static str,
    /// The text itself.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

const LABEL_RULE: &str = "use 1 to 63 of a-z, 0-9 and `-`, starting and ending with a letter or digit";

fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

const MODEL_RULE: &str =
    "use 1 to 200 characters without `/`, `:`, `@`, control characters or blanks at the ends";

fn is_model(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= 200
        && text.trim() == text
        && text != "."
        && text != ".."
        && !text.chars().any(|c| c.is_control() || matches!(c, '/' | ':' | '@' | '\\'))
}

const ID_RULE: &str = "use its prefix and 26 characters of Crockford's base 32";

fn is_ulid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 26 && rest.bytes().all(|b| CROCKFORD.contains(&b)))
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $noun:literal, $rule:expr, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            /// Where the text breaks the noun's rule.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let value = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&value) { Ok(Self(value)) } else { Err(InvalidName { noun: $noun, value, rule: $rule }) }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// A project: a Git repository with a `lockgate.toml` at its root.
    ProjectName, "project name", LABEL_RULE, is_label;
    /// A named stage in the environment graph.
    EnvironmentName, "environment name", LABEL_RULE, is_label;
    /// A registered model's name (MLflow's rules).
    ModelName, "model name", MODEL_RULE, is_model;
    /// A gate's name in `lockgate.toml`.
    GateName, "gate name", LABEL_RULE, is_label;
    /// A guard's name in `lockgate.toml`.
    GuardName, "guard name", LABEL_RULE, is_label;
    /// One promotion: `pr_` and a ULID.
    PromotionId, "promotion id", ID_RULE, |t| is_ulid(t, "pr_");
    /// One instruction of a person to a running rollout: `cm_` and a ULID.
    CommandId, "command id", ID_RULE, |t| is_ulid(t, "cm_");
    /// A person or a machine, without personal data: `u_`, `svc_` or `agent_` and an opaque rest.
    PrincipalId, "principal id", "use 1 to 100 of a-z, A-Z, 0-9, `-`, `_` and `.`", |t| {
        !t.is_empty() && t.len() <= 100 && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
}

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Makes a ULID (<https://github.com/ulid/spec>): 48 bits of milliseconds and 80 random bits, as 26 characters of
/// Crockford's base 32. Negative times count as zero.
#[must_use]
pub fn ulid(now: Millis, entropy: &dyn Entropy) -> String {
    let mut random = [0_u8; 10];
    entropy.fill(&mut random);
    let mut value = u128::from(u64::try_from(now).unwrap_or(0) & 0xffff_ffff_ffff) << 80;
    for (i, byte) in random.iter().enumerate() {
        value |= u128::from(*byte) << (8 * (9 - i));
    }
    (0..26).rev().map(|i| char::from(CROCKFORD[((value >> (5 * i)) & 31) as usize])).collect()
}

/// The milliseconds in a ULID that [`ulid`] made, behind its prefix.
fn ulid_time(text: &str) -> Millis {
    let digit = |b: u8| CROCKFORD.iter().position(|c| *c == b).and_then(|at| i64::try_from(at).ok());
    let time = text.rsplit('_').next().unwrap_or_default().bytes().take(10);
    time.fold(0, |sum, b| (sum << 5) | digit(b).unwrap_or(0))
}

impl PromotionId {
    /// Makes a new id for a promotion requested at `now`.
    #[must_use]
    pub fn generate(now: Millis, entropy: &dyn Entropy) -> Self {
        Self(format!("pr_{}", ulid(now, entropy)))
    }
}

impl CommandId {
    /// Makes a new id for an instruction given at `now`.
    #[must_use]
    pub fn generate(now: Millis, entropy: &dyn Entropy) -> Self {
        Self(format!("cm_{}", ulid(now, entropy)))
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> Millis {
        ulid_time(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);
    impl Entropy for Fixed {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(self.0);
        }
    }

    #[test]
    fn a_ulid_is_ordered_by_time_and_has_26_characters() {
        assert_eq!(ulid(0, &Fixed(0)), "0".repeat(26));
        let (a, b) = (ulid(1_000, &Fixed(255)), ulid(1_001, &Fixed(0)));
        assert!(a < b, "{a} {b}");
        assert_eq!(a.len(), 26);
    }

    #[test]
    fn names_are_checked_on_the_way_in() {
        assert!(EnvironmentName::new("prod-eu").is_ok());
        for bad in ["", "Prod", "-a", "a-", "a b", "ä", &"a".repeat(64)] {
            assert!(EnvironmentName::new(bad).is_err(), "{bad}");
        }
        assert!(ModelName::new("Delay model v2").is_ok());
        for bad in ["", " a", "a/b", "a:b", "a@b", "..", "a\n"] {
            assert!(ModelName::new(bad).is_err(), "{bad}");
        }
        let json = serde_json::from_str::<ProjectName>("\"No\"").unwrap_err().to_string();
        assert!(json.contains("project name"), "{json}");
        assert!(PromotionId::new(format!("pr_{}", ulid(5, &Fixed(7)))).is_ok());
        assert!(PromotionId::new("pr_1").is_err());
    }
}
