//! Metrics of a file store: a file for each, a line for each point.

use super::Cursor;
use crate::commands::import::walk;
use anyhow::{Context as _, bail};
use lockgate_control::tracking::exchange::{ModelPoint, Point};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

/// How many points are read at a time.
const PAGE: usize = 5000;

fn value(text: &str) -> anyhow::Result<f64> {
    // Python writes nan, inf and -inf; Rust reads them.
    text.parse().with_context(|| format!("`{text}` is no number"))
}

/// `time value step …`; the first releases wrote no step.
pub(super) fn point(key: &str, line: &str) -> anyhow::Result<Point> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let [at, number, rest @ ..] = parts.as_slice() else { bail!("`{line}` is no point of a metric") };
    let step = rest.first().map_or(Ok(0), |step| step.parse());
    Ok(Point {
        key: key.to_owned(),
        value: value(number)?,
        at: at.parse().with_context(|| format!("`{at}` is no time"))?,
        step: step.with_context(|| format!("`{line}` has no step"))?,
    })
}

/// `time value step run [dataset digest]`.
pub(super) fn model_point(key: &str, line: &str) -> anyhow::Result<ModelPoint> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let dataset = match parts.get(4..) {
        Some([name @ .., digest]) if !name.is_empty() => Some((name.join(" "), (*digest).to_owned())),
        _ => None,
    };
    let run_id = parts.get(3).map(|run| (*run).to_owned()).unwrap_or_default();
    Ok(ModelPoint { point: point(key, line)?, run_id, dataset })
}

/// The next points below a folder of metrics: the cursor holds the file's place and how far it was read.
pub(super) fn next(folder: &Path, at: &mut Cursor) -> anyhow::Result<Vec<Point>> {
    let keys = walk::plain(folder)?;
    let mut found = Vec::new();
    while let Some(file) = keys.get(usize::try_from(at.number).unwrap_or(usize::MAX)) {
        let path = folder.join(&file.path);
        let unreadable = || format!("{} can't be read", path.display());
        let mut reader = BufReader::new(std::fs::File::open(&path).with_context(unreadable)?);
        reader.seek(SeekFrom::Start(at.offset)).with_context(unreadable)?;
        let mut line = String::new();
        loop {
            if found.len() >= PAGE {
                return Ok(found);
            }
            line.clear();
            let read = reader.read_line(&mut line).with_context(unreadable)?;
            if read == 0 {
                break;
            }
            at.offset += read as u64;
            if !line.trim().is_empty() {
                found.push(point(&file.path, &line).with_context(unreadable)?);
            }
        }
        at.number += 1;
        at.offset = 0;
    }
    Ok(found)
}

/// Calls `each` with every line of every metric below a folder.
pub(super) fn lines(
    folder: &Path,
    mut each: impl FnMut(&str, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for file in walk::plain(folder)? {
        let path = folder.join(&file.path);
        let unreadable = || format!("{} can't be read", path.display());
        for line in BufReader::new(std::fs::File::open(&path).with_context(unreadable)?).lines() {
            let line = line.with_context(unreadable)?;
            if !line.trim().is_empty() {
                each(&file.path, &line).with_context(unreadable)?;
            }
        }
    }
    Ok(())
}
