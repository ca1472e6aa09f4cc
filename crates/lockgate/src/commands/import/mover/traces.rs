//! Traces with their spans, a page at a time, and then what they are linked to.

use super::runs::Sending;
use super::{Mover, artifacts};
use crate::client::Unanswered;
use crate::commands::import::report::{Counts, Kind, Level};
use crate::commands::import::sources::{Cursor, FoundTrace, Spans};
use lockgate_control::tracking::Experiment;
use lockgate_control::tracking::exchange::{
    Fate, Outcome, Record, SpanHistory, SpansRecord, TraceDigests, TraceRecord,
};

/// How many bytes of spans go into one request, if they are not one span.
const BATCH: usize = 2 << 20;

/// One trace of a page on its way.
struct Moving {
    found: FoundTrace,
    record: TraceRecord,
    /// What it is at the source.
    ours: TraceDigests,
    conflict: Option<String>,
}

/// How much texts weigh in a request, in things of about a hundred bytes.
fn weight(bytes: usize) -> usize {
    1 + bytes / 100
}

fn of_spans(trace: &str, spans: &[String]) -> Record {
    Record::Spans(SpansRecord { trace_id: trace.to_owned(), spans: spans.to_vec() })
}

/// Spans in pieces that fit into requests.
fn pieces(spans: &[String]) -> Vec<&[String]> {
    let (mut found, mut rest) = (Vec::new(), spans);
    while !rest.is_empty() {
        let mut bytes = 0;
        let more = |span: &&String| {
            bytes += span.len();
            bytes <= BATCH
        };
        let end = rest.iter().take_while(more).count().max(1);
        let (piece, after) = rest.split_at(end);
        found.push(piece);
        rest = after;
    }
    found
}

impl Mover {
    pub(super) async fn traces(&mut self, of: &Experiment, number: i64) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.traces(of, &mut at).await?;
            if page.is_empty() {
                return self.trace_links(of).await;
            }
            self.page_of_traces(of, number, page).await?;
            for (trace, what) in self.source.cut() {
                let why = format!(
                    "{what} may be longer: this interface cuts it, the store's database or folder has all of it"
                );
                self.report.tell(Level::Note, Kind::Traces, trace, why);
            }
            self.progress(&format!("traces of `{}`", of.name));
        }
    }

    async fn page_of_traces(
        &mut self,
        of: &Experiment,
        number: i64,
        page: Vec<FoundTrace>,
    ) -> anyhow::Result<()> {
        let ids: Vec<&str> = page.iter().map(|one| one.record.trace_id.as_str()).collect();
        let known = self.target.traces(&ids, false).await?;
        let (mut moving, mut sending) = (Vec::new(), Sending::default());
        for found in page {
            let there = known.get(&found.record.trace_id).and_then(|known| known.digests.as_ref());
            let one = self.one_trace(found, number, there, moving.len(), &mut sending).await?;
            moving.push(one);
        }
        self.send(&mut sending).await?;
        if self.dry {
            self.try_traces(of, &moving, |id| known.contains_key(id), &mut sending).await?;
        }
        for (place, why) in sending.conflicts {
            let one: &mut Moving = &mut moving[place];
            if one.conflict.is_none() {
                one.conflict = Some(why);
                self.report.of(Kind::Traces).new -= 1;
                self.trace_parts(one, |counts| &mut counts.new, u64::wrapping_sub);
            }
        }
        if !self.dry {
            self.compare_traces(&moving).await?;
        }
        for one in moving {
            self.trace_files(one, number).await?;
        }
        Ok(())
    }

    /// Asks what would become of the traces that are not there.
    async fn try_traces(
        &mut self,
        of: &Experiment,
        moving: &[Moving],
        known: impl Fn(&str) -> bool,
        sending: &mut Sending,
    ) -> anyhow::Result<()> {
        let new = |place: &usize| !known(&moving[*place].record.trace_id);
        let places: Vec<usize> = (0..moving.len()).filter(new).collect();
        let records = places.iter().map(|i| Record::Trace(Box::new(moving[*i].record.clone()))).collect();
        for (place, outcome) in places.iter().zip(self.tried(of, records).await?) {
            if outcome.fate == Fate::Conflict {
                sending.conflicts.push((*place, outcome.why.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// Brings one trace, as far as it is not there: what is new is put among what is sent.
    async fn one_trace(
        &mut self,
        found: FoundTrace,
        number: i64,
        there: Option<&TraceDigests>,
        place: usize,
        sending: &mut Sending,
    ) -> anyhow::Result<Moving> {
        let artifact_uri = self.stays_at(&found.uri);
        let record = TraceRecord { experiment_id: number, artifact_uri, ..found.record.clone() };
        let sent = there.is_none() && !self.dry;
        if sent {
            let said = record.assessments.iter().map(|one| one.value.len()).sum::<usize>();
            sending.push(place, Record::Trace(Box::new(record.clone())), weight(1000 + said));
        }
        let mut history = SpanHistory::default();
        let read = self.all_spans(&found, &mut history, sent.then_some((&mut *sending, place))).await?;
        let ours = TraceDigests::of(&record, history);
        let mut one = Moving { found, record, ours, conflict: read };
        self.report.of(Kind::Traces).found += 1;
        self.trace_parts(&one, |counts| &mut counts.found, u64::wrapping_add);
        if one.conflict.is_some() {
            return Ok(one);
        }
        if there.is_some_and(|there| there.differences(&one.ours).is_empty()) {
            self.report.of(Kind::Traces).same += 1;
            self.trace_parts(&one, |counts| &mut counts.same, u64::wrapping_add);
            return Ok(one);
        }
        if there.is_some() {
            one.conflict = self.complete_trace(&one).await?;
        }
        if one.conflict.is_none() {
            self.report.of(Kind::Traces).new += 1;
            self.trace_parts(&one, |counts| &mut counts.new, u64::wrapping_add);
        }
        Ok(one)
    }

    /// The next spans of a trace, or why they can't be read.
    async fn next_spans(
        &mut self,
        of: &FoundTrace,
        at: &mut Cursor,
    ) -> anyhow::Result<Result<Spans, String>> {
        if !of.record.spans_here {
            return Ok(Ok(Vec::new()));
        }
        match self.source.spans(of, at).await {
            Ok(spans) => Ok(Ok(spans)),
            Err(error) if error.downcast_ref::<Unanswered>().is_some() => Err(error),
            Err(error) => Ok(Err(format!("its spans can't be read: {error:#}"))),
        }
    }

    /// Reads a trace's spans to the end; puts them among what is sent, where the trace is new. Says why they can't be read.
    async fn all_spans(
        &mut self,
        of: &FoundTrace,
        history: &mut SpanHistory,
        mut to: Option<(&mut Sending, usize)>,
    ) -> anyhow::Result<Option<String>> {
        let mut at = Cursor::default();
        loop {
            let spans = match self.next_spans(of, &mut at).await? {
                Ok(spans) if spans.is_empty() => return Ok(None),
                Ok(spans) => spans,
                Err(why) => return Ok(Some(why)),
            };
            spans.iter().for_each(|span| history.add(span));
            let Some((sending, place)) = &mut to else { continue };
            for piece in pieces(&spans) {
                let bytes = piece.iter().map(String::len).sum();
                if sending.weight + weight(bytes) > weight(BATCH) {
                    self.send(sending).await?;
                }
                sending.push(*place, of_spans(&of.record.trace_id, piece), weight(bytes));
            }
        }
    }

    /// A trace that is there but not the same: what is missing is added, as after a move that was broken off. Otherwise says
    /// why it is left alone.
    async fn complete_trace(&mut self, one: &Moving) -> anyhow::Result<Option<String>> {
        let record = || [Record::Trace(Box::new(one.record.clone()))];
        let refused =
            |outcome: Outcome| (outcome.fate == Fate::Conflict).then(|| outcome.why.unwrap_or_default());
        let tried = self.target.take(&record(), true).await?.remove(0);
        // It went on at the source since it was taken.
        let gone_on = tried.fate == Fate::New && !self.dry;
        if let Some(why) = refused(tried) {
            return Ok(Some(why));
        }
        if gone_on && let Some(why) = refused(self.target.take(&record(), false).await?.remove(0)) {
            return Ok(Some(why));
        }
        let mut at = Cursor::default();
        loop {
            let spans = match self.next_spans(&one.found, &mut at).await? {
                Ok(spans) if spans.is_empty() => return Ok(None),
                Ok(spans) => spans,
                Err(why) => return Ok(Some(why)),
            };
            for piece in pieces(&spans) {
                let outcomes = self.target.take(&[of_spans(&one.record.trace_id, piece)], self.dry).await?;
                if let Some(why) = outcomes.into_iter().find_map(refused) {
                    return Ok(Some(why));
                }
            }
        }
    }

    async fn trace_files(&mut self, one: Moving, number: i64) -> anyhow::Result<()> {
        let id = one.record.trace_id;
        if let Some(why) = one.conflict {
            self.report.skip(Kind::Traces, id.clone(), why);
            self.incomplete.insert(id);
            return Ok(());
        }
        let to = artifacts::Place::of_trace(number, &id);
        let stays = one.record.artifact_uri.is_some();
        let has_spans = self.artifacts(&one.found.uri, stays, &to).await?;
        if !(one.record.spans_here || stays || has_spans || self.incomplete.contains(&id)) {
            self.incomplete.insert(id.clone());
            let why = format!("its spans should be in a file `{}`, which is not there", artifacts::SPANS);
            self.report.skip(Kind::Traces, id, why);
        }
        Ok(())
    }

    /// Reads the page's traces back and compares them.
    async fn compare_traces(&mut self, moving: &[Moving]) -> anyhow::Result<()> {
        let taken: Vec<&Moving> = moving.iter().filter(|one| one.conflict.is_none()).collect();
        let ids: Vec<&str> = taken.iter().map(|one| one.record.trace_id.as_str()).collect();
        let known = self.target.traces(&ids, false).await?;
        for one in taken {
            let id = &one.record.trace_id;
            let theirs = known.get(id).and_then(|known| known.digests.as_ref());
            self.report.traces.source.add(id, Some(&one.ours.whole()));
            self.report.traces.target.add(id, theirs.map(TraceDigests::whole).as_ref());
            match theirs.map(|theirs| one.ours.differences(theirs)) {
                Some(differences) if differences.is_empty() => {
                    self.report.of(Kind::Traces).compared += 1;
                    self.trace_parts(one, |counts| &mut counts.compared, u64::wrapping_add);
                }
                Some(differences) => {
                    let why = format!("its {} differ", differences.join(", "));
                    self.report.differ(Kind::Traces, id.clone(), why);
                }
                None => self.report.differ(Kind::Traces, id.clone(), "it is not there"),
            }
        }
        Ok(())
    }

    /// Counts what a trace consists of.
    fn trace_parts(
        &mut self,
        one: &Moving,
        of: impl Fn(&mut Counts) -> &mut u64,
        change: impl Fn(u64, u64) -> u64,
    ) {
        let parts = [(Kind::Spans, one.ours.count), (Kind::Assessments, one.record.assessments.len() as u64)];
        for (kind, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            let counted = of(self.report.of(kind));
            *counted = change(*counted, count);
        }
    }

    /// Brings what the traces of an experiment are linked to.
    async fn trace_links(&mut self, of: &Experiment) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.trace_links(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            let records: Vec<Record> = page.into_iter().map(Record::TraceLink).collect();
            let mut outcomes = self.target.take(&records, self.dry).await?;
            // In a dry run the traces may not be there yet.
            for outcome in outcomes.iter_mut().filter(|one| self.dry && one.fate == Fate::Conflict) {
                *outcome = Outcome::would_be_new();
            }
            for (record, outcome) in records.iter().zip(&outcomes) {
                self.count(Kind::TraceLinks, &super::name(record), outcome);
            }
            self.read_back(Kind::TraceLinks, &records, &outcomes).await?;
        }
    }

    /// Counts the traces of an experiment that could not be taken.
    pub(super) async fn skip_traces(&mut self, of: &Experiment) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.traces(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            for one in page {
                self.report.of(Kind::Traces).found += 1;
                let why = format!("its experiment `{}` is not taken", of.name);
                self.report.skip(Kind::Traces, one.record.trace_id, why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_spans_go_alone_and_small_ones_together() {
        let spans: Vec<String> = [10, BATCH, BATCH + 1, 5, 5].map(|length| "x".repeat(length)).into();
        let lengths: Vec<Vec<usize>> =
            pieces(&spans).iter().map(|piece| piece.iter().map(String::len).collect()).collect();
        assert_eq!(lengths, [vec![10], vec![BATCH], vec![BATCH + 1], vec![5, 5]]);
        assert!(pieces(&[]).is_empty());
    }
}
