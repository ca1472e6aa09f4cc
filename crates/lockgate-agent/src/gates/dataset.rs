//! The environment's datasets: Parquet or CSV files, read into columns.

use crate::AgentError;
use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use lockgate_core::digest::Digest;
use lockgate_core::gate::Input;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::path::Path;

/// One column's values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// Numbers; true and false count as 1 and 0.
    Numbers(Vec<Option<f64>>),
    /// Text.
    Texts(Vec<Option<String>>),
}

impl Values {
    /// Row `i` as JSON; a missing value or one that is not finite is null.
    pub(crate) fn json(&self, i: usize) -> Value {
        match self {
            Self::Numbers(v) => v.get(i).copied().flatten().map_or(Value::Null, Value::from),
            Self::Texts(v) => v.get(i).cloned().flatten().map_or(Value::Null, Value::from),
        }
    }
}

/// A dataset in memory.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    pub(crate) name: String,
    pub(crate) columns: Vec<(String, Values)>,
    pub(crate) rows: usize,
    pub(crate) digest: Digest,
}

impl Dataset {
    /// Reads a dataset of the environment by its name.
    pub(crate) async fn read(context: &super::Context<'_>, name: &str) -> Result<Self, AgentError> {
        let path = path(context, name)?;
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || Self::read_file(&name, &path))
            .await
            .map_err(|e| AgentError::Gate(e.to_string()))?
    }

    /// Reads a dataset's file.
    pub(crate) fn read_file(name: &str, path: &Path) -> Result<Self, AgentError> {
        let bytes = std::fs::read(path).map_err(|e| AgentError::io("read the dataset", path, e))?;
        let digest = Digest::of(&bytes);
        let fail = |what: String| AgentError::Gate(format!("dataset `{name}` ({}): {what}", path.display()));
        let columns = match path.extension().and_then(|e| e.to_str()) {
            Some("parquet") => parquet(bytes).map_err(fail)?,
            Some("csv") => csv(&String::from_utf8_lossy(&bytes)).map_err(fail)?,
            _ => return Err(fail("its name must end in .parquet or .csv".to_owned())),
        };
        let rows = columns.first().map_or(0, |(_, v)| match v {
            Values::Numbers(v) => v.len(),
            Values::Texts(v) => v.len(),
        });
        Ok(Self { name: name.to_owned(), columns, rows, digest })
    }

    /// A column by its name.
    pub(crate) fn column(&self, name: &str) -> Result<&Values, AgentError> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, v)| v).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|(n, _)| n.as_str()).collect();
            AgentError::Gate(format!(
                "dataset `{}` has no column `{name}`; it has {}",
                self.name,
                names.join(", ")
            ))
        })
    }

    /// The dataset as an input of a gate.
    pub(crate) fn input(&self) -> Input {
        Input { name: format!("data:{}", self.name), digest: self.digest }
    }
}

/// Where a dataset of the environment lies.
pub(crate) fn path(context: &super::Context<'_>, name: &str) -> Result<std::path::PathBuf, AgentError> {
    let plan = context.plan;
    let path = plan.data.get(name).ok_or_else(|| {
        AgentError::Gate(format!(
            "environment `{}` has no dataset `{name}`; add it: [env.{}.data] {name} = \"…\"",
            plan.environment, plan.environment
        ))
    })?;
    Ok(context.data.join(path))
}

fn parquet(bytes: Vec<u8>) -> Result<Vec<(String, Values)>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
        .and_then(|b| b.with_batch_size(8192).build())
        .map_err(|e| format!("it is no Parquet file that can be read: {e}"))?;
    let mut columns: Vec<(String, Values)> = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| format!("it is damaged: {e}"))?;
        for (i, field) in batch.schema().fields().iter().enumerate() {
            let values = values(field.name(), batch.column(i))?;
            match (columns.get_mut(i).map(|(_, v)| v), values) {
                (None, values) => columns.push((field.name().clone(), values)),
                (Some(Values::Numbers(all)), Values::Numbers(more)) => all.extend(more),
                (Some(Values::Texts(all)), Values::Texts(more)) => all.extend(more),
                (Some(_), _) => return Err(format!("column `{}` changes its type", field.name())),
            }
        }
    }
    if columns.is_empty() { Err("it has no rows".to_owned()) } else { Ok(columns) }
}

fn values(name: &str, array: &ArrayRef) -> Result<Values, String> {
    let kind = array.data_type();
    if let Some(flags) = array.as_any().downcast_ref::<BooleanArray>() {
        return Ok(Values::Numbers(flags.iter().map(|v| v.map(f64::from)).collect()));
    }
    if kind.is_numeric() {
        let numbers = cast(array, &DataType::Float64).map_err(|e| format!("column `{name}`: {e}"))?;
        let numbers = numbers.as_any().downcast_ref::<Float64Array>().ok_or("a cast gave another type")?;
        return Ok(Values::Numbers(numbers.iter().collect()));
    }
    let texts = cast(array, &DataType::Utf8)
        .map_err(|_| format!("column `{name}` has type {kind}, which gates can't read"))?;
    let texts = texts.as_any().downcast_ref::<StringArray>().ok_or("a cast gave another type")?;
    Ok(Values::Texts(texts.iter().map(|v| v.map(str::to_owned)).collect()))
}

/// Reads CSV with a header, quotes after RFC 4180; a column whose filled cells are all numbers is one of numbers.
fn csv(text: &str) -> Result<Vec<(String, Values)>, String> {
    let mut records = records(text)?.into_iter();
    let header = records.next().ok_or("it is empty")?;
    let mut cells: Vec<Vec<String>> = vec![Vec::new(); header.len()];
    for (i, record) in records.enumerate() {
        if record.len() != header.len() {
            return Err(format!("line {} has {} cells instead of {}", i + 2, record.len(), header.len()));
        }
        for (column, cell) in cells.iter_mut().zip(record) {
            column.push(cell);
        }
    }
    Ok(header.into_iter().zip(cells).map(|(name, column)| (name, typed(column))).collect())
}

fn typed(column: Vec<String>) -> Values {
    let numbers: Option<Vec<Option<f64>>> = column
        .iter()
        .map(|c| if c.is_empty() { Some(None) } else { c.trim().parse().ok().map(Some) })
        .collect();
    match numbers {
        Some(numbers) => Values::Numbers(numbers),
        None => Values::Texts(column.into_iter().map(|c| Some(c).filter(|c| !c.is_empty())).collect()),
    }
}

fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut record: Vec<String> = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '"') if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            (_, '"') => quoted = !quoted,
            (false, ',') => record.push(std::mem::take(&mut cell)),
            (false, '\r') if chars.peek() == Some(&'\n') => {}
            (false, '\n') => {
                record.push(std::mem::take(&mut cell));
                if record.len() > 1 || !record[0].is_empty() {
                    records.push(std::mem::take(&mut record));
                }
                record.clear();
            }
            (_, c) => cell.push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    if !cell.is_empty() || !record.is_empty() {
        record.push(cell);
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_read_with_quotes_and_missing_values() {
        let columns = csv("a,b\n1,\"x, \"\"y\"\"\"\n,z\n").unwrap();
        assert_eq!(columns[0], ("a".to_owned(), Values::Numbers(vec![Some(1.0), None])));
        assert_eq!(
            columns[1],
            ("b".to_owned(), Values::Texts(vec![Some("x, \"y\"".to_owned()), Some("z".to_owned())]))
        );
    }

    #[test]
    fn damaged_csv_is_an_error_that_names_the_line() {
        assert!(csv("a,b\n1\n").unwrap_err().contains("line 2"));
        assert!(csv("a\n\"x\n").unwrap_err().contains("quote"));
        assert!(csv("").is_err());
    }
}
