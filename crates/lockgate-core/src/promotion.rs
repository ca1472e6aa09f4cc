//! The promotion's state machine: `decide` says what follows from a command, `apply` carries an event out. Both are pure.
//!
//! ```text
//! Gating ──all pass──▶ AwaitingApproval ──quorum──▶ Queued ──slot free──▶ Rolling ──▶ Probation ──▶ Confirmed
//!   │ any fail ▶ Rejected      │ no ▶ Rejected        │ newer ▶ Superseded  │            │
//!   └ too late ▶ Expired       └ too late ▶ Expired   └ taken back ▶ Cancelled└─ RollingBack ─▶ RolledBack │ FailingOver …
//! ```

use crate::clock::Millis;
use crate::digest::Digest;
use crate::event::{Cause, Instruction, InstructionKind, PromotionEvent, RolloutEvent};
use crate::gate::{Envelope, Outcome};
use crate::guard::Judgement;
use crate::id::{GateName, PrincipalId, PromotionId};
use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where a promotion stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Its gates are being run.
    Gating,
    /// It waits for people.
    AwaitingApproval,
    /// It waits for its turn.
    Queued,
    /// The agent prepares the release or moves traffic.
    Rolling {
        /// The rollout as far as the agent reported it.
        rollout: RolloutView,
    },
    /// The release serves all traffic and is still watched.
    Probation {
        /// When probation ends.
        until: Millis,
    },
    /// The release is what the environment serves.
    Confirmed,
    /// It never entered.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Nothing decided it in time.
    Expired {
        /// What was missing.
        missing: String,
    },
    /// A newer promotion took its place.
    Superseded {
        /// The newer one.
        by: PromotionId,
    },
    /// It was taken back.
    Cancelled,
    /// Traffic is going back.
    RollingBack {
        /// Why.
        cause: Cause,
    },
    /// Traffic went back, as was seen.
    RolledBack {
        /// Why.
        cause: Cause,
        /// Milliseconds from the decision to the last request that went to the candidate.
        last_request_ms: i64,
        /// Milliseconds from the decision until it was verified.
        verified_ms: i64,
        /// Requests that the candidate answered.
        candidate_requests: u64,
        /// Bad answers among them.
        candidate_errors: u64,
    },
    /// The target of the rollback is broken too.
    FailingOver,
    /// The backup serves; a person is needed.
    OnBackup,
    /// Nothing can serve; a person is needed.
    Stranded {
        /// What was seen.
        summary: String,
    },
}

impl Stage {
    /// The word for people, tables and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gating => "gating",
            Self::AwaitingApproval => "awaiting-approval",
            Self::Queued => "queued",
            Self::Rolling { .. } => "rolling",
            Self::Probation { .. } => "probation",
            Self::Confirmed => "confirmed",
            Self::Rejected { .. } => "rejected",
            Self::Expired { .. } => "expired",
            Self::Superseded { .. } => "superseded",
            Self::Cancelled => "cancelled",
            Self::RollingBack { .. } => "rolling-back",
            Self::RolledBack { .. } => "rolled-back",
            Self::FailingOver => "failing-over",
            Self::OnBackup => "on-backup",
            Self::Stranded { .. } => "stranded",
        }
    }

    /// Whether the promotion still waits for something before its release serves all traffic, or is on its way back.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Gating
                | Self::AwaitingApproval
                | Self::Queued
                | Self::Rolling { .. }
                | Self::RollingBack { .. }
                | Self::FailingOver
        )
    }

    /// Whether it holds the environment's and model's one slot for moving traffic (I1). Probation doesn't.
    #[must_use]
    pub fn holds_slot(&self) -> bool {
        matches!(self, Self::Rolling { .. } | Self::RollingBack { .. } | Self::FailingOver)
    }

    /// Whether nothing can follow any more. (What was replaced may serve again, if what replaced it goes back.)
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Rejected { .. }
                | Self::Expired { .. }
                | Self::Superseded { .. }
                | Self::Cancelled
                | Self::RolledBack { .. }
                | Self::OnBackup
                | Self::Stranded { .. }
        )
    }
}

/// A rollout as the server knows it from the agent's reports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RolloutView {
    /// The step, from 0; none while the release is being prepared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<usize>,
    /// The candidate's share in parts of [`crate::route::WHOLE`].
    pub weight: u32,
    /// Why it doesn't move, where it doesn't.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<String>,
    /// What the guards said last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub judgement: Option<Judgement>,
}

/// What one gate left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// How it ended.
    pub outcome: Outcome,
    /// The finding's sentence.
    pub summary: String,
    /// The signed statement.
    pub envelope: Envelope,
    /// When it arrived.
    pub at: Millis,
}

/// One person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: PrincipalId,
    /// The plan that was approved.
    pub plan_hash: Digest,
    /// Digest over the evidence that was seen.
    pub evidence: Digest,
    /// When.
    pub at: Millis,
}

/// One promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// Its id.
    pub id: PromotionId,
    /// What it will do.
    pub plan: Plan,
    /// The plan's hash: evidence and approvals are bound to it.
    pub plan_hash: Digest,
    /// Where it stands.
    #[serde(flatten)]
    pub stage: Stage,
    /// What its gates left.
    pub evidence: BTreeMap<GateName, Evidence>,
    /// Who said yes.
    pub approvals: Vec<Approval>,
    /// What people told the rollout, until the agent has done it.
    pub instructions: Vec<Instruction>,
    /// When it was asked for.
    pub created: Millis,
    /// When the present stage began.
    pub since: Millis,
    /// When its release first had a share of the traffic, by the agent's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub moved: Option<Millis>,
    /// When its release entered: first served all traffic, by the agent's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entered: Option<Millis>,
}

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
    /// A new promotion.
    #[must_use]
    pub fn new(id: PromotionId, plan: Plan, plan_hash: Digest, now: Millis) -> Self {
        Self {
            id,
            plan,
            plan_hash,
            stage: Stage::Gating,
            evidence: BTreeMap::new(),
            approvals: Vec::new(),
            instructions: Vec::new(),
            created: now,
            since: now,
            moved: None,
            entered: None,
        }
    }

    /// Whether its release has entered the environment through every gate and did not have to go back since: what a later
    /// environment asks for. A promotion that was replaced before it rolled has proven nothing.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        let stands =
            matches!(self.stage, Stage::Probation { .. } | Stage::Confirmed | Stage::Superseded { .. });
        stands && self.entered.is_some() && self.missing_gates().is_empty()
    }

    /// The gates that have no evidence yet.
    #[must_use]
    pub fn missing_gates(&self) -> Vec<GateName> {
        self.plan.gates.keys().filter(|g| !self.evidence.contains_key(*g)).cloned().collect()
    }

    /// Digest over all evidence: what an approval is bound to beside the plan.
    #[must_use]
    pub fn evidence_digest(&self) -> Digest {
        let parts: Vec<Digest> = self.evidence.values().map(|e| e.envelope.digest()).collect();
        let bytes: Vec<&[u8]> = parts.iter().map(|d| d.as_bytes().as_slice()).collect();
        Digest::of_parts(&bytes)
    }

    /// How many more people must say yes.
    #[must_use]
    pub fn approvals_missing(&self) -> u32 {
        let valid: BTreeSet<&PrincipalId> = self
            .approvals
            .iter()
            .filter(|a| a.plan_hash == self.plan_hash && a.evidence == self.evidence_digest())
            .map(|a| &a.by)
            .collect();
        let have = u32::try_from(valid.len()).unwrap_or(u32::MAX);
        self.plan.approval.as_ref().map_or(0, |rule| rule.count.saturating_sub(have))
    }

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

    /// Carries an event out.
    pub fn apply(&mut self, event: &PromotionEvent, now: Millis) {
        let next = match event {
            PromotionEvent::Planned { .. } => None,
            PromotionEvent::EvidenceRecorded { gate, outcome, summary, envelope } => {
                let evidence = Evidence {
                    outcome: *outcome,
                    summary: summary.clone(),
                    envelope: envelope.clone(),
                    at: now,
                };
                self.evidence.insert(gate.clone(), evidence);
                None
            }
            PromotionEvent::GatesPassed if self.plan.approval.is_some() => Some(Stage::AwaitingApproval),
            PromotionEvent::GatesPassed | PromotionEvent::ApprovalsComplete => Some(Stage::Queued),
            PromotionEvent::Approved { by, plan_hash, evidence } => {
                self.approvals.push(Approval {
                    by: by.clone(),
                    plan_hash: *plan_hash,
                    evidence: *evidence,
                    at: now,
                });
                None
            }
            PromotionEvent::Released => Some(Stage::Rolling { rollout: RolloutView::default() }),
            PromotionEvent::Rejected { reason } => Some(Stage::Rejected { reason: reason.clone() }),
            PromotionEvent::Expired { missing } => Some(Stage::Expired { missing: missing.clone() }),
            PromotionEvent::Superseded { by } => Some(Stage::Superseded { by: by.clone() }),
            PromotionEvent::ServesAgain { .. } => Some(Stage::Confirmed),
            PromotionEvent::Cancelled => Some(Stage::Cancelled),
            PromotionEvent::Instructed { instruction } => {
                // What was said last holds: an older one that the agent had no use for must not come up again.
                let forward = |k| matches!(k, InstructionKind::Pause | InstructionKind::Resume);
                self.instructions.retain(|i| !(forward(i.kind) && forward(instruction.kind)));
                self.instructions.push(instruction.clone());
                None
            }
        };
        self.enter(next, now);
    }

    /// Follows what the agent reports about the rollout; `now` is the agent's time. Whether the event fits is asked before
    /// ([`Promotion::check_report`]).
    pub fn follow(&mut self, event: &RolloutEvent, now: Millis) {
        match event {
            RolloutEvent::StepEntered { .. } => self.moved = self.moved.or(Some(now)),
            RolloutEvent::Promoted { .. } => self.entered = self.entered.or(Some(now)),
            _ => {}
        }
        let next = match event {
            RolloutEvent::Started { .. } => None,
            RolloutEvent::Aborted { reason } => Some(Stage::Rejected { reason: reason.clone() }),
            RolloutEvent::StepEntered { step, weight, judgement, .. } => Some(Stage::Rolling {
                rollout: RolloutView {
                    step: Some(*step),
                    weight: *weight,
                    held: None,
                    judgement: judgement.clone(),
                },
            }),
            RolloutEvent::StepSettled { .. } => None,
            RolloutEvent::Held { reason, judgement } => {
                self.with_rollout(|r| (r.held, r.judgement) = (Some(reason.clone()), Some(judgement.clone())))
            }
            RolloutEvent::Paused { instruction } => {
                self.done(instruction);
                let words = if instruction.reason.is_empty() { "" } else { ": " };
                self.with_rollout(|r| r.held = Some(format!("paused{words}{}", instruction.reason)))
            }
            RolloutEvent::Resumed { instruction } => {
                self.done(instruction);
                self.with_rollout(|r| r.held = None)
            }
            RolloutEvent::Promoted { probation_until, .. } => {
                Some(Stage::Probation { until: *probation_until })
            }
            RolloutEvent::Confirmed => Some(Stage::Confirmed),
            RolloutEvent::RollbackDecided { cause, instruction, .. } => {
                self.instructions.retain(|i| Some(&i.id) != instruction.as_ref());
                Some(Stage::RollingBack { cause: cause.clone() })
            }
            RolloutEvent::RollbackApplied { .. } => None,
            RolloutEvent::RolledBack {
                last_request_ms,
                verified_ms,
                candidate_requests,
                candidate_errors,
            } => {
                let cause = match &self.stage {
                    Stage::RollingBack { cause } => cause.clone(),
                    _ => Cause::Unhealthy { summary: String::new() },
                };
                Some(Stage::RolledBack {
                    cause,
                    last_request_ms: *last_request_ms,
                    verified_ms: *verified_ms,
                    candidate_requests: *candidate_requests,
                    candidate_errors: *candidate_errors,
                })
            }
            RolloutEvent::FailoverDecided { .. } => Some(Stage::FailingOver),
            RolloutEvent::OnBackup => Some(Stage::OnBackup),
            RolloutEvent::Stranded { summary } => Some(Stage::Stranded { summary: summary.clone() }),
        };
        self.enter(next, now);
    }

    fn done(&mut self, instruction: &Instruction) {
        self.instructions.retain(|i| i.id != instruction.id);
    }

    fn with_rollout(&self, change: impl FnOnce(&mut RolloutView)) -> Option<Stage> {
        let Stage::Rolling { rollout } = &self.stage else { return None };
        let mut rollout = rollout.clone();
        change(&mut rollout);
        Some(Stage::Rolling { rollout })
    }

    fn enter(&mut self, next: Option<Stage>, now: Millis) {
        let Some(next) = next else { return };
        if next.name() != self.stage.name() {
            self.since = now;
        }
        self.stage = next;
        if self.stage.is_terminal() {
            self.instructions.clear();
        }
    }
}
