//! The tree against the declared keys: unknown keys, wrong types, texts without their form.

use crate::diagnostic::{Origin, Path, Report, quoted};
use crate::format::{Finding, Format};
use crate::keys::{ENVIRONMENT, ROOT};
use crate::merge::is_removal;
use crate::nearest::{nearest, suggest};
use crate::shape::{Bounds, Key, Kind, Later, Length, Names, Shape, Tagged};
use crate::tree::{Node, Table, Value};

/// Walks the tree and reports.
pub(crate) struct Check<'r> {
    pub(crate) report: &'r mut Report,
    /// Whether `remove = true` may stand here: in a layer it may, in what is left after merging it has dropped nothing.
    pub(crate) removals: bool,
}

impl Check<'_> {
    /// Checks the whole file.
    pub(crate) fn root(&mut self, root: &Node) {
        self.table(ROOT, root, &Path::default(), &|_| None);
    }

    /// Checks an environment after merging, without its gates and guards.
    pub(crate) fn environment(&mut self, node: &Node, path: &Path) {
        let mut node = node.clone();
        if let Value::Table(table) = &mut node.value {
            table.retain(|key, _| key != "gates" && key != "guards");
        }
        self.table(ENVIRONMENT, &node, path, &|_| None);
    }

    pub(crate) fn shape(&mut self, shape: &Shape, node: &Node, path: &Path) {
        if self.is_handled_removal(node, path) {
            return;
        }
        match (shape, &node.value) {
            (Shape::Text(format), Value::Text(text)) => self.text(*format, text, node, path),
            (Shape::Integer(min, max), Value::Integer(number)) => {
                if number < min || number > max {
                    let message = format!("{number} is out of range: `{path}` lies between {min} and {max}");
                    self.report.error(&node.at, path, message, None);
                }
            }
            (Shape::Number(bounds), Value::Integer(number)) => {
                #[expect(clippy::cast_precision_loss, reason = "only compared with bounds")]
                self.number(*bounds, *number as f64, node, path);
            }
            (Shape::Number(bounds), Value::Number(number)) => self.number(*bounds, *number, node, path),
            (Shape::Flag, Value::Flag(_)) | (Shape::True, Value::Flag(true)) => {}
            (Shape::Scalar, Value::Text(_) | Value::Integer(_) | Value::Number(_) | Value::Flag(_)) => {}
            (Shape::True, Value::Flag(false)) => {
                self.report.error(
                    &node.at,
                    path,
                    format!("`{path}` can only be true"),
                    Some("leave it out instead".to_owned()),
                );
            }
            (Shape::List(item, length), Value::List(items)) => self.list(item, *length, items, node, path),
            (Shape::Table(keys), Value::Table(_)) => self.table(keys, node, path, &|_| None),
            (Shape::Map(names), Value::Table(table)) => self.map(names, table, path),
            (Shape::Tagged(tagged), Value::Table(_)) => self.tagged(tagged, node, path),
            (Shape::Overrides(tagged), Value::Table(table)) => self.overrides(tagged, table, path),
            (Shape::Either(shapes), value) => match shapes.iter().find(|s| accepts(s, value)) {
                Some(shape) => self.shape(shape, node, path),
                None => self.wrong_type(shape, node, path),
            },
            _ => self.wrong_type(shape, node, path),
        }
    }

    /// Whether the entry is a `remove`; one that can't drop anything is reported.
    fn is_handled_removal(&mut self, node: &Node, path: &Path) -> bool {
        let Some(remove) = node.get("remove") else { return false };
        if !is_removal(node) {
            let message = format!("`remove` in [{path}] must be true and stand alone");
            self.report.error(
                &remove.key_at,
                path,
                message,
                Some("write { remove = true }, or take `remove` out".to_owned()),
            );
        } else if !self.removals {
            let help = "only what is built in, or inherited by `like`, can be removed; take the entry out";
            self.report.error(
                &node.key_at,
                path,
                format!("there is nothing to remove: `{path}` isn't inherited"),
                Some(help.to_owned()),
            );
        }
        true
    }

    fn text(&mut self, format: Format, text: &str, node: &Node, path: &Path) {
        match format.check(text) {
            Finding::Fine => {}
            Finding::Empty(example) => {
                let help = example.unwrap_or_else(|| "write something, or leave the key out".to_owned());
                self.report.error(&node.at, path, format!("`{path}` is empty"), Some(help));
            }
            Finding::Later(what) => self.report.not_yet(&node.at, path, &what, true),
            Finding::Wrong(problem) => self.report.error(&node.at, path, problem.message, problem.help),
        }
    }

    fn number(&mut self, bounds: Bounds, number: f64, node: &Node, path: &Path) {
        if !number.is_finite() {
            // Reported when it was parsed.
            return;
        }
        let Bounds { min, max, open } = bounds;
        let inside = if open { number > min && number < max } else { number >= min && number <= max };
        if !inside {
            let edges = if open { ", both excluded" } else { "" };
            let message = format!("{number} is out of range: `{path}` lies between {min} and {max}{edges}");
            self.report.error(&node.at, path, message, None);
        }
    }

    fn list(&mut self, item: &Shape, length: Length, items: &[Node], node: &Node, path: &Path) {
        if items.is_empty() && length == Length::AtLeastOne {
            let help = Some("add an item, or leave the key out".to_owned());
            self.report.error(&node.at, path, format!("`{path}` is an empty list"), help);
        }
        let is_sequence = matches!(item, Shape::Text(Format::Step));
        for (i, entry) in items.iter().enumerate() {
            let path = path.item(i);
            self.shape(item, entry, &path);
            let text = entry.text().unwrap_or_default();
            let earlier = items.iter().take(i).any(|other| other.text() == Some(text));
            if earlier && !is_sequence && !text.is_empty() {
                self.report.error(
                    &entry.at,
                    &path,
                    format!("{} is listed twice", quoted(text)),
                    Some("keep one of the two".to_owned()),
                );
            }
        }
    }

    fn map(&mut self, names: &Names, table: &Table, path: &Path) {
        let outside = self.removals;
        // An environment is a layer: what it removes is looked for when it is merged.
        self.removals |= names.noun == "environment";
        for (name, entry) in table {
            let path = path.key(name);
            match names.form.check(name) {
                Finding::Wrong(problem) => {
                    self.report.error(&entry.key_at, &path, problem.message, problem.help)
                }
                Finding::Empty(_) => {
                    let message = format!("{} {} needs a name", article(names.noun), names.noun);
                    self.report.error(
                        &entry.key_at,
                        &path,
                        message,
                        Some("put the name between the quotes".to_owned()),
                    );
                }
                Finding::Fine | Finding::Later(_) => {}
            }
            if entry.table().is_none() && matches!(names.shape, Shape::Table(_) | Shape::Tagged(_)) {
                let message = format!("`{path}` must be a table: {} `{}`", names.noun, name.escape_debug());
                self.report.error(
                    &entry.key_at,
                    &path,
                    message,
                    Some(format!("write [{path}] and its keys below it")),
                );
            } else {
                self.shape(&names.shape, entry, &path);
            }
        }
        self.removals = outside;
    }

    fn tagged(&mut self, tagged: &'static Tagged, node: &Node, path: &Path) {
        let noun = tagged.noun;
        let Some(tag) = node.get("kind") else {
            let message = format!("[{path}] doesn't say its kind");
            self.report.error(&node.key_at, path, message, Some(kind_help(tagged, node)));
            return;
        };
        let Some(name) = tag.text() else {
            return self.wrong_type(&Shape::Text(Format::Any), tag, &path.key("kind"));
        };
        let Some(kind) = tagged.kind(name) else {
            let names: Vec<&str> = tagged.kinds.iter().map(|k| k.name).collect();
            let message = format!("there is no kind of {noun} called {}", quoted(name));
            self.report.error(&tag.at, &path.key("kind"), message, suggest(name, "kind", &names));
            return;
        };
        if let Some((what, refused)) = not_now(kind.later) {
            self.report.not_yet(&tag.at, &path.key("kind"), what, refused);
        }
        let mut own = node.clone();
        if let Value::Table(table) = &mut own.value {
            table.remove("kind");
        }
        self.table(kind.keys, &own, path, &|key| {
            let others: Vec<&str> = tagged
                .kinds
                .iter()
                .filter(|k| k.keys.iter().any(|own| own.name == key))
                .map(|k| k.name)
                .collect();
            if others.is_empty() {
                return None;
            }
            let message = format!("`{key}` doesn't belong to a {noun} of kind `{name}` in [{path}]");
            let takes = list(kind.keys.iter().map(|k| k.name));
            Some((
                message,
                format!("kind `{name}` takes {takes}; `{key}` belongs to {}", list(others.into_iter())),
            ))
        });
    }

    /// Overrides are checked for keys that no kind has; the rest can only be told with the gate or guard itself.
    fn overrides(&mut self, tagged: &'static Tagged, table: &Table, path: &Path) {
        let names = tagged.key_names();
        for (key, entry) in table {
            if key == "kind" {
                let message = format!("the kind of a {} can't be changed in [{path}]", tagged.noun);
                self.report.error(
                    &entry.key_at,
                    &path.key(key),
                    message,
                    Some("declare another one, with a name of its own".to_owned()),
                );
            } else if tagged.key(key).is_none() {
                self.unknown_key(key, &entry.key_at, path, &names);
            }
        }
    }

    /// Checks the keys of a table. `foreign` explains a key that isn't among them but known elsewhere.
    fn table(
        &mut self,
        keys: &[Key],
        node: &Node,
        path: &Path,
        foreign: &dyn Fn(&str) -> Option<(String, String)>,
    ) {
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        for (name, entry) in node.entries() {
            let at = path.key(name);
            if let Some(key) = keys.iter().find(|key| key.name == name) {
                if let Some((what, refused)) = not_now(key.later) {
                    self.report.not_yet(&entry.key_at, &at, what, refused);
                }
                self.shape(&key.shape, entry, &at);
            } else if let Some((message, help)) = foreign(name) {
                self.report.error(&entry.key_at, &at, message, Some(help));
            } else {
                self.unknown_key(name, &entry.key_at, path, &names);
            }
        }
        let missing: Vec<&Key> =
            keys.iter().filter(|key| key.required && node.get(key.name).is_none()).collect();
        if let Some(first) = missing.first() {
            let place = if path.is_root() { "the file".to_owned() } else { format!("[{path}]") };
            let message = format!("{place} lacks {}", list(missing.iter().map(|key| key.name)));
            self.report.error(&node.key_at, path, message, Some(format!("`{}`: {}", first.name, first.doc)));
        }
    }

    fn unknown_key(&mut self, name: &str, at: &Origin, path: &Path, names: &[&str]) {
        let alias = ALIASES.iter().find(|(a, to)| *a == name && names.contains(to)).map(|(_, to)| *to);
        let top = ROOT.iter().any(|key| key.name == name) && !path.is_root();
        let help = match alias.or_else(|| nearest(name, names.iter().copied())) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if top => Some(format!("`{name}` belongs to the top level: put it above the first [table]")),
            None => suggest(name, "key", names),
        };
        self.report.error(
            at,
            &path.key(name),
            format!("unknown key {}{}", quoted(name), path.in_table()),
            help,
        );
    }

    fn wrong_type(&mut self, shape: &Shape, node: &Node, path: &Path) {
        if matches!(node.value, Value::Number(number) if !number.is_finite()) {
            // Reported when it was parsed.
            return;
        }
        let message = format!("`{path}` must be {}, but it is {}", shape.words(), node.value.kind());
        self.report.error(&node.at, path, message, type_help(shape, &node.value, path));
    }
}

/// Keys that other tools use for the same thing.
const ALIASES: &[(&str, &str)] = &[
    ("vs", "versus"),
    ("cmd", "run"),
    ("command", "run"),
    ("type", "kind"),
    ("replicas", "workers"),
    ("depends_on", "after"),
    ("needs", "after"),
    ("from", "like"),
    ("extends", "like"),
    ("inherits", "like"),
    ("steps", "rollout"),
    ("approvals", "approve"),
    ("approvers", "from"),
    ("variables", "vars"),
    ("environment", "vars"),
    ("datasets", "data"),
    ("environments", "env"),
    ("stage", "pipeline"),
    ("stages", "pipeline"),
    ("tolerance", "atol"),
    ("srm", "sample_ratio"),
    ("threshold", "min"),
    ("label", "target"),
    ("name", "project"),
];

/// The kinds that have all the keys that are there.
fn kind_help(tagged: &Tagged, node: &Node) -> String {
    let present: Vec<&str> = node.entries().iter().map(|(key, _)| *key).collect();
    let fits = |kind: &&Kind| present.iter().all(|p| kind.keys.iter().any(|k| k.name == *p));
    let now: Vec<&Kind> = tagged.kinds.iter().filter(fits).filter(|k| k.later == Later::Now).collect();
    let fitting = if now.is_empty() { tagged.kinds.iter().filter(fits).collect() } else { now };
    if present.is_empty() || fitting.is_empty() {
        return format!("add `kind`, one of {}", list(tagged.kinds.iter().map(|k| k.name)));
    }
    format!(
        "add kind = {}",
        fitting.iter().map(|k| format!("\"{}\"", k.name)).collect::<Vec<_>>().join(" or ")
    )
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn not_now(later: Later) -> Option<(&'static str, bool)> {
    match later {
        Later::Now => None,
        Later::Refused(what) => Some((what, true)),
        Later::Warned(what) => Some((what, false)),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Whether the value's type is the shape's.
pub(crate) fn accepts(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Text(_) => matches!(value, Value::Text(_)),
        Shape::Integer(..) => matches!(value, Value::Integer(_)),
        Shape::Number(_) => matches!(value, Value::Integer(_) | Value::Number(_)),
        Shape::Flag | Shape::True => matches!(value, Value::Flag(_)),
        Shape::Scalar => !matches!(value, Value::List(_) | Value::Table(_) | Value::Date(_)),
        Shape::List(..) => matches!(value, Value::List(_)),
        Shape::Table(_) | Shape::Map(_) | Shape::Tagged(_) | Shape::Overrides(_) => {
            matches!(value, Value::Table(_))
        }
        Shape::Either(shapes) => shapes.iter().any(|s| accepts(s, value)),
    }
}

fn type_help(shape: &Shape, value: &Value, path: &Path) -> Option<String> {
    let takes = |probe: &Value| accepts(shape, probe);
    let key = path.last();
    let is_item = key.ends_with(']');
    let in_quotes = |text: &str| {
        let text = if is_item { format!("\"{text}\"") } else { format!("{key} = \"{text}\"") };
        takes(&Value::Text(String::new())).then(|| format!("put it in quotes: {text}"))
    };
    match value {
        Value::Integer(n) if key == "approve" => Some(format!("write approve = {{ count = {n} }}")),
        Value::Integer(n) => in_quotes(&n.to_string()),
        Value::Number(n) => in_quotes(&n.to_string()),
        Value::Flag(flag) => in_quotes(&flag.to_string()),
        Value::Date(date) => in_quotes(date),
        Value::Text(t) if takes(&Value::Integer(0)) && t.trim().parse::<f64>().is_ok() => {
            Some(format!("write it without quotes: {key} = {}", t.trim()))
        }
        Value::Text(t) if takes(&Value::Flag(true)) && (t == "true" || t == "false") => {
            Some(format!("write it without quotes: {key} = {t}"))
        }
        Value::Text(_) if takes(&Value::List(Vec::new())) => {
            Some(format!("put it in brackets: {key} = [\"…\"]"))
        }
        Value::List(items) if takes(&Value::Table(Table::new())) => {
            Some(if items.iter().any(|i| i.table().is_some()) {
                format!("things have names here: write [{path}.NAME] instead of [[{path}]]")
            } else {
                format!("write {key} = {{ NAME = … }}, or [{path}.NAME]")
            })
        }
        _ => None,
    }
}
