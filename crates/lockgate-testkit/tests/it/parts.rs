//! The real parts of the simulated world: the gateway's assignment and counting, the agent's judge.

use lockgate_agent::judge::Goals;
use lockgate_agent::look::{Judged, breaker, candidate_totals};
use lockgate_core::guard::Judgement;
use lockgate_core::rollout::Deployment;
use lockgate_core::route::Role;
use lockgate_gateway::assign::is_candidate;
use lockgate_gateway::ledger::{Counted, Ledger};
use lockgate_gateway::{ErrorClass, GatewayOptions};
use lockgate_stats::decision::Peaks;
use lockgate_testkit::world::{Counting, Failure, Parts, Request, Seen};

/// One rollout's counts with what was largest so far.
#[derive(Debug)]
struct Real {
    ledger: Ledger,
    peaks: Peaks,
}

impl Counting for Real {
    fn record(&mut self, one: &Request) {
        let counted = Counted {
            weight: one.weight,
            arm: if one.is_candidate { Role::Candidate } else { Role::Baseline },
            unit: one.unit,
            named: one.named,
            started_us: one.started_us,
            latency_us: one.latency_us,
            error: match one.failure {
                Some(Failure::Error) => Some(ErrorClass::Http5xx),
                Some(Failure::NotANumber) => Some(ErrorClass::Nonfinite),
                Some(Failure::Unreachable) => Some(ErrorClass::Connect),
                Some(Failure::Refused) | None => None,
            },
            refused: one.failure == Some(Failure::Refused),
            answer: one.answer,
        };
        if one.is_mirrored {
            self.ledger.record_mirrored(&counted);
        } else {
            self.ledger.record(&counted);
        }
    }

    fn compared(&mut self, candidate: bool, second: bool) {
        self.ledger.compared(candidate, second);
    }

    fn is_open(&self) -> bool {
        self.ledger.is_open()
    }

    fn look(&mut self, deployment: &Deployment) -> Seen {
        let stats = self.ledger.stats();
        let (requests, errors) = candidate_totals(&stats, false);
        let judgement = match Judged::of(deployment) {
            None => Judgement::none(),
            Some(judged) => {
                if let Some(thresholds) = judged.thresholds(&stats) {
                    self.ledger.set_thresholds(thresholds);
                }
                judged.judge(Some(&stats), &Goals::default(), &mut self.peaks)
            }
        };
        Seen { judgement, breaker: breaker(&stats), requests, errors }
    }
}

/// The parts that the product has.
pub(crate) fn parts() -> Parts {
    Parts {
        assign: is_candidate,
        counting: |salt| {
            let options = GatewayOptions::new(([127, 0, 0, 1], 0).into(), "simulated");
            let ledger = Ledger::new(salt, options.breaker, options.warmup);
            Box::new(Real { ledger, peaks: Peaks::default() })
        },
    }
}
