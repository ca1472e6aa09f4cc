//! Processes of this machine, as `/proc` tells.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;

/// Kills a process and everything that it started.
pub(crate) fn kill_tree(root: u32) {
    kill(vec![root], &mut children());
}

/// Kills everything that a process started, and leaves the process itself.
pub(crate) fn kill_children(of: u32) {
    let mut all = children();
    kill(all.remove(&of).unwrap_or_default(), &mut all);
}

/// Every process's children.
fn children() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

fn kill(mut todo: Vec<u32>, children: &mut BTreeMap<u32, Vec<u32>>) {
    while let Some(pid) = todo.pop() {
        todo.extend(children.remove(&pid).unwrap_or_default());
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The process that started another one: the fourth field of its `stat`, counted behind the name, which may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_process_can_outlive_what_it_started() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60; sleep 0.1; exit 7"]).spawn().unwrap();
        let begun = Instant::now();
        while !children().contains_key(&shell.id()) && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_children(shell.id());
        assert_eq!(shell.wait().unwrap().code(), Some(7));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_shells_children_go_with_it() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60 & sleep 60; true"]).spawn().unwrap();
        let begun = Instant::now();
        let of = |pid: u32| {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            all.filter_map(|e| e.file_name().to_str()?.parse().ok())
                .filter(move |p| parent(*p) == Some(pid))
                .collect::<Vec<u32>>()
        };
        while of(shell.id()).len() < 2 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let children = of(shell.id());
        assert_eq!(children.len(), 2);
        kill_tree(shell.id());
        shell.wait().unwrap();
        let gone = |pid: u32| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z")
        };
        while !children.iter().all(|p| gone(*p)) && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(children.iter().all(|p| gone(*p)));
    }
}
