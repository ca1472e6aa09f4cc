//! Regular expressions that mean the same to both engines: those of the crate `regex`, which takes linear time. SQLite gets a
//! function that uses it; for PostgreSQL an expression is taken apart and written again in PostgreSQL's words.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// How long an expression may be, in bytes.
const LENGTH: usize = 1000;
/// How much memory it may take once it is compiled.
const SIZE: usize = 1 << 22;
/// How long it may be in PostgreSQL's words.
const TRANSLATED: usize = 1 << 20;
/// How often PostgreSQL repeats something at the most.
const REPEATS: u32 = 255;

/// A character of a word, in PostgreSQL's words: what `\w` is by its own depends on the database's language.
static WORD: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::new();
    if let Ok(hir) = regex_syntax::parse(r"\w") {
        let _never_fails = write(&hir, &mut text);
    }
    text
});

/// An expression that is ready for use.
pub(crate) fn compiled(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > LENGTH {
        return Err(format!("it is longer than {LENGTH} bytes"));
    }
    // The last line says what is wrong; those before it show where, with marks below the text.
    let reason = |error: regex::Error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        error => {
            error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    RegexBuilder::new(pattern).size_limit(SIZE).dfa_size_limit(SIZE).build().map_err(reason)
}

/// The expression in PostgreSQL's words. What can't be said so is refused for both engines.
pub(crate) fn for_postgres(pattern: &str) -> Result<String, String> {
    compiled(pattern)?;
    let hir = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
    let mut text = String::new();
    write(&hir, &mut text)?;
    if text.len() > TRANSLATED {
        return Err("it is too large".to_owned());
    }
    Ok(text)
}

fn write(hir: &Hir, out: &mut String) -> Result<(), String> {
    match hir.kind() {
        HirKind::Empty => out.push_str("(?:)"),
        HirKind::Literal(literal) => {
            for c in std::str::from_utf8(&literal.0).map_err(|_| "it holds half a character")?.chars() {
                one(c, out);
            }
        }
        HirKind::Class(class) => write_class(class, out)?,
        HirKind::Look(look) => write_look(*look, out)?,
        HirKind::Repetition(repetition) => {
            group(&repetition.sub, out)?;
            out.push_str(&times(repetition)?);
        }
        HirKind::Capture(capture) => group(&capture.sub, out)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, out))?,
        HirKind::Alternation(parts) => {
            for (i, part) in parts.iter().enumerate() {
                out.push_str(if i > 0 { "|" } else { "(?:" });
                write(part, out)?;
            }
            out.push(')');
        }
    }
    Ok(())
}

fn group(hir: &Hir, out: &mut String) -> Result<(), String> {
    out.push_str("(?:");
    write(hir, out)?;
    out.push(')');
    Ok(())
}

/// Whether much or little is taken makes no difference to whether anything is found.
fn times(repetition: &Repetition) -> Result<String, String> {
    let most = repetition.max.unwrap_or_default();
    if repetition.min.max(most) > REPEATS {
        return Err(format!("something repeats more than {REPEATS} times"));
    }
    Ok(match (repetition.min, repetition.max) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (min, None) => format!("{{{min},}}"),
        (min, Some(max)) => format!("{{{min},{max}}}"),
    })
}

/// A character by its number: none means anything special then.
fn one(c: char, out: &mut String) {
    let number = u32::from(c);
    let _never_fails = if c.is_ascii_alphanumeric() {
        write!(out, "{c}")
    } else if number < 0x1_0000 {
        write!(out, "\\u{number:04x}")
    } else {
        write!(out, "\\U{number:08x}")
    };
}

fn write_class(class: &Class, out: &mut String) -> Result<(), String> {
    let characters = match class {
        Class::Unicode(class) => class.clone(),
        Class::Bytes(class) => class.to_unicode_class().ok_or("it holds bytes that are no characters")?,
    };
    // PostgreSQL's texts hold no NUL.
    let ranges = characters.iter().map(|range| (range.start().max('\u{1}'), range.end()));
    let ranges: Vec<(char, char)> = ranges.filter(|(start, end)| start <= end).collect();
    if ranges.is_empty() {
        out.push_str(r"[^\u0001-\U0010ffff]");
        return Ok(());
    }
    out.push('[');
    for (start, end) in ranges {
        one(start, out);
        if start < end {
            out.push('-');
            one(end, out);
        }
    }
    out.push(']');
    Ok(())
}

fn write_look(look: Look, out: &mut String) -> Result<(), String> {
    let word = || WORD.as_str();
    let text = match look {
        Look::Start => r"\A".to_owned(),
        Look::End => r"\Z".to_owned(),
        Look::StartLF => r"(?:\A|(?<=\n))".to_owned(),
        Look::EndLF => r"(?:\Z|(?=\n))".to_owned(),
        Look::WordUnicode => format!("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word()),
        Look::WordUnicodeNegate => format!("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word()),
        _ => return Err("it looks around in a way that is not known here".to_owned()),
    };
    out.push_str(&text);
    Ok(())
}

/// Makes `text REGEXP pattern` mean something to a connection. A statement compiles its pattern once.
pub(crate) fn register(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("regexp", 2, flags, |context: &Context<'_>| {
        let read = |given: ValueRef<'_>| -> Result<Regex, Box<dyn std::error::Error + Send + Sync>> {
            Ok(compiled(given.as_str()?)?)
        };
        let pattern = context.get_or_create_aux(0, read)?;
        Ok(match context.get_raw(1) {
            ValueRef::Text(text) => std::str::from_utf8(text).is_ok_and(|text| pattern.is_match(text)),
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_written_in_postgresqls_words() {
        for (given, written) in [
            ("", "(?:)"),
            ("^v[0-9]+_$", r"\Av(?:[0-9])+\u005f\Z"),
            ("(a|b)c*?", r"(?:[a-b])(?:c)*"),
            ("(ab|cd){2,3}", r"(?:(?:(?:ab|cd))){2,3}"),
            ("***a", ""),
            (r"\*\*\*:é😀", r"\u002a\u002a\u002a\u003a\u00e9\U0001f600"),
            ("(?i)k", r"[Kk\u212a]"),
            ("(?m)^a$", r"(?:\A|(?<=\n))a(?:\Z|(?=\n))"),
            (".", r"[\u0001-\u0009\u000b-\U0010ffff]"),
            (r"[^\s\S]", r"[^\u0001-\U0010ffff]"),
        ] {
            assert_eq!(for_postgres(given).unwrap_or_default(), written, "{given}");
        }
        let both = for_postgres(r"\b").unwrap();
        assert!(both.starts_with("(?:(?<=[0-9A-Z") && both.len() > 10_000);
    }

    #[test]
    fn what_can_not_be_searched_for_is_refused_with_a_reason() {
        for (bad, why) in [
            ("(", "unclosed group"),
            ("a)", "unopened group"),
            ("[a", "unclosed character class"),
            ("*", "repetition operator missing expression"),
            ("(?=a)", "look-around"),
            (r"(a)\1", "backreferences are not supported"),
            ("a{256}", "more than 255 times"),
            (r"(?:\w{200}){200}", "too large"),
            (r"(?-u:\b)a", "looks around"),
        ] {
            let error = for_postgres(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(for_postgres(&"a".repeat(1001)).unwrap_err().contains("longer"));
        for good in
            [r"\w{50}", r"[\w.-]+@[\w.-]+", "a{255}", r"(?P<year>\d{4})", "(?s)a.b", "^", "(^)*a", "()*"]
        {
            assert!(for_postgres(good).is_ok(), "{good}: {:?}", for_postgres(good));
        }
    }
}
