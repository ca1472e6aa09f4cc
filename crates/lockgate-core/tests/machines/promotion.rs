//! The server's machine under any commands in any order.

use crate::build::{START, any_kind, envelope, gate, instruction, person, plan, promotion_id};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::PromotionEvent;
use lockgate_core::gate::Outcome;
use lockgate_core::id::PrincipalId;
use lockgate_core::promotion::{CantDo, Command, Promotion, Stage};
use proptest::prelude::*;
use std::collections::BTreeSet;

const PEOPLE: [&str; 6] = ["author", "requester", "ann", "bob", "cy", "stranger"];

fn new() -> Promotion {
    let plan = plan(1, None, true);
    let hash = plan.hash().unwrap();
    Promotion::new(promotion_id(1), plan, hash, START)
}

fn any_command(hash: Digest) -> impl Strategy<Value = Command> {
    let hash = prop_oneof![9 => Just(hash), 1 => Just(Digest::of(b"another plan"))];
    let outcome = prop_oneof![9 => Just(Outcome::Pass), 1 => Just(Outcome::Fail), 1 => Just(Outcome::Error)];
    let name = prop_oneof![5 => Just("tests"), 5 => Just("quality"), 1 => Just("unknown")];
    let record =
        (name, outcome, hash.clone(), 0..2_u8).prop_map(|(name, outcome, plan_hash, n)| Command::Record {
            gate: gate(name),
            outcome,
            summary: "in words".to_owned(),
            plan_hash,
            envelope: envelope(&format!("{name} {outcome:?} {n}")),
        });
    let approve = (0..PEOPLE.len(), prop::bool::weighted(0.8), hash)
        .prop_map(|(n, human, plan_hash)| Command::Approve { by: person(PEOPLE[n]), human, plan_hash });
    prop_oneof![
        8 => record,
        8 => approve,
        8 => any::<bool>().prop_map(|slot_free| Command::Advance { slot_free }),
        1 => Just(Command::Reject { by: person("ann"), reason: "no".to_owned() }),
        1 => Just(Command::Cancel),
        1 => Just(Command::Supersede { by: promotion_id(2) }),
        1 => Just(Command::ServeAgain { after: promotion_id(2) }),
        1 => any_kind().prop_map(|kind| Command::Instruct(instruction(1, kind, START))),
    ]
}

/// Who may not approve whatever the machine thinks: I8.
fn excluded(by: &PrincipalId, human: bool) -> bool {
    !human || ["author", "requester", "stranger"].contains(&by.as_str())
}

fn check(
    before: &Promotion,
    command: &Command,
    events: &[PromotionEvent],
    now: Millis,
    yes: &mut BTreeSet<PrincipalId>,
) {
    if before.stage.is_terminal() {
        assert!(events.is_empty(), "{} came to life by {command:?}: {events:?}", before.stage.name());
    }
    if let (Command::Approve { by, human, plan_hash }, [_]) = (command, events) {
        assert!(!excluded(by, *human), "{by} must not approve");
        assert_eq!(*plan_hash, before.plan_hash, "approved another plan");
        assert!(yes.insert(by.clone()), "{by} counts twice");
    }
    for event in events {
        match event {
            PromotionEvent::GatesPassed => {
                let passed = |g| before.evidence.get(g).is_some_and(|e| e.outcome == Outcome::Pass);
                assert!(
                    before.plan.gates.keys().all(passed),
                    "passed without evidence (no evidence, no promotion)"
                );
            }
            PromotionEvent::ApprovalsComplete => assert!(yes.len() >= 2, "only {yes:?} said yes"),
            PromotionEvent::Released => {
                assert_eq!(*command, Command::Advance { slot_free: true }, "released without its slot (I1)");
                assert_eq!(before.stage, Stage::Queued);
                assert!(yes.len() >= 2);
            }
            PromotionEvent::Expired { .. } => assert!(now > before.since, "expired before its time"),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    /// No order of commands gets a release to traffic without every gate, two people who may, and a free slot.
    #[test]
    fn nothing_gets_in_by_any_order_of_commands(
        steps in prop::collection::vec((any_command(new().plan_hash), prop_oneof![20 => 0..1000_i64, 1 => Just(90_000_000_i64), 1 => Just(-3_600_000_i64)]), 1..60),
    ) {
        let (mut promotion, mut now, mut yes) = (new(), START, BTreeSet::new());
        let mut journal = Vec::new();
        for (command, after) in &steps {
            now += after;
            let before = promotion.clone();
            let Ok(events) = promotion.decide(command, now) else {
                prop_assert_eq!(&promotion, &before);
                continue;
            };
            check(&before, command, &events, now, &mut yes);
            for event in events {
                promotion.apply(&event, now);
                journal.push((event, now));
            }
            prop_assert!(promotion.approvals.iter().all(|a| a.plan_hash == promotion.plan_hash));
            prop_assert!(!(promotion.stage.holds_slot() && promotion.stage.is_terminal()));
            prop_assert_eq!(promotion.decide(command, now).ok().filter(|_| matches!(command, Command::Record { .. })).unwrap_or_default(), vec![]);
            let disk: Promotion = serde_json::from_str(&serde_json::to_string(&promotion).unwrap()).unwrap();
            prop_assert_eq!(&disk, &promotion);
        }
        let mut replayed = new();
        journal.iter().for_each(|(event, at)| replayed.apply(event, *at));
        prop_assert_eq!(replayed, promotion);
    }
}

fn passed() -> Promotion {
    let mut promotion = new();
    for name in ["tests", "quality"] {
        record(&mut promotion, name, Outcome::Pass);
    }
    go(&mut promotion, &Command::Advance { slot_free: true });
    assert_eq!(promotion.stage, Stage::AwaitingApproval);
    promotion
}

fn record(promotion: &mut Promotion, name: &str, outcome: Outcome) {
    let command = Command::Record {
        gate: gate(name),
        outcome,
        summary: String::new(),
        plan_hash: promotion.plan_hash,
        envelope: envelope(name),
    };
    go(promotion, &command);
}

fn go(promotion: &mut Promotion, command: &Command) {
    for event in promotion.decide(command, START).unwrap() {
        promotion.apply(&event, START);
    }
}

fn approve(
    promotion: &Promotion,
    by: &str,
    human: bool,
    plan_hash: Digest,
) -> Result<Vec<PromotionEvent>, CantDo> {
    promotion.decide(&Command::Approve { by: person(by), human, plan_hash }, START)
}

#[test]
fn the_requester_an_author_a_machine_and_a_stranger_can_not_approve() {
    let promotion = passed();
    let hash = promotion.plan_hash;
    for (who, human) in [("requester", true), ("author", true), ("ann", false), ("stranger", true)] {
        assert!(matches!(approve(&promotion, who, human, hash), Err(CantDo::Approver(_))), "{who}");
    }
    assert!(approve(&promotion, "ann", true, hash).is_ok());
    let other = Digest::of(b"the plan as it was yesterday");
    assert!(matches!(approve(&promotion, "ann", true, other), Err(CantDo::PlanChanged { .. })));
}

#[test]
fn one_person_twice_is_one_person() {
    let mut promotion = passed();
    let yes = Command::Approve { by: person("ann"), human: true, plan_hash: promotion.plan_hash };
    go(&mut promotion, &yes);
    assert!(promotion.decide(&yes, START).is_err());
    go(&mut promotion, &Command::Advance { slot_free: true });
    assert_eq!((promotion.stage.name(), promotion.approvals_missing()), ("awaiting-approval", 1));
}

#[test]
fn approvals_are_void_once_the_plan_or_the_evidence_is_another() {
    let mut promotion = passed();
    for who in ["ann", "bob"] {
        let yes = Command::Approve { by: person(who), human: true, plan_hash: promotion.plan_hash };
        go(&mut promotion, &yes);
    }
    assert_eq!(promotion.approvals_missing(), 0);
    let mut replanned = promotion.clone();
    replanned.plan_hash = Digest::of(b"another plan");
    assert_eq!(replanned.approvals_missing(), 2, "bound to the plan");
    let found = promotion.evidence.get_mut(&gate("quality")).unwrap();
    found.envelope = envelope("other numbers");
    assert_eq!(promotion.approvals_missing(), 2, "bound to the evidence");
    assert_eq!(promotion.decide(&Command::Advance { slot_free: true }, START).unwrap(), vec![]);
}

#[test]
fn a_gate_that_failed_or_could_not_run_never_passes_and_silence_expires() {
    for bad in [Outcome::Fail, Outcome::Error] {
        let mut promotion = new();
        record(&mut promotion, "tests", Outcome::Pass);
        record(&mut promotion, "quality", bad);
        go(&mut promotion, &Command::Advance { slot_free: true });
        assert!(matches!(promotion.stage, Stage::Rejected { .. }), "{:?}", promotion.stage);
    }
    let mut silent = new();
    record(&mut silent, "tests", Outcome::Pass);
    let late = START + silent.plan.gates_ms + 1;
    let events = silent.decide(&Command::Advance { slot_free: true }, late).unwrap();
    assert!(
        matches!(events.as_slice(), [PromotionEvent::Expired { missing }] if missing.contains("quality")),
        "{events:?}"
    );
}

#[test]
fn evidence_that_comes_after_the_people_have_looked_is_not_taken() {
    let promotion = passed();
    let late = Command::Record {
        gate: gate("quality"),
        outcome: Outcome::Pass,
        summary: String::new(),
        plan_hash: promotion.plan_hash,
        envelope: envelope("a second run"),
    };
    assert!(matches!(promotion.decide(&late, START), Err(CantDo::Evidence { .. })));
}

#[test]
fn a_gate_that_is_run_again_does_not_change_what_it_said() {
    let mut promotion = new();
    let first = promotion.plan.gates.keys().next().unwrap().clone();
    record(&mut promotion, first.as_str(), Outcome::Fail);
    let before = promotion.clone();
    let again = Command::Record {
        gate: first,
        outcome: Outcome::Pass,
        summary: String::new(),
        plan_hash: promotion.plan_hash,
        envelope: envelope("a second run, which went well"),
    };
    assert!(promotion.decide(&again, START).is_err());
    assert_eq!(promotion, before);
}
