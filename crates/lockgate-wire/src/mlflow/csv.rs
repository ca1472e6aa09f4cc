//! `text/csv`: a header line, then rows (RFC 4180).

use crate::error::WireError;
use crate::json::Limits;
use crate::table::{Cell, Table};

/// Reads a table whose cells are text still; the schema says what they are. An empty cell is a missing value.
pub(super) fn parse(body: &[u8], limits: &Limits) -> Result<Table, WireError> {
    let text = std::str::from_utf8(body)
        .map_err(|e| WireError::bad(format!("the CSV is not UTF-8 (at byte {})", e.valid_up_to())))?;
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut header: Option<Vec<String>> = None;
    let (mut cells, mut rows, mut line) = (Vec::new(), 0usize, 0usize);
    while !rest.is_empty() {
        line += 1;
        let before = cells.len();
        rest = record(rest, &mut cells, line)?;
        if cells.len() > limits.max_elements {
            return Err(WireError::too_large(format!(
                "the CSV holds more than {} values",
                limits.max_elements
            )));
        }
        match &header {
            None => {
                header = Some(
                    cells.drain(..).map(|c| if let Cell::Text(t) = c { t } else { String::new() }).collect(),
                )
            }
            Some(names) => {
                let width = cells.len() - before;
                let blank = width == 1 && names.len() > 1 && cells.last() == Some(&Cell::Null);
                if blank {
                    cells.truncate(before);
                } else if width == names.len() {
                    rows += 1;
                } else {
                    return Err(WireError::bad(format!(
                        "line {line} has {width} values, the header has {}",
                        names.len()
                    )));
                }
            }
        }
    }
    let names = header.ok_or_else(|| WireError::bad("the CSV is empty; expected a header line and rows"))?;
    let width = names.len();
    Ok(Table::new(Some(names), Some(width), rows, cells)?.mark_from_text())
}

/// Reads one record and gives what follows it.
fn record<'t>(mut rest: &'t str, cells: &mut Vec<Cell>, line: usize) -> Result<&'t str, WireError> {
    loop {
        let (cell, after) = field(rest, line)?;
        cells.push(cell);
        match after.as_bytes().first() {
            Some(b',') => rest = after.get(1..).unwrap_or_default(),
            Some(b'\r') => {
                return Ok(after.get(1..).map(|a| a.strip_prefix('\n').unwrap_or(a)).unwrap_or_default());
            }
            Some(b'\n') => return Ok(after.get(1..).unwrap_or_default()),
            Some(_) => return Err(WireError::bad(format!("text after a closing quote in line {line}"))),
            None => return Ok(after),
        }
    }
}

fn field(rest: &str, line: usize) -> Result<(Cell, &str), WireError> {
    let Some(mut quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', '\n', '\r']).unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        return Ok((if value.is_empty() { Cell::Null } else { Cell::Text(value.to_owned()) }, after));
    };
    let mut value = String::new();
    loop {
        let Some((part, after)) = quoted.split_once('"') else {
            return Err(WireError::bad(format!("a quote is never closed (record {line})")));
        };
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                quoted = more;
            }
            None => return Ok((Cell::Text(value), after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_empty_cells_and_line_ends() {
        let table = parse(b"a,b\r\n1,\"x, \"\"y\"\"\n\"\r\n,z\n", &Limits::default()).unwrap();
        assert_eq!((table.rows(), table.width()), (2, 2));
        assert_eq!(table.cell(0, 1), Some(&Cell::Text("x, \"y\"\n".to_owned())));
        assert_eq!(table.cell(1, 0), Some(&Cell::Null));
        for bad in [&b""[..], b"a,b\n1\n", b"a\n\"x", b"a\n\"x\"y\n", b"a,a\n1,2\n", b"a\n\xff"] {
            assert!(parse(bad, &Limits::default()).is_err(), "{bad:?}");
        }
    }
}
