//! One `up` for a state folder: it holds a lock for its life, so that nobody takes another process for it.

use anyhow::Context as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A look at the lock takes it for a moment, so a new `up` tries this often.
const TRIES: u32 = 20;

const PAUSE: Duration = Duration::from_millis(25);

fn path(state: &Path) -> PathBuf {
    state.join("up.lock")
}

/// Who holds the lock of a state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody: no `up` runs.
    Nobody,
    /// The `up` with this process id.
    Process(u32),
    /// An `up` that can't be seen from here: in another container, or of another person.
    Unseen,
}

/// The lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct UpLock {
    file: File,
}

impl UpLock {
    /// Takes the lock; none where another `up` holds it.
    pub(crate) fn take(state: &Path) -> anyhow::Result<Option<Self>> {
        let path = path(state);
        std::fs::create_dir_all(state).with_context(|| format!("can't make {}", state.display()))?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("can't write {}", path.display()))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    file.set_len(0)
                        .and_then(|()| write!(file, "{}", std::process::id()))
                        .with_context(|| format!("can't write {}", path.display()))?;
                    return Ok(Some(Self { file }));
                }
                Err(TryLockError::WouldBlock) if held_shortly(state) => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("can't lock {}", path.display()));
                }
            }
        }
        Ok(None)
    }
}

impl Drop for UpLock {
    fn drop(&mut self) {
        // The number means nothing without the lock; it goes so that nobody wonders.
        let _ = self.file.set_len(0);
    }
}

/// Whether the lock may be free in a moment: its holder is no `up` that can be named.
fn held_shortly(state: &Path) -> bool {
    !matches!(holder(state), Holder::Process(_))
}

/// Who holds the lock.
pub(crate) fn holder(state: &Path) -> Holder {
    let path = path(state);
    let Ok(file) = File::open(&path) else { return Holder::Nobody };
    // Two looks at the same time don't disturb each other.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return Holder::Nobody,
    }
    // A new `up` writes its number right after it has the lock, so an old one may still stand there for a moment.
    for _ in 0..4 {
        let said = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(pid) = said.trim().parse().ok().filter(|pid| has_open(*pid, &path)) {
            return Holder::Process(pid);
        }
        std::thread::sleep(PAUSE);
    }
    Holder::Unseen
}

/// Whether a process has this file open. A process that only got the number of one that is gone has not.
fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_the_lock_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), Holder::Nobody);
        // What a killed `up` leaves behind: its number, which another process may have by now.
        std::fs::write(path(dir.path()), std::process::id().to_string()).unwrap();
        assert_eq!(holder(dir.path()), Holder::Nobody);
    }

    #[test]
    fn the_lock_is_held_once_and_names_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let lock = UpLock::take(dir.path()).unwrap().unwrap();
        assert_eq!(holder(dir.path()), Holder::Process(std::process::id()));
        assert!(UpLock::take(dir.path()).unwrap().is_none());
        drop(lock);
        assert_eq!(holder(dir.path()), Holder::Nobody);
        assert!(UpLock::take(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_process_that_does_not_have_the_file_open_is_never_named() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = UpLock::take(dir.path()).unwrap().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(path(dir.path()), other.id().to_string()).unwrap();
        assert_eq!(holder(dir.path()), Holder::Unseen);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_look_does_not_keep_a_new_up_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "").unwrap();
        let look = File::open(path(dir.path())).unwrap();
        look.try_lock_shared().unwrap();
        let state = dir.path().to_owned();
        let taken = std::thread::spawn(move || UpLock::take(&state).unwrap().is_some());
        std::thread::sleep(PAUSE);
        drop(look);
        assert!(taken.join().unwrap());
    }
}
