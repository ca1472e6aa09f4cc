//! Keeps an agent, and every process that it starts, out of the other environments' folders (Landlock).
//!
//! Landlock grants, it can't forbid: so everything beside the path down to the fenced folder is granted, and inside that
//! folder the agent's own home only. What is made beside that path later is out of reach, which is the safe side.

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus,
};
use std::path::{Path, PathBuf};

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
        // A link that leads nowhere, or a file that vanished meanwhile, needs no rule.
        let Ok(fd) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { all } else { AccessFs::from_file(WANTED) };
        rules =
            rules.add_rule(PathBeneath::new(fd, access)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let status = rules.restrict_self().map_err(|e| e.to_string())?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            "own folder, own key, own process; the kernel keeps the other environments' folders out of reach (Landlock)".to_owned()
        }
        RulesetStatus::NotEnforced => {
            "own folder, own key, own process; this kernel has no Landlock, so only file modes keep the folders apart".to_owned()
        }
    })
}

/// Everything beside the path from the root down to `fence`.
fn beside(fence: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in fence.ancestors().skip(1) {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if !fence.starts_with(&path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}
