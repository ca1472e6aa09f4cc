//! Tokens to conditions.

use super::lexer::{Token, tokens};
use crate::error::MlflowError;
use lockgate_control::tracking::Comparator;

/// What a condition is about: `entity.key`, or a key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identifier {
    pub(super) entity: Option<String>,
    pub(super) key: String,
}

/// What it is compared with, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Quoted(String),
    Bare(String),
    List(Vec<Value>),
}

impl Value {
    pub(super) fn show(&self) -> String {
        match self {
            Self::None => "NULL".to_owned(),
            Self::Quoted(text) => format!("'{text}'"),
            Self::Bare(text) => text.clone(),
            Self::List(list) => {
                let items: Vec<String> = list.iter().map(Self::show).collect();
                format!("({})", items.join(", "))
            }
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) identifier: Identifier,
    pub(super) comparator: Comparator,
    pub(super) value: Value,
}

fn invalid_clause(what: &str) -> MlflowError {
    MlflowError::invalid(format!("Invalid clause(s) in filter string: '{what}'"))
}

/// Takes one pair of quotes or backticks away.
fn unquoted(text: &str) -> &str {
    ['`', '"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

/// Splits an identifier at its first dot outside quotes.
pub(super) fn identifier(text: &str) -> Identifier {
    let mut quote = None;
    let dot = text.char_indices().find(|(_, c)| match quote {
        Some(open) => {
            if *c == open {
                quote = None;
            }
            false
        }
        None if matches!(c, '`' | '"' | '\'') => {
            quote = Some(*c);
            false
        }
        None => *c == '.',
    });
    match dot {
        Some((at, _)) => Identifier {
            entity: Some(unquoted(&text[..at]).to_owned()),
            key: unquoted(&text[at + 1..]).to_owned(),
        },
        None => Identifier { entity: None, key: unquoted(text).to_owned() },
    }
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
}

/// Reads a filter string.
pub(super) fn conditions(text: &str) -> Result<Vec<Condition>, MlflowError> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter() };
    let mut found = Vec::new();
    let Some(mut first) = parser.tokens.next() else { return Ok(found) };
    loop {
        found.push(parser.condition(first)?);
        match parser.tokens.next() {
            None => return Ok(found),
            Some(token) if token.is("AND") => {}
            Some(other) => return Err(invalid_clause(&other.show())),
        }
        first = parser.tokens.next().ok_or_else(|| invalid_clause("AND"))?;
    }
}

impl Parser {
    fn condition(&mut self, first: Token) -> Result<Condition, MlflowError> {
        let identifier = match &first {
            Token::Word(text) => identifier(text),
            Token::Quoted(text) => Identifier { entity: None, key: text.clone() },
            other => return Err(invalid_clause(&other.show())),
        };
        let shown = first.show();
        let incomplete = || invalid_clause(&shown);
        let second = self.tokens.next().ok_or_else(incomplete)?;
        let comparator = self.comparator(second, &shown)?;
        let value = match comparator {
            Comparator::IsNull | Comparator::IsNotNull => Value::None,
            Comparator::In | Comparator::NotIn => self.list()?,
            _ => match self.tokens.next().ok_or_else(incomplete)? {
                Token::Quoted(text) => Value::Quoted(text),
                Token::Word(text) => Value::Bare(text),
                other => return Err(invalid_clause(&other.show())),
            },
        };
        Ok(Condition { identifier, comparator, value })
    }

    fn comparator(&mut self, token: Token, before: &str) -> Result<Comparator, MlflowError> {
        if let Token::Operator(text) = token {
            return Ok(match text {
                "=" => Comparator::Eq,
                "!=" => Comparator::Ne,
                "<" => Comparator::Lt,
                "<=" => Comparator::Le,
                ">" => Comparator::Gt,
                _ => Comparator::Ge,
            });
        }
        for (keyword, comparator) in [
            ("LIKE", Comparator::Like),
            ("ILIKE", Comparator::Ilike),
            ("RLIKE", Comparator::Rlike),
            ("IN", Comparator::In),
        ] {
            if token.is(keyword) {
                return Ok(comparator);
            }
        }
        let next = |parser: &mut Self| parser.tokens.next();
        if token.is("NOT") && next(self).is_some_and(|token| token.is("IN")) {
            return Ok(Comparator::NotIn);
        }
        if token.is("IS") {
            let second = next(self);
            if second.as_ref().is_some_and(|token| token.is("NULL")) {
                return Ok(Comparator::IsNull);
            }
            let third = second.filter(|token| token.is("NOT")).and_then(|_| next(self));
            if third.is_some_and(|token| token.is("NULL")) {
                return Ok(Comparator::IsNotNull);
            }
        }
        Err(invalid_clause(&format!("{before} {}", token.show())))
    }

    /// `('a', 'b')`, not empty.
    fn list(&mut self) -> Result<Value, MlflowError> {
        let wrong = || {
            MlflowError::invalid(
                "While parsing a list in the query, expected a non-empty list of string values, punctuation, or \
                 whitespace, such as ('a', 'b')",
            )
        };
        let mut next = || self.tokens.next().ok_or_else(wrong);
        if next()? != Token::Mark('(') {
            return Err(wrong());
        }
        let mut items = Vec::new();
        loop {
            match next()? {
                Token::Quoted(text) => items.push(Value::Quoted(text)),
                Token::Word(text) => items.push(Value::Bare(text)),
                // A Python tuple of one ends with a comma.
                Token::Mark(')') if !items.is_empty() => return Ok(Value::List(items)),
                _ => return Err(wrong()),
            }
            match next()? {
                Token::Mark(',') => {}
                Token::Mark(')') => return Ok(Value::List(items)),
                _ => return Err(wrong()),
            }
        }
    }
}
