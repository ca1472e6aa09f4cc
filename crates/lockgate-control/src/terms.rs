//! A plan's terms in words, and in which of them it differs from those by which what serves came: what people say yes to.

use crate::view::Term;
use lockgate_core::gate::GateSpec;
use lockgate_core::goal::{Direction, GoalSpec};
use lockgate_core::guard::GuardSpec;
use lockgate_core::plan::{
    ApprovalRule, Isolation, Plan, Revision, RolloutPlan, Smoke, Step, Switch, Testers,
};
use lockgate_core::promotion::Promotion;
use lockgate_core::route::WHOLE;
use serde::Serialize;
use serde_json::Value;

/// The terms of a plan, in the order in which they are told. Each field of a plan is taken here, or left out by name, so that
/// none can be forgotten.
pub(crate) fn terms(plan: &Plan) -> Vec<Term> {
    let Plan {
        project: _,
        environment: _,
        model: _,
        revision: Revision { release: _, configuration: _, model_version: _, promotion: _, vars },
        baseline: _,
        backup,
        lineage,
        gates,
        approval: rule,
        rollout,
        data,
        python,
        task,
        target,
        authors: _,
        requester: _,
        gates_ms,
        made: _,
    } = plan;
    let mut all = Terms::default();
    let stations: Vec<&str> = lineage.iter().map(|station| station.environment.as_str()).collect();
    all.add("after", if stations.is_empty() { "nothing".to_owned() } else { stations.join(", ") });
    for station in lineage {
        all.extend(&format!("{} gate", station.environment), &station.gates, |spec| {
            spelled(&spec.question())
        });
    }
    all.extend("gate", gates, |spec: &GateSpec| spelled(&spec.question()));
    all.add("gates take", format!("at most {}", span(*gates_ms)));
    all.add("approval", approval(rule.as_ref()));
    of_rollout(&mut all, rollout, plan.control().is_some());
    let none = || "none".to_owned();
    all.add(
        "backup",
        backup.as_ref().map_or_else(none, |b| format!("v{} ({})", b.model_version, b.release.short())),
    );
    all.extend("data", data, Clone::clone);
    let target = target.as_ref().map_or_else(String::new, |column| format!(", label in column {column}"));
    all.add("task", format!("{task}{target}"));
    all.add("Python", python.clone().unwrap_or_else(none));
    all.extend("variable", vars, Clone::clone);
    all.0
}

fn of_rollout(all: &mut Terms, rollout: &RolloutPlan, compares: bool) {
    let RolloutPlan {
        steps,
        guards,
        unit_header,
        alpha_rollback,
        alpha_promote,
        alpha_sample_ratio,
        deadline_ms,
        on_inconclusive,
        probation_ms,
        prepare_ms,
        workers,
        timeout_ms,
        memory_bytes,
        batch_rows,
        smoke,
        testers,
        observe,
        holdout,
        isolation,
    } = rollout;
    all.add(ROLLOUT, shares(steps));
    if *observe {
        let words = if compares {
            "only: no user gets the release's answers; what would be decided is said and not done"
        } else {
            "only, but for this first release: ALL users get its answers, for nothing else could answer"
        };
        all.add(OBSERVES, words.to_owned());
    }
    if steps.iter().any(Step::is_preview) {
        all.add("preview", preview(smoke.as_ref()));
    }
    match testers {
        Testers::Nobody => {}
        Testers::Token => all.add("testers", "whoever has a preview token may choose who answers".to_owned()),
        Testers::Anybody => {
            all.add("testers", "ANYBODY who reaches the gateway may choose who answers".to_owned());
        }
    }
    all.extend("guard", guards, |spec| match spec {
        GuardSpec::Goal(goal) => aim(goal),
        other => spelled(other),
    });
    all.add(
        "unit",
        unit_header.as_ref().map_or_else(|| "each request".to_owned(), |name| format!("header {name}")),
    );
    all.add(
        "decisions",
        format!(
            "chance of a false rollback {alpha_rollback}, of a false `not worse` {alpha_promote}, of a false alarm about shares \
             {alpha_sample_ratio}; a step waits {} for its evidence, then: {}",
            span(*deadline_ms),
            plain(on_inconclusive)
        ),
    );
    all.add("probation", span(*probation_ms));
    if *holdout > 0 {
        let percent = f64::from(*holdout) / 100.0;
        all.add(
            "hold-out",
            format!("{percent}% of the users stay with what served before until the probation is over"),
        );
    }
    let memory = match memory_bytes {
        0 => "no memory limit".to_owned(),
        bytes => format!("at most {} MiB each", bytes >> 20),
    };
    let timeout = span(i64::try_from(*timeout_ms).unwrap_or(i64::MAX));
    let ready = span(*prepare_ms);
    let together = match batch_rows {
        None => String::new(),
        Some(1) => "; a Python model is called for each request alone".to_owned(),
        Some(rows) => format!("; a Python model is called with at most {rows} rows of several requests"),
    };
    let words = format!(
        "{workers} worker(s), {memory}, ready within {ready}; a request may take {timeout}{together}"
    );
    all.add("runs on", words);
    if *isolation == Isolation::Inline {
        let words = "once it is all that users reach: what breaks the model breaks the gateway";
        all.add("runs INSIDE the gateway", words.to_owned());
    }
}

/// The terms that are others where there is nothing to compare with, whatever the configuration says.
const ROLLOUT: &str = "rollout";
const OBSERVES: &str = "observes";

#[derive(Default)]
struct Terms(Vec<Term>);

impl Terms {
    fn add(&mut self, name: &str, text: String) {
        self.0.push(Term { name: name.to_owned(), text });
    }

    fn extend<'a, K: std::fmt::Display + 'a, V: 'a>(
        &mut self,
        what: &str,
        named: impl IntoIterator<Item = (&'a K, &'a V)>,
        words: impl Fn(&V) -> String,
    ) {
        named.into_iter().for_each(|(name, value)| self.add(&format!("{what} {name}"), words(value)));
    }
}

/// In which terms a plan differs from the one by which its baseline came, one sentence a line; `all` holds the promotions of
/// the same place. Where nothing tells by which terms that was, that is the difference.
pub(crate) fn changed(plan: &Plan, all: &[Promotion]) -> Vec<String> {
    let Some(baseline) = plan.baseline.as_ref().map(Revision::digest) else { return Vec::new() };
    let before = all
        .iter()
        .filter(|p| p.plan.environment == plan.environment && p.plan.model == plan.model)
        .filter(|p| p.plan.revision.digest() == baseline && p.entered.is_some() && p.created < plan.made)
        .max_by_key(|p| p.created);
    match before {
        Some(before) => differences(&before.plan, plan),
        None => vec!["nothing tells by which terms what serves now came here".to_owned()],
    }
}

fn differences(old: &Plan, new: &Plan) -> Vec<String> {
    let compares = old.control().is_some() && new.control().is_some();
    let counts = |term: &&Term| compares || ![ROLLOUT, OBSERVES].contains(&term.name.as_str());
    let (old, new) = (terms(old), terms(new));
    let find = |all: &[Term], name: &str| all.iter().find(|t| t.name == name).map(|t| t.text.clone());
    let mut found = Vec::new();
    for Term { name, text } in new.iter().filter(counts) {
        match find(&old, name) {
            Some(was) if was == *text => {}
            Some(was) => found.push(format!("{name}: {text} (was: {was})")),
            None => found.push(format!("{name}: {text} (is new)")),
        }
    }
    let gone = old.iter().filter(counts).filter(|term| find(&new, &term.name).is_none());
    found.extend(gone.map(|term| format!("{}: none any more (was: {})", term.name, term.text)));
    found
}

/// Who must say yes, in words.
pub(crate) fn approval(rule: Option<&ApprovalRule>) -> String {
    let Some(ApprovalRule { count, from, groups, not_author, ttl_ms }) = rule else {
        return "nobody's".to_owned();
    };
    let who = match groups.as_slice() {
        [] => "anybody".to_owned(),
        groups => format!("{} (people: {})", groups.join(", "), from.len()),
    };
    let not = if *not_author { ", but not from the release's authors or whoever asks for it" } else { "" };
    format!("{count} from {who}{not}; within {}", span(*ttl_ms))
}

fn shares(steps: &[Step]) -> String {
    let all: Vec<String> = steps
        .iter()
        .map(|step| {
            let percent = |parts: u32| format!("{}%", f64::from(parts) * 100.0 / f64::from(WHOLE));
            let share = match (step.preview, step.shadow) {
                (Some(_), _) => "preview".to_owned(),
                (None, 0) if step.ab => format!("a/b {}", percent(step.weight)),
                (None, 0) => percent(step.weight),
                (None, parts) => format!("shadow {}", percent(parts)),
            };
            let hold = if step.hold_ms == 0 { String::new() } else { format!(" for {}", span(step.hold_ms)) };
            let hand = if step.preview == Some(Switch::ByHand) { " by hand" } else { "" };
            format!("{share}{hold}{hand}")
        })
        .collect();
    all.join(", then ")
}

/// What decides that a preview ends. No guard does: they need users.
fn preview(smoke: Option<&Smoke>) -> String {
    let smoke = match smoke {
        None => "no smoke test".to_owned(),
        Some(Smoke { run, timeout_ms }) => {
            let within = span(i64::try_from(*timeout_ms).unwrap_or(i64::MAX));
            format!("smoke test `{run}` must pass within {within}")
        }
    };
    format!("only testers reach the release; {smoke}; what follows is decided without a user's request")
}

/// A span exactly, in the largest unit in which it is a whole number: terms are compared by their words.
fn span(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    if ms == 0 {
        return "none".to_owned();
    }
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

/// A goal in words.
fn aim(goal: &GoalSpec) -> String {
    let GoalSpec { metric, direction, gain, rollback_by, least, most, within_ms, missing } = goal;
    let way = match direction {
        Direction::Up => "more",
        Direction::Down => "less",
    };
    let needs = if goal.asks_for_gain() {
        format!("a gain above {} points", gain * 100.0)
    } else {
        format!("a loss below {} points", -gain * 100.0)
    };
    let within = within_ms.map_or_else(String::new, |ms| format!(", if it comes within {}", span(ms)));
    let within = match missing {
        Some(value) => format!("{within}, and else as {value}"),
        None => within,
    };
    format!(
        "goal, `{metric}` between {least} and {most}, {way} is better{within}; an A/B step needs proof of {needs}, proof of a loss \
         above {} points rolls back",
        rollback_by * 100.0
    )
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
