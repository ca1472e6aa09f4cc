//! Guards of kind `goal`, and the A/B steps that need one.

use crate::{close, env, read};
use lockgate_core::goal::Direction;
use lockgate_core::guard::GuardSpec;
use lockgate_core::plan::Step;

#[test]
fn a_goal_asks_for_a_gain_or_excludes_a_loss() {
    let text = |guard: &str| {
        format!(
            "project = \"p\"\n[guard.conversion]\nkind = \"goal\"\n{guard}\n[env.a]\nrollout = [\"a/b 50% for 7d\", \"100%\"]\n"
        )
    };
    let goal = |guard: &str| {
        let project = read(&text(guard));
        let GuardSpec::Goal(goal) = project.environment(&env("a")).unwrap().guards["conversion"].clone()
        else {
            panic!("a goal")
        };
        (goal, project.environment(&env("a")).unwrap().steps[0].clone())
    };
    let (usual, step) = goal("");
    assert_eq!((usual.metric.as_str(), usual.direction), ("outcome", Direction::Up));
    assert_eq!((usual.gain, usual.rollback_by, usual.least, usual.most), (0.0, 0.0, 0.0, 1.0));
    assert_eq!((usual.within_ms, step), (None, Step::ab(5_000, 7 * 86_400_000)));
    let (gain, _) =
        goal("metric = \"minutes\"\ndirection = \"down\"\nmin_gain = \"1%\"\nwithin = \"2d\"\nmax = 60");
    assert_eq!((gain.metric.as_str(), gain.direction, gain.most), ("minutes", Direction::Down, 60.0));
    assert!(close(gain.gain, 0.01) && gain.within_ms == Some(2 * 86_400_000));
    let (loss, _) = goal("max_loss = \"2%\"\nrollback_by = \"0.5%\"");
    assert!(close(loss.gain, -0.02) && close(loss.rollback_by, 0.005));
    for (guard, words) in [
        ("min_gain = \"1%\"\nmax_loss = \"1%\"", "not both"),
        ("max_loss = \"0%\"", "above 0%"),
        ("min_gain = \"100%\"", "below 100%"),
        ("max_loss = \"1%\"\nrollback_by = \"2%\"", "neither pass nor roll back"),
        ("min = 2", "`max` must be above `min`"),
        ("within = \"0s\"", "more than zero"),
        ("missing = 0", "needs `within`"),
        ("direction = \"left\"", "left"),
    ] {
        let wrong = lockgate_config::parse(&text(guard), "lockgate.toml").unwrap_err().to_string();
        assert!(wrong.contains(words), "{guard}: {wrong}");
    }
}

#[test]
fn an_ab_step_without_a_goal_is_refused() {
    let text = "project = \"p\"\n[env.a]\nrollout = [\"a/b 50% for 7d\", \"100%\"]\n";
    let wrong = lockgate_config::parse(text, "lockgate.toml").unwrap_err().to_string();
    assert!(wrong.contains("needs a guard of kind `goal`") && wrong.contains("POST /feedback"), "{wrong}");
}
