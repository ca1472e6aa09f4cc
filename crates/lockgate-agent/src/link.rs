//! The loops that talk to the server. Each of them may fail for ever; the environment goes on.

use crate::reconciler::{Ends, Jobs, Reconciler, Serving};
use crate::{AgentError, Shared};
use lockgate_core::gate::PublicKey;
use lockgate_core::route::RouteTable;
use lockgate_core::wire::{Answer, Ask, Desired, Live, Query, Report};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How long the server may hold a question for news.
const WAIT: Duration = Duration::from_secs(20);

/// How long to pause after the server did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// How often what is seen is told.
const TELL_EVERY: Duration = Duration::from_millis(400);

/// How often unreported entries are looked for, even if nobody said that there are some.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// How long the reconciler may take to finish a look: a journal's entry on a slow disk.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// The agent's tasks.
pub(crate) struct Tasks {
    reconciler: JoinHandle<()>,
    stop: watch::Sender<bool>,
    settled: watch::Receiver<bool>,
    talks: Vec<JoinHandle<()>>,
    jobs: Jobs,
}

impl Tasks {
    /// Whether everything that was decided is written down.
    pub(crate) fn is_settled(&self) -> bool {
        *self.settled.borrow()
    }

    /// Ends them all: the reconciler after its look, so that what it decided is written, the others where they are.
    pub(crate) async fn end(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(LOOK_WITHIN, &mut self.reconciler).await.is_err() {
            self.reconciler.abort();
        }
        for task in &self.talks {
            task.abort();
        }
        for task in self.talks {
            // Being ended is how they end.
            let _ = task.await;
        }
        let mut jobs = std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        jobs.shutdown().await;
    }
}

/// Starts everything. An agent that takes over from another begins to judge and to decide once it says through `serving` that
/// everything serves.
pub(crate) async fn start(
    shared: Arc<Shared>,
    table: RouteTable,
    serving: Option<watch::Sender<Serving>>,
) -> Result<Tasks, AgentError> {
    let (desired_in, desired) = watch::channel(None);
    let (live_in, live) = watch::channel(None);
    let reported = Arc::new(Notify::new());
    let (settled_in, settled) = watch::channel(true);
    let stop = watch::Sender::new(false);
    let jobs = Jobs::default();
    let ends = Ends {
        desired,
        live: live_in,
        reported: reported.clone(),
        serving,
        settled: settled_in,
        jobs: jobs.clone(),
    };
    let reconciler = Reconciler::new(shared.clone(), table, ends).await?;
    let reconciler = tokio::spawn(reconciler.run(stop.subscribe()));
    let talks = vec![
        tokio::spawn(fetch(shared.clone(), desired_in)),
        tokio::spawn(report(shared.clone(), reported)),
        tokio::spawn(tell(shared, live)),
    ];
    Ok(Tasks { reconciler, stop, settled, talks, jobs })
}

/// Says hello until the server answers, and says which entries it has.
async fn hello(shared: &Shared) -> Option<u64> {
    loop {
        match greet(shared).await {
            Ok(reported) => return reported,
            Err(error) => {
                tracing::warn!(%error, "the server does not know this agent yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Says hello, and again with the entry that both have: the server takes only a continuation of what it has.
async fn greet(shared: &Shared) -> Result<Option<u64>, AgentError> {
    let key = PublicKey::of(&shared.key).map_err(|e| AgentError::Key(e.to_string()))?;
    let newest = shared.journal.mark(None).await?;
    let welcome = shared.server.hello(key.clone(), &shared.gateway_url, newest).await?;
    let known = newest.at.map(|at| at.seq);
    if welcome.reported.is_none() || welcome.reported == known {
        return Ok(welcome.reported);
    }
    let common = shared.journal.mark(welcome.reported).await?;
    Ok(shared.server.hello(key, &shared.gateway_url, common).await?.reported)
}

/// Asks again and again what should be.
async fn fetch(shared: Arc<Shared>, desired: watch::Sender<Option<Desired>>) {
    hello(&shared).await;
    let mut since = 0;
    let mut answered = BTreeSet::new();
    loop {
        match shared.server.desired(since, WAIT).await {
            Ok(news) => {
                since = news.version;
                answered.retain(|id| news.queries.iter().any(|q| q.id == *id));
                for query in
                    news.queries.iter().filter(|q| !answered.contains(&q.id)).cloned().collect::<Vec<_>>()
                {
                    answered.insert(query.id);
                    tokio::spawn(answer(shared.clone(), query));
                }
                desired.send_replace(Some(news));
            }
            Err(error) => {
                tracing::warn!(%error, "no news from the server");
                since = 0;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, query: Query) {
    let worker = shared.clone();
    let prediction = match &query.ask {
        Ask::Prediction { id } => Some(id.clone()),
        Ask::WorkerLog { .. } => None,
    };
    let mut found = tokio::task::spawn_blocking(move || match query.ask {
        Ask::Prediction { id } => worker.predictions.find(&id).unwrap_or_else(|error| {
            tracing::warn!(%error, "the prediction log can't be searched");
            None
        }),
        Ask::WorkerLog { tail, .. } => Some(worker.fleet.logs(tail).into()),
    })
    .await
    .unwrap_or(None);
    if let (Some(id), Some(row)) = (prediction, &mut found) {
        match shared.outcomes.of(&id).await {
            Ok(said) => row["feedback"] = said,
            Err(error) => tracing::warn!(%error, "what was said of a prediction can't be read"),
        }
    }
    if let Err(error) = shared.server.answer(&Answer { id: query.id, found }).await {
        tracing::warn!(%error, "an answer was lost");
    }
}

/// Hands journal entries over, in order, each until the server has it.
async fn report(shared: Arc<Shared>, reported: Arc<Notify>) {
    let mut through = hello(&shared).await;
    loop {
        match shared.journal.unreported(through).await {
            Ok(entries) if entries.is_empty() => {
                // Whoever wrote an entry says so; the time-out covers what was written while nobody listened.
                let _ = tokio::time::timeout(REPORT_EVERY, reported.notified()).await;
            }
            Ok(entries) => match shared.server.report(&Report { entries }).await {
                Ok(answer) => through = answer.through,
                Err(error) => {
                    tracing::warn!(%error, "the server does not take the report");
                    tokio::time::sleep(PAUSE).await;
                    through = hello(&shared).await;
                }
            },
            Err(error) => {
                tracing::error!(%error, "the journal can't be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Tells what is seen.
async fn tell(shared: Arc<Shared>, live: watch::Receiver<Option<Live>>) {
    loop {
        let seen = live.borrow().clone();
        if let Some(seen) = seen {
            // A view that gets lost is replaced by the next one.
            let _ = shared.server.live(&seen).await;
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}
