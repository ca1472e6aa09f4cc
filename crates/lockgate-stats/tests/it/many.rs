//! S52: many guards at once. Each of them alone would find a fault sooner or later; merged they keep the one budget.

use lockgate_stats::decision::{Budget, GuardEvidence, Look, Overall, Peaks, Role, Verdict, decide};
use lockgate_stats::thinning::{self, Segment, Side};

const GUARDS: usize = 200;
const LOOKS: usize = 60;
const ROLLOUTS: u64 = 100;

/// SplitMix64.
struct Seeded(u64);

impl Seeded {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One rollout of identical releases; every guard sees up to four events between two looks, a quarter of them the candidate's.
/// Gives back whether all together rolled it back, and whether any guard by itself would have.
fn rollout(seed: u64, worse: f64) -> (bool, bool) {
    let mut random = Seeded(seed);
    let mut segments = [Segment { weight: 0.25, candidate_events: 0, baseline_events: 0 }; GUARDS];
    let (mut peaks, mut any) = (Peaks::default(), false);
    for _ in 0..LOOKS {
        for (number, segment) in segments.iter_mut().enumerate() {
            let ratio = if number == 0 { worse } else { 1.0 };
            let share = 0.25 * ratio / (0.25 * ratio + 0.75);
            for _ in 0..(random.unit() * 5.0) as u64 {
                let is_candidate = random.unit() < share;
                segment.candidate_events += u64::from(is_candidate);
                segment.baseline_events += u64::from(!is_candidate);
            }
        }
        let guards: Vec<GuardEvidence> = segments
            .iter()
            .map(|s| GuardEvidence {
                weight: 1.0 / GUARDS as f64,
                role: Role::RollbackOnly,
                log_e_worse: thinning::log_e(&[*s], 1.0, Side::Worse),
                log_e_not_worse: 0.0,
                log_e_below_floor: None,
            })
            .collect();
        let look = Look { guards: &guards, log_e_sample_ratio: 0.0, min_bake_over: true, peaks };
        let decision = decide(&look, &Budget::default()).unwrap();
        peaks = decision.peaks;
        any |= decision.verdicts.contains(&Verdict::Worse);
        if decision.overall == Overall::Rollback {
            return (true, any);
        }
    }
    (false, any)
}

#[test]
fn two_hundred_guards_together_keep_the_budget() {
    let ends: Vec<(bool, bool)> = (0..ROLLOUTS).map(|seed| rollout(seed, 1.0)).collect();
    let together = ends.iter().filter(|(back, _)| *back).count();
    let alone = ends.iter().filter(|(_, any)| *any).count();
    // The budget is 5 %; more than ten of a hundred would come about once in a hundred such tests.
    assert!(together <= 10, "{together} of {ROLLOUTS} identical releases went back");
    assert!(
        alone > 50,
        "only {alone} of {ROLLOUTS} would have gone back by a single guard: the test shows nothing"
    );
    // And one guard of two hundred that sees a real fault is heard.
    let heard = (0..20).filter(|seed| rollout(*seed, 5.0).0).count();
    assert!(heard >= 19, "a fault that one guard sees went back in {heard} of 20 rollouts only");
}
