//! Keeps an agent, and every process that it starts, out of the other environments' folders (Landlock).
//!
//! Landlock grants, it can't forbid: so everything beside the path down to the fenced folder is granted, and inside that
//! folder the agent's own home only. What is made beside that path later is out of reach, which is the safe side.

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Files and folders outside the agent's own folder that no gate's program may read either.
static SECRETS: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// The version of Landlock that is asked for; on an older kernel what it knows of it is used.
const WANTED: ABI = ABI::V5;

/// Fences the calling thread, and all that it starts, off from everything in `fence` but `home`. To be called before other
/// threads are started. Says in words what holds now.
///
/// # Errors
/// Where a path can't be opened or the kernel refuses the rules.
pub fn enclose(fence: &Path, home: &Path) -> Result<String, String> {
    let fence = fence.canonicalize().map_err(|e| format!("{}: {e}", fence.display()))?;
    let home = home.canonicalize().map_err(|e| format!("{}: {e}", home.display()))?;
    if !home.starts_with(&fence) {
        return Err(format!("{} is not inside {}", home.display(), fence.display()));
    }
    let all = AccessFs::from_all(WANTED);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(Ruleset::create)
        .map_err(|e| e.to_string())?;
    for path in beside(&fence).map_err(|e| e.to_string())?.into_iter().chain([home.clone()]) {
        // A file that vanished meanwhile needs no rule.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { all } else { AccessFs::from_file(WANTED) };
        rules =
            rules.add_rule(PathBeneath::new(fd, access)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let status = rules.restrict_self().map_err(|e| e.to_string())?;
    Ok(format!("own folder, own key, own process; {}; {}", words(&status.ruleset), gates()))
}

/// How far the fence holds. An old Landlock lets something through: links out of a folder, truncation, devices.
fn words(status: &RulesetStatus) -> &'static str {
    match status {
        RulesetStatus::FullyEnforced => {
            "the kernel keeps the other environments' folders out of reach (Landlock)"
        }
        RulesetStatus::PartiallyEnforced => {
            "the kernel keeps the other environments' folders out of reach only in part (an old Landlock)"
        }
        RulesetStatus::NotEnforced => {
            "this kernel has no Landlock, so only file modes keep the folders apart"
        }
    }
}

/// How far the commands of gates are kept from what is the agent's own, in words.
#[must_use]
pub fn gates() -> &'static str {
    crate::gates::confine::words()
}

/// Names what no gate's program may read, beside the agent's folder: its token and the keys that it trusts, where they lie
/// elsewhere. To be called once, at start.
pub fn hide(paths: Vec<PathBuf>) {
    // A second call would be another agent in this process; its folder is hidden all the same.
    let _ = SECRETS.set(paths);
}

/// What was hidden.
pub(crate) fn hidden() -> &'static [PathBuf] {
    SECRETS.get().map_or(&[], Vec::as_slice)
}

/// Everything beside the path from the root down to `fence`, but links: where one leads is granted by its own name, or must not
/// be granted, as a link to a folder on that path would grant what is fenced.
fn beside(fence: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in fence.ancestors().skip(1) {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if !fence.starts_with(&path) && !entry.file_type()?.is_symlink() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_that_holds_in_part_does_not_count_as_whole() {
        let (whole, part) = (words(&RulesetStatus::FullyEnforced), words(&RulesetStatus::PartiallyEnforced));
        assert!(!whole.contains("in part") && part.contains("only in part"));
        assert!(words(&RulesetStatus::NotEnforced).contains("no Landlock"));
    }

    #[test]
    fn a_link_to_a_folder_above_the_fence_is_not_granted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let fence = root.join("runs/1/state");
        std::fs::create_dir_all(&fence).unwrap();
        std::fs::create_dir(root.join("runs/0")).unwrap();
        std::os::unix::fs::symlink(root.join("runs/1"), root.join("runs/current")).unwrap();
        let found = beside(&fence).unwrap();
        assert!(found.contains(&root.join("runs/0")));
        assert!(!found.iter().any(|p| fence.starts_with(p.canonicalize().unwrap())), "{found:?}");
    }
}
