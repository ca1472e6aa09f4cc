//! A routing table made ready for requests: checked, with its counters and header values at hand.

use crate::GatewayError;
use crate::breaker::OpenBreaker;
use crate::inline::{Lane, Lanes};
use crate::meter::{Meters, RevisionMeter, SideMeter};
use crate::options::GatewayOptions;
use crate::rollout::{Cell, LatencyThresholds, RolloutStats, SplitMeter};
use crate::shadow_meter::{ShadowMeter, ShadowStats};
use arc_swap::ArcSwapOption;
use hyper::header::{HeaderName, HeaderValue};
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::plan::Testers;
use lockgate_core::route::{
    ModelRoute, Role, RouteTable, Shadow, Split, UnitSource, Variant, WHOLE, WorkerAddress,
};
use lockgate_core::server::Server;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// All counters of one gateway; tables come and go, these stay.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) meters: Meters,
    /// The models that may run inside the gateway.
    pub(crate) lanes: Lanes,
    /// The newest split of each model, also after it has ended.
    splits: Mutex<BTreeMap<ModelName, Kept>>,
}

#[derive(Debug)]
struct Kept {
    meter: Arc<SplitMeter>,
    shadow: Arc<ShadowMeter>,
    thresholds: Arc<ArcSwapOption<LatencyThresholds>>,
}

impl Counters {
    pub(crate) fn new(started: Instant) -> Self {
        Self { meters: Meters::new(started), lanes: Lanes::default(), splits: Mutex::default() }
    }

    /// The meters of a model's rollout: of users' requests, and of mirrored ones.
    fn split(
        &self,
        model: &ModelName,
        salt: &str,
        options: &GatewayOptions,
    ) -> (Arc<SplitMeter>, Arc<ShadowMeter>) {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = splits.get(model).filter(|k| k.meter.salt == salt) {
            return (Arc::clone(&kept.meter), Arc::clone(&kept.shadow));
        }
        let thresholds = Arc::new(ArcSwapOption::empty());
        let new = || SplitMeter::new(salt, Arc::clone(&thresholds), options.breaker, options.warmup);
        let (meter, shadow) = (Arc::new(new()), Arc::new(ShadowMeter::new(new())));
        let kept = Kept { meter: Arc::clone(&meter), shadow: Arc::clone(&shadow), thresholds };
        splits.insert(model.clone(), kept);
        (meter, shadow)
    }

    pub(crate) fn stats(&self, model: &ModelName) -> Option<RolloutStats> {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        let meters = splits.get(model).map(|k| (Arc::clone(&k.meter), Arc::clone(&k.shadow)));
        drop(splits);
        meters.map(|(live, shadow)| shadow.add_to(live.read()))
    }

    /// The newest rollouts whose breakers are open.
    pub(crate) fn open_breakers(&self) -> Vec<OpenBreaker> {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        let both = splits.iter().flat_map(|(model, k)| {
            [
                (model, &k.meter.salt, k.meter.breaker.is_open(), false),
                (model, &k.meter.salt, k.shadow.is_open(), true),
            ]
        });
        both.filter(|(_, _, open, _)| *open)
            .map(|(model, salt, _, mirrored)| OpenBreaker {
                model: model.clone(),
                salt: salt.clone(),
                mirrored,
            })
            .collect()
    }

    /// Opens the breaker of a model's newest rollout, where it is this one; whether it is.
    pub(crate) fn open_breaker(&self, open: &OpenBreaker) -> bool {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = splits.get(&open.model).filter(|k| k.meter.salt == open.salt) else { return false };
        let split = if open.mirrored { &kept.shadow.split } else { &*kept.meter };
        split.breaker.trip();
        true
    }

    /// The newest rollout of each model that has mirrored anything.
    pub(crate) fn shadows(&self) -> Vec<(ModelName, ShadowStats)> {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        splits.iter().filter_map(|(model, k)| Some((model.clone(), k.shadow.read()?))).collect()
    }

    pub(crate) fn set_thresholds(&self, model: &ModelName, thresholds: LatencyThresholds) {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = splits.get(model) {
            kept.thresholds.store(Some(Arc::new(thresholds)));
        }
    }
}

/// One table, ready for use.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) epoch: u64,
    pub(crate) models: HashMap<String, Arc<Route>>,
}

/// One model's route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) model: Arc<ModelName>,
    pub(crate) baseline: Option<Arc<Side>>,
    pub(crate) split: Option<SplitRoute>,
    /// A candidate that is only mirrored to: it is no side, so that no user's request can find it.
    pub(crate) shadow: Option<ShadowRoute>,
    pub(crate) backup: Option<Arc<Side>>,
    pub(crate) unit: Option<HeaderName>,
    pub(crate) timeout: Duration,
    /// Who may say which side is to answer.
    pub(crate) testers: Testers,
    /// Where the baseline's model runs inside the gateway. Nothing else can: there is no such place beside a split.
    inside: Option<Arc<Lane>>,
}

/// The candidate's share.
#[derive(Debug)]
pub(crate) struct SplitRoute {
    pub(crate) salt: Arc<str>,
    pub(crate) weight: u32,
    /// Whether requests are evidence now.
    pub(crate) counted: bool,
    /// Whether only testers reach the candidate. What the baseline does meanwhile is counted for later.
    preview: bool,
    pub(crate) candidate: Arc<Side>,
    pub(crate) meter: Arc<SplitMeter>,
    pub(crate) cells: [Arc<Cell>; 2],
}

/// A candidate whose answers nobody gets.
#[derive(Debug)]
pub(crate) struct ShadowRoute {
    /// The share of requests that are mirrored, in parts of [`WHOLE`].
    pub(crate) share: u32,
    /// How far apart numbers may be; none where answers are not compared.
    pub(crate) tolerance: Option<f64>,
    /// Whether requests are evidence now.
    pub(crate) counted: bool,
    pub(crate) candidate: Arc<Side>,
    pub(crate) meter: Arc<ShadowMeter>,
    cells: [Arc<Cell>; 2],
}

impl ShadowRoute {
    pub(crate) fn cell(&self, arm: Role) -> &Arc<Cell> {
        let [baseline, candidate] = &self.cells;
        if arm == Role::Candidate { candidate } else { baseline }
    }
}

/// One side with its workers.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) role: Role,
    pub(crate) release: Digest,
    pub(crate) revision: Digest,
    pub(crate) model_version: u64,
    pub(crate) workers: Vec<WorkerAddress>,
    /// What they speak, where they are servers that the team brings.
    pub(crate) server: Option<Server>,
    pub(crate) release_header: HeaderValue,
    pub(crate) version_header: HeaderValue,
    pub(crate) meter: Arc<SideMeter>,
    /// Counts testers' requests, which are in no other count.
    pub(crate) forced: Arc<SideMeter>,
    pub(crate) flow: Arc<RevisionMeter>,
}

impl SplitRoute {
    pub(crate) fn cell(&self, arm: Role) -> &Arc<Cell> {
        let [baseline, candidate] = &self.cells;
        if arm == Role::Candidate { candidate } else { baseline }
    }
}

impl Route {
    /// The side that has this role now.
    pub(crate) fn side(&self, role: Role) -> Option<&Arc<Side>> {
        match role {
            Role::Baseline => self.baseline.as_ref(),
            Role::Candidate => self.split.as_ref().filter(|s| !s.preview).map(|s| &s.candidate),
            Role::Backup => self.backup.as_ref(),
        }
    }

    /// Whether users may get this side's answers now. A candidate without users is none of their business, and one whose
    /// breaker is open has none, unless it is alone.
    fn is_open_to_users(&self, side: &Side) -> bool {
        let alone = self.baseline.is_none() && self.backup.is_none();
        let open = |split: &SplitRoute| split.weight > 0 && (alone || !split.meter.breaker.is_open());
        side.role != Role::Candidate || self.split.as_ref().is_some_and(open)
    }

    /// The way of a side's requests that doesn't leave the gateway.
    pub(crate) fn lane(&self, role: Role) -> Option<(&Arc<Side>, &Arc<Lane>)> {
        self.baseline.as_ref().filter(|_| role == Role::Baseline).zip(self.inside.as_ref())
    }

    /// The sides whose answers users may get now.
    pub(crate) fn open_to_users(&self) -> impl Iterator<Item = &Arc<Side>> {
        self.sides().filter(|side| self.is_open_to_users(side))
    }

    /// Everything that runs here, also what no user gets to see: testers may.
    pub(crate) fn all_sides(&self) -> impl Iterator<Item = &Arc<Side>> {
        let hidden = self.split.iter().filter(|s| s.preview).map(|s| &s.candidate);
        self.sides().chain(hidden).chain(self.shadow.iter().map(|s| &s.candidate))
    }

    /// All sides.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &Arc<Side>> {
        [Role::Baseline, Role::Candidate, Role::Backup].into_iter().filter_map(|role| self.side(role))
    }
}

impl Table {
    /// Checks a table and makes it ready.
    pub(crate) fn compile(
        table: &RouteTable,
        counters: &Counters,
        options: &GatewayOptions,
    ) -> Result<Self, GatewayError> {
        let mut models = HashMap::with_capacity(table.models.len());
        for (name, route) in &table.models {
            let route = compile(name, route, counters, options)
                .map_err(|reason| GatewayError::Table { model: name.clone(), reason })?;
            models.insert(name.to_string(), Arc::new(route));
        }
        Ok(Self { epoch: table.epoch, models })
    }

    /// The addresses of all workers.
    pub(crate) fn has_worker(&self, address: &WorkerAddress) -> bool {
        self.models.values().any(|r| r.all_sides().any(|s| s.workers.contains(address)))
    }
}

fn compile(
    name: &ModelName,
    route: &ModelRoute,
    counters: &Counters,
    options: &GatewayOptions,
) -> Result<Route, String> {
    if route.timeout_ms == 0 {
        return Err("timeout_ms must be at least 1".to_owned());
    }
    if route.inline && route.split.is_some() {
        return Err("a model doesn't run inside the gateway while it is compared with another".to_owned());
    }
    let lane = |variant: &Variant| counters.lanes.find(&variant.revision).filter(|_| route.inline);
    let unit = route.unit.as_ref().map(|UnitSource::Header(header)| {
        HeaderName::from_bytes(header.as_bytes()).map_err(|_| format!("`{header}` is no header's name"))
    });
    let side = |role: Role, variant: &Variant| side(name, role, variant, counters);
    let (mirrored, divided): (Option<&Split>, Option<&Split>) = match &route.split {
        Some(s) if s.shadow.is_some() => (Some(s), None),
        other => (None, other.as_ref()),
    };
    let split = divided.map(|s| split(name, s, counters, options));
    let shadow = mirrored.map(|s| shadow(name, s, counters, options));
    Ok(Route {
        model: Arc::new(name.clone()),
        baseline: route.baseline.as_ref().map(|v| side(Role::Baseline, v)).transpose()?,
        split: split.transpose()?,
        shadow: shadow.transpose()?,
        backup: route.backup.as_ref().map(|v| side(Role::Backup, v)).transpose()?,
        unit: unit.transpose()?,
        timeout: Duration::from_millis(route.timeout_ms),
        testers: route.testers,
        inside: route.baseline.as_ref().and_then(lane),
    })
}

fn split(
    name: &ModelName,
    split: &Split,
    counters: &Counters,
    options: &GatewayOptions,
) -> Result<SplitRoute, String> {
    if split.weight > WHOLE {
        return Err(format!("the candidate's weight is {} but the whole is {WHOLE}", split.weight));
    }
    if split.preview && split.weight > 0 {
        return Err("a candidate either is only previewed or has users, not both".to_owned());
    }
    let (meter, _) = counters.split(name, &split.salt, options);
    let cells = [Role::Baseline, Role::Candidate].map(|arm| meter.cell(split.weight, arm));
    let candidate = side(name, Role::Candidate, &split.candidate, counters)?;
    let (salt, weight, counted) = (split.salt.as_str().into(), split.weight, split.counted);
    Ok(SplitRoute { salt, weight, counted, preview: split.preview, candidate, meter, cells })
}

fn shadow(
    name: &ModelName,
    split: &Split,
    counters: &Counters,
    options: &GatewayOptions,
) -> Result<ShadowRoute, String> {
    let Shadow { share, tolerance } = split.shadow.unwrap_or_default();
    if share == 0 || share > WHOLE {
        return Err(format!("the mirrored share is {share}, which does not lie between 1 and {WHOLE}"));
    }
    if split.weight > 0 {
        return Err("a candidate is either mirrored to or has users, not both".to_owned());
    }
    if tolerance.is_some_and(|t| !(t.is_finite() && t >= 0.0)) {
        return Err("a tolerance must be a number of at least 0".to_owned());
    }
    let (_, meter) = counters.split(name, &split.salt, options);
    let cells = [Role::Baseline, Role::Candidate].map(|arm| meter.split.cell(share, arm));
    let candidate = side(name, Role::Candidate, &split.candidate, counters)?;
    Ok(ShadowRoute { share, tolerance, counted: split.counted, candidate, meter, cells })
}

fn side(name: &ModelName, role: Role, variant: &Variant, counters: &Counters) -> Result<Arc<Side>, String> {
    let header = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
    Ok(Arc::new(Side {
        role,
        release: variant.release,
        revision: variant.revision,
        model_version: variant.model_version,
        workers: variant.workers.clone(),
        server: variant.server.clone(),
        release_header: header(&variant.release.short())?,
        version_header: HeaderValue::from(variant.model_version),
        meter: counters.meters.side(name, role, variant.release),
        forced: counters.meters.forced(name, variant.release),
        flow: counters.meters.revision(variant.revision),
    }))
}
