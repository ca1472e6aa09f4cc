//! Text to tokens.

use crate::error::MlflowError;

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Letters, digits and dots, with quoted parts in between: an identifier, a keyword or a number.
    Word(String),
    /// A text in single or double quotes, without them.
    Quoted(String),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`.
    Operator(&'static str),
    /// `(`, `)`, `,` and what has no place anywhere.
    Mark(char),
}

impl Token {
    /// The token as it may be shown.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Word(text) => text.clone(),
            Self::Quoted(text) => format!("'{text}'"),
            Self::Operator(text) => (*text).to_owned(),
            Self::Mark(c) => c.to_string(),
        }
    }

    /// Whether it is this keyword, in any case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(keyword))
    }
}

/// Whether a character can stand in a word outside quotes.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '/' | ':' | '@' | '$' | '%')
}

fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '"' | '`')
}

/// Cuts a filter string into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, MlflowError> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
        } else if in_word(c) || is_quote(c) {
            let end = word_end(rest)?;
            let (word, tail) = rest.split_at(end);
            // A quote at the beginning that reaches to the end makes a text; elsewhere it belongs to an identifier.
            let closed = quote_end(word).is_ok_and(|end| end == Some(word.len()));
            found.push(match c {
                '\'' | '"' if closed => Token::Quoted(word[1..word.len() - 1].to_owned()),
                _ => Token::Word(word.to_owned()),
            });
            rest = tail;
        } else {
            let (token, length) = symbol(rest, c)?;
            found.push(token);
            rest = &rest[length..];
        }
    }
    Ok(found)
}

fn symbol(rest: &str, c: char) -> Result<(Token, usize), MlflowError> {
    const OPERATORS: [(&str, &str); 7] =
        [("!=", "!="), ("<>", "!="), (">=", ">="), ("<=", "<="), ("=", "="), (">", ">"), ("<", "<")];
    if c == ';' {
        return Err(MlflowError::invalid(
            "Search filter contained multiple expression. Provide AND-ed expression list.",
        ));
    }
    let operator = OPERATORS.into_iter().find(|(text, _)| rest.starts_with(text));
    Ok(match operator {
        Some((text, name)) => (Token::Operator(name), text.len()),
        None => (Token::Mark(c), c.len_utf8()),
    })
}

/// Where the quoted part at the beginning ends; none where there is no quote.
fn quote_end(text: &str) -> Result<Option<usize>, MlflowError> {
    let Some(quote) = text.chars().next().filter(|c| is_quote(*c)) else { return Ok(None) };
    match text[1..].find(quote) {
        Some(length) => Ok(Some(length + 2)),
        None => Err(MlflowError::invalid(format!(
            "Invalid filter '{text}': the quote {quote} is not closed. Use either single or double quotes."
        ))),
    }
}

/// Where a word ends that may have quoted parts after a dot. Behind a quoted part only a dot goes on with it.
fn word_end(text: &str) -> Result<usize, MlflowError> {
    let mut end = 0;
    let mut quoted = false;
    loop {
        let rest = &text[end..];
        let after_dot = end == 0 || text[..end].ends_with('.');
        if after_dot && let Some(length) = quote_end(rest)? {
            (end, quoted) = (end + length, true);
        } else {
            match rest.chars().next() {
                Some(c) if in_word(c) && (!quoted || c == '.') => (end, quoted) = (end + c.len_utf8(), false),
                _ => return Ok(end.max(text.chars().next().map_or(0, char::len_utf8))),
            }
        }
    }
}
