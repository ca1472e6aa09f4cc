//! Fields of requests. Clients write protobuf's JSON (names in either spelling, whole numbers also as texts, enums by
//! name or number) or, with GET, the same as a query string.

use crate::error::MlflowError;
use lockgate_control::tracking::{KeyValue, python_ascii};
use serde_json::{Map, Value};

const SEE: &str = "See the API docs for more information about request parameters.";

/// A request's fields, or those of a message within it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message {
    fields: Map<String, Value>,
    /// Query strings know only texts and lists of texts.
    query: bool,
    /// Where it stands in the request: `metrics[2].`, empty at the top.
    place: String,
    /// How long the message was within a text, where it was encoded twice.
    within: Option<usize>,
}

type Found<T> = Result<Option<T>, MlflowError>;

/// The longest batch that MLflow's own server takes from a client that encodes it twice.
const TWICE: usize = 1_000_000;

/// A value's type by Python's name, as MLflow's messages say it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn wrong(name: &str, value: &Value) -> MlflowError {
    MlflowError::invalid(format!(
        "Invalid value {} for parameter '{name}' supplied:  Hint: Value was of type '{}'. {SEE}",
        python_ascii(&value.to_string()),
        type_name(value)
    ))
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        text.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        text.push_str(chars.as_str());
    }
    text
}

impl Message {
    /// Reads a body. An empty one is an empty message; old clients encode it twice.
    pub(crate) fn from_body(bytes: &[u8]) -> Result<Self, MlflowError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let unreadable = |e: serde_json::Error| MlflowError::bad_request(format!("The body is no JSON: {e}"));
        let mut value: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        let mut within = None;
        if let Value::String(inner) = &value {
            within = Some(inner.chars().count());
            value = serde_json::from_str(inner).map_err(unreadable)?;
        }
        match value {
            Value::Object(fields) => Ok(Self { fields, within, ..Self::default() }),
            Value::Null => Ok(Self::default()),
            other => Err(MlflowError::bad_request(format!(
                "The body must be a JSON object, not a {}",
                type_name(&other)
            ))),
        }
    }

    /// Reads a query string's pairs; a repeated key is a list.
    pub(crate) fn from_query(pairs: Vec<(String, String)>) -> Self {
        let mut fields = Map::new();
        for (key, text) in pairs {
            let slot = fields.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = slot {
                list.push(Value::String(text));
            }
        }
        Self { fields, query: true, ..Self::default() }
    }

    /// Refuses a long batch of a client that encodes it twice, as MLflow's own server does. Others may send more.
    pub(crate) fn fits_a_batch(&self) -> Result<(), MlflowError> {
        match self.within {
            Some(size) if size > TWICE => Err(MlflowError::invalid(format!(
                "Batched logging API requests must be at most {TWICE} bytes, got a request of size {size}."
            ))),
            _ => Ok(()),
        }
    }

    /// Whether there is a value, also an empty one.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        [name, &camel(name)].iter().any(|name| self.fields.get(*name).is_some_and(|value| !value.is_null()))
    }

    /// The same with another number.
    pub(crate) fn with(&self, name: &str, number: i64) -> Self {
        let mut changed = self.clone();
        changed.fields.remove(&camel(name));
        let text = || Value::Array(vec![Value::String(number.to_string())]);
        let value = if self.query { text() } else { Value::from(number) };
        changed.fields.insert(name.to_owned(), value);
        changed
    }

    /// The same without a field.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.fields.remove(name);
        changed.fields.remove(&camel(name));
        changed
    }

    /// A value that must be there and isn't.
    pub(crate) fn missing(&self, name: &str) -> MlflowError {
        MlflowError::invalid(format!("Missing value for required parameter '{}{name}'. {SEE}", self.place))
    }

    /// A value that is there and can't be meant.
    pub(crate) fn wrong(&self, name: &str) -> MlflowError {
        match self.one(name) {
            Ok(Some(value)) => wrong(name, value),
            Ok(None) => self.missing(name),
            Err(error) => error,
        }
    }

    fn get(&self, name: &str) -> Found<&Value> {
        let present = |name: &str| self.fields.get(name).filter(|value| !value.is_null());
        let other = camel(name);
        match (present(name), present(&other)) {
            (Some(_), Some(_)) if other != name => Err(MlflowError::invalid(format!(
                "Request specifies both '{name}' and '{other}'; provide only one of them."
            ))),
            (Some(value), _) | (None, Some(value)) => Ok(Some(value)),
            (None, None) => Ok(None),
        }
    }

    /// One value; of a query string's list the last.
    fn one(&self, name: &str) -> Found<&Value> {
        Ok(match self.get(name)? {
            Some(Value::Array(list)) if self.query => list.last(),
            found => found,
        })
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Found<String> {
        match self.one(name)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// A text that must be there and not empty.
    pub(crate) fn required(&self, name: &str) -> Result<String, MlflowError> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| self.missing(name))
    }

    /// A text that is empty where it is not there.
    pub(crate) fn text_or_empty(&self, name: &str) -> Result<String, MlflowError> {
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A run's id, which has two names.
    pub(crate) fn run_id(&self) -> Result<String, MlflowError> {
        match self.text("run_uuid")? {
            Some(id) if !id.is_empty() && self.text("run_id")?.is_none_or(|id| id.is_empty()) => Ok(id),
            _ => self.required("run_id"),
        }
    }

    /// A whole number.
    pub(crate) fn int(&self, name: &str) -> Found<i64> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.map(Some).ok_or_else(|| wrong(name, value))
    }

    /// A whole number that must be there. Within a list an empty text is none.
    pub(crate) fn required_int(&self, name: &str) -> Result<i64, MlflowError> {
        if !self.place.is_empty() && self.is_empty_text(name)? {
            return Err(self.missing(name));
        }
        self.int(name)?.ok_or_else(|| self.missing(name))
    }

    fn is_empty_text(&self, name: &str) -> Result<bool, MlflowError> {
        Ok(self.one(name)?.and_then(Value::as_str) == Some(""))
    }

    /// A number that must be there; `NaN` and the infinities are texts.
    pub(crate) fn number(&self, name: &str) -> Result<f64, MlflowError> {
        let value = self.one(name)?.ok_or_else(|| self.missing(name))?;
        if self.is_empty_text(name)? {
            return Err(self.missing(name));
        }
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| wrong(name, value))
    }

    /// Yes or no.
    pub(crate) fn flag(&self, name: &str) -> Found<bool> {
        match self.one(name)? {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// The same where it must be there and known.
    pub(crate) fn required_choice<T: Copy>(
        &self,
        name: &str,
        all: &[T],
        spell: fn(T) -> &'static str,
    ) -> Result<T, MlflowError> {
        if self.is_empty_text(name)? {
            return Err(self.missing(name));
        }
        self.choice(name, all, spell)?.ok_or_else(|| self.wrong(name))
    }

    /// Whether there is a number, not a name.
    pub(crate) fn is_number(&self, name: &str) -> Result<bool, MlflowError> {
        Ok(self.one(name)?.is_some_and(Value::is_number))
    }

    /// One of several values by its name, or by its number from 1; none where it is unknown.
    pub(crate) fn choice<T: Copy>(&self, name: &str, all: &[T], spell: fn(T) -> &'static str) -> Found<T> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let by_number = |n: i64| usize::try_from(n).ok()?.checked_sub(1).and_then(|i| all.get(i)).copied();
        match value {
            Value::Number(number) => Ok(number.as_i64().and_then(by_number)),
            Value::String(text) => Ok(all
                .iter()
                .copied()
                .find(|one| spell(*one) == text)
                .or_else(|| text.parse().ok().and_then(by_number))),
            other => Err(wrong(name, other)),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, MlflowError> {
        let whole = || Value::Array(self.list(name).unwrap_or_default().to_vec());
        self.list(name)?
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(name, &whole())))
            .collect()
    }

    fn list(&self, name: &str) -> Result<&[Value], MlflowError> {
        match self.get(name)? {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// A value of any kind.
    pub(crate) fn any(&self, name: &str) -> Found<&Value> {
        self.get(name)
    }

    /// A map from texts to texts.
    pub(crate) fn map(&self, name: &str) -> Result<Vec<KeyValue>, MlflowError> {
        match self.get(name)? {
            None => Ok(Vec::new()),
            Some(Value::Object(fields)) => fields
                .iter()
                .map(|(key, value)| match value {
                    Value::String(text) => Ok(KeyValue { key: key.clone(), value: text.clone() }),
                    other => Err(wrong(name, other)),
                })
                .collect(),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// A message within this one.
    pub(crate) fn message(&self, name: &str) -> Found<Self> {
        match self.get(name)? {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self {
                fields: fields.clone(),
                place: format!("{}{name}.", self.place),
                ..Self::default()
            })),
            Some(other) => Err(wrong(name, other)),
        }
    }

    /// A list of messages.
    pub(crate) fn messages(&self, name: &str) -> Result<Vec<Self>, MlflowError> {
        let whole = || Value::Array(self.list(name).unwrap_or_default().to_vec());
        self.list(name)?
            .iter()
            .enumerate()
            .map(|(i, item)| match item {
                Value::Object(fields) => Ok(Self {
                    fields: fields.clone(),
                    place: format!("{}{name}[{i}].", self.place),
                    ..Self::default()
                }),
                _ => Err(wrong(name, &whole())),
            })
            .collect()
    }

    /// This message as a tag or a param.
    pub(crate) fn pair(&self) -> Result<KeyValue, MlflowError> {
        Ok(KeyValue { key: self.required("key")?, value: self.text_or_empty("value")? })
    }

    /// A list of pairs whose names may be anything, also empty.
    pub(crate) fn free_pairs(&self, name: &str) -> Result<Vec<KeyValue>, MlflowError> {
        let pair =
            |one: &Self| Ok(KeyValue { key: one.text_or_empty("key")?, value: one.text_or_empty("value")? });
        self.messages(name)?.iter().map(pair).collect()
    }

    /// A list of tags or params.
    pub(crate) fn pairs(&self, name: &str) -> Result<Vec<KeyValue>, MlflowError> {
        self.messages(name)?.iter().map(Self::pair).collect()
    }
}

/// A whole number that was written with a fraction of zero.
fn whole(number: f64) -> Option<i64> {
    // Beyond 2^53 a float doesn't tell which whole number was meant.
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Message {
        Message::from_body(text.as_bytes()).unwrap()
    }

    #[test]
    fn fields_have_two_spellings_but_not_at_once() {
        assert_eq!(body(r#"{"runName": "a"}"#).text("run_name").unwrap().as_deref(), Some("a"));
        assert_eq!(body(r#"{"run_uuid": "r"}"#).run_id().unwrap(), "r");
        assert!(body(r#"{"runName": "a", "run_name": "a"}"#).text("run_name").is_err());
    }

    #[test]
    fn numbers_come_in_several_forms() {
        let message = body(r#"{"a": "12", "b": 5.0, "c": 1.5, "nan": "NaN", "inf": "-Infinity", "t": true}"#);
        assert_eq!((message.int("a").unwrap(), message.int("b").unwrap()), (Some(12), Some(5)));
        assert!(message.int("c").is_err() && message.int("t").is_err());
        assert!(message.number("nan").unwrap().is_nan());
        assert_eq!(message.number("inf").unwrap(), f64::NEG_INFINITY);
    }

    #[test]
    fn a_wrong_type_is_named_as_mlflow_names_it() {
        let error = body(r#"{"name": 12}"#).required("name").unwrap_err().to_string();
        assert!(
            error.contains("Invalid value 12 for parameter 'name' supplied:  Hint: Value was of type 'int'."),
            "{error}"
        );
        for (text, quoted) in [(r#"{"l": ["a", 1]}"#, "[\"a\",1]"), (r#"{"l": "\u00e9"}"#, "\"\\u00e9\"")] {
            let error = body(text).texts("l").unwrap_err().to_string();
            assert!(error.contains(&format!("Invalid value {quoted} for parameter 'l'")), "{error}");
        }
        let error = body(r#"{"name": ""}"#).required("name").unwrap_err().to_string();
        assert!(error.contains("Missing value for required parameter 'name'. See the API docs"), "{error}");
    }

    #[test]
    fn an_empty_text_is_no_number() {
        let message = body(r#"{"value": "", "timestamp": "", "list": [{"value": "", "timestamp": ""}]}"#);
        let item = message.messages("list").unwrap().remove(0);
        let missing = |name: &str| format!("Missing value for required parameter '{name}'");
        let said = |result: Result<i64, MlflowError>| result.unwrap_err().to_string();
        assert!(message.number("value").unwrap_err().to_string().contains(&missing("value")));
        assert!(said(message.required_int("timestamp")).contains("Invalid value \"\""));
        assert!(said(item.required_int("timestamp")).contains(&missing("list[0].timestamp")));
        assert!(item.number("value").unwrap_err().to_string().contains(&missing("list[0].value")));
    }

    #[test]
    fn a_long_batch_is_refused_where_it_was_encoded_twice() {
        let long = format!(r#"{{"a": "{}"}}"#, "é".repeat(TWICE));
        assert!(body(&long).fits_a_batch().is_ok());
        let error = body(&Value::from(long).to_string()).fits_a_batch().unwrap_err().to_string();
        assert!(error.contains("at most 1000000 bytes, got a request of size 1000009."), "{error}");
    }

    #[test]
    fn a_query_string_reads_like_a_message() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let query =
            Message::from_query(vec![pair("o", "a"), pair("o", "b"), pair("n", "7"), pair("f", "True")]);
        assert_eq!(query.texts("o").unwrap(), ["a", "b"]);
        assert_eq!((query.int("n").unwrap(), query.flag("f").unwrap()), (Some(7), Some(true)));
    }

    #[test]
    fn bodies_that_are_no_message_are_refused() {
        assert_eq!(body(" "), Message::default());
        assert_eq!(body(r#""{\"a\": \"b\"}""#).text("a").unwrap().as_deref(), Some("b"));
        for bad in ["[1]", "{", "12", r#""x""#] {
            assert!(Message::from_body(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
