//! Why a promotion stands where it stands: the answer, the numbers, and what happened in order.

use crate::Control;
use crate::drill;
use crate::error::ControlError;
use crate::overview::next_after_why;
use crate::people::{Names, named};
use crate::projection::source_time;
use crate::view::{PromotionView, TimelineView, WhyView};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::rfc3339;
use lockgate_core::entry::{Effect, Entry, ResourceKind};
use lockgate_core::event::{Event, InstructionKind, PromotionEvent, RolloutEvent, Seal, Smoked};
use lockgate_core::gate::Outcome;
use lockgate_core::guard::Verdict;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::Step;
use lockgate_core::promotion::{Promotion, Stage};
use lockgate_core::route::WHOLE;

/// How many entries are read at a time.
pub(crate) const PAGE: u32 = 1000;

impl Control {
    /// Explains a promotion.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn why(&self, actor: &Actor, id: &PromotionId) -> Result<WhyView, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        let promotion = self.load_promotion(id).await?;
        let names = self.names().await?;
        let timeline = self
            .entries_of(ResourceKind::Promotion, id.as_str())
            .await?
            .iter()
            .map(|entry| TimelineView {
                at: source_time(entry),
                by: who(&names, entry),
                what: sentence(entry),
                seq: entry.seq,
            })
            .collect();
        let answer = answer(&promotion);
        let view = self.view_promotion(&promotion, &names, &self.siblings(&promotion).await?);
        let view = PromotionView { next: next_after_why(&promotion), ..view };
        Ok(WhyView { promotion: view, answer, timeline })
    }

    /// All entries about one resource.
    pub(crate) async fn entries_of(&self, kind: ResourceKind, id: &str) -> Result<Vec<Entry>, ControlError> {
        let id = id.to_owned();
        self.store
            .read(move |conn| {
                Box::pin(async move {
                    let mut all: Vec<Entry> = Vec::new();
                    loop {
                        let from = all.last().map_or(0, |e| e.seq + 1);
                        let page = conn.entries_for(kind, &id, from, PAGE).await?;
                        if page.is_empty() {
                            return Ok::<_, ControlError>(all);
                        }
                        all.extend(page);
                    }
                })
            })
            .await
    }
}

fn who(names: &Names, entry: &Entry) -> String {
    match &entry.source {
        Some(source) => format!("agent of {}", source.agent),
        None => named(names, &entry.actor.id),
    }
}

fn answer(p: &Promotion) -> String {
    let subject = format!("{} v{} → {}", p.plan.model, p.plan.revision.model_version, p.plan.environment);
    match &p.stage {
        Stage::RolledBack { cause, seal } => format!(
            "{subject} was rolled back because {}. It answered {}; the last request went to it {} ms after the decision.",
            cause.summary(),
            answered(seal),
            seal.last_request_ms
        ),
        Stage::RollingBack { cause } => format!("{subject} is going back because {}.", cause.summary()),
        Stage::Rejected { reason } => format!("{subject} was rejected: {reason}."),
        Stage::Expired { missing } => format!("{subject} expired: {missing}."),
        Stage::AwaitingApproval => format!("{subject} waits for {} approval(s).", p.approvals_missing()),
        Stage::Gating => format!("{subject} is in its gates; {} to go.", p.missing_gates().len()),
        Stage::Queued => format!("{subject} waits until no other promotion moves this model's traffic."),
        Stage::Rolling { rollout } => match &rollout.held {
            Some(held) => format!("{subject} is held: {}.", held.reason),
            None => format!("{subject} has {}.", step_words(rollout.weight, rollout.shadow)),
        },
        Stage::Probation { .. } | Stage::Confirmed => {
            let steps = &p.plan.rollout.steps;
            let guards = if steps.iter().any(|step| step.ab) {
                "before every larger step each required guard proved it not worse, and in the A/B test every goal was met"
            } else if steps.iter().any(Step::is_judged) {
                "before every larger step each required guard proved it not worse"
            } else if steps.iter().any(Step::is_preview) {
                match &p.plan.rollout.smoke {
                    Some(_) => {
                        "its smoke test passed in the preview; then all traffic switched to it at once, without a comparison"
                    }
                    None => {
                        "after its preview all traffic switched to it at once, without a smoke test or a comparison"
                    }
                }
            } else if p.plan.control().is_some() {
                "all traffic moved at once, as its plan says, without a comparison"
            } else {
                "there was nothing to compare its traffic with, so only absolute bounds watched it"
            };
            let gates = match p.plan.gates.len() {
                0 => "its plan asks for no gates here".to_owned(),
                1 => "the one gate of its plan passed".to_owned(),
                n => format!("all {n} gates of its plan passed"),
            };
            format!("{subject} serves: {gates}, and {guards}.")
        }
        Stage::Superseded { by } => format!("{subject} was replaced by {by}."),
        Stage::Cancelled => format!("{subject} was taken back."),
        Stage::FailingOver => format!("{subject}: the backup is taking over."),
        Stage::OnBackup => format!("{subject}: the backup serves, because neither side could."),
        Stage::Stranded { summary } => format!("{subject}: nothing can serve: {summary}."),
    }
}

/// A step's traffic in words.
fn step_words(weight: u32, shadow: u32) -> String {
    let percent = |parts: u32| f64::from(parts) * 100.0 / f64::from(WHOLE);
    match (weight, shadow) {
        (0, 0) => "no user yet: it is warm, and only testers reach it (preview)".to_owned(),
        (weight, 0) => format!("{}% of the traffic", percent(weight)),
        (_, parts) => format!("{}% of the requests mirrored to it, and no user", percent(parts)),
    }
}

/// How many requests a candidate answered, and what that count leaves out, where it does.
fn answered(seal: &Seal) -> String {
    let since = seal.counted_since.map_or_else(String::new, |at| {
        format!(" since the agent was started again ({}; earlier ones are not counted)", rfc3339(at))
    });
    format!("{} requests{since}, {} of them badly", seal.candidate_requests, seal.candidate_errors)
}

/// What an entry says, as a sentence.
pub(crate) fn sentence(entry: &Entry) -> String {
    if entry.effect == Effect::Deny {
        return format!("refused {}: {}", entry.action, entry.reason);
    }
    let text = match &entry.event {
        Some(Event::Promotion(event)) => promotion_sentence(event),
        Some(Event::Rollout(event)) => format!("{}{}", rollout_sentence(event), proof(event)),
        Some(Event::ReleaseCreated { digest, .. }) => format!("made release {}", digest.short()),
        Some(Event::ConfigurationApplied { digest, .. }) => {
            format!("applied configuration {}", digest.short())
        }
        Some(Event::AgentEnrolled { key }) => format!("the agent made its key {} known", key.id().short()),
        Some(Event::Worker(event)) => match event {
            lockgate_core::event::WorkerEvent::Lost { model, worker, how, .. } => {
                format!("worker {worker} of {model} was lost: {how}")
            }
            lockgate_core::event::WorkerEvent::Back { model, worker, after_ms, .. } => {
                format!("worker {worker} of {model} came back after {after_ms} ms")
            }
        },
        None => entry.action.clone(),
    };
    // A person's no says its reason by itself.
    let said = entry.reason.is_empty() || text.ends_with(&entry.reason);
    if said { text } else { format!("{text} ({})", entry.reason) }
}

fn promotion_sentence(event: &PromotionEvent) -> String {
    match event {
        PromotionEvent::Planned { plan, plan_hash } => {
            let gates = match plan.gates.len() {
                0 => "no gates".to_owned(),
                1 => "1 gate".to_owned(),
                n => format!("{n} gates"),
            };
            format!("asked for it, by plan {} with {gates}", plan_hash.short())
        }
        PromotionEvent::EvidenceRecorded { gate, outcome, summary, .. } => {
            let verb = match outcome {
                Outcome::Pass => "passed",
                Outcome::Fail => "FAILED",
                Outcome::Error => "could not be carried out",
            };
            format!("gate `{gate}` {verb}: {summary}")
        }
        PromotionEvent::GatesPassed => "every gate has passed".to_owned(),
        PromotionEvent::Approved { plan_hash, .. } => format!("approved plan {}", plan_hash.short()),
        PromotionEvent::ApprovalsComplete => "has every approval that it needs".to_owned(),
        PromotionEvent::Released => "may roll out".to_owned(),
        PromotionEvent::Rejected { reason } => format!("rejected: {reason}"),
        PromotionEvent::Expired { missing } => format!("expired: {missing}"),
        PromotionEvent::Superseded { by } => format!("replaced by {by}"),
        PromotionEvent::ServesAgain { after } => format!(
            "serves again, because {after} went back; if it was on probation, that had ended when it was replaced"
        ),
        PromotionEvent::Cancelled => "taken back".to_owned(),
        PromotionEvent::Instructed { instruction } => match instruction.kind {
            InstructionKind::Pause => "told it to pause".to_owned(),
            InstructionKind::Resume => "told it to go on".to_owned(),
            InstructionKind::Abort => "told it to abort".to_owned(),
            InstructionKind::Rollback => "told it to roll back".to_owned(),
            InstructionKind::Switch => "told it to switch".to_owned(),
            InstructionKind::Drill => "asked for a drill".to_owned(),
        },
    }
}

/// The numbers that a move forward rests on.
fn proof(event: &RolloutEvent) -> String {
    let judgement = match event {
        RolloutEvent::StepEntered { judgement, .. } | RolloutEvent::Promoted { judgement, .. } => {
            judgement.as_ref()
        }
        _ => None,
    };
    let required = judgement.into_iter().flat_map(|j| &j.readings).filter(|r| r.required);
    let readings: Vec<String> = required
        .map(|r| {
            let verdict = match r.verdict {
                Verdict::Worse => "worse",
                Verdict::NotWorse if r.goal.as_ref().is_some_and(|goal| goal.gain >= 0.0) => "better",
                Verdict::NotWorse => "not worse",
                Verdict::Unknown => "unknown",
            };
            format!("{} {verdict} ({})", r.guard, r.summary)
        })
        .collect();
    if readings.is_empty() { String::new() } else { format!("; {}", readings.join("; ")) }
}

/// What a rollout's event says, as a sentence.
pub(crate) fn rollout_sentence(event: &RolloutEvent) -> String {
    match event {
        RolloutEvent::Started { .. } => {
            "verified all evidence with its own keys and began to prepare".to_owned()
        }
        RolloutEvent::Aborted { reason } => format!("gave up before any traffic moved: {reason}"),
        RolloutEvent::Smoked(Smoked { outcome, summary, .. }) => {
            let verb = match outcome {
                Outcome::Pass => "passed",
                Outcome::Fail => "FAILED",
                Outcome::Error => "could not be carried out",
            };
            format!("the smoke test {verb}: {summary}")
        }
        RolloutEvent::SwitchAllowed { .. } => "may switch".to_owned(),
        RolloutEvent::StepEntered { step, weight, shadow, .. } => {
            format!("step {}: {}", step + 1, step_words(*weight, *shadow))
        }
        RolloutEvent::StepSettled { step } => format!("every gateway has applied step {}", step + 1),
        RolloutEvent::Held { reason, .. } => format!("held: {reason}"),
        RolloutEvent::Paused { .. } => "paused".to_owned(),
        RolloutEvent::Resumed { .. } => "went on".to_owned(),
        RolloutEvent::Promoted { .. } => "serves all traffic; probation begins".to_owned(),
        RolloutEvent::Confirmed => "confirmed".to_owned(),
        RolloutEvent::RollbackDecided { cause, .. } => format!("decided to go back: {}", cause.summary()),
        RolloutEvent::RollbackApplied { took_ms } => {
            format!("every gateway has applied the way back, {took_ms} ms after the decision")
        }
        RolloutEvent::RolledBack(seal) => format!(
            "rolled back: last request to it {} ms after the decision, seen to be zero after {} ms; it had answered {}",
            seal.last_request_ms,
            seal.verified_ms,
            answered(seal)
        ),
        RolloutEvent::FailoverDecided { summary, .. } => {
            format!("what it would go back to is broken too: {summary}")
        }
        RolloutEvent::OnBackup => "the backup serves".to_owned(),
        RolloutEvent::Stranded { summary } => format!("nothing can serve: {summary}"),
        RolloutEvent::DrillStarted { target, .. } => format!(
            "a drill began: all traffic to v{} ({}) and home again",
            target.model_version,
            target.release.short()
        ),
        RolloutEvent::DrillRefused { reason, .. } => format!("there was no drill: {reason}"),
        RolloutEvent::DrillApplied { took_ms, .. } => {
            format!("drill: every gateway had sent everything there {took_ms} ms after the decision")
        }
        RolloutEvent::DrillTurned { failed: Some(why), .. } => {
            format!("the drill FAILED, traffic goes home: {why}")
        }
        RolloutEvent::DrillTurned { .. } => "drill: enough was seen, traffic goes home".to_owned(),
        RolloutEvent::DrillEnded { drilled } => format!("the drill {}", drill::words(drilled)),
    }
}
