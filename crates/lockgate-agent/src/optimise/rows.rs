//! The rows on which a graph is compared with its model.

use crate::AgentError;
use crate::gates::dataset::Dataset;
use lockgate_core::digest::Digest;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// How many rows of one source are taken.
const MOST: usize = 1000;

/// Rows and where they came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rows {
    /// Where they came from, for people: `golden set`, `data test.csv`.
    pub source: String,
    /// The columns' names; without them the columns are in the signature's order.
    columns: Option<Vec<String>>,
    rows: Vec<Vec<Value>>,
    /// The digest of the file that holds them.
    #[serde(skip)]
    pub digest: Digest,
}

impl Rows {
    /// The rows of a golden set or of MLflow's input example; none where the file holds no rows.
    #[must_use]
    pub fn of_json(source: &str, bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let list = ["rows", "data", "inputs"].iter().find_map(|key| value.get(*key)).unwrap_or(&value);
        let rows: Option<Vec<Vec<Value>>> =
            list.as_array()?.iter().map(|row| row.as_array().cloned()).collect();
        let rows = rows.filter(|rows| !rows.is_empty())?;
        let columns = value.get("columns").and_then(|names| serde_json::from_value(names.clone()).ok());
        Some(Self::new(source, columns, rows, Digest::of(bytes)))
    }

    /// A sample of a dataset, evenly from its beginning to its end.
    ///
    /// # Errors
    /// Where the file can't be read as a table: only Parquet and CSV can.
    pub fn of_data(name: &str, path: &Path) -> Result<Self, AgentError> {
        let data = Dataset::read_file(name, path)?;
        let rows = spread(data.rows).map(|i| data.columns.iter().map(|(_, c)| c.json(i)).collect()).collect();
        let columns = data.columns.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self::new(&format!("data {name}"), Some(columns), rows, data.digest))
    }

    fn new(source: &str, columns: Option<Vec<String>>, rows: Vec<Vec<Value>>, digest: Digest) -> Self {
        let taken = spread(rows.len()).filter_map(|i| rows.get(i).cloned()).collect();
        let fits = |row: &Vec<Value>| columns.as_ref().is_none_or(|names| names.len() == row.len());
        let rows = if rows.iter().all(fits) { taken } else { Vec::new() };
        Self { source: source.to_owned(), columns, rows, digest }
    }
}

/// At most [`MOST`] numbers below `count`, evenly apart.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let taken = count.min(MOST);
    (0..taken).map(move |i| i * count / taken.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_sets_and_input_examples_are_read_and_other_json_is_none() {
        let golden = br#"{"columns": ["a"], "rows": [[1], [2]], "outputs": {"y": [0, 1]}}"#;
        let rows = Rows::of_json("golden set", golden).unwrap();
        assert_eq!((rows.columns, rows.rows.len()), (Some(vec!["a".to_owned()]), 2));
        let example = br#"{"columns": ["a", "b"], "data": [[1, "x"]]}"#;
        assert_eq!(
            Rows::of_json("input example", example).unwrap().rows,
            [[Value::from(1), Value::from("x")]]
        );
        assert_eq!(Rows::of_json("input example", b"[[1.5, 2.5]]").unwrap().columns, None);
        // A row that is too short could be given to the wrong columns.
        let short = br#"{"columns": ["a", "b"], "data": [[1]]}"#;
        assert_eq!(Rows::of_json("input example", short).unwrap().rows, Vec::<Vec<Value>>::new());
        for none in [&b"{}"[..], b"[]", b"7", b"no", br#"{"inputs": [1, 2]}"#] {
            assert_eq!(Rows::of_json("input example", none), None);
        }
    }

    #[test]
    fn a_sample_goes_from_the_beginning_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.csv");
        let text: String = (0..5000).map(|i| format!("{i},x\n")).collect();
        std::fs::write(&path, format!("a,b\n{text}")).unwrap();
        let rows = Rows::of_data("test.csv", &path).unwrap();
        assert_eq!((rows.source.as_str(), rows.rows.len()), ("data test.csv", MOST));
        assert_eq!(rows.rows.last().unwrap()[0], Value::from(4995.0));
        assert_eq!(spread(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(0).count(), 0);
        assert!(Rows::of_data("x", &dir.path().join("none.csv")).is_err());
    }
}
