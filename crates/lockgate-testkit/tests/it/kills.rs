//! S31: the agent is killed at every point at which it can be. The end is the same as without.

use crate::parts;
use lockgate_core::event::RolloutEvent;
use lockgate_testkit::story::tell_all;
use lockgate_testkit::world::World;

fn script(kill: &str) -> String {
    format!(
        "environment steps=25%/2m,100%/1m probation=1m gateways=3 backup=rules
release rules errors=0.2%
release v1 errors=0.2%
release v2 errors=12%
traffic 40/s
gateway 3 lag=1s
promote v1
run 10m
{kill}
promote v2
run 5m
"
    )
}

const POINTS: [&str; 9] = [
    "before-journal",
    "after-journal",
    "flip-0",
    "flip-1",
    "flip-2",
    "flip-3",
    "after-acks",
    "before-seal",
    "after-seal",
];

/// The kinds of all events of the second promotion.
fn events(world: &World) -> Vec<String> {
    let journal = world.journal().unwrap();
    let second = journal.last().unwrap().promotion.clone();
    let of = |e: &RolloutEvent| serde_json::to_value(e).unwrap()["what"].as_str().unwrap().to_owned();
    journal.iter().filter(|l| l.promotion == second).map(|l| of(&l.event)).collect()
}

fn ended(kill: &str) -> (String, World) {
    let (story, world) = tell_all(&script(kill), 5, parts());
    (story, world.unwrap())
}

#[test]
fn wherever_the_agent_dies_the_rollback_ends_the_same_and_each_step_is_on_record_once() {
    let (story, spared) = ended("");
    let expected = events(&spared);
    let all =
        ["started", "step_entered", "step_settled", "rollback_decided", "rollback_applied", "rolled_back"];
    assert_eq!(expected, all, "{story}");
    for point in POINTS {
        let (story, world) = ended(&format!("kill {point}"));
        assert!(story.contains("is killed"), "{point} was never reached:\n{story}");
        assert_eq!(events(&world), expected, "{point}:\n{story}");
        assert_eq!(world.routes(), "v1", "{point}:\n{story}");
        assert!(world.is_mirrored(), "{point}:\n{story}");
        assert_eq!(world.unanswered(), 0, "while the agent is dead its gateways go on; {point}:\n{story}");
    }
}

/// The time of death doesn't matter either: a kill every so often all through a rollout that succeeds.
#[test]
fn a_rollout_that_succeeds_does_so_under_one_kill_after_the_other() {
    let mut script = "environment steps=25%/2m,100%/1m probation=2m
release v1 errors=0.2%
release v2 errors=0.2%
traffic 60/s
promote v1
run 10m
promote v2
"
    .to_owned();
    for _ in 0..20 {
        script.push_str("run 61s\nkill now\n");
    }
    script.push_str("run 20m\n");
    let (story, world) = tell_all(&script, 5, parts());
    let world = world.unwrap();
    assert_eq!(world.routes(), "v2", "{story}");
    assert!(events(&world).ends_with(&["promoted".to_owned(), "confirmed".to_owned()]), "{story}");
    assert_eq!(events(&world).iter().filter(|e| *e == "step_entered").count(), 2, "{story}");
}
