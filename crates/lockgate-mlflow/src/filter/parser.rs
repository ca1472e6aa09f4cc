//! Tokens to conditions.

use super::lexer::{Fault, Token, is_number, tokens};
use lockgate_control::tracking::Comparator;

/// What a condition is about: `entity.key`, or a key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identifier {
    pub(super) entity: Option<String>,
    pub(super) key: String,
    /// The key as it was written, with its quotes.
    pub(super) written: String,
    /// Whether it is no identifier but a number or a text.
    pub(super) literal: bool,
}

impl Identifier {
    /// The entity without backticks, which some searches take off.
    pub(super) fn plain_entity(&self) -> Option<&str> {
        self.entity.as_deref().map(|entity| without(&['`'], entity))
    }

    /// All of it as it was written.
    pub(super) fn show(&self) -> String {
        let entity = self.entity.iter().map(|entity| format!("{entity}."));
        entity.chain([self.written.clone()]).collect()
    }
}

/// What it is compared with, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    None,
    Quoted(String),
    Bare(String),
    List(Vec<Value>),
    /// Something in parentheses that is no list.
    NoList(String),
}

impl Value {
    pub(super) fn show(&self) -> String {
        match self {
            Self::None => "NULL".to_owned(),
            Self::Quoted(text) => format!("'{text}'"),
            Self::Bare(text) | Self::NoList(text) => text.clone(),
            Self::List(list) => {
                let items: Vec<String> = list.iter().map(Self::show).collect();
                format!("({})", items.join(", "))
            }
        }
    }

    /// Whether it is a number outside quotes.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Bare(text) if is_number(text))
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) identifier: Identifier,
    pub(super) comparator: Comparator,
    /// The comparator as it was written, in capitals.
    pub(super) written: String,
    /// Whether it compares nothing at all; `comparator` then stands for nothing.
    pub(super) unknown: bool,
    pub(super) value: Value,
}

impl Condition {
    /// Whether it asks if there is something.
    pub(super) fn about_null(&self) -> bool {
        matches!(self.comparator, Comparator::IsNull | Comparator::IsNotNull)
    }
}

fn clause(what: impl Into<String>) -> Fault {
    Fault::Clause(what.into())
}

/// Takes one pair of these quotes away.
fn without<'t>(quotes: &[char], text: &'t str) -> &'t str {
    let inside = quotes.iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    inside.unwrap_or(text)
}

/// Splits an identifier at its first dot, be it in quotes or not: an entity has none in its name.
pub(super) fn identifier(text: &str) -> Identifier {
    let (entity, key) = match text.split_once('.') {
        Some((entity, key)) => (Some(entity.to_owned()), key),
        None => (None, text),
    };
    Identifier {
        entity,
        key: without(&['`'], without(&['\'', '"'], key)).to_owned(),
        written: key.to_owned(),
        literal: is_number(text),
    }
}

/// Reads what a condition or an order is about. What is in double quotes is a name, what is in single ones a text.
pub(super) fn named(token: &Token) -> Option<Identifier> {
    match token {
        Token::Quoted(_, quote) => Some(Identifier { literal: *quote == '\'', ..identifier(&token.show()) }),
        Token::Word(text) if !token.is_reserved() => Some(identifier(text)),
        _ => None,
    }
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
}

/// Reads a filter string.
pub(super) fn conditions(text: &str) -> Result<Vec<Condition>, Fault> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter() };
    if parser.tokens.len() == 0 && !text.is_empty() {
        return Err(Fault::Blank);
    }
    let mut found = Vec::new();
    // An AND at the end or at the beginning, or a second one, says nothing; where one is missing, something may be.
    let mut joined = true;
    while let Some(token) = parser.tokens.next() {
        if token.is("AND") {
            joined = true;
        } else if joined {
            found.push(parser.condition(&token)?);
            joined = false;
        } else {
            return Err(clause(token.show()));
        }
    }
    Ok(found)
}

impl Parser {
    fn condition(&mut self, first: &Token) -> Result<Condition, Fault> {
        let shown = first.show();
        let identifier = named(first).ok_or_else(|| clause(shown.clone()))?;
        let incomplete = || clause(shown.clone());
        let second = self.tokens.next().ok_or_else(incomplete)?;
        let (found, written) = self.comparator(&second, &shown)?;
        let value = match found {
            Some(Comparator::IsNull | Comparator::IsNotNull) => Value::None,
            Some(Comparator::In | Comparator::NotIn) => self.list(&shown)?,
            _ => match self.tokens.next().ok_or_else(incomplete)? {
                Token::Quoted(text, _) => Value::Quoted(text),
                word if word.is_reserved() => return Err(clause(word.show())),
                Token::Word(text) => Value::Bare(text),
                other => return Err(clause(other.show())),
            },
        };
        let comparator = found.unwrap_or(Comparator::Eq);
        Ok(Condition { identifier, comparator, written, unknown: found.is_none(), value })
    }

    /// The comparator, where it is one, and how it was written.
    fn comparator(&mut self, token: &Token, before: &str) -> Result<(Option<Comparator>, String), Fault> {
        const WORDS: [(&str, Option<Comparator>); 4] = [
            ("LIKE", Some(Comparator::Like)),
            ("ILIKE", Some(Comparator::Ilike)),
            ("RLIKE", Some(Comparator::Rlike)),
            ("IN", Some(Comparator::In)),
        ];
        if let Token::Operator(text) = token {
            return Ok((sign(text), text.clone()));
        }
        let named = |token: &Token| WORDS.into_iter().find(|(word, _)| token.is(word));
        if let Some((word, comparator)) = named(token) {
            return Ok((comparator, word.to_owned()));
        }
        let invalid = || clause(format!("{before} {}", token.show()));
        let mut next = || self.tokens.next().ok_or_else(invalid);
        if token.is("NOT") {
            let (word, comparator) = named(&next()?).ok_or_else(invalid)?;
            let comparator = comparator.filter(|found| *found == Comparator::In);
            return Ok((comparator.map(|_| Comparator::NotIn), format!("NOT {word}")));
        }
        if token.is("IS") {
            let second = next()?;
            if second.is("NULL") {
                return Ok((Some(Comparator::IsNull), "IS NULL".to_owned()));
            }
            if second.is("NOT") && next()?.is("NULL") {
                return Ok((Some(Comparator::IsNotNull), "IS NOT NULL".to_owned()));
            }
        }
        Err(invalid())
    }

    /// What is in parentheses: `('a', 'b')`.
    fn list(&mut self, before: &str) -> Result<Value, Fault> {
        let unclosed = || clause(before);
        if self.tokens.next() != Some(Token::Mark('(')) {
            return Err(unclosed());
        }
        let (mut inside, mut depth) = (Vec::new(), 1);
        loop {
            let token = self.tokens.next().ok_or_else(unclosed)?;
            match token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(items(&inside));
            }
            inside.push(token);
        }
    }
}

fn sign(text: &str) -> Option<Comparator> {
    Some(match text {
        "=" => Comparator::Eq,
        "!=" => Comparator::Ne,
        "<" => Comparator::Lt,
        "<=" => Comparator::Le,
        ">" => Comparator::Gt,
        ">=" => Comparator::Ge,
        _ => return None,
    })
}

/// Items with commas between them, and perhaps one behind the last, as Python writes a tuple of one.
fn items(tokens: &[Token]) -> Value {
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match (i % 2, token) {
            (0, Token::Quoted(text, _)) => found.push(Value::Quoted(text.clone())),
            (0, Token::Word(text)) => found.push(Value::Bare(text.clone())),
            (1, Token::Mark(',')) => {}
            _ => {
                let all: Vec<String> = tokens.iter().map(Token::show).collect();
                return Value::NoList(format!("({})", all.join(" ")));
            }
        }
    }
    Value::List(found)
}
