//! Exit codes: stable, so that CI can act on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Something is wrong.
    Error = 1,
    /// Changes are pending.
    Pending = 2,
    /// A gate failed.
    GateFailed = 3,
    /// It waits for approval.
    AwaitingApproval = 4,
    /// It was rolled back.
    RolledBack = 5,
    /// It is held, or expired.
    Held = 6,
    /// The command line was wrong.
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
