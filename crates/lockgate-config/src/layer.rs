//! Settings from outside the file: environment variables and `--set`. The crate's page states the precedence.

use crate::check::accepts;
use crate::diagnostic::{Diagnostics, Origin, Path, Report, quoted};
use crate::keys::ROOT;
use crate::merge::{is_removal, merge, names_as_map};
use crate::nearest::suggest;
use crate::project::Project;
use crate::shape::{Key, Names, Shape};
use crate::tree::{Node, Table, Value, parse_value, rebase};

/// One setting from outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    path: Vec<String>,
    value: String,
    origin: Origin,
    /// Whether case and `_` for `-` don't matter.
    loose: bool,
}

const PREFIX: &str = "LOCKGATE__";

impl Override {
    /// A setting of a key's path, which must be written exactly.
    #[must_use]
    pub fn new(path: Vec<String>, value: impl Into<String>, origin: Origin) -> Self {
        Self { path, value: value.into(), origin, loose: false }
    }

    /// The settings among environment variables: those that begin with `LOCKGATE__`, in the order of their names.
    #[must_use]
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Vec<Self> {
        let mut all: Vec<Self> = variables
            .into_iter()
            .filter_map(|(name, value)| {
                let path = name.strip_prefix(PREFIX)?.split("__").map(str::to_owned).collect();
                Some(Self { path, value, origin: Origin::Variable(name.clone()), loose: true })
            })
            .collect();
        all.sort_by(|a, b| a.origin.cmp(&b.origin));
        all
    }

    /// A setting of the command line: `env.production.vars.THRESHOLD=0.4`. Parts with dots are quoted: `model."a.b".task=binary`.
    ///
    /// # Errors
    /// Where the text isn't a key's path, `=` and a value.
    pub fn from_set(text: &str) -> Result<Self, Diagnostics> {
        let split = split_path(text);
        let Some((path, value)) = split else {
            let mut report = Report::new("");
            let origin = Origin::Set(text.chars().take(80).collect());
            let help = Some(
                "write a key's path, `=` and a value: --set env.production.vars.THRESHOLD=0.4".to_owned(),
            );
            report.error(&origin, &Path::default(), "this is not a setting", help);
            return Err(report.all());
        };
        let origin = Origin::Set(path.join("."));
        Ok(Self { path, value, origin, loose: false })
    }
}

/// Splits at dots outside quotes, up to the first `=` outside quotes.
fn split_path(text: &str) -> Option<(Vec<String>, String)> {
    let mut parts = vec![String::new()];
    let mut in_quotes = false;
    for (i, c) in text.char_indices() {
        match c {
            '"' => in_quotes = !in_quotes,
            '.' if !in_quotes => parts.push(String::new()),
            '=' if !in_quotes => {
                let parts: Vec<String> = parts.iter().map(|p| p.trim().to_owned()).collect();
                let value = text.get(i + 1..)?.to_owned();
                return parts.iter().all(|p| !p.is_empty()).then_some((parts, value));
            }
            _ => parts.last_mut()?.push(c),
        }
    }
    None
}

/// Reads `text` with settings laid over it, the last of them on top. Errors in a setting name the variable or the `--set`
/// instead of a line.
///
/// # Errors
/// Every mistake in the text and in the settings.
pub fn overlay(text: &str, file: &str, overrides: &[Override]) -> Result<Project, Diagnostics> {
    let mut report = Report::new(file);
    let Some(mut root) = crate::read::document(text, &mut report) else { return Err(report.all()) };
    for one in overrides {
        if let Err((message, help)) = apply_root(&mut root, one) {
            report.error(&one.origin, &Path(one.path.clone()), message, help);
        }
    }
    crate::read::project(&root, report)
}

type Refusal = (String, Option<String>);

fn apply_root(root: &mut Node, setting: &Override) -> Result<(), Refusal> {
    apply_key(root, ROOT, setting, 0)
}

/// Applies a setting below a table with declared keys.
fn apply_key(node: &mut Node, keys: &'static [Key], setting: &Override, depth: usize) -> Result<(), Refusal> {
    let part = part(setting, depth)?;
    let Some(key) = keys.iter().find(|key| same(key.name, part, setting.loose)) else {
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        return Err(unknown(part, setting, depth, &names));
    };
    descend(node, key.name, &key.shape, setting, depth)
}

/// Applies a setting to the entry `name` of a table, whose shape is known.
fn descend(
    node: &mut Node,
    name: &str,
    shape: &'static Shape,
    setting: &Override,
    depth: usize,
) -> Result<(), Refusal> {
    let origin = &setting.origin;
    let Value::Table(table) = &mut node.value else {
        return Err((format!("{} is not a table in the file", before(setting, depth)), None));
    };
    if depth + 1 == setting.path.len() {
        let mut entry = Node::new(coerce(shape, &setting.value), origin);
        rebase(&mut entry, origin);
        match table.remove(name) {
            Some(_) if is_removal(&entry) => {}
            Some(lower) => drop(table.insert(name.to_owned(), merge(&lower, &entry))),
            None => drop(table.insert(name.to_owned(), entry)),
        }
        return Ok(());
    }
    let entry = table.entry(name.to_owned()).or_insert_with(|| Node::new(Value::Table(Table::new()), origin));
    if let Some(map) = names_as_map(entry).filter(|_| name == "gates") {
        *entry = map;
    }
    below(entry, shape, setting, depth + 1)
}

fn below(node: &mut Node, shape: &'static Shape, setting: &Override, depth: usize) -> Result<(), Refusal> {
    match shape {
        Shape::Table(keys) => apply_key(node, keys, setting, depth),
        Shape::Map(names) => apply_name(node, names, setting, depth),
        Shape::Tagged(tagged) | Shape::Overrides(tagged) => {
            let part = part(setting, depth)?;
            if part.eq_ignore_ascii_case("kind") {
                const KIND: &Shape = &Shape::Text(crate::format::Format::Any);
                return descend(node, "kind", KIND, setting, depth);
            }
            let names = tagged.key_names();
            let name = names.iter().find(|name| same(name, part, setting.loose));
            match name.and_then(|name| tagged.key(name)) {
                Some(key) => descend(node, key.name, &key.shape, setting, depth),
                None => Err(unknown(part, setting, depth, &names)),
            }
        }
        Shape::Either(shapes) => match shapes.iter().find(|s| accepts(s, &Value::Table(Table::new()))) {
            Some(shape) => below(node, shape, setting, depth),
            None => Err(no_keys(setting, depth)),
        },
        _ => Err(no_keys(setting, depth)),
    }
}

/// Applies a setting below a map of names: to the name that there is, or to a new one where new ones may come.
fn apply_name(
    node: &mut Node,
    names: &'static Names,
    setting: &Override,
    depth: usize,
) -> Result<(), Refusal> {
    let part = part(setting, depth)?;
    let present: Vec<&str> = node.table().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let matching: Vec<&str> = match present.iter().find(|name| **name == part) {
        Some(exact) => vec![exact],
        None => present.iter().copied().filter(|name| same(name, part, setting.loose)).collect(),
    };
    let name = match matching.as_slice() {
        [one] => (*one).to_owned(),
        [] => match names.built_in.iter().find(|name| same(name, part, setting.loose)) {
            Some(name) => (*name).to_owned(),
            None if names.open => new_name(names, part, setting.loose),
            None => {
                let help = suggest(part, names.noun, &present);
                return Err((format!("there is no {} {} in the file", names.noun, quoted(part)), help));
            }
        },
        _ => {
            let message = format!("{} could be more than one {}", quoted(part), names.noun);
            return Err((message, Some("write its name exactly, with --set".to_owned())));
        }
    };
    descend(node, &name, &names.shape, setting, depth)
}

/// A name that only the setting brings. Labels are lower case; variables keep theirs.
fn new_name(names: &Names, part: &str, loose: bool) -> String {
    if loose && names.form != crate::format::Format::Variable {
        part.to_ascii_lowercase().replace('_', "-")
    } else {
        part.to_owned()
    }
}

fn part(setting: &Override, depth: usize) -> Result<&str, Refusal> {
    match setting.path.get(depth).map(String::as_str) {
        Some(part) if !part.is_empty() => Ok(part),
        _ => Err((
            "a part of the key's path is empty".to_owned(),
            Some("write for example env.production.workers".to_owned()),
        )),
    }
}

fn same(name: &str, part: &str, loose: bool) -> bool {
    let fold = |b: u8| if b == b'-' { b'_' } else { b.to_ascii_lowercase() };
    name == part || (loose && name.len() == part.len() && name.bytes().map(fold).eq(part.bytes().map(fold)))
}

/// The path above a part, as the file would write it.
fn above(setting: &Override, depth: usize) -> Path {
    let shown = |part: &String| if setting.loose { part.to_ascii_lowercase() } else { part.clone() };
    Path(setting.path.iter().take(depth).map(shown).collect())
}

fn before(setting: &Override, depth: usize) -> String {
    format!("`{}`", above(setting, depth))
}

fn unknown(part: &str, setting: &Override, depth: usize, names: &[&str]) -> Refusal {
    let place = above(setting, depth);
    let folded = part.to_ascii_lowercase();
    let shown = if setting.loose { folded.as_str() } else { part };
    (format!("unknown key {}{}", quoted(shown), place.in_table()), suggest(shown, "key", names))
}

fn no_keys(setting: &Override, depth: usize) -> Refusal {
    (format!("{} has no keys below it", before(setting, depth)), None)
}

/// A text from outside as the type that the key wants. What doesn't fit stays a text, and the check says so.
fn coerce(shape: &Shape, text: &str) -> Value {
    let plain = || Value::Text(text.to_owned());
    let structured = || parse_value(text, &Origin::BuiltIn);
    match shape {
        Shape::Text(_) => plain(),
        Shape::Either(shapes) if !text.trim_start().starts_with(['[', '{']) => shapes
            .iter()
            .find(|s| matches!(s, Shape::Text(_)))
            .map_or_else(|| structured().unwrap_or_else(plain), |_| plain()),
        _ => structured().unwrap_or_else(plain),
    }
}
