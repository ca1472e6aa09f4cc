//! The scripts and their stories, and what one script alone can't show.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calm;
mod kills;
mod parts;
mod scripts;

use parts::parts;
