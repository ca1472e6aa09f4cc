//! What a move did: counts, what was left out and why, digests of both sides.

use crate::output::{Out, Tone, table};
use lockgate_control::tracking::exchange::WholeDigest;
use lockgate_core::digest::Digest;
use serde::Serialize;
use std::collections::BTreeMap;

/// How many findings are listed; all are counted.
const LISTED: usize = 1000;

/// The kinds of things, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Experiments,
    Runs,
    Params,
    Tags,
    MetricPoints,
    DatasetInputs,
    LoggedModels,
    Traces,
    Spans,
    Assessments,
    TraceLinks,
    Artifacts,
    ArtifactBytes,
    RegisteredModels,
    Versions,
    Aliases,
    Others,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Experiments => "experiments",
            Self::Runs => "runs",
            Self::Params => "params",
            Self::Tags => "tags of runs",
            Self::MetricPoints => "metric points",
            Self::DatasetInputs => "dataset inputs",
            Self::LoggedModels => "logged models",
            Self::Traces => "traces",
            Self::Spans => "spans in databases",
            Self::Assessments => "assessments",
            Self::TraceLinks => "links of traces",
            Self::Artifacts => "artifacts",
            Self::ArtifactBytes => "bytes of artifacts",
            Self::RegisteredModels => "registered models",
            Self::Versions => "model versions",
            Self::Aliases => "aliases",
            Self::Others => "other things",
        }
    }
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// Good to know: a new number, for example.
    Note,
    /// It stays where it is, and what points to it is kept.
    Left,
    /// It was not taken.
    Skipped,
    /// It is not the same on both sides.
    Differs,
}

/// How many of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// At the source.
    pub(super) found: u64,
    /// Taken now.
    pub(super) new: u64,
    /// There already, and the same.
    pub(super) same: u64,
    /// Left where they are.
    pub(super) left: u64,
    /// Not taken.
    pub(super) skipped: u64,
    /// Read back, and the same.
    pub(super) compared: u64,
    /// Read back, and not the same.
    pub(super) differ: u64,
}

/// One thing to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) kind: Kind,
    pub(super) what: String,
    pub(super) why: String,
}

/// The digest of one kind of content at both ends.
#[derive(Debug, Default)]
pub(super) struct Both {
    pub(super) source: WholeDigest,
    pub(super) target: WholeDigest,
}

/// What a move did.
#[derive(Debug)]
pub(super) struct Report {
    source: String,
    target: String,
    dry: bool,
    counts: BTreeMap<Kind, Counts>,
    findings: Vec<Finding>,
    more: u64,
    pub(super) runs: Both,
    pub(super) traces: Both,
    pub(super) artifacts: Both,
    /// What nobody looked at.
    pub(super) unseen: Option<&'static str>,
    out: Out,
}

#[derive(Debug, Serialize)]
struct Digests {
    source: Digest,
    target: Digest,
    same: bool,
}

impl Report {
    pub(super) fn new(out: Out, source: &str, target: &str, dry: bool) -> Self {
        Self {
            source: source.to_owned(),
            target: target.to_owned(),
            dry,
            counts: BTreeMap::new(),
            findings: Vec::new(),
            more: 0,
            runs: Both::default(),
            traces: Both::default(),
            artifacts: Both::default(),
            unseen: None,
            out,
        }
    }

    /// The counts of a kind.
    pub(super) fn of(&mut self, kind: Kind) -> &mut Counts {
        self.counts.entry(kind).or_default()
    }

    /// Tells something, without counting it.
    pub(super) fn tell(&mut self, level: Level, kind: Kind, what: impl Into<String>, why: impl Into<String>) {
        if self.findings.len() >= LISTED {
            self.more += 1;
            return;
        }
        self.findings.push(Finding { level, kind, what: what.into(), why: why.into() });
    }

    /// Counts something as not taken, and says why.
    pub(super) fn skip(&mut self, kind: Kind, what: impl Into<String>, why: impl Into<String>) {
        self.of(kind).skipped += 1;
        self.tell(Level::Skipped, kind, what, why);
    }

    /// Counts something as different, and says how.
    pub(super) fn differ(&mut self, kind: Kind, what: impl Into<String>, why: impl Into<String>) {
        self.of(kind).differ += 1;
        self.tell(Level::Differs, kind, what, why);
    }

    /// Whether nothing was left out and nothing differs.
    pub(super) fn is_whole(&self) -> bool {
        self.counts.values().all(|counts| counts.skipped == 0 && counts.differ == 0)
    }

    /// Whether anything was, or is to be, taken.
    pub(super) fn has_news(&self) -> bool {
        self.counts.values().any(|counts| counts.new > 0)
    }

    fn digests(both: Both) -> Digests {
        let (source, target) = (both.source.finish(), both.target.finish());
        Digests { source, target, same: source == target }
    }

    /// Prints it.
    pub(super) fn show(self) -> anyhow::Result<()> {
        let whole = self.is_whole();
        let Self { source, target, dry, counts, findings, more, runs, traces, artifacts, unseen, out } = self;
        let (runs, traces) = (Self::digests(runs), Self::digests(traces));
        let artifacts = Self::digests(artifacts);
        let body = serde_json::json!({
            "source": source, "target": target, "dry_run": dry, "whole": whole, "counts": counts,
            "digests": {"runs": runs, "traces": traces, "artifacts": artifacts},
            "findings": findings, "findings_not_listed": more,
            "not_looked_at": unseen,
        });
        out.show(&body, || {
            let mut text = format!("{} to {}\n\n{}", source, target, counted(&counts, dry));
            for finding in &findings {
                text += &format!("{}\n", line(out, finding));
            }
            if more > 0 {
                text += &format!("and {more} more\n");
            }
            if !dry {
                text += &format!(
                    "\n{}\n{}\n{}\n",
                    compared("runs", &runs, whole),
                    compared("traces", &traces, whole),
                    compared("artifacts", &artifacts, whole)
                );
            }
            if let Some(unseen) = unseen {
                text += &format!("\nnot looked at over HTTP: {unseen}\n");
            }
            text + &verdict(out, whole, dry, unseen.is_some())
        })
    }
}

fn counted(counts: &BTreeMap<Kind, Counts>, dry: bool) -> String {
    let new = if dry { "would be taken" } else { "taken now" };
    let heads = ["", "found", new, "already there", "left in place", "skipped", "read back equal", "differ"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for (kind, c) in counts {
        let numbers = [c.found, c.new, c.same, c.left, c.skipped, c.compared, c.differ];
        let mut row = vec![kind.words().to_owned()];
        row.extend(numbers.iter().map(ToString::to_string));
        rows.push(row);
    }
    table(&rows) + "\n"
}

fn line(out: Out, finding: &Finding) -> String {
    let (tone, word) = match finding.level {
        Level::Note => (Tone::Faint, "note"),
        Level::Left => (Tone::Warn, "left in place"),
        Level::Skipped => (Tone::Bad, "skipped"),
        Level::Differs => (Tone::Bad, "differs"),
    };
    format!("{} {}: {}: {}", out.mark(tone, word), finding.kind.words(), finding.what, finding.why)
}

fn compared(what: &str, digests: &Digests, whole: bool) -> String {
    let word = if digests.same { "the same at both ends" } else { "NOT the same at both ends" };
    let what = if whole { what.to_owned() } else { format!("what was taken of the {what}") };
    format!("digest of {what}: {word}\n  source  {}\n  target  {}", digests.source, digests.target)
}

fn verdict(out: Out, whole: bool, dry: bool, unseen: bool) -> String {
    let (tone, words) = match (whole, dry) {
        (true, true) => (Tone::Good, "nothing stands in the way; nothing was written"),
        (false, true) => (Tone::Bad, "not all of it can be taken; nothing was written"),
        (true, false) if unseen => (Tone::Good, "all that was looked at is there"),
        (true, false) => (Tone::Good, "all of it is there"),
        (false, false) => (Tone::Bad, "not all of it is there: see above"),
    };
    format!("\n{}\n", out.mark(tone, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_or_differs_is_not_whole() {
        let new = || Report::new(Out::new(true), "a", "b", false);
        let mut report = new();
        report.of(Kind::Runs).new = 1;
        report.tell(Level::Left, Kind::Artifacts, "a", "s3");
        assert!(report.is_whole() && report.has_news());
        report.skip(Kind::Runs, "r", "why");
        assert!(!report.is_whole());
        let mut report = new();
        report.differ(Kind::Runs, "r", "why");
        assert!(!report.is_whole() && !report.has_news());
    }

    #[test]
    fn a_verdict_says_no_more_than_was_looked_at() {
        let out = Out::new(true);
        assert!(verdict(out, true, false, false).contains("all of it is there"));
        assert!(verdict(out, true, false, true).contains("all that was looked at is there"));
        let digest = Digest::of(b"x");
        let both = Digests { source: digest, target: digest, same: true };
        assert!(compared("runs", &both, true).starts_with("digest of runs: the same"));
        assert!(compared("runs", &both, false).starts_with("digest of what was taken of the runs: the same"));
    }

    #[test]
    fn the_table_names_every_kind_with_its_counts() {
        let counts = BTreeMap::from([(Kind::MetricPoints, Counts { found: 3, new: 2, ..Counts::default() })]);
        let text = counted(&counts, false);
        let row = text.lines().nth(1).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["metric", "points", "3", "2", "0", "0", "0", "0", "0"]);
    }
}
