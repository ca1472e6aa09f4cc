//! I11: the journal is the truth. Kill anywhere, replay anything: the same state.

use crate::build::model;
use crate::run::{Act, Run, any_act};
use lockgate_core::rollout::Deployment;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// A life with kills ends as a life without: same state, same journal, nothing twice.
    #[test]
    fn kills_change_nothing(acts in prop::collection::vec(any_act(), 1..80)) {
        let (mut killed, mut spared) = (Run::new(), Run::new());
        spared.mortal = false;
        for act in &acts {
            killed.act(act);
            killed.kill();
            spared.act(act);
        }
        prop_assert_eq!(&killed.deployment, &spared.deployment);
        prop_assert_eq!(&killed.journal, &spared.journal);
    }

    /// Every prefix of the journal, written to disk and read again, replays to a state that goes on to the same end.
    #[test]
    fn any_prefix_replays(acts in prop::collection::vec(any_act(), 1..60), cut in any::<prop::sample::Index>()) {
        let mut run = Run::new();
        acts.iter().for_each(|act| run.act(act));
        let disk = serde_json::to_string(&run.journal).unwrap();
        let journal: Vec<crate::run::Line> = serde_json::from_str(&disk).unwrap();
        let cut = cut.index(journal.len() + 1);
        let mut replayed = Deployment::new(model());
        for (n, (promotion, event, at)) in journal.iter().enumerate() {
            if n == cut {
                replayed = serde_json::from_str(&serde_json::to_string(&replayed).unwrap()).unwrap();
            }
            replayed.apply(promotion, event, *at);
        }
        prop_assert_eq!(replayed, run.deployment);
    }

    /// An instruction that is on the server's list for longer is carried out once.
    #[test]
    fn an_instruction_that_is_repeated_has_no_second_effect(
        acts in prop::collection::vec(any_act(), 1..60),
        kind in crate::build::any_kind(),
    ) {
        let mut run = Run::new();
        acts.iter().for_each(|act| run.act(act));
        let newest = crate::build::promotion_id(run.offered);
        let instruction = run.tell(&newest, kind);
        let (state, lines) = (run.deployment.clone(), run.journal.len());
        (0..3).for_each(|_| run.obey(&newest, &instruction));
        // To roll back what serves, a newer release on its way up has to go back first; then comes its own turn.
        prop_assert!(run.journal.len() == lines, "{:?}", &run.journal[lines..]);
        prop_assert_eq!(&run.deployment, &state);
    }
}

#[test]
fn a_journal_may_be_killed_between_deciding_and_writing() {
    let mut run = Run::new();
    run.act(&Act::Offer { backup: true, rollback_late: false });
    let seen = crate::build::calm(run.now + 1);
    let decided = run.deployment.step(&seen);
    run.kill();
    assert_eq!(run.deployment.step(&seen), decided, "what was decided and not written is decided again");
}
