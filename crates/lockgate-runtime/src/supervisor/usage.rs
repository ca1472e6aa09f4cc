//! What workers take: CPU, memory and files of a worker's whole process group, as Linux counts them (proc(5)).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What the processes of one group have taken and hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, in user and system mode, with that of children that have ended.
    pub cpu: Duration,
    /// Resident memory, in bytes; pages that processes share count for each.
    pub resident: u64,
    /// Open file descriptors, of those processes that let us look.
    pub files: u64,
    /// Live processes.
    pub processes: u32,
}

/// What each of these groups (named by the process that leads it) takes now; a group without a live process is left out, and so
/// is everything on a system without `/proc`.
#[must_use]
pub fn of_groups(leaders: &[u32]) -> BTreeMap<u32, Usage> {
    let mut all: BTreeMap<u32, Usage> = BTreeMap::new();
    if leaders.is_empty() {
        return all;
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let path = entry.path();
        let Some(seen) = std::fs::read_to_string(path.join("stat")).ok().as_deref().and_then(stat) else {
            continue;
        };
        if leaders.contains(&seen.group) {
            all.entry(seen.group).or_default().add(&seen, files(&path));
        }
    }
    all
}

/// What this process takes.
#[must_use]
pub fn of_self() -> Option<Usage> {
    let path = Path::new("/proc/self");
    let seen = stat(&std::fs::read_to_string(path.join("stat")).ok()?)?;
    let mut usage = Usage::default();
    // What its ended children took is theirs.
    usage.add(&Stat { reaped: 0, ..seen }, files(path));
    Some(usage)
}

impl Usage {
    fn add(&mut self, seen: &Stat, files: u64) {
        let second = rustix::param::clock_ticks_per_second().max(1);
        let ticks = seen.own + seen.reaped;
        self.cpu +=
            Duration::from_secs(ticks / second) + Duration::from_secs(ticks % second) / divisor(second);
        self.resident += seen.pages * rustix::param::page_size() as u64;
        self.files += files;
        self.processes += 1;
    }
}

fn divisor(second: u64) -> u32 {
    u32::try_from(second).unwrap_or(u32::MAX)
}

/// What one line of `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    group: u32,
    /// Ticks of its own, and of children that it has waited for.
    own: u64,
    reaped: u64,
    pages: u64,
}

/// Reads a line of `/proc/PID/stat`. A process's name is in brackets and may hold spaces and brackets itself; what follows has
/// neither.
fn stat(line: &str) -> Option<Stat> {
    let (_, fields) = line.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // Numbers of proc(5), which counts from 1 and has two fields before the bracket's end.
    let field = |number: usize| fields.get(number - 3);
    let ticks = |number: usize| field(number)?.parse::<u64>().ok();
    if matches!(field(3), Some(&("Z" | "X"))) {
        return None;
    }
    let waited = |number| field(number).and_then(|t| t.parse::<i64>().ok()).map(|t| t.max(0).cast_unsigned());
    Some(Stat {
        group: field(5)?.parse().ok()?,
        own: ticks(14)?.checked_add(ticks(15)?)?,
        reaped: waited(16)?.checked_add(waited(17)?)?,
        pages: field(24)?.parse().ok()?,
    })
}

fn files(process: &Path) -> u64 {
    std::fs::read_dir(process.join("fd")).map_or(0, |all| all.flatten().count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn reads_a_name_with_brackets() {
        let line = "77 (a) b) (c) S 1 42 42 0 -1 4194560 900 0 3 0 150 50 7 3 20 0 1 0 5000 8192000 250 18446744073709551615 1 1 0";
        let seen = stat(line).unwrap();
        assert_eq!(seen, Stat { group: 42, own: 200, reaped: 10, pages: 250 });
        assert_eq!(stat(&line.replace(" S ", " Z ")), None, "an ended one holds nothing");
        for bad in ["", "77 (a", "77 (a) S 1", "77 (a) S 1 x 42 0 -1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"] {
            assert_eq!(stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_group_is_counted_whole_and_ends() {
        // A shell that computes for a while, and a child of it that waits.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "sleep 60 & i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; read x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        let group = child.id();
        let usage = of_groups(&[group, u32::MAX])[&group];
        assert_eq!(usage.processes, 2);
        assert!(usage.cpu >= Duration::from_millis(10), "{usage:?}");
        assert!(usage.resident > 200_000 && usage.files >= 6, "{usage:?}");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
        // The other one may need a moment to end.
        for _ in 0..500 {
            if of_groups(&[group]).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the group still holds something: {:?}", of_groups(&[group]));
    }

    #[test]
    fn this_process_is_seen() {
        let own = of_self().unwrap();
        assert!(own.resident > 1_000_000 && own.files > 2 && own.processes == 1, "{own:?}");
    }
}
