//! Which predictions the log has, found at a price that whoever asks can't drive up.
//!
//! An id says when its prediction was asked for, so few files can hold it. But ids of a thousand different moments need a thousand
//! files, and ids that somebody made up as well. So one search reads a bounded number of them, a fair part for each call, and says
//! of which ids it does not know. The next search goes on elsewhere: whoever asks for the same again gets through all of it.

use super::{PredictionLog, day_files, ids_in, span, ulid_ms};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// How many files one search reads: half a second's worth.
const FILES: usize = if cfg!(test) { 4 } else { 256 };

/// Of how many days it lists them.
const DAYS: usize = 16;

/// A file lies in the folder of its first record's day, which may have been asked for so long before its last one ended.
const BEFORE_MS: i64 = 3_600_000;

/// What a search found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Search {
    /// Predictions that there are.
    pub(crate) found: HashSet<String>,
    /// Predictions of which it is not known, because too much would have had to be read.
    pub(crate) unsearched: HashSet<String>,
}

/// What is looked for, by the time in its id.
type Missing<'a> = BTreeSet<(i64, &'a str)>;

impl PredictionLog {
    /// Which of these predictions there are, of several calls. A file that can't be read holds nothing.
    pub(crate) fn search(&self, calls: &[Vec<String>]) -> Search {
        self.drain();
        let mut search = Search::default();
        let mut missing: Missing<'_> =
            calls.iter().flatten().filter_map(|id| Some((ulid_ms(id)?, id.as_str()))).collect();
        {
            let pending = self.lock();
            let here: HashSet<&str> = pending.iter().map(|record| record.id.as_str()).collect();
            missing.retain(|(_, id)| !here.contains(id) || !search.found.insert((*id).to_owned()));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let files = self.files_of(&missing, turn, &mut search.unsearched);
        let chosen = choose(calls, &files, turn);
        for (n, (path, ids)) in files.iter().enumerate() {
            if !chosen.contains(&n) {
                search.unsearched.extend(ids.iter().map(|id| (*id).to_owned()));
                continue;
            }
            let wanted: HashSet<&str> = ids.iter().copied().collect();
            // A damaged file must not keep what other files hold from being said, whatever it does to its reader.
            match catch_unwind(AssertUnwindSafe(|| ids_in(path))) {
                Ok(Ok(held)) => {
                    search.found.extend(held.into_iter().filter(|id| wanted.contains(id.as_str())))
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a file of the prediction log is passed over");
                }
                Err(_) => {
                    tracing::warn!(path = %path.display(), "a damaged file of the prediction log is passed over");
                }
            }
        }
        let Search { found, unsearched } = &mut search;
        unsearched.retain(|id| !found.contains(id));
        search
    }

    /// The files that may hold what is missing, each with what it may hold.
    fn files_of<'a>(
        &self,
        missing: &Missing<'a>,
        turn: usize,
        unsearched: &mut HashSet<String>,
    ) -> Vec<(PathBuf, Vec<&'a str>)> {
        let mut days: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
        for (at, id) in missing {
            let of = [at - BEFORE_MS, *at].map(|at| lockgate_core::clock::rfc3339(at)[..10].to_owned());
            for day in BTreeSet::from(of).into_iter().map(|day| self.folder.join(format!("date={day}"))) {
                days.entry(day).or_default().push(id);
            }
        }
        days.retain(|day, _| day.is_dir());
        let begin = turn.wrapping_mul(DAYS) % days.len().max(1);
        let mut files = Vec::new();
        for (n, (day, ids)) in days.iter().cycle().skip(begin).take(days.len()).enumerate() {
            if n >= DAYS {
                unsearched.extend(ids.iter().map(|id| (*id).to_owned()));
                continue;
            }
            let listed = day_files(day).unwrap_or_else(|error| {
                tracing::warn!(%error, "a day of the prediction log is passed over");
                Vec::new()
            });
            for path in listed {
                let Some((first, last)) = span(&path).filter(|(first, last)| first <= last) else { continue };
                let held: Vec<&str> =
                    missing.range((first, "")..(last.saturating_add(1), "")).map(|(_, id)| *id).collect();
                if !held.is_empty() {
                    files.push((path, held));
                }
            }
        }
        files.sort();
        files
    }
}

/// Which files are read: each call's in turn, so that nobody's search takes the place of another's.
fn choose(calls: &[Vec<String>], files: &[(PathBuf, Vec<&str>)], turn: usize) -> HashSet<usize> {
    let asked_by: HashMap<&str, usize> =
        calls.iter().enumerate().flat_map(|(n, ids)| ids.iter().map(move |id| (id.as_str(), n))).collect();
    let mut wanted: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for (n, (_, ids)) in files.iter().enumerate() {
        let by: BTreeSet<usize> = ids.iter().filter_map(|id| asked_by.get(id).copied()).collect();
        by.into_iter().for_each(|call| wanted.entry(call).or_default().push_back(n));
    }
    for queue in wanted.values_mut() {
        let begin = turn.wrapping_mul(FILES) % queue.len().max(1);
        queue.rotate_left(begin);
    }
    let mut chosen = HashSet::new();
    while chosen.len() < FILES && wanted.values().any(|queue| !queue.is_empty()) {
        for queue in wanted.values_mut() {
            while let Some(next) = queue.pop_front() {
                if chosen.len() < FILES && chosen.insert(next) {
                    break;
                }
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use std::sync::mpsc::sync_channel;

    /// 2026-11-26T07:26:30Z, as an id says it.
    const AT: i64 = 1_795_663_590_383;

    fn id(ms: i64, number: u64) -> String {
        const DIGITS: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let time = (0..10).rev().map(|n| char::from(DIGITS[usize::try_from(ms >> (5 * n) & 31).unwrap()]));
        format!("{}{number:016}", time.collect::<String>())
    }

    /// A log with a file for each of these moments, which holds one prediction.
    fn log(dir: &std::path::Path, moments: &[i64]) -> PredictionLog {
        let (sender, receiver) = sync_channel(10);
        let (log, thread) = PredictionLog::start(dir.to_owned(), receiver, None);
        drop(sender);
        thread.join().unwrap();
        moments.iter().for_each(|at| log.write(&[record(&id(*at, 1), *at)]).unwrap());
        log
    }

    fn file_of(log: &PredictionLog, at: i64) -> PathBuf {
        let all = super::super::files(&log.folder).unwrap();
        all.into_iter().find(|path| span(path).unwrap().0 == at).unwrap()
    }

    #[test]
    fn what_there_is_is_found_and_what_is_made_up_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), &[AT, AT + 86_400_000]);
        let (one, other) = (id(AT, 1), id(AT + 86_400_000, 1));
        assert_eq!(ulid_ms(&one), Some(AT));
        let asked = [vec![one.clone(), id(AT, 2)], vec![other.clone(), id(AT + 1, 1), id(i64::MAX >> 14, 1)]];
        let Search { found, unsearched } = log.search(&asked);
        assert_eq!((found, unsearched), ([one, other].into(), HashSet::new()));
    }

    #[test]
    fn a_damaged_file_keeps_nobody_elses_predictions_from_being_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), &[AT, AT + 1]);
        for garbage in [b"garbage".as_slice(), b"", b"PAR1 more garbage of any length at all PAR1"] {
            std::fs::write(file_of(&log, AT), garbage).unwrap();
            let found = log.search(&[vec![id(AT, 1), id(AT + 1, 1)]]);
            assert_eq!(found, Search { found: [id(AT + 1, 1)].into(), unsearched: HashSet::new() });
            assert_eq!(log.find(&id(AT + 1, 1)).unwrap().unwrap()["id"], id(AT + 1, 1).as_str());
        }
    }

    #[test]
    fn no_search_reads_more_than_it_may_and_the_same_one_again_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let moments: Vec<i64> = (0..11).map(|n| AT + n).collect();
        let log = log(dir.path(), &moments);
        // None of these is there, but each could be in a file of its own.
        let made_up: Vec<String> = moments.iter().map(|at| id(*at, 2)).collect();
        let mut left: HashSet<String> = made_up.iter().cloned().collect();
        for _ in 0..6 {
            let Search { found, unsearched } = log.search(std::slice::from_ref(&made_up));
            assert_eq!((found.len(), unsearched.len()), (0, 11 - FILES));
            left.retain(|id| unsearched.contains(id));
        }
        assert!(left.is_empty(), "{left:?} was never looked for");
        // Another call beside it gets its part.
        let own = vec![id(AT + 10, 1)];
        let Search { found, .. } = log.search(&[made_up, own.clone()]);
        assert_eq!(found, own.into_iter().collect());
    }
}
