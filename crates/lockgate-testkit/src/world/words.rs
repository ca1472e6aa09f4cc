//! Events as sentences.

use super::place::short;
use super::{Line, Release};
use lockgate_core::digest::Digest;
use lockgate_core::event::RolloutEvent;
use lockgate_core::promotion::Stage;
use lockgate_core::route::WHOLE;
use std::collections::BTreeMap;

/// A release by the name that the script gave it.
pub(crate) fn name<'a>(digest: &Digest, releases: &'a BTreeMap<String, Release>) -> &'a str {
    releases.values().find(|r| r.digest == *digest).map_or("nothing", |r| r.name.as_str())
}

/// A share of the traffic.
pub(crate) fn percent(weight: u32) -> String {
    format!("{}%", f64::from(weight) * 100.0 / f64::from(WHOLE))
}

/// What an agent's event says; nothing where it says nothing new.
pub(crate) fn of_event(line: &Line, releases: &BTreeMap<String, Release>) -> Option<String> {
    let words = match &line.event {
        RolloutEvent::Started { plan } => format!("prepares {}", name(&plan.revision.release, releases)),
        RolloutEvent::Aborted { reason } => format!("aborts: {reason}"),
        RolloutEvent::StepEntered { step, weight, shadow, judgement, .. } => {
            let proof = judgement.as_ref().map(|j| {
                let words: Vec<&str> =
                    j.readings.iter().filter(|r| r.required).map(|r| r.summary.as_str()).collect();
                format!(" ({})", words.join("; "))
            });
            let what = match shadow {
                0 if *weight == 0 => "preview".to_owned(),
                0 => format!("{} of the traffic", percent(*weight)),
                parts => format!("shadow {}", percent(*parts)),
            };
            format!("step {}: {what}{}", step + 1, proof.unwrap_or_default())
        }
        RolloutEvent::StepSettled { .. } => return None,
        RolloutEvent::Held { reason, .. } => format!("holds: {reason}"),
        RolloutEvent::Paused { instruction } => format!("pauses, as {} said", instruction.by),
        RolloutEvent::Resumed { instruction } => format!("goes on, as {} said", instruction.by),
        RolloutEvent::Smoked(smoked) => format!("smoke test: {:?}: {}", smoked.outcome, smoked.summary),
        RolloutEvent::SwitchAllowed { instruction } => format!("may switch, as {} said", instruction.by),
        RolloutEvent::Promoted { .. } => "serves everything, on probation".to_owned(),
        RolloutEvent::Confirmed => "is confirmed".to_owned(),
        RolloutEvent::RollbackDecided { cause, target, .. } => {
            let target = target.as_ref().map_or("nothing", |t| name(&t.release, releases));
            format!("goes back to {target}: {}", cause.summary())
        }
        RolloutEvent::RollbackApplied { took_ms } => format!("every gateway has it, after {took_ms} ms"),
        RolloutEvent::RolledBack(seal) => format!(
            "rolled back, as was seen; it had {} requests, {} of them bad",
            seal.candidate_requests, seal.candidate_errors
        ),
        RolloutEvent::FailoverDecided { summary, .. } => format!("fails over: {summary}"),
        RolloutEvent::OnBackup => "the backup serves; a person is needed".to_owned(),
        RolloutEvent::Stranded { summary } => format!("is stranded: {summary}"),
        RolloutEvent::DrillStarted { target, .. } => format!("drills {}", name(&target.release, releases)),
        RolloutEvent::DrillRefused { reason, .. } => format!("can't be drilled: {reason}"),
        RolloutEvent::DrillApplied { took_ms, .. } => {
            format!("drill: every gateway has it, after {took_ms} ms")
        }
        RolloutEvent::DrillTurned { failed: Some(why), .. } => format!("drill failed, goes home: {why}"),
        RolloutEvent::DrillTurned { .. } => "drill: goes home".to_owned(),
        RolloutEvent::DrillEnded { .. } => "drill: is home".to_owned(),
    };
    Some(format!("{} {words}", short(&line.promotion)))
}

/// What the server says about a stage.
pub(crate) fn of_stage(stage: &Stage) -> String {
    match stage {
        Stage::Rejected { reason } => format!("rejected: {reason}"),
        Stage::Expired { missing } => format!("expired: {missing}"),
        Stage::Superseded { by } => format!("superseded by {}", short(by)),
        other => other.name().to_owned(),
    }
}
