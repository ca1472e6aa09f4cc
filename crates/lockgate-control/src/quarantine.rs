//! Quarantine: what went back for a fault of its own doesn't come again by itself, under whatever name (I9).

use crate::error::ControlError;
use crate::projection::{ReleaseState, State};
use crate::states::{self, Wanted};
use crate::view::PromotionRequest;
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::event::Cause;
use lockgate_core::id::PromotionId;
use lockgate_core::promotion::{Promotion, Stage};
use lockgate_store::Conn;
use std::collections::BTreeMap;

/// The stages in which a promotion may have left its release in quarantine.
const ENDED_BADLY: [&str; 3] = ["rolled-back", "on-backup", "stranded"];

/// Whether a promotion ended by a fault of its release's own.
fn is_fault(promotion: &Promotion) -> bool {
    match &promotion.stage {
        Stage::RolledBack { cause, .. } => !matches!(cause, Cause::Person { .. }),
        Stage::OnBackup | Stage::Stranded { .. } => true,
        _ => false,
    }
}

/// The promotion that left a release in quarantine, if one did: of the release itself or of another one with the same
/// content, such as a nightly retrain makes.
pub(crate) async fn find(
    conn: &mut Conn,
    release: &ReleaseState,
) -> Result<Option<PromotionId>, ControlError> {
    let content = release.manifest.content()?;
    let wanted = Wanted { stages: &ENDED_BADLY, ..Wanted::default() };
    let mut known: BTreeMap<Digest, bool> = [(release.digest, true)].into();
    for promotion in states::promotions(conn, &wanted).await?.iter().filter(|p| is_fault(p)) {
        let bad = promotion.plan.revision.release;
        let same = match known.get(&bad) {
            Some(same) => *same,
            None => {
                let found = conn.load_state("Release", &bad.to_string()).await?;
                match found.map(|row| states::read("Release", &row.state)).transpose()? {
                    Some(State::Release(bad)) => bad.manifest.content()? == content,
                    _ => false,
                }
            }
        };
        if same {
            return Ok(Some(promotion.id.clone()));
        }
        known.insert(bad, false);
    }
    Ok(None)
}

/// Why the quarantine is to be lifted, if it is.
///
/// # Errors
/// Where no reason is given.
pub(crate) fn reason(request: &PromotionRequest) -> Result<Option<&str>, ControlError> {
    match request.lift_quarantine.as_deref().map(str::trim) {
        Some("") => Err(ControlError::invalid("a quarantine is lifted for a reason, and none is given")
            .with_hint("say why: --lift-quarantine \"the fault was in the test data\"")),
        reason => Ok(reason),
    }
}

/// Why a quarantine stands in the way, if it does.
pub(crate) fn obstacle(
    quarantine: Option<&PromotionId>,
    release: &Digest,
    reason: Option<&str>,
    actor: &Actor,
) -> Option<String> {
    let id = quarantine?;
    let short = release.short();
    match reason {
        None => Some(format!(
            "release {short} or one with the same content was rolled back ({id}) and is quarantined; lift it with --lift-quarantine \"why\""
        )),
        Some(_) if !actor.is_human() => Some(format!(
            "release {short} is quarantined ({id}), and only a person may lift that; a machine account can't"
        )),
        Some(_) => None,
    }
}
