//! A plan's terms in words, and in which of them two plans differ: what people say yes to.

use lockgate_core::gate::GateSpec;
use lockgate_core::plan::{ApprovalRule, Plan, RolloutPlan};
use lockgate_core::route::WHOLE;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The terms of a plan, by name, in the order in which they are told.
pub(crate) fn terms(plan: &Plan) -> Vec<(String, String)> {
    let mut all = vec![("after".to_owned(), after(plan))];
    all.extend(plan.gates.iter().map(|(name, spec)| (format!("gate {name}"), gate(spec))));
    all.push(("approval".to_owned(), plan.approval.as_ref().map_or_else(|| "nobody's".to_owned(), approval)));
    all.push(("rollout".to_owned(), steps(&plan.rollout)));
    all.extend(plan.rollout.guards.iter().map(|(name, spec)| (format!("guard {name}"), spelled(spec))));
    all.push(("decisions".to_owned(), decisions(&plan.rollout)));
    all.push(("probation".to_owned(), span(plan.rollout.probation_ms)));
    all.extend(plan.data.iter().map(|(name, path)| (format!("data {name}"), path.clone())));
    all.extend(plan.revision.vars.iter().map(|(name, value)| (format!("variable {name}"), value.clone())));
    all.push(("runs on".to_owned(), runs_on(&plan.rollout)));
    all
}

/// In which terms `new` differs from `old`, one sentence a line.
pub(crate) fn changed(old: &Plan, new: &Plan) -> Vec<String> {
    let (before, after): (BTreeMap<String, String>, Vec<_>) = (terms(old).into_iter().collect(), terms(new));
    // Where there is nothing to compare with a plan has no steps, whatever the configuration says.
    let compares = old.control().is_some() && new.control().is_some();
    let counts = |name: &str| compares || name != "rollout";
    let mut found: Vec<String> = after
        .iter()
        .filter(|(name, text)| counts(name) && before.get(name) != Some(text))
        .map(|(name, text)| match before.get(name) {
            Some(was) => format!("{name}: {text} (was: {was})"),
            None => format!("{name}: {text} (is new)"),
        })
        .collect();
    let gone = before.iter().filter(|(name, _)| !after.iter().any(|(other, _)| other == *name));
    found.extend(gone.map(|(name, was)| format!("{name}: none any more (was: {was})")));
    found
}

fn after(plan: &Plan) -> String {
    let stations: Vec<String> = plan
        .lineage
        .iter()
        .map(|station| {
            let gates: Vec<&str> = station.gates.iter().map(|g| g.as_str()).collect();
            match gates.len() {
                0 => format!("{} (no gates)", station.environment),
                _ => format!("{} (gates {})", station.environment, gates.join(", ")),
            }
        })
        .collect();
    if stations.is_empty() { "nothing".to_owned() } else { stations.join(", ") }
}

/// A gate's terms. Which release it compares with follows from what serves, and is no term.
fn gate(spec: &GateSpec) -> String {
    let mut spec = spec.clone();
    if let GateSpec::Metric { versus: Some(versus), .. } = &mut spec {
        versus.release = None;
    }
    spelled(&spec)
}

/// Who must say yes, in words.
pub(crate) fn approval(rule: &ApprovalRule) -> String {
    let who = if rule.groups.is_empty() { "anybody".to_owned() } else { rule.groups.join(", ") };
    let not =
        if rule.not_author { ", but not from the release's authors or whoever asks for it" } else { "" };
    format!("{} from {who}{not}", rule.count)
}

fn steps(rollout: &RolloutPlan) -> String {
    let all: Vec<String> = rollout
        .steps
        .iter()
        .map(|step| {
            let share = format!("{}%", f64::from(step.weight) * 100.0 / f64::from(WHOLE));
            if step.hold_ms == 0 { share } else { format!("{share} for {}", span(step.hold_ms)) }
        })
        .collect();
    all.join(", then ")
}

fn decisions(rollout: &RolloutPlan) -> String {
    format!(
        "chance of a false rollback {}, of a false `not worse` {}; a step waits {} for its evidence, then: {}",
        rollout.alpha_rollback,
        rollout.alpha_promote,
        span(rollout.deadline_ms),
        plain(&rollout.on_inconclusive)
    )
}

fn runs_on(rollout: &RolloutPlan) -> String {
    let memory = match rollout.memory_bytes {
        0 => "no memory limit".to_owned(),
        bytes => format!("at most {} MiB each", bytes >> 20),
    };
    let timeout = span(i64::try_from(rollout.timeout_ms).unwrap_or(i64::MAX));
    format!("{} worker(s), {memory}; a request may take {timeout}", rollout.workers)
}

fn span(ms: i64) -> String {
    if ms == 0 {
        return "none".to_owned();
    }
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let unit = UNITS.iter().find(|(length, _)| ms >= *length && ms % length == 0);
    unit.map_or_else(|| format!("{ms} ms"), |(length, name)| format!("{} {name}", ms / length))
}

fn plain(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// A gate or a guard as it was written: its kind, and its fields.
fn spelled(spec: &impl Serialize) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(spec) else { return String::new() };
    let kind = fields.get("kind").map(plain).unwrap_or_default();
    let rest: Vec<String> = fields
        .iter()
        .filter(|(name, value)| *name != "kind" && !value.is_null())
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect();
    if rest.is_empty() { kind } else { format!("{kind}, {}", rest.join(", ")) }
}
