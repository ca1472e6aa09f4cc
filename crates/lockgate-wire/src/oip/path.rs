//! The paths of a model.

use crate::tensor::shown;
use std::borrow::Cow;

/// What a path of a model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// What the model takes and gives.
    Metadata,
    /// Whether it can answer.
    Ready,
    /// What it is made of, in Triton's form.
    Config,
    /// How many predictions it made, and how long they took.
    Stats,
    /// A prediction.
    Infer,
}

/// `/v2/models/{model}[/versions/{version}][/ready|/config|/stats|/infer]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPath<'a> {
    /// The model's name, percent-decoded.
    pub model: Cow<'a, str>,
    /// The version, where the path names one.
    pub version: Option<&'a str>,
    /// What is asked.
    pub verb: Verb,
}

impl<'a> ModelPath<'a> {
    /// Reads a path.
    ///
    /// # Errors
    /// A sentence, where the path is none of these.
    pub fn parse(path: &'a str) -> Result<Self, String> {
        let nothing = || format!("there is nothing at `{}`", shown(path));
        let rest = path.strip_prefix("/v2/models/").ok_or_else(nothing)?;
        let mut parts = rest.split('/');
        let model = parts.next().and_then(decode).ok_or_else(nothing)?;
        let (mut next, mut version) = (parts.next(), None);
        if next == Some("versions") {
            version = Some(parts.next().unwrap_or_default());
            next = parts.next();
        }
        let verb = match next {
            None => Verb::Metadata,
            Some("ready") => Verb::Ready,
            Some("config") => Verb::Config,
            Some("stats") => Verb::Stats,
            Some("infer") => Verb::Infer,
            Some(_) => return Err(nothing()),
        };
        if parts.next().is_some() { Err(nothing()) } else { Ok(Self { model, version, verb }) }
    }
}

/// Undoes percent-encoding; none where it is broken.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let (high, low) = (tail.first().and_then(digit)?, tail.get(1).and_then(digit)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Percent-encodes one part of a path.
#[must_use]
pub fn encode(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_model_version_and_verb() {
        let ok = |path| {
            let p = ModelPath::parse(path).unwrap();
            (p.model.into_owned(), p.version.map(str::to_owned), p.verb)
        };
        assert_eq!(ok("/v2/models/a%20b/infer"), ("a b".to_owned(), None, Verb::Infer));
        assert_eq!(ok("/v2/models/m/versions/7/ready"), ("m".to_owned(), Some("7".to_owned()), Verb::Ready));
        assert_eq!(ok("/v2/models/m"), ("m".to_owned(), None, Verb::Metadata));
        for bad in ["/metrics", "/v2/models/%zz", "/v2/models/m/explain", "/v2/models/m/infer/x"] {
            assert!(ModelPath::parse(bad).unwrap_err().contains("nothing at"), "{bad}");
        }
    }

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(decode("a-b").as_deref(), Some("a-b"));
        assert_eq!(decode("a%20b%C3%A9").as_deref(), Some("a bé"));
        assert_eq!(decode(&encode("a b/é%")).as_deref(), Some("a b/é%"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode(bad), None);
        }
    }
}
