//! S1, many times: what is the same as the baseline is not sent back, and what is worse is, soon. With fixed seeds, and few enough
//! worlds for every run of the tests; `cargo xtask scenarios` plays thousands.

use crate::parts;
use lockgate_testkit::story::tell_all;

const SCRIPT: &str = "environment steps=25%/2m,100%/1m probation=1m deadline=20m
release v1 errors=0.1%
release v2 errors=2%
traffic 60/s
promote v1
run 3m
behave v1 errors=2%
promote v2
run 25m
";

#[test]
fn identical_releases_are_rarely_rolled_back_and_mostly_come_through() {
    const WORLDS: u64 = 40;
    let (mut back, mut through) = (0, 0);
    for seed in 0..WORLDS {
        let (_, world) = tell_all(SCRIPT, seed, parts());
        let world = world.unwrap();
        let second = world.journal().unwrap().last().unwrap().promotion.clone();
        match world.stage(&second).unwrap() {
            "rolled-back" => back += 1,
            "probation" | "confirmed" => through += 1,
            _ => {}
        }
    }
    // The stated error rate is 5 %: more than five of forty would come about once in seventy such tests.
    assert!(back <= 5, "{back} of {WORLDS} rolled back");
    assert!(through > WORLDS / 2, "only {through} of {WORLDS} came through");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let (first, second) = (tell_all(SCRIPT, 3, parts()).0, tell_all(SCRIPT, 3, parts()).0);
    assert_eq!(first, second);
    assert_ne!(first, tell_all(SCRIPT, 4, parts()).0);
}

const SHADOW: &str = "environment steps=shadow-100%/2m,100%/1m disagreement=5% probation=1m deadline=20m
release v1 errors=0.1%
release v2 errors=2% noise=5%
traffic 60/s
promote v1
run 3m
behave v1 errors=2% noise=5%
promote v2
run 25m
";

#[test]
fn identical_releases_come_through_a_shadow_too() {
    const WORLDS: u64 = 40;
    let (mut back, mut through) = (0, 0);
    for seed in 0..WORLDS {
        let world = tell_all(SHADOW, seed, parts()).1.unwrap();
        let second = world.journal().unwrap().last().unwrap().promotion.clone();
        match world.stage(&second).unwrap() {
            "rolled-back" => back += 1,
            "probation" | "confirmed" => through += 1,
            _ => {}
        }
    }
    assert!(back <= 5, "{back} of {WORLDS} rolled back");
    assert!(through > WORLDS / 2, "only {through} of {WORLDS} came through");
}

/// A script in which the candidate errs, up to ten minutes after it was asked for.
fn faulty(errors: &str) -> String {
    format!(
        "environment steps=5%/10m,100%/1m probation=10m
release v1 errors=0.1%
traffic 60/s
promote v1
run 15m
behave v1 errors=0.5%
traffic 20/s
release v2 errors={errors}
promote v2
run 10m
"
    )
}

#[test]
fn a_release_that_fails_is_gone_after_few_bad_answers() {
    const WORLDS: u64 = 20;
    for (errors, most_bad, most_seconds) in [("20%", 20, 90), ("100%", 12, 15)] {
        for seed in 0..WORLDS {
            let (story, world) = tell_all(&faulty(errors), seed, parts());
            let world = world.unwrap();
            let journal = world.journal().unwrap();
            assert_eq!(world.stage(&journal.last().unwrap().promotion), Some("rolled-back"), "{story}");
            let totals = world.totals("v2");
            let seconds = (journal.last().unwrap().at - totals.first_bad.unwrap()) / 1000;
            assert!(totals.bad_answers <= most_bad, "{} bad answers\n{story}", totals.bad_answers);
            assert!(seconds <= most_seconds, "{seconds} s\n{story}");
            assert_eq!(world.unanswered(), 0, "{story}");
        }
    }
}
