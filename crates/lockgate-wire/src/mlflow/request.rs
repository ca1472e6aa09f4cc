//! The body of an invocation.

use super::{ContentType, csv};
use crate::error::WireError;
use crate::json::{Limits, Scanner};
use crate::table::{Array, Cell, Payload, Table};
use crate::tensor::shown;

const KINDS: [&str; 4] = ["dataframe_split", "dataframe_records", "instances", "inputs"];

/// What a caller of `/invocations` sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The rows or arrays.
    pub payload: Payload,
}

impl Invocation {
    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse(body: &[u8], kind: ContentType, limits: &Limits) -> Result<Self, WireError> {
        let payload = match kind {
            ContentType::Csv => Payload::Table(csv::parse(body, limits)?),
            ContentType::Json => json(body, limits)?,
        };
        Ok(Self { payload })
    }
}

fn json(body: &[u8], limits: &Limits) -> Result<Payload, WireError> {
    let mut s = Scanner::new(body, limits);
    let mut found: Option<(String, Payload)> = None;
    let mut params = false;
    s.object("an object with one of dataframe_split, dataframe_records, instances, inputs", |s, key| {
        if key == "params" {
            if params {
                return Err(WireError::bad("this member is given twice").at("params"));
            }
            params = true;
            // No model of ours takes parameters at inference yet; an empty object is what clients send by habit.
            return if s.accept_word("null") { Ok(()) } else { no_params(s).map_err(|e| e.at("params")) };
        }
        if let Some((first, _)) = &found {
            return Err(WireError::bad(format!(
                "the request has `{}` beside `{first}`; send only one",
                shown(&key)
            )));
        }
        let payload = match &*key {
            "dataframe_split" => split(s),
            "dataframe_records" => records(s, limits),
            "instances" => instances(s, limits),
            "inputs" => inputs(s, limits),
            _ => {
                return Err(WireError::bad(format!(
                    "unknown member `{}`; expected one of {}",
                    shown(&key),
                    KINDS.join(", ")
                )));
            }
        };
        let payload = payload.map_err(|e| e.at(&key))?;
        found = Some((key.into_owned(), payload));
        Ok(())
    })?;
    s.end()?;
    found
        .map(|(_, p)| p)
        .ok_or_else(|| WireError::bad(format!("the request has none of {}", KINDS.join(", "))))
}

fn no_params(s: &mut Scanner<'_>) -> Result<(), WireError> {
    s.object("an object", |_, key| Err(WireError::bad("this model takes no parameters").at(&shown(&key))))
}

fn split(s: &mut Scanner<'_>) -> Result<Payload, WireError> {
    let (mut columns, mut rows, mut index) = (None, None, false);
    s.object("an object with `data`", |s, key| match &*key {
        "columns" if columns.is_none() => {
            let mut names = Vec::new();
            s.list("an array of column names", |s, _| {
                // pandas numbers columns that have no names
                names.push(match s.peek() {
                    Some(b'"') => s.string("a name")?.into_owned(),
                    _ => s.integer::<i64>().map_err(|_| s.unexpected("a column name"))?.to_string(),
                });
                Ok(())
            })
            .map_err(|e| e.at("columns"))?;
            columns = Some(names);
            Ok(())
        }
        "data" if rows.is_none() => {
            rows = Some(grid(s).map_err(|e| e.at("data"))?);
            Ok(())
        }
        "index" if !index => {
            index = true;
            s.skip()
        }
        _ => Err(WireError::bad(format!(
            "`{}` is unknown or given twice; expected columns, data, index",
            shown(&key)
        ))),
    })?;
    let (cells, width, count) = rows.ok_or_else(|| WireError::bad("there is no `data`"))?;
    Table::new(columns, width, count, cells).map(Payload::Table)
}

/// A list of rows of equal length.
fn grid(s: &mut Scanner<'_>) -> Result<(Vec<Cell>, Option<usize>, usize), WireError> {
    let mut cells = Vec::new();
    let (mut width, mut count) = (None, 0);
    s.list("an array of rows", |s, row| {
        let before = cells.len();
        s.list("a row (an array)", |s, _| {
            s.count_one()?;
            cells.push(Cell::read(s)?);
            Ok(())
        })
        .map_err(|e| e.at(&format!("[{row}]")))?;
        let len = cells.len() - before;
        count += 1;
        match width {
            Some(w) if w != len => {
                Err(WireError::bad(format!("this row has {len} values, the first has {w}"))
                    .at(&format!("[{row}]")))
            }
            _ => {
                width = Some(len);
                Ok(())
            }
        }
    })?;
    Ok((cells, width, count))
}

/// A list of objects; the first says which columns there are, the others may order them differently.
fn records(s: &mut Scanner<'_>, limits: &Limits) -> Result<Payload, WireError> {
    let mut names: Vec<String> = Vec::new();
    let mut cells: Vec<Cell> = Vec::new();
    let mut count = 0;
    s.list("an array of records", |s, row| {
        record(s, row, &mut names, &mut cells, limits).map_err(|e| e.at(&format!("[{row}]")))?;
        count += 1;
        Ok(())
    })?;
    let width = names.len();
    Table::new(Some(names), Some(width), count, cells).map(Payload::Table)
}

fn record(
    s: &mut Scanner<'_>,
    row: usize,
    names: &mut Vec<String>,
    cells: &mut Vec<Cell>,
    limits: &Limits,
) -> Result<(), WireError> {
    let base = cells.len();
    let width = names.len();
    let mut seen = vec![false; width];
    if row > 0 {
        cells.resize(base + width, Cell::Null);
    }
    let mut next = 0;
    s.object("a record (an object)", |s, key| {
        s.count_one()?;
        let value = Cell::read(s).map_err(|e| e.at(&shown(&key)))?;
        if row == 0 {
            if names.len() >= limits.max_names.min(4096) {
                return Err(WireError::too_large("the record has too many columns"));
            }
            if names.iter().any(|n| *n == *key) {
                return Err(WireError::bad("this column is given twice").at(&shown(&key)));
            }
            names.push(key.into_owned());
            cells.push(value);
            return Ok(());
        }
        // Records usually repeat the first one's order: try the next name before looking for it.
        let at = if names.get(next).is_some_and(|n| *n == *key) {
            Some(next)
        } else {
            names.iter().position(|n| *n == *key)
        };
        let at = at.ok_or_else(|| WireError::bad("the first record has no such column").at(&shown(&key)))?;
        next = at + 1;
        match (seen.get_mut(at), cells.get_mut(base + at)) {
            (Some(seen), Some(slot)) if !*seen => {
                *seen = true;
                *slot = value;
                Ok(())
            }
            _ => Err(WireError::bad("this column is given twice").at(&shown(&key))),
        }
    })?;
    match seen.iter().position(|s| !s).and_then(|i| names.get(i)) {
        Some(missing) if row > 0 => {
            Err(WireError::bad("this record lacks a column that the first has").at(&shown(missing)))
        }
        _ => Ok(()),
    }
}

/// TF-Serving's rows: scalars, arrays, or objects.
fn instances(s: &mut Scanner<'_>, limits: &Limits) -> Result<Payload, WireError> {
    let _ = s.peek();
    let start = s.position();
    s.expect(b'[', "an array of instances")?;
    let objects = s.peek() == Some(b'{');
    s.go_back(start);
    if objects { records(s, limits) } else { array(s, None).map(|a| Payload::Arrays(vec![a])) }
}

/// One array, or an object of arrays by name.
fn inputs(s: &mut Scanner<'_>, limits: &Limits) -> Result<Payload, WireError> {
    if s.peek() != Some(b'{') {
        return array(s, None).map(|a| Payload::Arrays(vec![a]));
    }
    let mut arrays: Vec<Array> = Vec::new();
    s.object("an array or an object of arrays", |s, key| {
        if arrays.len() >= limits.max_names.min(4096) {
            return Err(WireError::too_large("there are too many arrays"));
        }
        if arrays.iter().any(|a| a.name.as_deref() == Some(&*key)) {
            return Err(WireError::bad("this array is given twice").at(&shown(&key)));
        }
        arrays.push(array(s, Some(key.clone().into_owned())).map_err(|e| e.at(&shown(&key)))?);
        Ok(())
    })?;
    if arrays.is_empty() { Err(WireError::bad("there are no arrays")) } else { Ok(Payload::Arrays(arrays)) }
}

fn array(s: &mut Scanner<'_>, name: Option<String>) -> Result<Array, WireError> {
    let (cells, shape) = s.elements(Cell::read)?;
    Ok(Array { name, shape, cells })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Payload, WireError> {
        Invocation::parse(body.as_bytes(), ContentType::Json, &Limits::default()).map(|i| i.payload)
    }

    fn table(body: &str) -> Table {
        match parse(body).unwrap() {
            Payload::Table(table) => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn split_and_records_say_the_same() {
        let split = table(
            r#"{"dataframe_split":{"columns":["a","b"],"index":[0,1],"data":[[1,"x"],[null,"y"]]},"params":{}}"#,
        );
        let records = table(r#"{"dataframe_records":[{"a":1,"b":"x"},{"b":"y","a":null}]}"#);
        assert_eq!(split, records);
        assert_eq!(split.cell(1, 0), Some(&Cell::Null));
        assert_eq!(table(r#"{"instances":[{"a":1,"b":"x"},{"b":"y","a":null}]}"#), split);
    }

    #[test]
    fn arrays_keep_their_shape_and_names() {
        let Payload::Arrays(one) = parse(r#"{"instances":[[1,2.5],[3,NaN]]}"#).unwrap() else {
            panic!("arrays")
        };
        assert_eq!((one[0].shape.as_slice(), one[0].name.as_deref()), (&[2, 2][..], None));
        let Payload::Arrays(two) = parse(r#"{"inputs":{"a":[1,2],"b":["x","y"]}}"#).unwrap() else {
            panic!("arrays")
        };
        assert_eq!(two[1].name.as_deref(), Some("b"));
    }

    #[test]
    fn what_mlflow_refuses_is_refused() {
        for (body, want) in [
            ("{}", "none of dataframe_split"),
            ("[1]", "an array where an object"),
            (r#"{"inputs":[1],"instances":[1]}"#, "send only one"),
            (r#"{"rows":[1]}"#, "unknown member `rows`"),
            (r#"{"dataframe_split":{"columns":["a"]}}"#, "dataframe_split: there is no `data`"),
            (r#"{"dataframe_split":{"columns":["a"],"data":[[1,2]]}}"#, "2 values"),
            (r#"{"dataframe_split":{"columns":["a","a"],"data":[[1,2]]}}"#, "twice"),
            (r#"{"dataframe_split":{"data":[[1],[1,2]]}}"#, "dataframe_split.data[1]: this row has 2"),
            (r#"{"dataframe_split":{"data":[[1]],"extra":1}}"#, "`extra` is unknown"),
            (r#"{"dataframe_split":{"data":[[[1]]]}}"#, "a single value"),
            (r#"{"dataframe_records":[{"a":1},{"b":1}]}"#, "dataframe_records[1].b: the first record has no"),
            (r#"{"dataframe_records":[{"a":1,"b":1},{"b":1}]}"#, "dataframe_records[1].a: this record lacks"),
            (r#"{"dataframe_records":[{"a":1,"a":2}]}"#, "twice"),
            (r#"{"inputs":[[1],[2,3]]}"#, "ragged"),
            (r#"{"inputs":[1],"params":{"t":1}}"#, "params.t: this model takes no parameters"),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.text().contains(want), "{body}: {error}");
        }
    }
}
