use super::*;
use crate::predictions::PredictionLog;
use crate::testing::{ab, goal};
use lockgate_core::digest::Digest;
use lockgate_core::goal::GoalSpec;
use lockgate_core::id::ModelName;
use lockgate_gateway::{BodyForm, DrawnFor, FeedbackCall, Protocol, TellStatus, Told};
use lockgate_wire::feedback::{Item, Outcome};
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::sync::mpsc;

const FIRST: &str = "pr_01M8AY7JZFMHB6BY6FXZAJM001";
const AT: i64 = 1_795_663_580_143;

struct Fixed;

impl Clock for Fixed {
    fn now_ms(&self) -> i64 {
        AT + 5_000
    }
}

fn plan() -> RolloutPlan {
    ab(goal())
}

fn id(number: u64) -> String {
    format!("01M8AY7JZFMHB6BY6FXZAJM{number:03}")
}

fn record(number: u64, salt: &str) -> LogRecord {
    let arm = if number.is_multiple_of(2) { Role::Candidate } else { Role::Baseline };
    LogRecord {
        id: id(number),
        at_ms: AT,
        model: Arc::new(ModelName::new("toy").unwrap()),
        release: Digest::of(b"release"),
        revision: Digest::of(b"revision"),
        assigned: arm,
        served: Some(arm),
        unit: None,
        status: 200,
        latency_us: 700,
        protocol: Protocol::Oip,
        request: None,
        request_form: BodyForm::default(),
        response: None,
        response_form: BodyForm::default(),
        request_id: None,
        unexamined: None,
        forced: None,
        drawn: Some(DrawnFor { salt: salt.into(), weight: 5_000, arm, unit: number }),
    }
}

/// An environment's feedback with its log.
struct Bench {
    dir: tempfile::TempDir,
    promotion: PromotionId,
    plan: RolloutPlan,
}

struct Running {
    outcomes: Arc<Outcomes>,
    records: SyncSender<LogRecord>,
    calls: mpsc::Sender<FeedbackCall>,
    keeper: tokio::task::JoinHandle<()>,
    writer: std::thread::JoinHandle<()>,
}

impl Bench {
    fn new() -> Self {
        Self::of(plan())
    }

    fn of(plan: RolloutPlan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("predictions")).unwrap();
        Self { dir, promotion: FIRST.parse().unwrap(), plan }
    }

    async fn start(&self) -> Running {
        let path = self.dir.path().join("feedback.db");
        let outcomes = Arc::new(Outcomes::open(&path, Arc::new(Fixed)).await.unwrap());
        let (records, receiver) = sync_channel(10_000);
        let (log, writer) =
            PredictionLog::start(self.dir.path().join("predictions"), receiver, Some(outcomes.clone()));
        let (calls, incoming) = mpsc::channel(8);
        outcomes.follow([(&self.promotion, &self.plan)].into_iter());
        let keeper = tokio::spawn(outcomes.clone().keep(incoming, log));
        Running { outcomes, records, calls, keeper, writer }
    }
}

impl Running {
    async fn say(&self, said: &[(u64, f64)]) -> Vec<Told> {
        let item = |(number, value): &(u64, f64)| Item {
            prediction: id(*number),
            values: vec![("outcome".to_owned(), Outcome::Number(*value))],
        };
        let (answer, told) = tokio::sync::oneshot::channel();
        self.calls.send(FeedbackCall { items: said.iter().map(item).collect(), answer }).await.unwrap();
        told.await.unwrap()
    }

    /// What the goal says, as soon as it knows of so many outcomes.
    async fn goal(&self, promotion: &PromotionId, outcomes: u64) -> crate::judge::GoalNumbers {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let goals = self.outcomes.goals(promotion, true);
            if let Some(numbers) = goals.numbers.into_values().next() {
                let labelled = numbers.reading.labelled;
                if labelled.candidate + labelled.baseline >= outcomes {
                    return numbers;
                }
            }
            assert!(Instant::now() < until, "no {outcomes} outcomes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        drop((self.records, self.calls));
        self.keeper.await.unwrap();
        self.writer.join().unwrap();
        self.outcomes.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_counted_again_after_a_restart_to_the_last_bit() {
    let bench = Bench::new();
    let running = bench.start().await;
    (0..200).for_each(|n| running.records.send(record(n, FIRST)).unwrap());
    // Of another rollout, which nobody follows.
    running.records.send(record(900, "pr_2")).unwrap();
    let outcome =
        |n: u64| f64::from(u8::from(n.is_multiple_of(2) && !n.is_multiple_of(3) || n.is_multiple_of(5)));
    let said: Vec<(u64, f64)> = (0..150).map(|n| (n, outcome(n))).collect();
    let told = running.say(&said).await;
    assert!(told.iter().all(|t| *t == Told { status: TellStatus::Recorded, note: None }), "{told:?}");
    let before = running.goal(&bench.promotion, 150).await;
    assert!(before.words.contains("`outcome` of 75 of 100 units"), "{}", before.words);
    assert!(before.not_worse > 0.0);
    // As if it were killed: nothing is written any more, and the file is free.
    running.keeper.abort();
    running.outcomes.store.load_full().close().await;
    let again = bench.start().await;
    let after = again.goal(&bench.promotion, 150).await;
    assert_eq!(after.reading, before.reading);
    assert_eq!(after.not_worse.to_bits(), before.not_worse.to_bits());
    let told = again.say(&[(0, outcome(0)), (1, 1.0 - outcome(1)), (160, 1.0), (900, 1.0), (999, 1.0)]).await;
    let words: Vec<TellStatus> = told.iter().map(|t| t.status).collect();
    use TellStatus::{Conflict, Known, Recorded, Unknown};
    assert_eq!(words[..3], [Known, Conflict, Recorded]);
    assert!(told[1].note.as_ref().unwrap().contains("the first value stands"), "{told:?}");
    // The log of the process that was killed wrote down what it had when it ended; what it never had is unknown.
    assert!(matches!(words[3], Recorded | Unknown) && words[4] == Unknown);
    assert_eq!(again.goal(&bench.promotion, 151).await.reading.labelled.candidate, 76);
    drop((running.records, running.calls));
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_without_a_rollout_is_kept_and_a_rollout_that_is_over_forgotten() {
    let bench = Bench::new();
    let running = bench.start().await;
    running.records.send(record(1, FIRST)).unwrap();
    running.records.send(LogRecord { drawn: None, ..record(2, FIRST) }).unwrap();
    let told = running.say(&[(1, 1.0), (2, 0.0), (3, 1.0)]).await;
    let words: Vec<TellStatus> = told.iter().map(|t| t.status).collect();
    assert_eq!(words, [TellStatus::Recorded, TellStatus::Recorded, TellStatus::Unknown]);
    assert_eq!(running.outcomes.of(&id(2)).await.unwrap()["outcome"]["value"], 0.0);
    running.goal(&bench.promotion, 1).await;
    // Another rollout takes its place: nothing of the first one is known any more, but what was said stands.
    let other: PromotionId = "pr_01M8AY7JZFMHB6BY6FXZAJM003".parse().unwrap();
    running.outcomes.follow([(&other, &plan())].into_iter());
    running.goal(&other, 0).await;
    let goals = running.outcomes.goals(&bench.promotion, true);
    assert!(goals.numbers.is_empty() && goals.needed);
    assert_eq!(running.say(&[(1, 1.0)]).await[0].status, TellStatus::Known);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_agent_has_the_file_feedback_is_refused_and_afterwards_read_again() {
    let bench = Bench::new();
    let running = bench.start().await;
    (0..10).for_each(|n| running.records.send(record(n, FIRST)).unwrap());
    assert_eq!(running.say(&[(1, 1.0)]).await[0].status, TellStatus::Recorded);
    running.goal(&bench.promotion, 1).await;
    running.outcomes.close().await;
    let told = running.say(&[(2, 1.0)]).await;
    assert_eq!(told[0].status, TellStatus::Failed);
    assert!(told[0].note.as_ref().unwrap().contains("send it again"));
    let other = bench.start().await;
    assert_eq!(other.say(&[(3, 1.0)]).await[0].status, TellStatus::Recorded);
    assert!(running.outcomes.reopen().await.is_err(), "it is the other one's");
    other.end().await;
    running.outcomes.reopen().await.unwrap();
    assert_eq!(running.goal(&bench.promotion, 2).await.reading.labelled.baseline, 2);
    assert_eq!(running.say(&[(2, 1.0)]).await[0].status, TellStatus::Recorded);
    running.end().await;
}

impl Running {
    /// The ids of the predictions that are kept for a rollout.
    async fn kept(&self, promotion: &PromotionId) -> Vec<String> {
        let (store, of) = (self.outcomes.store.load_full(), promotion.as_str().to_owned());
        let read = store.read(move |conn| {
            Box::pin(async move { Ok::<_, AgentError>(conn.drawn_after(&of, i64::MIN, 1_000).await?) })
        });
        read.await.unwrap().into_iter().map(|(_, one)| one.id).collect()
    }

    async fn say_as(&self, number: u64, names: &[&str]) -> Told {
        let values = names.iter().map(|name| ((*name).to_owned(), Outcome::Number(1.0))).collect();
        let (answer, told) = tokio::sync::oneshot::channel();
        let items = vec![Item { prediction: id(number), values }];
        self.calls.send(FeedbackCall { items, answer }).await.unwrap();
        told.await.unwrap().remove(0)
    }
}

fn drawn_at(number: u64, weight: u32) -> LogRecord {
    let one = record(number, FIRST);
    let drawn = one.drawn.clone().map(|drawn| DrawnFor { weight, ..drawn });
    LogRecord { drawn, ..one }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_said_of_one_prediction_than_may_be_and_what_was_said_stands() {
    let bench = Bench::new();
    let running = bench.start().await;
    running.records.send(record(1, FIRST)).unwrap();
    let names: Vec<String> = (0..31).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(running.say_as(1, &names).await.status, TellStatus::Recorded);
    let told = running.say_as(1, &["outcome", "more", "n0"]).await;
    assert_eq!(told.status, TellStatus::TooMany);
    let note = told.note.unwrap();
    assert!(note.contains("`more` is not kept: 32 other names") && !note.contains("`outcome`"), "{note}");
    let said = running.outcomes.of(&id(1)).await.unwrap();
    assert!(said.get("outcome").is_some() && said.get("more").is_none(), "the first that fits is kept");
    running.goal(&bench.promotion, 1).await;
    assert_eq!(running.say_as(1, &names).await.status, TellStatus::Known);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_that_nothing_can_be_compared_with_are_not_kept_and_others_until_their_time_is_over() {
    let bench = Bench::of(ab(GoalSpec { within_ms: Some(3_000), ..goal() }));
    let running = bench.start().await;
    for weight in [0, 10_000] {
        running.records.send(drawn_at(u64::from(weight % 7), weight)).unwrap();
    }
    // A unit that comes again, later: then that nothing was said of goes, and the unit's first stays.
    let again = |number: u64, unit: u64, at_ms: i64| {
        let one = record(number, FIRST);
        let drawn = one.drawn.clone().map(|drawn| DrawnFor { unit, ..drawn });
        LogRecord { at_ms, drawn, ..one }
    };
    running.records.send(again(10, 1, AT)).unwrap();
    assert_eq!(running.say(&[(10, 1.0)]).await[0].status, TellStatus::Recorded, "late, but kept");
    for (number, at_ms) in [(12, AT), (14, AT), (16, AT + 4_000)] {
        running.records.send(again(number, 1, at_ms)).unwrap();
    }
    let told = running.say(&[(14, 1.0)]).await;
    assert!(told[0].note.as_ref().unwrap().contains("later after the prediction"), "{told:?}");
    assert_eq!(running.kept(&bench.promotion).await, [10, 12, 14, 16].map(id));
    running.outcomes.forget_passed().await.unwrap();
    assert_eq!(running.kept(&bench.promotion).await, [10, 14, 16].map(id));
    // What was forgotten is in the log all the same.
    assert_eq!(running.say(&[(12, 1.0)]).await[0].status, TellStatus::Recorded);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_side_failed_is_counted_again_after_a_restart_and_so_is_what_was_void() {
    let bench = Bench::new();
    let running = bench.start().await;
    for number in 0..90 {
        let one = record(number, FIRST);
        let status = if number.is_multiple_of(6) { 503 } else { 200 };
        running.records.send(LogRecord { status, ..one }).unwrap();
    }
    // First the outcomes of one side alone: that is no sample, and does not become one.
    let answered = (0..90).filter(|n| n % 6 != 0);
    let (ours, theirs): (Vec<u64>, Vec<u64>) = answered.partition(|n| n % 2 == 0);
    let said = |all: &[u64]| all.iter().map(|n| (*n, 1.0)).collect::<Vec<_>>();
    running.say(&said(&ours)).await;
    running.say(&said(&theirs)).await;
    let before = running.goal(&bench.promotion, 90).await;
    assert_eq!((before.reading.failed.candidate, before.reading.failed.baseline), (15, 0));
    assert!(before.reading.void.is_some(), "{}", before.words);
    running.end().await;
    let again = bench.start().await;
    let after = again.goal(&bench.promotion, 90).await;
    assert_eq!(after, before);
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_that_there_was_no_room_for_are_told() {
    let bench = Bench::new();
    let running = bench.start().await;
    running.goal(&bench.promotion, 0).await;
    (0..5_000).for_each(|number| running.outcomes.note(&record(number, FIRST)));
    let until = Instant::now() + Duration::from_secs(20);
    while !running.goal(&bench.promotion, 0).await.words.contains("predictions could not be kept") {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.end().await;
}
