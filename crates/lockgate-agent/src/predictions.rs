//! The prediction log: every answer with its id, as Parquet files that other tools read.
//!
//! The gateway hands records over through a bounded channel and counts what it drops. A thread collects them and writes a
//! file every [`FLUSH_EVERY`] or [`FLUSH_ROWS`]; what a crash may lose is what was collected since. Files are named by the
//! times of their first and last record, so that a prediction is found by the time in its id.

mod search;

pub(crate) use search::Search;

use crate::AgentError;
use crate::bodies::{self, Kind};
use crate::outcomes::Outcomes;
use arrow::array::{Array as _, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use lockgate_core::id::ModelName;
use lockgate_core::server::ServerProtocol;
use lockgate_gateway::LogRecord;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a record waits for its file at the most.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// How often the gateway's records are collected.
const DRAIN_EVERY: Duration = Duration::from_millis(10);

/// How many records make a file at once.
const FLUSH_ROWS: usize = 20_000;

/// How many records are made columns of at a time: a column's text must stay below two gigabytes, and in memory.
const BATCH_ROWS: usize = 1024;

/// How many recorded requests a replay reads at the most.
const REPLAY_ROWS: usize = 10_000;

/// The log of one environment.
#[derive(Clone)]
pub(crate) struct PredictionLog {
    folder: PathBuf,
    records: Arc<Mutex<Receiver<LogRecord>>>,
    pending: Arc<Mutex<Vec<LogRecord>>>,
    /// Who wants to know which predictions rollouts drew.
    outcomes: Option<Arc<Outcomes>>,
    /// How many searches there were.
    turn: Arc<AtomicUsize>,
}

impl PredictionLog {
    /// Starts the thread that writes what comes through `records`. It ends, and has written everything, when the gateway's
    /// end of the channel is dropped.
    pub(crate) fn start(
        folder: PathBuf,
        records: Receiver<LogRecord>,
        outcomes: Option<Arc<Outcomes>>,
    ) -> (Self, std::thread::JoinHandle<()>) {
        let records = Arc::new(Mutex::new(records));
        let log = Self { folder, records, pending: Arc::default(), outcomes, turn: Arc::default() };
        let writer = log.clone();
        let thread = std::thread::spawn(move || writer.collect());
        (log, thread)
    }

    fn collect(&self) {
        let mut last = Instant::now();
        loop {
            // Waiting in `recv` would cost the gateway a system call for every record.
            std::thread::sleep(DRAIN_EVERY);
            let ended = self.drain();
            if ended || last.elapsed() >= FLUSH_EVERY || self.lock().len() >= FLUSH_ROWS {
                self.flush();
                last = Instant::now();
            }
            if ended {
                return;
            }
        }
    }

    /// Takes what is there; says whether the gateway's end is gone.
    pub(crate) fn drain(&self) -> bool {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pending = self.lock();
        loop {
            match records.try_recv() {
                Ok(record) => {
                    self.outcomes.iter().for_each(|outcomes| outcomes.note(&record));
                    pending.push(record);
                }
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<LogRecord>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was collected. Records stay findable in memory until their file has its name.
    fn flush(&self) {
        let rows: Vec<LogRecord> = self.lock().clone();
        if rows.is_empty() {
            return;
        }
        match self.write(&rows) {
            Ok(()) => {
                self.lock().drain(..rows.len());
            }
            Err(error) => {
                tracing::error!(%error, "the prediction log can't be written; its records are kept and tried again");
                // A full disk must not fill the memory, too: the oldest records go first.
                let mut pending = self.lock();
                let surplus = pending.len().saturating_sub(10 * FLUSH_ROWS);
                if surplus > 0 {
                    tracing::error!(surplus, "prediction records were lost");
                    pending.drain(..surplus);
                }
            }
        }
    }

    fn write(&self, rows: &[LogRecord]) -> Result<(), AgentError> {
        let (Some(first), Some(last)) =
            (rows.iter().map(|r| r.at_ms).min(), rows.iter().map(|r| r.at_ms).max())
        else {
            return Ok(());
        };
        let day = &lockgate_core::clock::rfc3339(first)[..10];
        let folder = self.folder.join(format!("date={day}"));
        std::fs::create_dir_all(&folder).map_err(|e| AgentError::io("make the folder", &folder, e))?;
        let path =
            folder.join(format!("{first}-{last}-{}.parquet", rows.first().map_or("", |r| r.id.as_str())));
        let temporary = path.with_extension("new");
        let schema = batch(&[]).map_err(|e| AgentError::State(e.to_string()))?.schema();
        let file = std::fs::File::create(&temporary).map_err(|e| AgentError::io("make", &temporary, e))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let written = ArrowWriter::try_new(file, schema, Some(properties)).and_then(|mut writer| {
            for some in rows.chunks(BATCH_ROWS) {
                writer.write(&batch(some)?)?;
            }
            writer.into_inner()
        });
        let file = written
            .map_err(|e| AgentError::State(format!("{} can't be written: {e}", temporary.display())))?;
        file.sync_all()
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|e| AgentError::io("write", &path, e))
    }

    /// One prediction's record as JSON. Whoever has the answer finds its record.
    pub(crate) fn find(&self, id: &str) -> Result<Option<serde_json::Value>, AgentError> {
        // The gateway hands a record over before it answers, so it may still be on its way here.
        self.drain();
        if let Some(found) = self.lock().iter().find(|r| r.id == id) {
            return Ok(Some(row_json(found)));
        }
        let at = ulid_ms(id);
        for path in files(&self.folder)? {
            // A record's id is drawn a moment before its time is noted; a minute covers the longest request.
            if at.zip(span(&path)).is_some_and(|(at, (first, last))| at + 60_000 < first || at > last) {
                continue;
            }
            match find_in(&path, id) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a file of the prediction log is passed over"),
            }
        }
        Ok(None)
    }
}

fn batch(rows: &[LogRecord]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text = |f: &dyn Fn(&LogRecord) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(f).collect::<StringArray>())
    };
    let request = |r: &LogRecord| {
        r.request.as_ref().map(|b| bodies::text(b, r.request_form, r.protocol, Kind::Request))
    };
    let response = |r: &LogRecord| {
        r.response.as_ref().map(|b| bodies::text(b, r.response_form, r.protocol, Kind::Response))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", text(&|r| Some(r.id.clone()))),
        ("at_ms", Arc::new(rows.iter().map(|r| r.at_ms).collect::<Int64Array>())),
        ("model", text(&|r| Some(r.model.to_string()))),
        ("release", text(&|r| Some(r.release.to_string()))),
        ("revision", text(&|r| Some(r.revision.to_string()))),
        ("assigned", text(&|r| Some(r.assigned.as_str().to_owned()))),
        ("served", text(&|r| r.served.map(|s| s.as_str().to_owned()))),
        ("forced", text(&|r| r.forced.clone())),
        ("unit", text(&|r| r.unit.clone())),
        ("status", Arc::new(rows.iter().map(|r| i32::from(r.status)).collect::<Int32Array>())),
        (
            "latency_us",
            Arc::new(
                rows.iter().map(|r| i64::try_from(r.latency_us).unwrap_or(i64::MAX)).collect::<Int64Array>(),
            ),
        ),
        ("protocol", text(&|r| Some(r.protocol.as_str().to_owned()))),
        ("request_id", text(&|r| r.request_id.clone())),
        ("unexamined", text(&|r| r.unexamined.map(|why| why.as_str().to_owned()))),
        ("request", text(&request)),
        ("response", text(&response)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
}

fn row_json(r: &LogRecord) -> serde_json::Value {
    let rows = std::slice::from_ref(r);
    batch(rows).ok().and_then(|b| json_rows(&b).into_iter().next()).unwrap_or_default()
}

fn json_rows(batch: &RecordBatch) -> Vec<serde_json::Value> {
    let schema = batch.schema();
    (0..batch.num_rows())
        .map(|row| {
            let fields = schema
                .fields()
                .iter()
                .zip(batch.columns())
                .map(|(field, array)| (field.name().clone(), cell(array, row)));
            serde_json::Value::Object(fields.collect())
        })
        .collect()
}

fn cell(array: &ArrayRef, row: usize) -> serde_json::Value {
    if array.is_null(row) {
        return serde_json::Value::Null;
    }
    let any = array.as_any();
    if let Some(texts) = any.downcast_ref::<StringArray>() {
        return texts.value(row).into();
    }
    if let Some(numbers) = any.downcast_ref::<Int64Array>() {
        return numbers.value(row).into();
    }
    any.downcast_ref::<Int32Array>().map_or(serde_json::Value::Null, |numbers| numbers.value(row).into())
}

/// All files of the log, oldest first.
fn files(folder: &Path) -> Result<Vec<PathBuf>, AgentError> {
    let mut found = Vec::new();
    let days = std::fs::read_dir(folder).map_err(|e| AgentError::io("read", folder, e))?;
    for day in days.flatten().map(|d| d.path()).filter(|p| p.is_dir()) {
        found.extend(day_files(&day)?);
    }
    found.sort();
    Ok(found)
}

/// The files of one day.
fn day_files(day: &Path) -> Result<Vec<PathBuf>, AgentError> {
    let entries = std::fs::read_dir(day).map_err(|e| AgentError::io("read", day, e))?;
    Ok(entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "parquet"))
        .collect())
}

/// The ids of the predictions in a file.
fn ids_in(path: &Path) -> Result<Vec<String>, AgentError> {
    let damaged =
        |e: &dyn std::fmt::Display| AgentError::State(format!("{} can't be read: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| AgentError::io("open", path, e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| damaged(&e))?;
    let only = ProjectionMask::columns(builder.parquet_schema(), ["id"]);
    let reader = builder.with_projection(only).build().map_err(|e| damaged(&e))?;
    let mut found = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|e| damaged(&e))?;
        let ids = batch.column_by_name("id").and_then(|c| c.as_any().downcast_ref::<StringArray>());
        found.extend(ids.into_iter().flat_map(|ids| ids.iter().flatten().map(str::to_owned)));
    }
    Ok(found)
}

/// The times in a file's name.
fn span(path: &Path) -> Option<(i64, i64)> {
    let mut parts = path.file_stem()?.to_str()?.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The time in a ULID.
fn ulid_ms(id: &str) -> Option<i64> {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let head = id.as_bytes().get(..10)?;
    head.iter().try_fold(0_i64, |ms, c| {
        let digit = DIGITS.iter().position(|d| d == c)?;
        ms.checked_mul(32)?.checked_add(i64::try_from(digit).ok()?)
    })
}

fn batches(path: &Path) -> Result<Vec<RecordBatch>, AgentError> {
    let file = std::fs::File::open(path).map_err(|e| AgentError::io("open", path, e))?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|b| b.with_batch_size(8192).build())
        .map_err(|e| AgentError::State(format!("{} can't be read: {e}", path.display())))?
        .collect::<Result<_, _>>()
        .map_err(|e| AgentError::State(format!("{} is damaged: {e}", path.display())))
}

fn find_in(path: &Path, id: &str) -> Result<Option<serde_json::Value>, AgentError> {
    for batch in batches(path)? {
        let ids = batch.column_by_name("id").and_then(|c| c.as_any().downcast_ref::<StringArray>());
        if let Some(row) = ids.and_then(|ids| (0..ids.len()).find(|i| ids.value(*i) == id)) {
            return Ok(json_rows(&batch.slice(row, 1)).into_iter().next());
        }
    }
    Ok(None)
}

/// The latest recorded requests of a model in a protocol, for a replay: those whose body is known, and that the baseline did
/// not refuse as wrong, which proves nothing of a model. What a candidate refused, or nobody answered in time, is asked again.
pub(crate) fn requests(
    folder: &Path,
    model: &ModelName,
    protocol: ServerProtocol,
) -> Result<Vec<Bytes>, AgentError> {
    let words: &[&str] = match protocol {
        ServerProtocol::Oip => &["oip", "grpc"],
        ServerProtocol::Mlflow | ServerProtocol::Sagemaker => &["mlflow"],
        ServerProtocol::Tfs => &["tfs"],
        ServerProtocol::Openai => &["openai"],
    };
    let mut found = Vec::new();
    for path in files(folder)?.into_iter().rev() {
        for row in batches(&path)?.iter().flat_map(json_rows) {
            let wrong = row["status"].as_i64().is_some_and(|status| [400, 413, 415, 422].contains(&status));
            let refused = wrong && row["served"] == "baseline" && row["assigned"] == "baseline";
            let protocol = row["protocol"].as_str().is_some_and(|word| words.contains(&word));
            // What testers try out is not what users ask.
            let fits = row["model"] == model.as_str() && protocol && !refused && row["forced"].is_null();
            if let (true, Some(body)) = (fits, row["request"].as_str().filter(|body| bodies::is_shown(body)))
            {
                found.push(Bytes::from(body.to_owned()));
            }
        }
        if found.len() >= REPLAY_ROWS {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::digest::Digest;
    use lockgate_core::route::Role;
    use lockgate_gateway::{BodyForm, Protocol};
    use std::sync::mpsc::sync_channel;

    pub(super) fn record(id: &str, at_ms: i64) -> LogRecord {
        LogRecord {
            id: id.to_owned(),
            at_ms,
            model: Arc::new(ModelName::new("toy").unwrap()),
            release: Digest::of(b"release"),
            revision: Digest::of(b"revision"),
            assigned: Role::Candidate,
            served: Some(Role::Baseline),
            forced: None,
            unit: Some("case 1".to_owned()),
            status: 200,
            latency_us: 700,
            protocol: Protocol::Oip,
            request: Some(Bytes::from_static(b"{\"inputs\":[]}")),
            request_form: BodyForm::default(),
            response: None,
            response_form: BodyForm::default(),
            request_id: None,
            unexamined: None,
            drawn: None,
        }
    }

    #[test]
    fn whoever_has_the_answer_finds_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, receiver) = sync_channel(1000);
        let (log, thread) = PredictionLog::start(dir.path().to_owned(), receiver, None);
        for number in 0..500 {
            let id = format!("01M8AY7JZFMHB6BY6FXZAJM{number:03}");
            sender.send(record(&id, 1_795_663_580_143)).unwrap();
            assert_eq!(log.find(&id).unwrap().unwrap()["served"], "baseline", "{id}");
        }
        assert_eq!(log.find("01M8AY7JZFMHB6BY6FXZAJMXXX").unwrap(), None);
        let ids = ["01M8AY7JZFMHB6BY6FXZAJM007", "01M8AY7JZFMHB6BY6FXZAJMXXX"].map(str::to_owned);
        assert_eq!(log.search(&[ids.to_vec()]).found, [ids[0].clone()].into());
        drop(sender);
        thread.join().unwrap();
        // The end of the channel wrote everything into a file.
        assert!(log.lock().is_empty());
        assert_eq!(log.search(&[ids.to_vec()]).found, [ids[0].clone()].into());
        let found = log.find("01M8AY7JZFMHB6BY6FXZAJM499").unwrap().unwrap();
        assert_eq!((&found["unit"], &found["latency_us"]), (&"case 1".into(), &700.into()));
        assert_eq!(
            requests(dir.path(), &ModelName::new("toy").unwrap(), ServerProtocol::Oip).unwrap().len(),
            500
        );
        assert!(
            requests(dir.path(), &ModelName::new("other").unwrap(), ServerProtocol::Oip).unwrap().is_empty()
        );
    }

    #[test]
    fn a_replay_gets_neither_what_the_baseline_refused_nor_statements_about_bodies() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, receiver) = sync_channel(10);
        let (_, thread) = PredictionLog::start(dir.path().to_owned(), receiver, None);
        let good = record("01M8AY7JZFMHB6BY6FXZAJM001", 1_795_663_580_143);
        let refused = LogRecord { status: 400, assigned: Role::Baseline, ..good.clone() };
        let by_candidate = LogRecord { status: 400, served: Some(Role::Candidate), ..good.clone() };
        let given_up = LogRecord { status: 499, served: None, ..refused.clone() };
        let failed = LogRecord { status: 500, protocol: Protocol::Oip, ..good.clone() };
        let raw = BodyForm { json: Some(0), encoding: None };
        let unknown = LogRecord { request_form: raw, ..good.clone() };
        let forced = LogRecord { forced: Some("tester u_ann".to_owned()), ..good.clone() };
        let all = [good, refused, by_candidate, given_up, failed, unknown, forced];
        all.into_iter().for_each(|r| sender.send(r).unwrap());
        drop(sender);
        thread.join().unwrap();
        assert_eq!(
            requests(dir.path(), &ModelName::new("toy").unwrap(), ServerProtocol::Oip).unwrap().len(),
            4
        );
    }
}
