//! Commands, and what follows from them.

use super::{Promotion, Stage};
use crate::clock::Millis;
use crate::digest::Digest;
use crate::event::{Instruction, InstructionKind, PromotionEvent};
use crate::gate::{Envelope, Outcome};
use crate::id::{GateName, PrincipalId, PromotionId};

/// What can be asked of a promotion.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Take a gate's verified evidence in.
    Record {
        /// The gate.
        gate: GateName,
        /// How it ended.
        outcome: Outcome,
        /// The finding's sentence.
        summary: String,
        /// The plan that the finding is bound to.
        plan_hash: Digest,
        /// The signed statement.
        envelope: Envelope,
    },
    /// A person says yes to this plan.
    Approve {
        /// Who.
        by: PrincipalId,
        /// Whether a human being.
        human: bool,
        /// The plan that the person saw.
        plan_hash: Digest,
    },
    /// A person says no.
    Reject {
        /// Who.
        by: PrincipalId,
        /// Why.
        reason: String,
    },
    /// Its requester takes it back.
    Cancel,
    /// A newer promotion takes its place.
    Supersede {
        /// The newer one.
        by: PromotionId,
    },
    /// Its release serves again, as the agent reported: what replaced it went back.
    ServeAgain {
        /// The promotion that went back.
        after: PromotionId,
    },
    /// Go on if time or conditions say so.
    Advance {
        /// Whether no other promotion of this environment and model moves traffic.
        slot_free: bool,
    },
    /// A person tells the rollout something.
    Instruct(Instruction),
}

/// A command that a promotion can't follow, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CantDo {
    /// The stage doesn't allow it.
    #[error("this promotion is {stage}, so it can't be {what}")]
    Stage {
        /// Where it stands.
        stage: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// Evidence for something else.
    #[error("the evidence for gate `{gate}` can't be taken: {why}")]
    Evidence {
        /// The gate.
        gate: GateName,
        /// Why not.
        why: String,
    },
    /// A rollout's event that can't follow from what the agent reported before.
    #[error("the report can't be taken: {0}")]
    Report(String),
    /// The person may not approve.
    #[error("{0}")]
    Approver(String),
    /// The plan changed since.
    #[error("the plan has changed since you saw it (now {now}): look at it again")]
    PlanChanged {
        /// The present plan's short hash.
        now: String,
    },
}

impl Promotion {
    /// Why `who` may not approve, if so.
    fn approver_refused(&self, who: &PrincipalId, human: bool) -> Option<String> {
        let rule = self.plan.approval.as_ref()?;
        if !human {
            return Some("only people approve; a machine account can't".to_owned());
        }
        if rule.not_author && *who == self.plan.requester {
            return Some("you asked for this promotion, so somebody else must approve it".to_owned());
        }
        if rule.not_author && self.plan.authors.contains(who) {
            return Some("you are an author of this release, so somebody else must approve it".to_owned());
        }
        if !rule.from.is_empty() && !rule.from.contains(who) {
            return Some(format!(
                "you are not in {}, whose approval this environment asks for",
                rule.groups.join(", ")
            ));
        }
        if self.approvals.iter().any(|a| a.by == *who) {
            return Some("you have approved it already; it needs different people".to_owned());
        }
        None
    }

    /// What follows from `command` at `now`. No event means: nothing changes.
    ///
    /// # Errors
    /// Where the command can't be followed; the promotion stays as it is.
    pub fn decide(&self, command: &Command, now: Millis) -> Result<Vec<PromotionEvent>, CantDo> {
        let stage = |what| CantDo::Stage { stage: self.stage.name(), what };
        match command {
            Command::Record { gate, outcome, summary, plan_hash, envelope } => {
                self.decide_record(gate, *outcome, summary, *plan_hash, envelope)
            }
            Command::Approve { by, human, plan_hash } => {
                if self.stage != Stage::AwaitingApproval {
                    return Err(stage("approved"));
                }
                if *plan_hash != self.plan_hash {
                    return Err(CantDo::PlanChanged { now: self.plan_hash.short() });
                }
                if let Some(why) = self.approver_refused(by, *human) {
                    return Err(CantDo::Approver(why));
                }
                let evidence = self.evidence_digest();
                Ok(vec![PromotionEvent::Approved { by: by.clone(), plan_hash: *plan_hash, evidence }])
            }
            Command::Reject { by: _, reason } => match self.stage {
                Stage::Gating | Stage::AwaitingApproval | Stage::Queued => {
                    Ok(vec![PromotionEvent::Rejected { reason: reason.clone() }])
                }
                _ => Err(stage("rejected (use abort or rollback once traffic has moved)")),
            },
            Command::Cancel => match self.stage {
                Stage::Gating | Stage::AwaitingApproval | Stage::Queued => {
                    Ok(vec![PromotionEvent::Cancelled])
                }
                _ => Err(stage("cancelled")),
            },
            Command::Supersede { by } => match self.stage {
                Stage::Gating | Stage::AwaitingApproval | Stage::Queued | Stage::Probation { .. } => {
                    Ok(vec![PromotionEvent::Superseded { by: by.clone() }])
                }
                _ => Err(stage("superseded")),
            },
            Command::ServeAgain { after } => match self.stage {
                Stage::Superseded { .. } if self.entered.is_none() => Err(stage("what serves again")),
                Stage::Superseded { .. } | Stage::Probation { .. } => {
                    Ok(vec![PromotionEvent::ServesAgain { after: after.clone() }])
                }
                _ => Ok(vec![]),
            },
            Command::Advance { slot_free } => Ok(self.decide_advance(*slot_free, now)),
            Command::Instruct(instruction) => {
                let fits = match instruction.kind {
                    InstructionKind::Pause | InstructionKind::Resume => {
                        matches!(self.stage, Stage::Rolling { .. })
                    }
                    InstructionKind::Abort => {
                        matches!(self.stage, Stage::Rolling { .. } | Stage::RollingBack { .. })
                    }
                    InstructionKind::Switch => self.waits_for_switch(),
                    InstructionKind::Drill => {
                        self.stage == Stage::Confirmed && self.asked_to_drill(now).is_none()
                    }
                    InstructionKind::Rollback => {
                        matches!(
                            self.stage,
                            Stage::Rolling { .. } | Stage::Probation { .. } | Stage::Confirmed
                        )
                    }
                };
                if !fits {
                    return Err(stage(match instruction.kind {
                        InstructionKind::Pause => "paused",
                        InstructionKind::Resume => "resumed",
                        InstructionKind::Abort => "aborted",
                        InstructionKind::Rollback => "rolled back",
                        InstructionKind::Drill => {
                            "drilled (only what serves and is confirmed can be, by one drill at a time)"
                        }
                        InstructionKind::Switch => {
                            "switched (a preview waits for that where it is `by hand` or past its deadline, once its smoke test has passed)"
                        }
                    }));
                }
                Ok(vec![PromotionEvent::Instructed { instruction: instruction.clone() }])
            }
        }
    }

    fn decide_record(
        &self,
        gate: &GateName,
        outcome: Outcome,
        summary: &str,
        plan_hash: Digest,
        envelope: &Envelope,
    ) -> Result<Vec<PromotionEvent>, CantDo> {
        let refuse = |why: &str| CantDo::Evidence { gate: gate.clone(), why: why.to_owned() };
        if !self.plan.gates.contains_key(gate) {
            return Err(refuse("the plan has no such gate"));
        }
        if plan_hash != self.plan_hash {
            return Err(refuse("it is bound to another plan"));
        }
        if self.evidence.get(gate).is_some_and(|e| e.envelope == *envelope) {
            return Ok(vec![]);
        }
        if self.stage != Stage::Gating {
            return Err(refuse("the promotion's gates are closed"));
        }
        if self.evidence.contains_key(gate) {
            // Otherwise a gate that sometimes fails would only have to be run often enough.
            return Err(refuse("the gate has left its evidence already, and the first counts"));
        }
        Ok(vec![PromotionEvent::EvidenceRecorded {
            gate: gate.clone(),
            outcome,
            summary: summary.to_owned(),
            envelope: envelope.clone(),
        }])
    }

    fn decide_advance(&self, slot_free: bool, now: Millis) -> Vec<PromotionEvent> {
        match &self.stage {
            Stage::Gating => {
                let failed = self.evidence.iter().find(|(_, e)| e.outcome != Outcome::Pass);
                let missing = self.missing_gates();
                if let (Some((gate, e)), true) = (failed, missing.is_empty()) {
                    let verb =
                        if e.outcome == Outcome::Error { "could not be carried out" } else { "failed" };
                    return vec![PromotionEvent::Rejected {
                        reason: format!("gate `{gate}` {verb}: {}", e.summary),
                    }];
                }
                if missing.is_empty() {
                    return vec![PromotionEvent::GatesPassed];
                }
                if now - self.since > self.plan.gates_ms {
                    let names: Vec<&str> = missing.iter().map(GateName::as_str).collect();
                    return vec![PromotionEvent::Expired {
                        missing: format!("no evidence from {}", names.join(", ")),
                    }];
                }
                vec![]
            }
            Stage::AwaitingApproval => {
                let ttl = self.plan.approval.as_ref().map_or(i64::MAX, |rule| rule.ttl_ms);
                if self.approvals_missing() == 0 {
                    vec![PromotionEvent::ApprovalsComplete]
                } else if now - self.since > ttl {
                    vec![PromotionEvent::Expired {
                        missing: format!("{} approval(s)", self.approvals_missing()),
                    }]
                } else {
                    vec![]
                }
            }
            Stage::Queued if slot_free => vec![PromotionEvent::Released],
            _ => vec![],
        }
    }
}
