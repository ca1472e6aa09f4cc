//! One environment.

use super::value::Reader;
use super::{Context, gates, guards, isolation};
use crate::check::Check;
use crate::diagnostic::{Class, Origin, Path, Report};
use crate::format::{backup, bytes, data_source, inconclusive, normal_path, principal, step};
use crate::nearest::suggest;
use crate::project::{Approve, BackupRef, Principal, ResolvedEnvironment};
use crate::tree::{Node, Value};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::EnvironmentName;
use lockgate_core::plan::{OnInconclusive, Smoke, Step, Testers};
use lockgate_core::route::WHOLE;
use std::collections::{BTreeMap, BTreeSet};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// Reads the merged table of one environment.
pub(crate) fn environment(
    name: EnvironmentName,
    after: Vec<EnvironmentName>,
    node: &Node,
    context: &Context<'_>,
    report: &mut Report,
) -> ResolvedEnvironment {
    // What this environment needs and doesn't get is collected apart, and told once for all that inherit it.
    let mut own = report.fresh();
    let path = Path::of(&["env", name.as_str()]);
    Check { report: &mut own, removals: false }.environment(node, &path);
    project_wide(context.root, &mut own);
    let data = datasets(node);
    let gates = gates::gates(node, &path, &data, context, &mut own);
    let mut guards = guards::guards(node, &path, context, &mut own);
    let mut reader = Reader { node, path, report: &mut own };
    let steps = steps(&mut reader, &guards);
    if !steps.iter().any(Step::is_shadow) {
        // Without a shadow step there are no two answers to compare: it would only dilute the other guards' evidence.
        guards.retain(|_, guard| !matches!(guard, GuardSpec::Disagreement { .. }));
    }
    let read = ResolvedEnvironment {
        after,
        gates,
        approve: approve(&mut reader, context),
        backup: backup_ref(&mut reader),
        probation_ms: reader.duration("probation").unwrap_or(0),
        deadline_ms: reader.positive_duration("deadline", 30 * MINUTE),
        on_inconclusive: on_inconclusive(node),
        prepare_ms: reader.positive_duration("prepare", 5 * MINUTE),
        gates_ms: reader.positive_duration("gates_deadline", 60 * MINUTE),
        vars: texts(node.get("vars")),
        data: data.unwrap_or_default(),
        aliases: node
            .get("aliases")
            .map(Node::list)
            .unwrap_or_default()
            .iter()
            .filter_map(|item| Some(item.text()?.to_owned()))
            .collect(),
        stage: node.text_at("stage").or(stage_by_name(&name)).map(str::to_owned),
        port: reader.whole("port"),
        feedback_token_file: node.text_at("feedback_token_file").map(str::to_owned),
        workers: reader.whole("workers").unwrap_or(1),
        timeout_ms: u64::try_from(reader.positive_duration("timeout", 2 * SECOND)).unwrap_or(0),
        memory_bytes: node.text_at("memory").and_then(|text| bytes(text).ok()).unwrap_or(0),
        batch_rows: reader.whole("batch_rows"),
        smoke: smoke(&mut reader, &steps),
        testers: testers(node, &steps),
        observe: observe(&mut reader, &steps),
        holdout: holdout(&mut reader, &steps),
        inline: isolation::inline(&mut reader, context),
        statistics: context.statistics,
        guards,
        steps,
        unsupported: own.sorted(&[Class::Refused]),
        origins: origins(node),
        name,
    };
    report.absorb(own);
    read
}

/// MLflow's stage for an environment of a name that says it.
fn stage_by_name(name: &EnvironmentName) -> Option<&'static str> {
    match name.as_str() {
        "staging" => Some("Staging"),
        "production" | "prod" => Some("Production"),
        _ => None,
    }
}

/// What the whole project asks for and no environment can have yet.
fn project_wide(root: &Node, own: &mut Report) {
    for (key, what) in [("freeze", "`freeze`"), ("drift", "`drift`")] {
        if let Some(node) = root.get(key) {
            own.not_yet(&node.key_at, &Path::of(&[key]), what, true);
        }
    }
}

/// The environment's datasets; `None` where they come from a source that isn't supported yet.
fn datasets(node: &Node) -> Option<BTreeMap<String, String>> {
    let Some(data) = node.get("data") else { return Some(BTreeMap::new()) };
    let table = data.table()?;
    let path = |node: &Node| {
        let text = node.text()?;
        Some(if matches!(data_source(text), Ok(None)) { normal_path(text) } else { text.to_owned() })
    };
    Some(table.iter().filter_map(|(name, node)| Some((name.clone(), path(node)?))).collect())
}

pub(super) fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.and_then(Node::table).into_iter().flatten();
    entries.filter_map(|(name, node)| Some((name.clone(), node.text()?.to_owned()))).collect()
}

fn steps(
    reader: &mut Reader<'_, '_>,
    guards: &BTreeMap<lockgate_core::id::GuardName, GuardSpec>,
) -> Vec<Step> {
    let Some(rollout) = reader.node.get("rollout") else { return vec![Step::live(WHOLE, 0)] };
    let path = reader.path.key("rollout");
    let mut steps: Vec<Step> = Vec::new();
    let mut readable = !rollout.list().is_empty();
    for (i, item) in rollout.list().iter().enumerate() {
        let text = item.text().unwrap_or_default();
        match step(text) {
            Ok(step) => {
                if let Some((message, help)) = steps.last().and_then(|before| out_of_order(before, &step)) {
                    reader.report.error(&item.at, &path.item(i), message, Some(help.to_owned()));
                }
                steps.push(step);
            }
            Err(_) => readable = false,
        }
    }
    if readable && steps.last().map(|s| s.weight) != Some(WHOLE) {
        let help = Some("add \"100%\" at the end".to_owned());
        reader.wrong("rollout", "the last step of a rollout must be 100%", help);
    }
    let has_goal = guards.values().any(|guard| matches!(guard, GuardSpec::Goal(_)));
    if readable && !has_goal && steps.iter().any(|step| step.ab) {
        let help = "declare one: [guard.conversion] with kind = \"goal\"; outcomes come by POST /feedback";
        reader.wrong("rollout", "an A/B step needs a guard of kind `goal`", Some(help.to_owned()));
    }
    let provable = |step: &Step| guards.values().any(|guard| guard.is_required_in(step));
    if readable && !steps.iter().filter(|step| step.is_judged()).all(provable) {
        let help = "keep a guard of kind `rate` or `latency`, or use rollout = [\"100%\"]";
        reader.wrong(
            "rollout",
            "nothing could let a rollout in steps go on: no guard can prove `not worse`",
            Some(help.to_owned()),
        );
    }
    steps
}

/// What is wrong with a step after the one before it.
fn out_of_order(before: &Step, step: &Step) -> Option<(String, &'static str)> {
    if before.place() < step.place() {
        return None;
    }
    if step.is_preview() {
        let after = if before.is_preview() { "another one" } else { "a step that needs traffic" };
        let message = format!("a preview comes after {after}");
        return Some((message, "put one preview first: nobody has met the release then"));
    }
    if step.is_shadow() && !before.is_shadow() {
        let message = format!("a shadow step of {} comes after a step with live traffic", share(step.shadow));
        return Some((message, "put shadow steps first"));
    }
    let (a, b) = (share(step.place().1), share(before.place().1));
    let message = format!("the steps of a rollout must grow, but {a} comes after {b}");
    Some((message, "order the steps, and name each share once"))
}

fn smoke(reader: &mut Reader<'_, '_>, steps: &[Step]) -> Option<Smoke> {
    let node = reader.node.get("smoke")?;
    if !steps.iter().any(Step::is_preview) {
        let help = "begin with one: rollout = [\"preview for 10m\", \"100%\"], or take `smoke` out";
        reader.wrong("smoke", "`smoke` runs in a preview step, and there is none", Some(help.to_owned()));
    }
    // That `run` is missing or empty is told where the shape is checked.
    let run = node.text().or(node.text_at("run"))?;
    let path = reader.path.key("smoke");
    let mut inner = Reader { node, path, report: reader.report };
    let timeout_ms = u64::try_from(inner.positive_duration("timeout", 5 * MINUTE)).unwrap_or(0);
    Some(Smoke { run: run.to_owned(), timeout_ms })
}

fn observe(reader: &mut Reader<'_, '_>, steps: &[Step]) -> bool {
    let observes = reader.node.get("observe").is_some_and(Node::is_set);
    if observes && !steps.iter().any(Step::moves_nobody) {
        let help = "begin with one that moves no user: rollout = [\"shadow 100% for 10m\", \"100%\"]";
        reader.wrong(
            "observe",
            "nothing would be observed: the rollout has no shadow step and no preview",
            Some(help.to_owned()),
        );
    }
    observes
}

fn testers(node: &Node, steps: &[Step]) -> Testers {
    let said = node.text_at("testers").and_then(|text| Testers::ALL.iter().find(|(_, name)| *name == text));
    // What is only previewed is there for whoever is let in.
    let usual = if steps.iter().any(Step::is_preview) { Testers::Token } else { Testers::Nobody };
    said.map_or(usual, |(testers, _)| *testers)
}

/// The share that is held out, where it can be.
fn holdout(reader: &mut Reader<'_, '_>, steps: &[Step]) -> u32 {
    let parts = reader.share("holdout").map_or(0, |share| (share * f64::from(WHOLE)).round() as u32);
    let largest = steps.iter().map(|s| s.weight).filter(|weight| *weight < WHOLE).max().unwrap_or(0);
    if parts > WHOLE / 2 {
        reader.wrong("holdout", "is half of the users at most", None);
    } else if parts > 0 && reader.duration("probation").unwrap_or(0) == 0 {
        let help = Some("set `probation` as well".to_owned());
        reader.wrong("holdout", "lasts as long as the probation, and there is none", help);
    } else if largest > WHOLE - parts {
        let message = format!("is more than the step of {} leaves to what served before", share(largest));
        reader.wrong("holdout", message, None);
    }
    parts
}

fn share(weight: u32) -> String {
    format!("{}%", f64::from(weight) / 100.0)
}

fn on_inconclusive(node: &Node) -> OnInconclusive {
    let text = node.get("on").and_then(|on| on.text_at("inconclusive"));
    text.and_then(|text| inconclusive(text).ok().flatten()).unwrap_or(OnInconclusive::Hold)
}

fn backup_ref(reader: &mut Reader<'_, '_>) -> Option<BackupRef> {
    let node = reader.node.get("backup")?;
    if let [_, second, ..] = node.one_or_many() {
        reader.report.not_yet(&second.at, &reader.path.key("backup"), "more than one `backup`", true);
    }
    node.one_or_many().iter().find_map(|item| backup(item.text()?).ok())
}

fn approve(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Option<Approve> {
    let node = reader.node.get("approve").filter(|n| n.table().is_some())?;
    let path = reader.path.key("approve");
    let mut reader = Reader { node, path, report: reader.report };
    let count = reader.whole("count").unwrap_or(1);
    let from = from(&mut reader, context);
    let ttl_ms = reader.positive_duration("ttl", 7 * DAY);
    if let Some(from) = from.as_ref().filter(|_| node.get("from").is_some()) {
        let group =
            |name: &String| context.groups.get(name).into_iter().flatten().cloned().collect::<Vec<_>>();
        let people: BTreeSet<String> = from
            .iter()
            .flat_map(|who| match who {
                Principal::Person(person) => vec![person.clone()],
                Principal::Group(name) => group(name),
            })
            .collect();
        if people.len() < usize::try_from(count).unwrap_or(usize::MAX) {
            let message = format!("`count` is {count}, but `from` names {} in all", people.len());
            reader.wrong("from", message, Some("add people to the groups, or lower `count`".to_owned()));
        }
    }
    let not_author = node.text_at("not") == Some("author");
    Some(Approve { count, from: from.unwrap_or_default(), not_author, ttl_ms })
}

/// Who may approve; `None` where a name in it is wrong, which is reported.
fn from(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Option<Vec<Principal>> {
    let mut all = Vec::new();
    let mut fine = true;
    for (i, item) in reader.node.get("from").map(Node::list).unwrap_or_default().iter().enumerate() {
        match item.text().map(principal) {
            Some(Ok(Principal::Group(group))) if !context.groups.contains_key(&group) => {
                fine = false;
                let names: Vec<&str> = context.groups.keys().map(String::as_str).collect();
                let help = suggest(&group, "group", &names)
                    .unwrap_or_else(|| format!("add it: [groups] {group} = [\"bob@example.com\"]"));
                let message = format!("there is no group `{group}`");
                reader.report.error(&item.at, &reader.path.key("from").item(i), message, Some(help));
            }
            Some(Ok(who)) => all.push(who),
            _ => fine = false,
        }
    }
    fine.then_some(all)
}

/// Where each value comes from, by its path inside the environment.
fn origins(node: &Node) -> BTreeMap<String, Origin> {
    fn walk(node: &Node, path: &Path, into: &mut BTreeMap<String, Origin>) {
        match &node.value {
            Value::Table(table) if !table.is_empty() => {
                table.iter().for_each(|(key, entry)| walk(entry, &path.key(key), into))
            }
            _ => drop(into.insert(path.to_string(), node.at.clone())),
        }
    }
    let mut all = BTreeMap::new();
    for (key, entry) in node.table().into_iter().flatten() {
        walk(entry, &Path::of(&[key]), &mut all);
    }
    all
}
