//! A statement with its values, as both engines take it.

use std::borrow::Cow;

/// A value that goes into a statement or comes out of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing, where this kind of value was expected.
    Null(Kind),
    Int(i64),
    Real(f64),
    Text(String),
}

/// The kinds of columns that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Real,
    Text,
}

macro_rules! values {
    ($($type:ty, $kind:ident;)+) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$kind(value)
            }
        }

        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                value.map_or(Self::Null(Kind::$kind), Self::$kind)
            }
        }
    )+};
}

values! {
    i64, Int;
    f64, Real;
    String, Text;
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
}

impl Query {
    /// Adds the value of the next place: `$1`, then `$2`, and so on.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }
}

/// A fixed statement.
pub(crate) fn query(sql: &'static str) -> Query {
    Query { sql: Cow::Borrowed(sql), values: Vec::new() }
}

/// A statement whose text was put together by this crate: values never go into the text, always through `bind`.
pub(crate) fn query_dynamic(sql: String) -> Query {
    Query { sql: Cow::Owned(sql), values: Vec::new() }
}
