//! Whether two answers to the same request say the same, whatever protocol they are in.
//!
//! Only what was predicted counts (`outputs` of the Open Inference Protocol, `predictions` of MLflow's and TensorFlow Serving's,
//! its `result` and `results`), not the names and versions around it. Whole numbers, texts and booleans are taken for classes and must be equal; numbers with a fraction
//! may lie apart by a tolerance.

use crate::error::WireError;
use crate::json::{Limits, Scanner};
use std::borrow::Cow;

/// How two answers differ, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// A number lies farther away than the tolerance, or is finite in one answer only.
    Number,
    /// A whole number, a text or a boolean is another one.
    Class,
    /// There are more or fewer values, of other kinds or under other names; or one of them can't be read.
    Shape,
}

/// How `other` differs from `one` at its worst; none where both say the same. Numbers may lie `tolerance` of the larger one
/// apart, or `tolerance` itself where both are smaller than 1.
#[must_use]
pub fn difference(one: &[u8], other: &[u8], tolerance: f64, limits: &Limits) -> Option<Difference> {
    if one == other {
        return None;
    }
    match (predicted(one, limits), predicted(other, limits)) {
        (Ok(one), Ok(other)) => between(&one, &other, tolerance),
        _ => Some(Difference::Shape),
    }
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Whole(i64),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// What an answer predicts: its `outputs`, `predictions` or what stands in their place.
fn predicted<'a>(body: &'a [u8], limits: &Limits) -> Result<Value<'a>, WireError> {
    let mut s = Scanner::new(body, limits);
    let mut found = None;
    s.object("an answer", |s, key| match &*key {
        "outputs" | "predictions" | "result" | "results" => {
            found = Some(value(s)?);
            Ok(())
        }
        _ => s.skip(),
    })?;
    s.end()?;
    found.ok_or_else(|| WireError::bad("the answer predicts nothing"))
}

fn value<'a>(s: &mut Scanner<'a>) -> Result<Value<'a>, WireError> {
    s.count_one()?;
    Ok(match s.peek() {
        Some(b'[') => {
            let mut items = Vec::new();
            s.list("a list", |s, _| {
                items.push(value(s)?);
                Ok(())
            })?;
            Value::List(items)
        }
        Some(b'{') => {
            let mut members = Vec::new();
            s.object("an object", |s, key| {
                members.push((key, value(s)?));
                Ok(())
            })?;
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(members)
        }
        Some(b'"') => Value::Text(s.string("a text")?),
        Some(b't' | b'f') => Value::Bool(s.boolean()?),
        Some(b'n') if s.accept_word("null") => Value::Null,
        _ => match s.number()? {
            Ok(whole) => Value::Whole(whole),
            Err(number) => Value::Number(number),
        },
    })
}

fn between(one: &Value<'_>, other: &Value<'_>, tolerance: f64) -> Option<Difference> {
    match (one, other) {
        (Value::List(a), Value::List(b)) if a.len() == b.len() => {
            a.iter().zip(b).filter_map(|(a, b)| between(a, b, tolerance)).max()
        }
        (Value::Object(a), Value::Object(b)) if a.iter().map(|(k, _)| k).eq(b.iter().map(|(k, _)| k)) => {
            a.iter().zip(b).filter_map(|((_, a), (_, b))| between(a, b, tolerance)).max()
        }
        (Value::Number(a), Value::Number(b)) => (!near(*a, *b, tolerance)).then_some(Difference::Number),
        // `1` beside `1.5`: one side left its fraction out.
        (Value::Whole(a), Value::Number(b)) | (Value::Number(b), Value::Whole(a)) => {
            (!near(*a as f64, *b, tolerance)).then_some(Difference::Number)
        }
        (Value::Whole(_), Value::Whole(_))
        | (Value::Text(_), Value::Text(_))
        | (Value::Bool(_), Value::Bool(_)) => (one != other).then_some(Difference::Class),
        (Value::Null, Value::Null) => None,
        _ => Some(Difference::Shape),
    }
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    if a.is_nan() || b.is_nan() || a.is_infinite() || b.is_infinite() {
        return a == b || (a.is_nan() && b.is_nan());
    }
    (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn differ(one: &str, other: &str) -> Option<Difference> {
        difference(one.as_bytes(), other.as_bytes(), 0.05, &Limits::default())
    }

    #[test]
    fn what_stands_around_a_prediction_does_not_count() {
        let one = r#"{"model_name":"a","id":"7","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[0.5]}]}"#;
        let other = r#"{"model_name":"b","model_version":"2","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[0.52]}]}"#;
        assert_eq!(differ(one, other), None, "0.02 apart, and members in another order");
        assert_eq!(differ(one, &other.replace("0.52", "0.56")), Some(Difference::Number));
        assert_eq!(differ(one, &other.replace("\"y\"", "\"z\"")), Some(Difference::Class));
        assert_eq!(differ(one, &other.replace("[0.52]", "[0.52,1.0]")), Some(Difference::Shape));
    }

    #[test]
    fn classes_must_be_equal_and_numbers_near() {
        let of = |text: &str| format!("{{\"predictions\":{text}}}");
        let pair = |a: &str, b: &str| differ(&of(a), &of(b));
        assert_eq!(pair("[0,1]", "[0,1]"), None);
        assert_eq!(pair("[0,1]", "[0,2]"), Some(Difference::Class));
        assert_eq!(pair("[\"no\"]", "[\"yes\"]"), Some(Difference::Class));
        assert_eq!(pair("[true]", "[false]"), Some(Difference::Class));
        assert_eq!(pair("[1000.5]", "[1050.0]"), None);
        assert_eq!(pair("[1000.5]", "[1060.5]"), Some(Difference::Number));
        assert_eq!(pair("[1]", "[1.04]"), None);
        assert_eq!(pair("[NaN,Infinity]", "[NaN, Infinity]"), None);
        assert_eq!(pair("[NaN]", "[0.5]"), Some(Difference::Number));
        assert_eq!(pair("[Infinity]", "[-Infinity]"), Some(Difference::Number));
        assert_eq!(pair("[null]", "[null ]"), None);
        assert_eq!(pair("[null]", "[0.5]"), Some(Difference::Shape));
        assert_eq!(pair("[{\"a\":0.5,\"b\":1}]", "[{\"b\":2,\"a\":0.9}]"), Some(Difference::Class));
        assert_eq!(pair("[1]", "1"), Some(Difference::Shape));
        assert_eq!(differ("{\"predictions\":[1]}", "{\"error\":\"no\"}"), Some(Difference::Shape));
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_never_panics(one in ".{0,60}", other in ".{0,60}", a in any::<f64>(), b in any::<f64>()) {
            prop_assert_eq!(differ(&one, &other), differ(&other, &one));
            let of = |x: f64| format!("{{\"predictions\":[{x:?},3]}}");
            prop_assert_eq!(differ(&of(a), &of(b)), differ(&of(b), &of(a)));
            prop_assert_eq!(differ(&of(a), &format!("{} ", of(a))), None);
        }
    }
}
