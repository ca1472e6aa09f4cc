//! The bodies of `:predict`, `:classify` and `:regress`.

use crate::error::WireError;
use crate::json::{Limits, Scanner};
use crate::table::{Array, Cell, Payload};
use crate::tensor::shown;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The only signature that there is: the model's own.
const SIGNATURE: &str = "serving_default";
/// How many inputs a request may name.
const MOST_NAMES: usize = 4096;

/// How a request lays its values out; its answer is laid out alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `instances`: one entry for each row.
    Rows,
    /// `inputs`: one entry for each input.
    Columns,
}

/// The body of `:predict`.
#[derive(Debug, Clone, PartialEq)]
pub struct Predict {
    /// The arrays: one without a name, or several with.
    pub payload: Payload,
    /// How they came.
    pub form: Form,
}

impl Predict {
    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, WireError> {
        let mut s = Scanner::new(body, limits);
        let mut found: Option<Self> = None;
        s.object("an object with `instances` or `inputs`", |s, key| {
            let (form, payload) = match &*key {
                "signature_name" => return signature(s),
                "instances" => (Form::Rows, rows(s, limits)),
                "inputs" => (Form::Columns, columns(s, limits)),
                _ => return Err(unknown(&key, "signature_name, instances, inputs")),
            };
            let payload = payload.map_err(|e| e.at(&key))?;
            match found.replace(Self { payload, form }) {
                None => Ok(()),
                Some(_) => Err(WireError::bad("send `instances` or `inputs`, one of them and once")),
            }
        })?;
        s.end()?;
        found.ok_or_else(|| WireError::bad("the request has neither `instances` nor `inputs`"))
    }
}

/// Reads the body of `:classify` or `:regress`: examples, each an object of features, and a context that all of them share.
///
/// # Errors
/// What is wrong, with the field.
pub fn examples(body: &[u8], limits: &Limits) -> Result<Payload, WireError> {
    let mut s = Scanner::new(body, limits);
    let (mut context, mut found) = (None, None);
    s.object("an object with `examples`", |s, key| match &*key {
        "signature_name" => signature(s),
        "context" if context.is_none() => {
            let mut one = Stack::new(limits);
            one.row(s, Feature::List).map_err(|e| e.at("context"))?;
            context = Some(one);
            Ok(())
        }
        "examples" if found.is_none() => {
            let mut stack = Stack::new(limits);
            let listed = s.list("an array of examples", |s, i| {
                stack.row(s, Feature::List).map_err(|e| e.at(&format!("[{i}]")))
            });
            listed.map_err(|e| e.at("examples"))?;
            found = Some(stack);
            Ok(())
        }
        "context" | "examples" => Err(WireError::bad("this member is given twice").at(&key)),
        _ => Err(unknown(&key, "signature_name, context, examples")),
    })?;
    s.end()?;
    let mut stack = found.ok_or_else(|| WireError::bad("the request has no `examples`"))?;
    if let Some(context) = context {
        stack.share(context)?;
    }
    stack.payload().map_err(|e| e.at("examples"))
}

fn signature(s: &mut Scanner<'_>) -> Result<(), WireError> {
    let name = s.string("a string").map_err(|e| e.at("signature_name"))?;
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    let message = format!("there is no signature `{}`; the model has `{SIGNATURE}` alone", shown(&name));
    Err(WireError::bad(message).at("signature_name"))
}

fn unknown(key: &str, known: &str) -> WireError {
    WireError::bad(format!("unknown member `{}`; expected one of {known}", shown(key)))
}

/// One value; bytes come as `{"b64": "…"}`.
fn cell(s: &mut Scanner<'_>) -> Result<Cell, WireError> {
    match s.peek() {
        Some(b'{') => b64(s).map(Cell::Text),
        _ => Cell::read(s),
    }
}

fn b64(s: &mut Scanner<'_>) -> Result<String, WireError> {
    let mut found = None;
    s.object("an object with `b64`", |s, key| {
        if key != "b64" || found.is_some() {
            return Err(WireError::bad(format!("`{}` where a value was expected", shown(&key))));
        }
        let text = s.string("base64")?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| WireError::bad("this is no base64"))?;
        found = Some(String::from_utf8(bytes).map_err(|_| WireError::bad("these bytes are no UTF-8 text"))?);
        Ok(())
    })?;
    found.ok_or_else(|| WireError::bad("an empty object where a value was expected"))
}

fn array(s: &mut Scanner<'_>, name: Option<String>) -> Result<Array, WireError> {
    let (cells, shape) = s.elements(cell)?;
    Ok(Array { name, shape, cells })
}

/// `instances`: values or arrays of a model's only input, or objects with a value or an array for each input.
fn rows(s: &mut Scanner<'_>, limits: &Limits) -> Result<Payload, WireError> {
    let _ = s.peek();
    let start = s.position();
    s.expect(b'[', "an array of instances")?;
    let objects = s.peek() == Some(b'{') && !is_bytes(s);
    s.go_back(start);
    if !objects {
        return array(s, None).map(|a| Payload::Arrays(vec![a]));
    }
    let mut stack = Stack::new(limits);
    s.list("an array of instances", |s, i| stack.row(s, Feature::AsIs).map_err(|e| e.at(&format!("[{i}]"))))?;
    stack.payload()
}

/// Whether an object is a value in base64 and no instance.
fn is_bytes(s: &mut Scanner<'_>) -> bool {
    let start = s.position();
    let found = s.expect(b'{', "an object").is_ok() && s.string("a name").is_ok_and(|key| key == "b64");
    s.go_back(start);
    found
}

/// `inputs`: the model's only input, or an object of inputs. A single value is an array of one.
fn columns(s: &mut Scanner<'_>, limits: &Limits) -> Result<Payload, WireError> {
    let whole = |s: &mut Scanner<'_>, name: Option<String>| match s.peek() {
        Some(b'[') => array(s, name),
        _ => Ok(Array { name, shape: vec![1], cells: vec![cell(s)?] }),
    };
    if s.peek() != Some(b'{') || is_bytes(s) {
        return whole(s, None).map(|a| Payload::Arrays(vec![a]));
    }
    let mut arrays: Vec<Array> = Vec::new();
    s.object("an array or an object of arrays", |s, key| {
        if arrays.len() >= limits.max_names.min(MOST_NAMES) {
            return Err(WireError::too_large("there are too many inputs"));
        }
        if arrays.iter().any(|a| a.name.as_deref() == Some(&*key)) {
            return Err(WireError::bad("this input is given twice").at(&shown(&key)));
        }
        arrays.push(whole(s, Some(key.clone().into_owned())).map_err(|e| e.at(&shown(&key)))?);
        Ok(())
    })?;
    if arrays.is_empty() { Err(WireError::bad("there are no inputs")) } else { Ok(Payload::Arrays(arrays)) }
}

/// What a list with one value means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    /// An axis of length one.
    AsIs,
    /// The value: a feature of an example is a list always.
    List,
}

/// Rows of named values, put together to one array for each name.
struct Stack<'l> {
    limits: &'l Limits,
    arrays: Vec<Array>,
    rows: usize,
}

impl<'l> Stack<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self { limits, arrays: Vec::new(), rows: 0 }
    }

    fn row(&mut self, s: &mut Scanner<'_>, feature: Feature) -> Result<(), WireError> {
        let mut next = 0;
        let mut seen = vec![false; self.arrays.len()];
        s.object("an object of values by name", |s, key| {
            let value = value(s, feature).map_err(|e| e.at(&shown(&key)))?;
            if self.rows == 0 {
                return self.begin(key.into_owned(), value);
            }
            let is = |a: &Array| a.name.as_deref() == Some(&*key);
            let at = if self.arrays.get(next).is_some_and(is) {
                Some(next)
            } else {
                self.arrays.iter().position(is)
            };
            let at = at.ok_or_else(|| WireError::bad("the first one has no such name").at(&shown(&key)))?;
            next = at + 1;
            let (Some(array), Some(seen)) = (self.arrays.get_mut(at), seen.get_mut(at)) else {
                return Ok(());
            };
            if std::mem::replace(seen, true) {
                return Err(WireError::bad("this name is given twice").at(&shown(&key)));
            }
            let inner = array.shape.get(1..).unwrap_or_default();
            if inner != value.shape {
                let message =
                    format!("it has the shape {:?}, but that of the first one has {inner:?}", value.shape);
                return Err(WireError::bad(message).at(&shown(&key)));
            }
            array.cells.extend(value.cells);
            Ok(())
        })?;
        let missing = seen.iter().position(|seen| !seen).and_then(|i| self.arrays.get(i));
        if let Some(missing) = missing.and_then(|a| a.name.as_deref()) {
            return Err(WireError::bad("it lacks what the first one has").at(&shown(missing)));
        }
        self.rows += 1;
        Ok(())
    }

    fn begin(&mut self, name: String, value: Array) -> Result<(), WireError> {
        if self.arrays.len() >= self.limits.max_names.min(MOST_NAMES) {
            return Err(WireError::too_large("there are too many names"));
        }
        if self.arrays.iter().any(|a| a.name.as_deref() == Some(&name)) {
            return Err(WireError::bad("this name is given twice").at(&shown(&name)));
        }
        // The first axis counts the rows, once all are here.
        let shape = std::iter::once(0).chain(value.shape).collect();
        self.arrays.push(Array { name: Some(name), shape, cells: value.cells });
        Ok(())
    }

    /// Gives every row what a context has.
    fn share(&mut self, context: Stack<'_>) -> Result<(), WireError> {
        for array in context.arrays {
            if self.arrays.iter().any(|a| a.name == array.name) {
                let name = array.name.unwrap_or_default();
                return Err(WireError::bad("the examples have it as well").at(&shown(&name)).at("context"));
            }
            let most = self.limits.max_elements;
            if self.rows.checked_mul(array.cells.len()).is_none_or(|cells| cells > most) {
                return Err(WireError::too_large("the context has too many values for so many examples"));
            }
            let cells = std::iter::repeat_n(array.cells, self.rows).flatten().collect();
            self.arrays.push(Array { cells, ..array });
        }
        Ok(())
    }

    fn payload(mut self) -> Result<Payload, WireError> {
        if self.rows == 0 || self.arrays.is_empty() {
            return Err(WireError::bad("there are no rows"));
        }
        for array in &mut self.arrays {
            if let Some(first) = array.shape.first_mut() {
                *first = self.rows;
            }
        }
        Ok(Payload::Arrays(self.arrays))
    }
}

/// A value without a name: its shape is empty where it is a single one.
fn value(s: &mut Scanner<'_>, feature: Feature) -> Result<Array, WireError> {
    if s.peek() != Some(b'[') {
        s.count_one()?;
        return Ok(Array { name: None, shape: Vec::new(), cells: vec![cell(s)?] });
    }
    let found = array(s, None)?;
    let single = feature == Feature::List && found.shape == [1];
    Ok(if single { Array { shape: Vec::new(), ..found } } else { found })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(Option<String>, Vec<usize>, usize)>;

    fn arrays(payload: Payload) -> Seen {
        let Payload::Arrays(arrays) = payload else { panic!("arrays") };
        arrays.into_iter().map(|a| (a.name, a.shape, a.cells.len())).collect()
    }

    fn predict(body: &str) -> Result<(Form, Seen), WireError> {
        Predict::parse(body.as_bytes(), &Limits::default()).map(|p| (p.form, arrays(p.payload)))
    }

    fn named(name: &str, shape: &[usize]) -> (Option<String>, Vec<usize>, usize) {
        (Some(name.to_owned()), shape.to_vec(), shape.iter().product())
    }

    #[test]
    fn instances_are_rows_and_inputs_are_columns() {
        for (body, form, seen) in [
            (r#"{"instances":[1.0,2.0,NaN]}"#, Form::Rows, vec![(None, vec![3], 3)]),
            (
                r#"{"instances":[[1,2],[3,4]],"signature_name":"serving_default"}"#,
                Form::Rows,
                vec![(None, vec![2, 2], 4)],
            ),
            (
                r#"{"instances":[{"a":1,"b":[1,2]},{"b":[3,4],"a":2}]}"#,
                Form::Rows,
                vec![named("a", &[2]), named("b", &[2, 2])],
            ),
            (r#"{"instances":[{"b64":"YQ=="},{"b64":"Yg=="}]}"#, Form::Rows, vec![(None, vec![2], 2)]),
            (r#"{"instances":[{"t":{"b64":"YQ=="}}]}"#, Form::Rows, vec![named("t", &[1])]),
            (r#"{"inputs":[[1],[2]]}"#, Form::Columns, vec![(None, vec![2, 1], 2)]),
            (
                r#"{"inputs":{"a":[1,2],"b":["x","y"]}}"#,
                Form::Columns,
                vec![named("a", &[2]), named("b", &[2])],
            ),
            (r#"{"inputs":5}"#, Form::Columns, vec![(None, vec![1], 1)]),
        ] {
            assert_eq!(predict(body).unwrap(), (form, seen), "{body}");
        }
    }

    #[test]
    fn base64_becomes_text() {
        let Payload::Arrays(found) =
            Predict::parse(br#"{"inputs":[{"b64":"w6k="}]}"#, &Limits::default()).unwrap().payload
        else {
            panic!("arrays")
        };
        assert_eq!(found[0].cells, [Cell::Text("é".to_owned())]);
    }

    #[test]
    fn examples_share_a_context() {
        let body = br#"{"context":{"c":[7,8]},"examples":[{"a":[1.0],"b":"x"},{"a":2.0,"b":["y"]}]}"#;
        let found = arrays(examples(body, &Limits::default()).unwrap());
        assert_eq!(found, [named("a", &[2]), named("b", &[2]), named("c", &[2, 2])]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, why) in [
            ("{}", "neither"),
            (r#"{"instances":[1],"inputs":[1]}"#, "one of them"),
            (r#"{"instances":[{"a":1},{"b":1}]}"#, "instances[1].b: the first one has no such name"),
            (r#"{"instances":[{"a":1},{}]}"#, "instances[1].a: it lacks"),
            (r#"{"instances":[{"a":1},{"a":1,"a":2}]}"#, "instances[1].a: this name is given twice"),
            (r#"{"instances":[{"a":[1]},{"a":[1,2]}]}"#, "instances[1].a: it has the shape [2]"),
            (r#"{"instances":[[1],[2,3]]}"#, "ragged"),
            (r#"{"instances":[{}]}"#, "instances: there are no rows"),
            (r#"{"instances":[]}"#, ""),
            (r#"{"instances":[{"b64":"?"}]}"#, "no base64"),
            (r#"{"inputs":{"a":[{"b64":"/w=="}]}}"#, "inputs.a: these bytes are no UTF-8"),
            (r#"{"inputs":{}}"#, "inputs: there are no inputs"),
            (r#"{"signature_name":"other","inputs":[1]}"#, "signature_name: there is no signature `other`"),
            (r#"{"rows":[1]}"#, "unknown member `rows`"),
            ("[1]", "an array where an object"),
        ] {
            match predict(body) {
                // An empty list is an array without elements: the model's plan refuses it.
                Ok(found) => assert_eq!((why, found.1[0].2), ("", 0), "{body}"),
                Err(error) => assert!(error.text().contains(why) && error.status == 400, "{body}: {error}"),
            }
        }
        for (body, why) in [
            ("{}", "no `examples`"),
            (r#"{"examples":[]}"#, "examples: there are no rows"),
            (r#"{"examples":[{"a":1}],"context":{"a":2}}"#, "context.a: the examples have it"),
            (r#"{"examples":[{"a":1}],"examples":[]}"#, "examples: this member is given twice"),
        ] {
            let error = examples(body.as_bytes(), &Limits::default()).unwrap_err();
            assert!(error.text().contains(why), "{body}: {error}");
        }
    }

    #[test]
    fn a_context_can_not_grow_without_bounds() {
        let limits = Limits { max_elements: 100, ..Limits::default() };
        let context: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let body = format!(
            r#"{{"context":{{"c":[{}]}},"examples":[{{"a":1}},{{"a":2}},{{"a":3}}]}}"#,
            context.join(",")
        );
        assert_eq!(examples(body.as_bytes(), &limits).unwrap_err().status, 413);
    }
}
