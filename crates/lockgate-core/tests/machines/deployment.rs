//! The agent's machine under anything that may happen.

use crate::build::{HOLD, PROBATION, broken, not_worse, promotion_id, revision};
use crate::run::{Act, Run, any_act};
use lockgate_core::event::InstructionKind;
use lockgate_core::gate::Outcome;
use lockgate_core::plan::{OnInconclusive, Revision};
use proptest::prelude::*;

const OFFER: Act = Act::Offer { backup: true, rollback_late: false };

/// A person says something about what is under way.
fn say(run: &mut Run, kind: InstructionKind) {
    if let Some(current) = run.deployment.active.as_ref().map(|a| a.promotion.clone()) {
        run.tell(&current, kind);
    }
}

/// From its preparation to the end of its probation a rollout keeps everything out of the gateway, and so does a drill.
#[test]
fn a_release_runs_inside_the_gateway_only_once_it_is_confirmed_and_alone() {
    let mut run = Run::new();
    let inside = |run: &Run| run.deployment.inline().map(Revision::digest);
    for n in 1..=2 {
        run.offer(true, OnInconclusive::Hold).unwrap();
        for _ in 0..6 {
            assert_eq!(inside(&run), None, "a rollout of {n}");
            run.after(HOLD, |seen| seen.judgement = not_worse());
        }
        assert!(run.deployment.on_probation().is_some() && inside(&run).is_none(), "the probation of {n}");
        run.after(PROBATION, |_| {});
        // Every second plan asks for it.
        assert_eq!(inside(&run), (n == 2).then(|| revision(n).digest()));
    }
    run.tell(&promotion_id(2), InstructionKind::Drill);
    assert!(run.deployment.drill.is_some() && inside(&run).is_none(), "a drill");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Every rule of [`crate::rules`] holds after every event, whatever is seen and said in whatever order.
    #[test]
    fn no_history_breaks_a_rule(acts in prop::collection::vec(any_act(), 1..120)) {
        let mut run = Run::new();
        acts.iter().for_each(|act| run.act(act));
    }

    /// There is no state that a deployment is caught in: once all is well it comes to rest and takes the next release.
    #[test]
    fn a_healthy_environment_comes_to_rest_and_takes_the_next_release(acts in prop::collection::vec(any_act(), 1..60)) {
        let mut run = Run::new();
        acts.iter().for_each(|act| run.act(act));
        run.smoke = Some(Outcome::Pass);
        say(&mut run, InstructionKind::Resume);
        // The clock may have been set back by hours: a step's time is over only once it has caught up.
        run.after(60 * PROBATION, |_| {});
        let well = |run: &mut Run| {
            (0..12).for_each(|_| {
                run.after(2 * HOLD, |seen| seen.judgement = not_worse());
                say(run, InstructionKind::Switch);
            });
        };
        well(&mut run);
        prop_assert!(run.deployment.active.is_none(), "it never ends: {:?}", run.deployment.active);
        run.act(&OFFER);
        well(&mut run);
        prop_assert_eq!(&run.deployment.serving.as_ref().unwrap().promotion, &promotion_id(run.offered));
        prop_assert_eq!(&run.deployment.failed_over, &None);
    }

    /// Where what serves stays broken, a good release can still take over: nobody is locked out by what failed.
    #[test]
    fn a_good_release_gets_in_where_the_old_one_stays_broken(acts in prop::collection::vec(any_act(), 1..60)) {
        let mut run = Run::new();
        acts.iter().for_each(|act| run.act(act));
        for _ in 0..4 {
            run.after(60 * PROBATION, |seen| {
                (seen.serving, seen.target) = (broken(), broken());
                seen.breaker = Some("it fails".to_owned());
            });
        }
        prop_assert!(run.deployment.active.is_none(), "it never ends: {:?}", run.deployment.active);
        run.smoke = Some(Outcome::Pass);
        run.act(&OFFER);
        for _ in 0..6 {
            run.after(2 * HOLD, |seen| (seen.judgement, seen.serving) = (not_worse(), broken()));
            say(&mut run, InstructionKind::Switch);
        }
        let events = run.events(&promotion_id(run.offered));
        prop_assert!(events.iter().any(|e| e == "promoted"), "locked out: {:?}", events);
    }
}
