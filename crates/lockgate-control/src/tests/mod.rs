//! The use cases over a real store, with the agent's own machine at the other end of the wire.

mod collecting;
mod intake;
mod pointers;
mod proof;
mod quarantine;
mod serving;

use crate::states::{self, Act};
use crate::view::{PromotionRequest, PromotionView};
use crate::{Control, ControlError, NewConfiguration};
use lockgate_blob::BlobStore;
use lockgate_core::access::Action;
use lockgate_core::actor::{Actor, ActorKind, Via};
use lockgate_core::clock::{Clock, Entropy, Millis, rfc3339};
use lockgate_core::digest::Digest;
use lockgate_core::entry::{self, Effect, Entry, GENESIS, Resource, ResourceKind, StoredEntry};
use lockgate_core::event::{Event, RolloutEvent};
use lockgate_core::gate::PublicKey;
use lockgate_core::guard::Judgement;
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId};
use lockgate_core::plan::Revision;
use lockgate_core::promotion::Promotion;
use lockgate_core::release::{File, MANIFEST_VERSION, Manifest, Runtime};
use lockgate_core::rollout::{Deployment, Observation, Readiness, WayBack};
use lockgate_core::schema::FeatureSchema;
use lockgate_core::wire::{Hello, Mark, PROTOCOL, Position, Report, Reported, Task, Welcome};
use lockgate_store::{Store, StoreOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const NOON: Millis = 1_795_521_600_000;

/// How long a release is on probation.
const PROBATION: Millis = 3_600_000;

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYscVB8VkgEkUqFAceuHNJwwXM7iP
+nyLSUyFsE0Lk48J98DLMMRkuqF+K1EtbwDEXqkATqcfnDlJvqVr9yUCGQ==
-----END PUBLIC KEY-----
";

#[derive(Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts, so that ids differ and tests repeat.
#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, buf: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        buf.fill(0);
        let length = buf.len().min(next.len());
        buf[..length].copy_from_slice(&next[next.len() - length..]);
    }
}

/// A server with one project, and the agents of its environments.
struct Bench {
    control: Control,
    store: Store,
    clock: Arc<Hands>,
    ana: Actor,
    _folder: tempfile::TempDir,
}

fn place(name: &str) -> EnvironmentName {
    name.parse().unwrap()
}

fn model() -> ModelName {
    "m".parse().unwrap()
}

/// Version `version` of the model, made by run `run`, with these bytes.
fn manifest(version: u64, run: &str, bytes: &str) -> Manifest {
    let file = |path: &str, bytes: &str| File {
        path: path.to_owned(),
        size: bytes.len() as u64,
        sha256: Digest::of(bytes.as_bytes()),
    };
    Manifest {
        v: MANIFEST_VERSION,
        project: "demo".parse().unwrap(),
        model: model(),
        model_version: version,
        run_id: Some(run.to_owned()),
        files: vec![file("MLmodel", run), file("model.onnx", bytes)],
        code: None,
        data: vec![],
        params: [("run".to_owned(), run.to_owned())].into(),
        feature_schema: FeatureSchema::default(),
        runtime: Runtime::Onnx { entry: "model.onnx".to_owned() },
        golden: None,
        optimised: None,
    }
}

/// Version `version` with bytes of its own.
fn plain(version: u64) -> Manifest {
    manifest(version, &format!("run {version}"), &format!("bytes {version}"))
}

/// The backup's release.
fn rules() -> Manifest {
    manifest(99, "rules", "rules")
}

impl Bench {
    /// With a backup in production, or without.
    async fn new(backup: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands(AtomicI64::new(NOON)));
        let path = folder.path().join("lockgate.db");
        let store = Store::open(path.to_str().unwrap(), StoreOptions::new(clock.clone())).await.unwrap();
        let blobs = BlobStore::open(folder.path().join("blobs")).await.unwrap();
        let control = Control::new(store.clone(), blobs, clock.clone(), Arc::new(Counter::default()));
        let ana = control.actor(ActorKind::User, "ana@example.org", Via::Loopback).await.unwrap();
        let bench = Self { control, store, clock, ana, _folder: folder };
        let digest = bench.release(&rules()).await;
        let backup = if backup { format!("backup = \"{digest}\"") } else { String::new() };
        let toml = format!(
            "project = \"demo\"\n[model.m]\ntask = \"other\"\n[env.testing]\n[env.staging]\nafter = \"testing\"\n\
             rollout = [\"100%\"]\nprobation = \"1h\"\n[env.production]\nafter = \"staging\"\nrollout = [\"100%\"]\n\
             probation = \"1h\"\n{backup}\n[env.review]\nafter = \"testing\"\nrollout = [\"100%\"]\nprobation = \"1h\"\n\
             approve = {{ count = 1, from = [\"ben@example.org\"] }}\n[env.live]\nafter = \"review\"\n"
        );
        let new = NewConfiguration { toml, settings: vec![] };
        bench.control.apply_configuration(&bench.ana, new).await.unwrap();
        bench
    }

    fn pass(&self, time: Millis) {
        self.clock.0.fetch_add(time, Ordering::Relaxed);
    }

    async fn release(&self, manifest: &Manifest) -> Digest {
        let digest = manifest.digest().unwrap();
        let resource = Resource {
            kind: ResourceKind::Release,
            id: digest.to_string(),
            project: Some(manifest.project.clone()),
            environment: None,
        };
        let event =
            Event::ReleaseCreated { digest, manifest: Box::new(manifest.clone()), authors: BTreeSet::new() };
        let act = Act {
            actor: self.ana.clone(),
            action: Action::ReleaseCreate,
            resource,
            event,
            reason: String::new(),
            source: None,
        };
        let control = self.control.clone();
        self.control
            .write(move |tx| Box::pin(async move { control.record(tx, act).await.map(|_| ()) }))
            .await
            .unwrap();
        digest
    }

    fn wish(release: &Digest, environment: &str) -> PromotionRequest {
        PromotionRequest {
            release: release.to_string(),
            environment: place(environment),
            rate: None,
            lift_quarantine: None,
            configuration: None,
        }
    }

    async fn ask(&self, release: &Digest, environment: &str) -> Result<PromotionView, ControlError> {
        self.control.request_promotion(&self.ana, &Self::wish(release, environment)).await
    }

    async fn promotion(&self, id: &PromotionId) -> Promotion {
        self.control.load_promotion(id).await.unwrap()
    }

    async fn stage(&self, id: &PromotionId) -> &'static str {
        self.promotion(id).await.stage.name()
    }

    async fn serves(&self, environment: &str) -> Option<Digest> {
        let environment = place(environment);
        let found = self
            .store
            .read(move |conn| Box::pin(async move { states::deployment(conn, &environment, &model()).await }))
            .await
            .unwrap();
        found.serving.map(|s| s.revision.release)
    }

    /// The log and the tables agree, and a rebuild changes nothing.
    async fn is_proven(&self) {
        let view = self.control.verify_audit(&self.ana).await.unwrap();
        assert!(view.chain_ok && view.tables_ok, "{:?}", view.problem);
        let before = self.store.dump_states().await.unwrap();
        assert_eq!(self.control.rebuild(&self.ana).await.unwrap(), 0);
        assert_eq!(self.store.dump_states().await.unwrap(), before);
    }
}

/// An environment's agent: its machine, its journal, and what it sees of its workers.
struct Agent<'a> {
    bench: &'a Bench,
    environment: EnvironmentName,
    deployment: Deployment,
    journal: Vec<StoredEntry>,
    broken: BTreeSet<Digest>,
}

impl<'a> Agent<'a> {
    async fn new(bench: &'a Bench, environment: &str) -> Self {
        let agent = Self {
            bench,
            environment: place(environment),
            deployment: Deployment::new(model()),
            journal: Vec::new(),
            broken: BTreeSet::new(),
        };
        agent.hello().await.unwrap();
        agent
    }

    fn actor(&self) -> Actor {
        Actor::agent(&self.environment)
    }

    fn mark(&self, seq: Option<u64>) -> Mark {
        let entry = match seq {
            Some(seq) => self.journal.get(usize::try_from(seq).unwrap()),
            None => self.journal.last(),
        };
        Mark { length: self.journal.len() as u64, at: entry.map(|e| Position { seq: e.seq, leaf: e.leaf }) }
    }

    async fn hello(&self) -> Result<Welcome, ControlError> {
        let hello = Hello {
            protocol: PROTOCOL,
            environment: self.environment.clone(),
            key: PublicKey::from_pem(KEY).unwrap(),
            gateway: "http://127.0.0.1:1".to_owned(),
            journal: self.mark(None),
        };
        let welcome = self.bench.control.hello(&self.actor(), &hello).await?;
        let journal = self.mark(welcome.reported);
        self.bench.control.hello(&self.actor(), &Hello { journal, ..hello }).await
    }

    /// Writes something into the journal, whatever it is.
    fn note(&mut self, kind: ResourceKind, id: &str, event: Option<Event>) {
        let seq = self.journal.len() as u64;
        let entry = Entry {
            v: entry::VERSION,
            seq,
            id: format!("entry {seq}"),
            ts: rfc3339(self.bench.clock.now_ms()),
            actor: self.actor(),
            action: Action::AgentReport.as_str().to_owned(),
            effect: Effect::Allow,
            resource: Resource {
                kind,
                id: id.to_owned(),
                project: None,
                environment: Some(self.environment.clone()),
            },
            event,
            reason: String::new(),
            source: None,
        };
        self.text(entry.canonical().unwrap());
    }

    fn text(&mut self, text: String) {
        let leaf = entry::leaf(&text);
        let chain = entry::link(&self.journal.last().map_or(GENESIS, |e| e.chain), &leaf);
        self.journal.push(StoredEntry { seq: self.journal.len() as u64, text, leaf, chain });
    }

    fn claim(&mut self, promotion: &PromotionId, event: RolloutEvent) {
        self.note(ResourceKind::Rollout, promotion.as_str(), Some(Event::Rollout(Box::new(event))));
    }

    fn write(&mut self, promotion: &PromotionId, event: RolloutEvent) {
        self.deployment.apply(promotion, &event, self.bench.clock.now_ms());
        self.claim(promotion, event);
    }

    /// Does what the server asks for, with the checks of the agent's reconciler.
    async fn fetch(&mut self) {
        let desired = self
            .bench
            .control
            .desired(&self.actor(), &self.environment, u64::MAX, Duration::ZERO)
            .await
            .unwrap();
        for wish in desired.promotions {
            let way_back = WayBack { readiness: Readiness::Ready, answered: (0, 0) };
            for instruction in &wish.instructions {
                if let Some((id, event)) = self.deployment.instruct(&wish.id, instruction, &way_back) {
                    self.write(&id, event);
                }
            }
            if matches!(wish.task, Task::Roll { .. }) && self.deployment.can_take(&wish.id) {
                let serves = self.deployment.serving.as_ref().map(|s| s.revision.digest());
                let fits = wish.plan.baseline.as_ref().map(Revision::digest) == serves;
                let event = if fits {
                    RolloutEvent::Started { plan: Box::new(wish.plan) }
                } else {
                    RolloutEvent::Aborted { reason: "the environment serves something else".to_owned() }
                };
                self.write(&wish.id, event);
            }
        }
    }

    /// Sees that everything is well but for what is broken, until nothing follows any more.
    fn look(&mut self) {
        for _ in 0..16 {
            let readiness = |revision: Option<&Revision>| match revision {
                Some(r) if self.broken.contains(&r.release) => Readiness::Failed("it is down".to_owned()),
                _ => Readiness::Ready,
            };
            let active = self.deployment.active.as_ref();
            let target = active.and_then(|a| match &a.phase {
                lockgate_core::rollout::Phase::RollingBack { target, .. } => target.as_ref(),
                _ => None,
            });
            let seen = Observation {
                now: self.bench.clock.now_ms(),
                applied: true,
                candidate: readiness(active.map(|a| &a.plan.revision)),
                serving: readiness(self.deployment.serving.as_ref().map(|s| &s.revision)),
                target: readiness(target),
                backup: readiness(self.deployment.backup.as_ref()),
                judgement: Judgement::none(),
                breaker: None,
                quiet_ms: Some(i64::MAX),
                last_candidate_request: None,
                candidate_requests: 0,
                counted_since: None,
                candidate_errors: 0,
                target_requests: 0,
                target_errors: 0,
                target_busy: false,
                began: 0,
            };
            let Some((id, event)) = self.deployment.step(&seen) else { return };
            self.write(&id, event);
        }
        panic!("one look never ends");
    }

    async fn report(&self) -> Result<Reported, ControlError> {
        self.report_from(0).await
    }

    async fn report_from(&self, from: usize) -> Result<Reported, ControlError> {
        let report = Report { entries: self.journal[from..].to_vec() };
        self.bench.control.report(&self.actor(), &self.environment, &report).await
    }

    /// Fetches, looks and reports.
    async fn go(&mut self) {
        self.bench.control.reconcile().await.unwrap();
        self.fetch().await;
        self.look();
        self.report().await.unwrap();
    }

    /// Takes a release up to probation.
    async fn bring(&mut self, release: &Digest) -> PromotionId {
        let id = self.bench.ask(release, self.environment.as_str()).await.unwrap().id;
        self.bench.pass(1000);
        self.go().await;
        self.bench.pass(1000);
        self.go().await;
        assert_eq!(self.bench.stage(&id).await, "probation");
        id
    }

    /// Takes a release up to the end of its probation.
    async fn confirm(&mut self, release: &Digest) -> PromotionId {
        let id = self.bring(release).await;
        self.bench.pass(PROBATION + 1000);
        self.go().await;
        assert_eq!(self.bench.stage(&id).await, "confirmed");
        id
    }
}
