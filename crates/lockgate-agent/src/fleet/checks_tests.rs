use super::*;
use proptest::prelude::*;

fn status(state: WorkerState, (returns, doubts): Life) -> WorkerStatus {
    WorkerStatus { state, pid: None, restarts: 0, returns, doubts }
}

fn ready(life: Life) -> WorkerStatus {
    status(WorkerState::Ready, life)
}

fn away(returns: u64) -> WorkerStatus {
    status(WorkerState::Away { last_error: "no such version".to_owned() }, (returns, 0))
}

fn indices(due: Vec<(usize, Life)>) -> Vec<usize> {
    due.into_iter().map(|(index, _)| index).collect()
}

#[test]
fn one_address_that_is_down_keeps_no_other_out() {
    let (mut checks, now) = (Checks::new(2, true), Instant::now());
    let all = [away(0), ready((1, 0))];
    assert_eq!(checks.due(&all, now), [(1, (1, 0))]);
    assert!(checks.failed(&all).is_none());
    checks.note(1, (1, 0), Said::Right, now);
    assert!(checks.is_good() && checks.may_serve(1, &all[1]) && !checks.may_serve(0, &all[0]));
    assert_eq!(checks.due(&all, now), []);
    assert_eq!(checks.troubles(&all).collect::<Vec<_>>(), [(0, "no such version")]);
}

#[test]
fn an_address_that_comes_back_gets_nothing_before_it_has_answered_again() {
    let (mut checks, now) = (Checks::new(1, true), Instant::now());
    checks.note(0, (1, 0), Said::Right, now);
    assert!(!checks.may_serve(0, &away(1)));
    let back = ready((2, 0));
    assert!(!checks.may_serve(0, &back));
    assert_eq!(checks.due(std::slice::from_ref(&back), now), [(0, (2, 0))]);
    checks.note(0, (2, 0), Said::Wrong("another model".to_owned()), now);
    assert_eq!(checks.failed(std::slice::from_ref(&back)).as_deref(), Some("another model"));
    // Somebody may mend it without a word.
    let later = now + WRONG_AGAIN;
    assert!(checks.due(std::slice::from_ref(&back), now).is_empty());
    assert_eq!(indices(checks.due(std::slice::from_ref(&back), later)), [0]);
    checks.note(0, (2, 0), Said::Right, later);
    assert!(checks.may_serve(0, &back) && checks.failed(&[back]).is_none());
}

#[test]
fn one_that_was_silent_for_a_moment_serves_on_while_it_is_asked_again() {
    let (mut checks, now) = (Checks::new(1, true), Instant::now());
    checks.note(0, (1, 0), Said::Right, now);
    let faltered = ready((1, 1));
    assert!(checks.may_serve(0, &faltered));
    assert_eq!(checks.due(std::slice::from_ref(&faltered), now), [(0, (1, 1))]);
    // Busy is not wrong.
    checks.note(0, (1, 1), Said::Busy("503".to_owned()), now);
    assert!(checks.may_serve(0, &faltered));
    checks.note(0, (1, 1), Said::Wrong("other".to_owned()), now);
    assert!(!checks.may_serve(0, &faltered));
}

#[test]
fn a_revision_fails_only_when_nothing_is_open_any_more() {
    let (mut checks, now) = (Checks::new(2, true), Instant::now());
    let starting = status(WorkerState::Starting, (0, 0));
    checks.note(0, (1, 0), Said::Wrong("other".to_owned()), now);
    assert!(checks.failed(&[ready((1, 0)), starting]).is_none());
    assert!(checks.failed(&[ready((1, 0)), ready((1, 0))]).is_none());
    assert!(checks.failed(&[ready((1, 0)), away(0)]).is_some());
    // What was wrong and went may be right when it is back.
    assert!(checks.failed(&[away(1), away(0)]).is_none());
    checks.note(1, (1, 0), Said::Right, now);
    assert!(checks.failed(&[ready((1, 0)), ready((1, 0))]).is_none());
}

#[test]
fn workers_that_are_started_here_are_asked_once_when_all_are_ready() {
    let (mut checks, mut now) = (Checks::new(2, false), Instant::now());
    let all = [ready((0, 0)), ready((0, 0))];
    assert!(checks.due(&[all[0].clone(), status(WorkerState::Starting, (0, 0))], now).is_empty());
    assert_eq!(indices(checks.due(&all, now)), [0]);
    checks.note(0, (0, 0), Said::Right, now);
    assert!(checks.due(&all, now).is_empty());
    // The gateway passes over the one that is not there, without a new table.
    assert!(checks.may_serve(0, &all[0]) && checks.may_serve(1, &status(WorkerState::Starting, (0, 0))));
    let mut checks = Checks::new(1, false);
    for times in 0..BUSY_MOST {
        assert_eq!(indices(checks.due(&all[..1], now)), [0], "{times}");
        checks.note(0, (0, 0), Said::Busy("503".to_owned()), now);
        assert!(checks.due(&all[..1], now).is_empty(), "not at once");
        now += BUSY.1;
    }
    assert!(checks.due(&all[..1], now).is_empty());
    assert!(checks.failed(&all[..1]).unwrap().contains("503, 8 times in a row"));
}

/// What may happen to one address.
#[derive(Debug, Clone)]
enum Event {
    Away,
    Back,
    Falter,
    Asked(Said),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Away),
        Just(Event::Back),
        Just(Event::Falter),
        Just(Event::Asked(Said::Right)),
        Just(Event::Asked(Said::Wrong("w".to_owned()))),
        Just(Event::Asked(Said::Busy("b".to_owned()))),
        (0_u64..40_000).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Whatever happens, only what is ready and whose latest answer since it came back was right gets requests; and whatever is
    /// ready and not known to be right is asked again within a bounded time.
    #[test]
    fn nothing_serves_that_has_not_proved_itself_since_it_came_back(events in proptest::collection::vec(event(), 0..40)) {
        let (mut checks, mut now) = (Checks::new(1, true), Instant::now());
        let mut seen = away(0);
        let mut proved = None;
        for event in events {
            match event {
                Event::Away => {
                    seen.state = away(0).state;
                    proved = None;
                }
                Event::Back if seen.state != WorkerState::Ready => {
                    seen.state = WorkerState::Ready;
                    seen.returns += 1;
                }
                Event::Back => {}
                Event::Falter => seen.doubts += u64::from(seen.state == WorkerState::Ready),
                Event::Asked(said) => {
                    if let Some((index, life)) = checks.due(std::slice::from_ref(&seen), now).pop() {
                        match &said {
                            Said::Right => proved = Some(true),
                            Said::Wrong(_) => proved = Some(false),
                            Said::Busy(_) => {}
                        }
                        checks.note(index, life, said, now);
                    }
                }
                Event::Wait(ms) => now += Duration::from_millis(ms),
            }
            prop_assert_eq!(checks.may_serve(0, &seen), proved == Some(true));
            let later = now + WRONG_AGAIN;
            let due = !checks.due(std::slice::from_ref(&seen), later).is_empty();
            if seen.state == WorkerState::Ready && proved != Some(true) {
                prop_assert!(due);
            }
        }
    }
}
