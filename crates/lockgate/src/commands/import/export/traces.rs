//! Traces, with their spans in a file each, as a file store keeps them.

use super::folder::is_part;
use super::yaml::tree;
use super::{Exporter, home};
use crate::commands::import::places;
use crate::commands::import::report::{Kind, Level};
use crate::commands::import::sources::files::Reader;
use crate::commands::import::sources::{Cursor, FoundTrace, Source, message};
use anyhow::Context as _;
use lockgate_control::tracking::Experiment;
use lockgate_control::tracking::exchange::{
    KnownTrace, Pairs, SpanHistory, TraceDigests, TraceLinkRecord, TraceRecord,
};

/// What the file of a trace's spans is called.
const SPANS: &str = "traces.json";
const SOURCE_RUN: &str = "mlflow.sourceRun";

/// Whether MLflow takes a name as a tag's: one that it doesn't take keeps it from reading the whole trace.
fn is_tag(key: &str) -> bool {
    super::folder::is_name(key)
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | ':' | '/'))
}

/// Whether an assessment can be a file: MLflow takes the name up to the first point for the id.
fn is_file(id: &str) -> bool {
    is_part(id) && !id.contains('.')
}

impl Exporter {
    pub(super) async fn traces(&mut self, of: &Experiment) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.traces(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            // The interface of MLflow cuts long texts and doesn't tell links: this one doesn't.
            let ids: Vec<&str> = page.iter().map(|one| one.record.trace_id.as_str()).collect();
            let mut known = self.server.traces(&ids, true).await?;
            for one in page {
                // It may be gone by now.
                let Some(known) = known.remove(&one.record.trace_id) else { continue };
                self.trace(of, one, known).await?;
                self.progress(&format!("traces of `{}`", of.name));
            }
        }
    }

    async fn trace(&mut self, of: &Experiment, found: FoundTrace, known: KnownTrace) -> anyhow::Result<()> {
        let (Some(record), Some(digests)) = (known.record, known.digests) else { return Ok(()) };
        let id = &known.trace_id;
        if !is_part(id) {
            self.unwritable(Kind::Traces, id, "its id can't be a folder's name");
            return Ok(());
        }
        let below = format!("{}/traces/{id}", home(of));
        let was_there = self.folder.path(&below).join("trace_info.yaml").is_file();
        let files = format!("{below}/artifacts");
        std::fs::create_dir_all(self.folder.path(&files))?;
        let in_file = self.folder.path(&files).join(SPANS);
        if record.spans_here && !was_there {
            let mut spans = self.source.spans(&found, &mut Cursor::default()).await?;
            spans.iter_mut().for_each(|span| span.insert(0, '\n'));
            self.folder
                .write(&format!("{files}/{SPANS}"), &format!("{{\"spans\": [{}]}}", spans.join(",")))?;
        }
        let expected = self.written(of, &below, &record, &found.uri, was_there)?;
        let mut history = SpanHistory::default();
        if record.spans_here {
            let text = std::fs::read_to_string(&in_file)
                .with_context(|| format!("{} can't be read", in_file.display()))?;
            message::spans(&text)?.iter().for_each(|span| history.add(span));
        }
        let read = Reader::trace(&self.folder.path(&below), of)?;
        let theirs = TraceDigests::of(&TraceRecord { experiment_id: of.id, ..read.record }, history);
        // A file store has spans in files only, and not what was told to be left out.
        let ours = TraceDigests {
            spans: digests.spans,
            count: digests.count,
            ..TraceDigests::of(&expected, SpanHistory::default())
        };
        self.compared_trace(id, was_there, &ours, &theirs, expected.assessments.len() as u64);
        self.left_links(&known.links, &record);
        self.artifacts(&found.uri, id, &files).await
    }

    fn compared_trace(
        &mut self,
        id: &str,
        was_there: bool,
        ours: &TraceDigests,
        theirs: &TraceDigests,
        said: u64,
    ) {
        self.report.traces.source.add(id, Some(&ours.whole()));
        self.report.traces.target.add(id, Some(&theirs.whole()));
        let differences = ours.differences(theirs);
        self.compared(Kind::Traces, id, was_there, &differences);
        for (kind, count) in [(Kind::Spans, ours.count), (Kind::Assessments, said)] {
            if count > 0 {
                let counts = self.report.of(kind);
                counts.found += count;
                *(if was_there { &mut counts.same } else { &mut counts.new }) += count;
                counts.compared += if differences.is_empty() { count } else { 0 };
            }
        }
    }

    /// Writes all but the files, the description last; gives what can be in a file store.
    fn written(
        &mut self,
        of: &Experiment,
        below: &str,
        record: &TraceRecord,
        uri: &str,
        was_there: bool,
    ) -> anyhow::Result<TraceRecord> {
        let mut kept = TraceRecord { spans_here: false, ..record.clone() };
        let id = &record.trace_id;
        for (what, pairs) in [("tag", &mut kept.tags), ("metadata", &mut kept.metadata)] {
            let odd: Vec<String> = pairs.keys().filter(|key| !is_tag(key)).cloned().collect();
            for key in odd {
                pairs.remove(&key);
                let why = format!("its {what} `{}` can't be a file's name", key.escape_debug());
                self.report.skip(Kind::Traces, id.clone(), why);
            }
        }
        let odd: Vec<String> =
            kept.assessments.iter().filter(|one| !is_file(&one.id)).map(|one| one.id.clone()).collect();
        for one in odd {
            kept.assessments.retain(|other| other.id != one);
            let why = format!("of {id}: its id can't be a file's name");
            self.unwritable(Kind::Assessments, &one.escape_debug().to_string(), &why);
        }
        if was_there {
            return Ok(kept);
        }
        self.folder.clear(below, &["tags", "request_metadata", "assessments"])?;
        let location = match places::proxied(uri) {
            Some(_) => self.folder.uri(&format!("{}/traces/{id}/artifacts", of.id)),
            None => uri.to_owned(),
        };
        let mut tags: Pairs = kept.tags.clone();
        tags.insert("mlflow.artifactLocation".to_owned(), location);
        for (name, pairs) in [("tags", &tags), ("request_metadata", &kept.metadata.clone())] {
            let refused = self.folder.pairs(&format!("{below}/{name}"), pairs)?;
            for key in &refused {
                if name == "tags" { &mut kept.tags } else { &mut kept.metadata }.remove(key);
                let why = format!("`{}` of its {name} is in the way of another one", key.escape_debug());
                self.report.skip(Kind::Traces, id.clone(), why);
            }
        }
        for one in &kept.assessments {
            let path = format!("{below}/assessments/{}.yaml", one.id);
            self.folder.write(&path, &tree(&message::written(id, one)))?;
        }
        self.folder.write(&format!("{below}/trace_info.yaml"), &tree(&message::described(&kept)))?;
        Ok(kept)
    }

    /// Tells which links a file store can't keep: all but the one that a trace says of itself.
    fn left_links(&mut self, links: &[TraceLinkRecord], record: &TraceRecord) {
        for one in links {
            if one.link == "run" && record.metadata.get(SOURCE_RUN) == Some(&one.target) {
                continue;
            }
            let what = format!("{} to {} {}", one.trace_id, one.link, one.target);
            let counts = self.report.of(Kind::TraceLinks);
            (counts.found, counts.left) = (counts.found + 1, counts.left + 1);
            self.report.tell(
                Level::Left,
                Kind::TraceLinks,
                what,
                "a file store of MLflow has no links of traces",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mlflow_can_not_read_back_is_not_written() {
        for (name, tag, file) in [
            ("mlflow.a/b: c_d-e", true, false),
            ("a-1", true, true),
            ("ü", true, true),
            ("a.b", true, false),
            ("a&b", false, true),
            ("../x", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_tag(name), is_file(name)), (tag, file), "{name}");
        }
    }
}
