//! Text to tokens.

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Letters, digits and dots, with quoted parts in between: an identifier, a keyword or a number.
    Word(String),
    /// A text in single or double quotes, without them, and the quote.
    Quoted(String, char),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`, and other combinations of these signs and `~`, which compare nothing.
    Operator(String),
    /// `(`, `)`, `,` and what has no place anywhere.
    Mark(char),
}

impl Token {
    /// The token as it was written.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Word(text) | Self::Operator(text) => text.clone(),
            Self::Quoted(text, quote) => format!("{quote}{text}{quote}"),
            Self::Mark(c) => c.to_string(),
        }
    }

    /// Whether it is this keyword, in any case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(keyword))
    }

    /// Whether it is a word that can name nothing and is no value.
    pub(super) fn is_reserved(&self) -> bool {
        const RESERVED: [&str; 14] = [
            "AND", "OR", "NOT", "IN", "IS", "LIKE", "ILIKE", "RLIKE", "BETWEEN", "TRUE", "FALSE", "SELECT",
            "ASC", "DESC",
        ];
        RESERVED.iter().any(|word| self.is(word))
    }
}

/// Whether a text outside quotes is a number. Words such as `nan` and `inf` are none in this grammar.
pub(super) fn is_number(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

/// Why a text can't be cut into tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// What has no place where it stands, or is not whole.
    Clause(String),
    /// There are several expressions.
    Several,
    /// There is nothing but blanks.
    Blank,
}

/// Whether a character can stand in a word outside quotes.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '/' | ':' | '@' | '$' | '%')
}

fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '"' | '`')
}

/// Cuts a text into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
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
                '\'' | '"' if closed => Token::Quoted(word[1..word.len() - 1].to_owned(), c),
                _ => Token::Word(word.to_owned()),
            });
            rest = tail;
        } else {
            let token = symbol(rest, c)?;
            rest = &rest[token.show().len()..];
            found.push(token);
        }
    }
    Ok(found)
}

fn symbol(rest: &str, c: char) -> Result<Token, Fault> {
    if c == ';' {
        return Err(Fault::Several);
    }
    let signs = rest.find(|c| !matches!(c, '<' | '>' | '=' | '~' | '!')).unwrap_or(rest.len());
    Ok(if signs == 0 { Token::Mark(c) } else { Token::Operator(rest[..signs].to_owned()) })
}

/// Where the quoted part at the beginning ends; none where there is no quote. A quote that is said twice closes nothing.
fn quote_end(text: &str) -> Result<Option<usize>, Fault> {
    let Some(quote) = text.chars().next().filter(|c| is_quote(*c)) else { return Ok(None) };
    let mut end = 1;
    while let Some(length) = text[end..].find(quote) {
        end += length + 1;
        if !text[end..].starts_with(quote) {
            return Ok(Some(end));
        }
        end += 1;
    }
    Err(Fault::Clause(text.to_owned()))
}

/// Where a word ends that may have quoted parts after a dot. Behind a quoted part only a dot goes on with it.
fn word_end(text: &str) -> Result<usize, Fault> {
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
