//! Places where a test lets this process die as by `kill -9`: in debug builds only, and only once each.
//!
//! `LOCKGATE_CRASH_AT=production:after-journal:rollback_decided` names environment, place and what is being written. A file in
//! the agent's folder remembers that it happened, so that the agent which is started again goes on.

use crate::home::Home;
use lockgate_core::id::EnvironmentName;

/// The variable that names the place.
#[cfg(debug_assertions)]
const VARIABLE: &str = "LOCKGATE_CRASH_AT";

/// Dies here, if a test wants it.
#[cfg(debug_assertions)]
pub(crate) fn point(home: &Home, environment: &EnvironmentName, place: &str, what: &str) {
    let here = format!("{environment}:{place}:{what}");
    if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == here) {
        let marker = home.path(&format!("crashed-{place}-{what}"));
        if !marker.exists() && std::fs::write(&marker, here).is_ok() {
            let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        }
    }
}

/// Nothing, in release builds.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &Home, _: &EnvironmentName, _: &str, _: &str) {}
