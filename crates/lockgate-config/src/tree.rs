//! TOML as a tree in which every value knows where it comes from.

use crate::diagnostic::{Origin, Path, Report};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where the value stands.
    pub(crate) at: Origin,
    /// Where its key stands; the value's own place for items of a list.
    pub(crate) key_at: Origin,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    /// Not finite only where that has been reported.
    Number(f64),
    Flag(bool),
    Date(String),
    List(Vec<Node>),
    Table(Table),
}

pub(crate) type Table = BTreeMap<String, Node>;

impl Value {
    /// The word for the type, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Number(_) => "a number with a decimal point",
            Self::Flag(_) => "true or false",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(crate) fn new(value: Value, origin: &Origin) -> Self {
        Self { value, at: origin.clone(), key_at: origin.clone() }
    }

    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.table()?.get(key)
    }

    pub(crate) fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// Whether it is `true`.
    pub(crate) fn is_set(&self) -> bool {
        matches!(self.value, Value::Flag(true))
    }

    /// A text, or a list of texts, as nodes.
    pub(crate) fn one_or_many(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    /// The entries in the order of their places, so that messages and stages come as they were written.
    pub(crate) fn entries(&self) -> Vec<(&str, &Self)> {
        let mut all: Vec<_> = self.table().into_iter().flatten().map(|(k, n)| (k.as_str(), n)).collect();
        all.sort_by(|a, b| a.1.key_at.cmp(&b.1.key_at));
        all
    }
}

/// Turns offsets into lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    fn origin(&self, offset: usize) -> Origin {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Origin::File {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}

/// Parses `text`; `None` where it isn't TOML and nothing more can be said about it.
pub(crate) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    // A byte-order mark is no key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(text);
    if let Some(offset) = too_deep(text) {
        let help = Some(
            "a lockgate.toml needs at most five; write tables with headers such as [env.dev.vars]".to_owned(),
        );
        let message = format!("more than {MOST_BRACKETS} brackets are open here");
        report.error(&lines.origin(offset), &Path::default(), message, help);
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut only_duplicates = true;
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let at = lines.origin(span.start);
        let found = text.get(span).unwrap_or_default();
        if error.message().starts_with("duplicate key") {
            let message = format!("{} is set twice", crate::diagnostic::quoted(found));
            report.error(
                &at,
                &Path::default(),
                message,
                Some("keep one of the two; a name may be used once".to_owned()),
            );
        } else {
            only_duplicates = false;
            report.error(
                &at,
                &Path::default(),
                format!("this is not TOML: {}", error.message()),
                syntax_help(text, &at),
            );
        }
    }
    let mut root = from_table(document.get_ref(), &lines, report, &Path::default());
    root.at = Origin::File { line: 1, column: 1 };
    root.key_at = root.at.clone();
    only_duplicates.then_some(root)
}

/// Parses one value, as on the right of `=`.
pub(crate) fn parse_value(text: &str, origin: &Origin) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    let mut quiet = Report::new("");
    let mut node = from_value(value.get_ref(), &Lines::new(text), 0, &mut quiet, &Path::default());
    rebase(&mut node, origin);
    (!quiet.has_errors()).then_some(node.value)
}

/// Gives a whole subtree one origin.
pub(crate) fn rebase(node: &mut Node, origin: &Origin) {
    node.at = origin.clone();
    node.key_at = origin.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| rebase(item, origin)),
        Value::Table(table) => table.values_mut().for_each(|entry| rebase(entry, origin)),
        _ => {}
    }
}

/// The parser bounds brackets and the parts of one key, but not their product, and every level costs stack.
const MOST_BRACKETS: usize = 8;
/// The deepest key that is looked at; no declared key is half as deep.
const DEEPEST: usize = 20;

/// Where more than [`MOST_BRACKETS`] brackets are open, outside of texts and comments.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut i, mut open) = (0, 0_usize);
    while let Some(byte) = bytes.get(i) {
        match byte {
            b'#' => i += bytes.iter().skip(i).take_while(|b| **b != b'\n').count(),
            b'"' | b'\'' => i = text_end(bytes, i, *byte),
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MOST_BRACKETS {
            return Some(i);
        }
        i += 1;
    }
    None
}

/// The last byte of the text that begins at `start`; one on a single line ends with its line at the latest.
fn text_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let is_long = bytes.get(start..start + 3).is_some_and(|b| b.iter().all(|b| *b == quote));
    let mut i = start + if is_long { 3 } else { 1 };
    while let Some(byte) = bytes.get(i) {
        if *byte == b'\\' && quote == b'"' {
            i += 1;
        } else if is_long && bytes.get(i..i + 3).is_some_and(|b| b.iter().all(|b| *b == quote)) {
            return i + 2;
        } else if !is_long && (*byte == quote || *byte == b'\n') {
            return i;
        }
        i += 1;
    }
    bytes.len()
}

/// What most often is behind a line that isn't TOML.
fn syntax_help(text: &str, at: &Origin) -> Option<String> {
    let Origin::File { line, .. } = at else { return None };
    let line = text.lines().nth(usize::try_from(*line).ok()?.checked_sub(1)?)?.trim();
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.split(" #").next().unwrap_or(value).trim());
    let bare = !value.is_empty() && value.len() < 60 && !value.starts_with(['"', '\'', '[', '{']);
    bare.then(|| format!("a text needs quotes: {key} = \"{}\"", value.replace(['"', '\\'], "")))
}

fn from_table(table: &DeTable<'_>, lines: &Lines<'_>, report: &mut Report, path: &Path) -> Node {
    let mut entries = Table::new();
    for (key, value) in table {
        if path.depth() >= DEEPEST {
            let help = Some("keys are at most five parts deep".to_owned());
            report.error(
                &lines.origin(key.span().start),
                &Path::default(),
                "this key is nested too deeply",
                help,
            );
            break;
        }
        let path = path.key(key.get_ref());
        let mut node = from_spanned(value, lines, report, &path);
        node.key_at = lines.origin(key.span().start);
        entries.insert(key.get_ref().to_string(), node);
    }
    Node::new(Value::Table(entries), &Origin::BuiltIn)
}

fn from_spanned(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>, report: &mut Report, path: &Path) -> Node {
    from_value(value.get_ref(), lines, value.span().start, report, path)
}

fn from_value(
    value: &DeValue<'_>,
    lines: &Lines<'_>,
    start: usize,
    report: &mut Report,
    path: &Path,
) -> Node {
    let at = lines.origin(start);
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                report.error(
                    &at,
                    path,
                    "this whole number is too large",
                    Some("write a smaller one".to_owned()),
                );
                Value::Number(f64::NAN)
            }
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Number(number),
            _ => {
                report.error(
                    &at,
                    path,
                    "`nan` and infinite numbers decide nothing",
                    Some("write a finite number".to_owned()),
                );
                Value::Number(f64::NAN)
            }
        },
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .enumerate()
                .map(|(i, item)| from_spanned(item, lines, report, &path.item(i)))
                .collect(),
        ),
        DeValue::Table(table) => from_table(table, lines, report, path).value,
    };
    Node::new(value, &at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let mut report = Report::new("x");
        let root = parse("\"ä\" = { \"ö\" = 1 , b = 2 }\n\n  c = 3\r\nd=4", &mut report).unwrap();
        let at = |n: &Node| match n.key_at {
            Origin::File { line, column } => (line, column),
            _ => (0, 0),
        };
        assert_eq!(at(root.get("ä").unwrap()), (1, 1));
        assert_eq!(at(root.get("ä").unwrap().get("b").unwrap()), (1, 19));
        assert_eq!(at(root.get("c").unwrap()), (3, 3));
        assert_eq!(at(root.get("d").unwrap()), (4, 1));
    }
}
