//! Bearer tokens (RFC 6750) that are checked where they arrive.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What keeps these MACs apart from others of the same text.
const PURPOSE: &[u8] = b"lockgate bearer token";

/// The shortest token: what is shorter can be guessed.
pub const SHORTEST: usize = 16;

/// The longest one.
pub const LONGEST: usize = 1024;

/// Tokens that are taken. They themselves are not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<[u8; 32]>);

/// Why a text holds no tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTokens {
    /// There is none in it.
    #[error("there is no token in it: write one in a line of its own, `openssl rand -hex 32` makes one")]
    Empty,
    /// One can't be sent in a header, or is too short or too long. The token is not repeated here.
    #[error(
        "line {0} is no token: {SHORTEST} to {LONGEST} letters, digits and signs without spaces; `openssl rand -hex 32` makes one"
    )]
    Line(usize),
}

impl Tokens {
    /// The tokens of a text, one in each line: with two of them clients can go over from one to the other. Empty lines and those that
    /// begin with `#` are passed over.
    ///
    /// # Errors
    /// Where there is none, or a line is none.
    pub fn parse(text: &str) -> Result<Self, BadTokens> {
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
        let tokens: Vec<[u8; 32]> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(n, line)| {
                let fits =
                    (SHORTEST..=LONGEST).contains(&line.len()) && line.bytes().all(|b| b.is_ascii_graphic());
                let mac = mac(line.as_bytes()).filter(|_| fits).ok_or(BadTokens::Line(n))?;
                Ok(mac.finalize().into_bytes().into())
            })
            .collect::<Result<_, _>>()?;
        if tokens.is_empty() { Err(BadTokens::Empty) } else { Ok(Self(tokens)) }
    }

    /// Whether this is one of them. How long that takes says nothing of them.
    #[must_use]
    pub fn contains(&self, token: &[u8]) -> bool {
        let Some(shown) = mac(token).filter(|_| token.len() <= LONGEST) else { return false };
        // All of them, whichever it is.
        self.0.iter().fold(false, |found, known| found | shown.clone().verify_slice(known).is_ok())
    }

    /// Whether the value of an `authorization` header shows one of them.
    #[must_use]
    pub fn authorize(&self, header: &[u8]) -> bool {
        let Some((scheme, token)) = header.split_at_checked(b"bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && self.contains(token.trim_ascii())
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

fn mac(token: &[u8]) -> Option<Hmac<Sha256>> {
    // Keys of all lengths are taken.
    let mut mac = Hmac::<Sha256>::new_from_slice(PURPOSE).ok()?;
    mac.update(token);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "0123456789abcdef";

    #[test]
    fn each_line_is_a_token_and_comments_are_none() {
        let tokens =
            Tokens::parse(&format!("# the old one\n{ONE}\n\n  another-long-token+/=  \r\n")).unwrap();
        for good in [ONE, "another-long-token+/="] {
            assert!(tokens.contains(good.as_bytes()));
            for header in [format!("Bearer {good}"), format!("bearer  {good} ")] {
                assert!(tokens.authorize(header.as_bytes()), "{header}");
            }
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            ONE,
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer # the old one",
        ] {
            assert!(!tokens.authorize(bad.as_bytes()), "{bad}");
        }
        assert!(!format!("{tokens:?}").contains("0123"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        assert_eq!(Tokens::parse("\n# nothing\n"), Err(BadTokens::Empty));
        for bad in ["short", "with a space in it, long", "zwölf Zeichen und mehr", &"x".repeat(LONGEST + 1)]
        {
            let error = Tokens::parse(&format!("{ONE}\n{bad}")).unwrap_err();
            assert_eq!(error, BadTokens::Line(2));
            assert!(!error.to_string().contains(bad));
        }
    }

    proptest! {
        #[test]
        fn no_other_text_is_taken(at in 0..16_usize, byte in any::<u8>(), other in prop::collection::vec(any::<u8>(), 0..40)) {
            let tokens = Tokens::parse(ONE).unwrap();
            let mut changed = ONE.as_bytes().to_vec();
            changed[at] = byte;
            prop_assert_eq!(tokens.contains(&changed), changed == ONE.as_bytes());
            prop_assert_eq!(tokens.contains(&other), other == ONE.as_bytes());
        }
    }
}
