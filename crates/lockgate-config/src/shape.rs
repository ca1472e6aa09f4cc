//! What a key may hold: the vocabulary in which `keys` declares the file.

use crate::format::Format;

/// What may stand in a place.
#[derive(Debug)]
pub(crate) enum Shape {
    Text(Format),
    /// A whole number between two.
    Integer(i64, i64),
    /// A number; the bounds themselves are allowed where the flags say so.
    Number(Bounds),
    Flag,
    /// Exactly `true`.
    True,
    /// A text, a number, or true or false.
    Scalar,
    List(&'static Shape, Length),
    Table(&'static [Key]),
    /// Names of a form, all with one shape.
    Map(&'static Names),
    /// A table whose `kind` says which keys it has.
    Tagged(&'static Tagged),
    /// Some of the keys of any kind: what an environment overrides.
    Overrides(&'static Tagged),
    /// The first whose type fits.
    Either(&'static [Shape]),
}

/// The range of a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Whether the bounds themselves are excluded.
    pub(crate) open: bool,
}

/// How many items a list has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Length {
    Any,
    AtLeastOne,
}

/// A map from names.
#[derive(Debug)]
pub(crate) struct Names {
    /// What a name is called in messages.
    pub(crate) noun: &'static str,
    pub(crate) form: Format,
    pub(crate) shape: Shape,
    /// Whether an environment variable or `--set` may bring a new name.
    pub(crate) open: bool,
    /// Names that are built in: their `kind` needn't be written.
    pub(crate) built_in: &'static [&'static str],
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) later: Later,
    pub(crate) doc: &'static str,
}

/// Whether a key or a kind comes later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Later {
    /// It is supported now.
    Now,
    /// A plan that would need it is refused.
    Refused(&'static str),
    /// It changes nothing about what a promotion may do: a warning is enough.
    Warned(&'static str),
}

/// The kinds of a table with a `kind`.
#[derive(Debug)]
pub(crate) struct Tagged {
    pub(crate) noun: &'static str,
    pub(crate) kinds: &'static [Kind],
}

/// One kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
    pub(crate) later: Later,
    pub(crate) doc: &'static str,
}

impl Tagged {
    pub(crate) fn kind(&self, name: &str) -> Option<&'static Kind> {
        self.kinds.iter().find(|kind| kind.name == name)
    }

    /// The first declaration of a key by any kind.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.kinds.iter().flat_map(|kind| kind.keys).find(|key| key.name == name)
    }

    /// The names of all keys of all kinds.
    pub(crate) fn key_names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.kinds.iter().flat_map(|kind| kind.keys).map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Key {
    pub(crate) const fn new(name: &'static str, shape: Shape, doc: &'static str) -> Self {
        Self { name, shape, required: false, later: Later::Now, doc }
    }

    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(crate) const fn refused(mut self, what: &'static str) -> Self {
        self.later = Later::Refused(what);
        self
    }

    pub(crate) const fn warned(mut self, what: &'static str) -> Self {
        self.later = Later::Warned(what);
        self
    }
}

impl Shape {
    /// The shape in words, for "expected …".
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Text(_) => "a text".to_owned(),
            Self::Integer(..) => "a whole number".to_owned(),
            Self::Number(_) => "a number".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::True => "true".to_owned(),
            Self::Scalar => "a text, a number, or true or false".to_owned(),
            Self::List(item, _) => match item {
                Self::Text(_) => "a list of texts".to_owned(),
                _ => "a list".to_owned(),
            },
            Self::Table(_) | Self::Map(_) | Self::Tagged(_) | Self::Overrides(_) => "a table".to_owned(),
            Self::Either(shapes) => shapes.iter().map(Self::words).collect::<Vec<_>>().join(" or "),
        }
    }
}
