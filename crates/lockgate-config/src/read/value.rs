//! Values of a checked table, with their defaults.

use crate::diagnostic::{Path, Report};
use crate::format::{duration_ms, fraction_ms, percent};
use crate::tree::{Node, Value};

/// A table while it is read.
pub(crate) struct Reader<'t, 'r> {
    pub(crate) node: &'t Node,
    pub(crate) path: Path,
    pub(crate) report: &'r mut Report,
}

impl Reader<'_, '_> {
    /// A duration in whole milliseconds.
    pub(crate) fn duration(&self, key: &str) -> Option<i64> {
        duration_ms(self.node.text_at(key)?).ok()
    }

    /// A duration that can't be zero.
    pub(crate) fn positive_duration(&mut self, key: &str, default: i64) -> i64 {
        let value = self.duration(key).unwrap_or(default);
        if value <= 0 {
            self.must_be_positive(key);
        }
        value
    }

    /// A latency in milliseconds, above zero.
    pub(crate) fn latency(&mut self, key: &str) -> Option<f64> {
        let value = fraction_ms(self.node.text_at(key)?).ok()?;
        if value <= 0.0 {
            self.must_be_positive(key);
        }
        Some(value)
    }

    /// A share: 0.5 for `50%`.
    pub(crate) fn share(&self, key: &str) -> Option<f64> {
        percent(self.node.text_at(key)?).ok()
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        match &self.node.get(key)?.value {
            Value::Number(number) => Some(*number),
            #[expect(clippy::cast_precision_loss, reason = "the bounds of all numbers lie below 2^53")]
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        }
    }

    pub(crate) fn whole<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        match &self.node.get(key)?.value {
            Value::Integer(number) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Reports a mistake at the value of `key`, or at the table where the key isn't written.
    pub(crate) fn wrong(&mut self, key: &str, message: impl Into<String>, help: Option<String>) {
        let at = self.node.get(key).map_or(&self.node.key_at, |n| &n.at);
        self.report.error(at, &self.path.key(key), message, help);
    }

    pub(crate) fn must_be_positive(&mut self, key: &str) {
        let help = Some("write more, or leave it out".to_owned());
        self.wrong(key, format!("`{key}` must be more than zero"), help);
    }
}
