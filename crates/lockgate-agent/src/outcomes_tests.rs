use super::*;
use lockgate_core::digest::Digest;
use lockgate_core::goal::{Direction, GoalSpec};
use lockgate_core::id::{GuardName, ModelName};
use lockgate_core::plan::{OnInconclusive, Step};
use lockgate_gateway::{BodyForm, DrawnFor, Protocol};
use std::sync::mpsc::{SyncSender, sync_channel};

const FIRST: &str = "pr_01M8AY7JZFMHB6BY6FXZAJM001";
const AT: i64 = 1_795_663_590_383;

struct Fixed;

impl Clock for Fixed {
    fn now_ms(&self) -> i64 {
        AT + 5_000
    }
}

fn plan() -> RolloutPlan {
    let goal = GoalSpec {
        metric: "outcome".to_owned(),
        direction: Direction::Up,
        gain: 0.0,
        rollback_by: 0.0,
        least: 0.0,
        most: 1.0,
        within_ms: None,
        missing: None,
    };
    RolloutPlan {
        steps: vec![Step::ab(5_000, 0), Step::live(10_000, 0)],
        guards: [(GuardName::new("conversion").unwrap(), GuardSpec::Goal(goal))].into(),
        unit_header: None,
        alpha_rollback: 0.05,
        alpha_promote: 0.05,
        alpha_sample_ratio: 0.001,
        deadline_ms: 0,
        on_inconclusive: OnInconclusive::Hold,
        probation_ms: 0,
        prepare_ms: 1000,
        workers: 1,
        timeout_ms: 1000,
        memory_bytes: 0,
        batch_rows: None,
        smoke: None,
        testers: lockgate_core::plan::Testers::Nobody,
        observe: false,
    }
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
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("predictions")).unwrap();
        Self { dir, promotion: FIRST.parse().unwrap() }
    }

    async fn start(&self) -> Running {
        let path = self.dir.path().join("feedback.db");
        let outcomes = Arc::new(Outcomes::open(&path, Arc::new(Fixed)).await.unwrap());
        let (records, receiver) = sync_channel(10_000);
        let (log, writer) =
            PredictionLog::start(self.dir.path().join("predictions"), receiver, Some(outcomes.clone()));
        let (calls, incoming) = mpsc::channel(8);
        outcomes.follow([(&self.promotion, &plan())].into_iter());
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
            let goals = self.outcomes.goals(promotion, &plan(), true);
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
    let goals = running.outcomes.goals(&bench.promotion, &plan(), true);
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
