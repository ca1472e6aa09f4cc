//! Promotions, plans and environments as text for people.

use crate::output::{Out, Tone, clock, percent, span, table};
use lockgate_control::view::{
    EnvironmentView, PlanView, PromotionView, ReleaseView, StatusView, Term, WhyView,
};
use lockgate_core::gate::Outcome;
use lockgate_core::goal::GoalCount;
use lockgate_core::guard::{Judgement, Reading, Verdict};
use lockgate_core::promotion::{RolloutView, Stage};
use lockgate_core::wire::{LiveRollout, LiveSide};

/// The tone of a stage.
pub(crate) fn tone(stage: &Stage) -> Tone {
    match stage {
        Stage::Confirmed | Stage::Probation { .. } => Tone::Good,
        Stage::Rejected { .. } | Stage::RolledBack { .. } | Stage::Stranded { .. } | Stage::OnBackup => {
            Tone::Bad
        }
        Stage::Expired { .. } | Stage::RollingBack { .. } | Stage::FailingOver => Tone::Warn,
        _ => Tone::Strong,
    }
}

/// One line that says where a promotion stands and why.
pub(crate) fn stage_line(promotion: &PromotionView) -> String {
    match &promotion.stage {
        Stage::Gating => {
            let open = promotion.gates.iter().filter(|g| g.outcome.is_none()).count();
            format!("running gates, {open} of {} to go", promotion.gates.len())
        }
        Stage::AwaitingApproval => promotion
            .approvals
            .as_ref()
            .map_or_else(String::new, |a| format!("needs {} more approval(s) from {}", a.missing, a.from)),
        Stage::Queued => "waits for its turn".to_owned(),
        Stage::Rolling { rollout } => match (&rollout.step, &rollout.held) {
            (None, _) => "loading and warming the release".to_owned(),
            (Some(_), Some(held)) => format!("{}; {}", traffic(rollout), held.reason),
            (Some(_), None) => traffic(rollout),
        },
        Stage::Probation { until } => {
            let served = match promotion.plan.rollout.holdout {
                0 => "serves all traffic".to_owned(),
                parts => {
                    let held = f64::from(parts) / 100.0;
                    format!("serves {}% of the traffic, {held}% stay with what served before", 100.0 - held)
                }
            };
            format!("{served}, on probation until {}", clock(*until))
        }
        Stage::Confirmed => "serves all traffic".to_owned(),
        Stage::Rejected { reason } => reason.clone(),
        Stage::Expired { missing } => format!("too late: {missing}"),
        Stage::Superseded { by } => format!("replaced by {by}"),
        Stage::Cancelled => "taken back".to_owned(),
        Stage::RollingBack { cause } => format!("going back: {}", cause.summary()),
        Stage::RolledBack { cause, seal } => format!(
            "{}; last request to it {} ms after the decision, verified after {} ms",
            cause.summary(),
            seal.last_request_ms,
            seal.verified_ms
        ),
        Stage::FailingOver => "the backup is taking over".to_owned(),
        Stage::OnBackup => "the backup serves; a person is needed".to_owned(),
        Stage::Stranded { summary } => format!("nothing can serve: {summary}"),
    }
}

/// What a rollout's step does with the traffic.
fn traffic(rollout: &RolloutView) -> String {
    match (rollout.weight, rollout.shadow) {
        (0, 0) => "preview: warm, reached by testers alone, no user yet".to_owned(),
        (weight, 0) => format!("{} of the traffic", percent(share(weight))),
        (_, parts) => format!(
            "shadow {}: requests are mirrored, users get the old release's answers",
            percent(share(parts))
        ),
    }
}

fn share(weight: u32) -> f64 {
    f64::from(weight) / f64::from(lockgate_core::route::WHOLE)
}

/// A promotion, whole.
pub(crate) fn promotion(out: Out, p: &PromotionView) -> String {
    let head = format!(
        "{} {} v{} → {}  {}  {}\n",
        out.mark(Tone::Strong, p.id.as_str()),
        p.model,
        p.model_version,
        p.environment,
        out.mark(tone(&p.stage), &p.stage_name),
        stage_line(p),
    );
    let mut text = head;
    text.push_str(&format!("  release    {}   plan {}\n", p.release.short(), p.plan_hash.short()));
    text.push_str(&format!("  asked by   {}   at {}\n", p.requester, clock(p.created)));
    if !p.gates.is_empty() {
        text.push_str(&indent(&gates(out, p)));
    }
    if let Some(smoke) = &p.smoke {
        let mark = match smoke.outcome {
            Outcome::Pass => out.mark(Tone::Good, "pass"),
            Outcome::Fail => out.mark(Tone::Bad, "FAIL"),
            Outcome::Error => out.mark(Tone::Bad, "ERROR"),
        };
        text.push_str(&format!("  smoke test {mark}  {}\n", smoke.summary));
    }
    if let Some(a) = &p.approvals {
        let by = if a.by.is_empty() { "nobody yet".to_owned() } else { a.by.join(", ") };
        text.push_str(&format!(
            "  approvals  {} of {} ({by}); asked of {}\n",
            a.needed - a.missing,
            a.needed,
            a.from
        ));
    }
    for change in &p.changed_terms {
        text.push_str(&format!("  {}    {change}\n", out.mark(Tone::Warn, "changed")));
    }
    for a in &p.pending {
        text.push_str(&format!("  {:<10} asked by {}, not carried out yet\n", a.what.as_str(), a.by));
    }
    if let Some(live) = p.live.as_ref().filter(|_| moves(&p.stage)) {
        text.push_str(&indent(&sides(out, p.model.as_str(), &p.sides)));
        text.push_str(&indent(&rollout(out, live)));
    }
    text
}

/// Whether the agent moves traffic for the promotion now.
fn moves(stage: &Stage) -> bool {
    matches!(stage, Stage::Rolling { .. } | Stage::RollingBack { .. } | Stage::FailingOver)
}

/// The table of a promotion's gates.
pub(crate) fn gates(out: Out, p: &PromotionView) -> String {
    let rows: Vec<Vec<String>> = p
        .gates
        .iter()
        .map(|g| {
            let mark = match g.outcome {
                None => out.mark(Tone::Faint, "…"),
                Some(Outcome::Pass) => out.mark(Tone::Good, "pass"),
                Some(Outcome::Fail) => out.mark(Tone::Bad, "FAIL"),
                Some(Outcome::Error) => out.mark(Tone::Bad, "ERROR"),
            };
            vec!["gate".to_owned(), g.gate.to_string(), mark, g.summary.clone()]
        })
        .collect();
    table(&rows)
}

/// A rollout as the agent sees it now.
pub(crate) fn rollout(out: Out, live: &LiveRollout) -> String {
    let mut text = format!("rollout    {}\n", live.phase);
    text.push_str(&judgement(out, &live.judgement));
    if let Some(seconds) = live.seconds_to_verdict {
        text.push_str(&format!("expected time to verdict at this traffic: {}\n", span(seconds)));
    }
    text
}

/// What the guards say.
pub(crate) fn judgement(out: Out, j: &Judgement) -> String {
    let mut rows = Vec::new();
    for r in &j.readings {
        let verdict = match r.verdict {
            Verdict::Worse => out.mark(Tone::Bad, "worse"),
            Verdict::NotWorse if asks_for_gain(r) => out.mark(Tone::Good, "better"),
            Verdict::NotWorse => out.mark(Tone::Good, "not worse"),
            Verdict::Unknown => out.mark(Tone::Warn, "unknown"),
        };
        rows.push(vec!["guard".to_owned(), r.guard.to_string(), verdict, evidence(r), r.summary.clone()]);
    }
    table(&rows)
}

/// A guard's evidence as shares of what its verdicts need.
fn evidence(r: &Reading) -> String {
    if r.needed <= 0.0 || !(r.log_e_worse.is_finite() || r.log_e_not_worse.is_finite()) {
        return "by count".to_owned();
    }
    let share = |log_e: f64| {
        if log_e.is_finite() {
            format!("{:.0}%", (log_e.max(0.0) / r.needed * 100.0).min(999.0))
        } else {
            "?".to_owned()
        }
    };
    let good = if asks_for_gain(r) { "better" } else { "not worse" };
    format!("evidence for worse {}, for {good} {}", share(r.log_e_worse), share(r.log_e_not_worse))
}

/// Whether the guard is a goal that must be proven better.
pub(crate) fn asks_for_gain(r: &Reading) -> bool {
    r.goal.as_ref().is_some_and(|goal| goal.gain >= 0.0)
}

/// The outcomes that a goal's evidence was made from.
fn counted(r: &Reading, c: &GoalCount) -> String {
    let levels = |levels: &[(u32, u64)]| {
        let shown = levels.iter().take(8).map(|(level, n)| format!("{n} × {}", f64::from(*level) / 1000.0));
        let more = if levels.len() > 8 { ", …" } else { "" };
        format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
    };
    format!(
        "{} at {} share, centre {}: candidate {}; baseline {}",
        r.guard,
        percent(share(c.weight)),
        f64::from(c.centre) / 1000.0,
        levels(&c.candidate),
        levels(&c.baseline)
    )
}

/// One environment with what it runs.
pub(crate) fn environment(out: Out, e: &EnvironmentView) -> String {
    let agent = match (e.connected, e.agent_seen) {
        (true, _) => out.mark(Tone::Good, "agent up"),
        (false, Some(at)) => out.mark(Tone::Bad, &format!("agent last seen {}", clock(at))),
        (false, None) => out.mark(Tone::Warn, "no agent yet"),
    };
    let gateway = e.gateway.as_deref().unwrap_or("-");
    let mut text = format!("{}  {agent}  {gateway}\n", out.mark(Tone::Strong, e.name.as_str()));
    for doing in &e.doing {
        text.push_str(&format!("  {}\n", out.mark(Tone::Warn, doing)));
    }
    if e.models.is_empty() {
        text.push_str(&format!("  {}\n", out.mark(Tone::Faint, "serves nothing yet")));
    }
    for (model, live) in &e.models {
        text.push_str(&indent(&sides(out, model.as_str(), &live.sides)));
    }
    text
}

/// The sides of one model.
pub(crate) fn sides(out: Out, model: &str, sides: &[LiveSide]) -> String {
    let mut rows = vec![
        [
            "model", "side", "version", "release", "share", "workers", "requests", "bad", "p50", "p99",
            "memory", "cpu",
        ]
        .map(|h| out.mark(Tone::Faint, h))
        .to_vec(),
    ];
    for side in sides {
        let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.2} ms"));
        let workers = format!("{}/{}", side.workers.0, side.workers.1);
        let workers = if side.workers.0 < side.workers.1 { out.mark(Tone::Warn, &workers) } else { workers };
        let bad = side.errors.to_string();
        rows.push(vec![
            model.to_owned(),
            side.role.as_str().to_owned(),
            format!("v{}", side.model_version),
            side.release.short(),
            percent(side.share),
            workers,
            side.requests.to_string(),
            if side.errors > 0 { out.mark(Tone::Bad, &bad) } else { bad },
            ms(side.p50_ms),
            ms(side.p99_ms),
            side.resident_bytes.map_or_else(|| "-".to_owned(), |b| format!("{} MB", b / 1_000_000)),
            side.cpu_cores.map_or_else(|| "-".to_owned(), |c| format!("{c:.2}")),
        ]);
        if let Some(trouble) = &side.trouble {
            rows.push(vec![String::new(), out.mark(Tone::Bad, trouble)]);
        }
    }
    let mut text = table(&rows);
    for side in sides {
        // Below the table: a sentence would make its column as wide.
        let Some(lane) = &side.lane else { continue };
        text.push_str(&format!("  {} v{} runs {lane}\n", side.role.as_str(), side.model_version));
    }
    text
}

/// Everything at a glance.
pub(crate) fn status(out: Out, s: &StatusView) -> String {
    let mut text = String::new();
    match &s.project {
        Some(project) => text.push_str(&format!("project {}\n\n", out.mark(Tone::Strong, project.as_str()))),
        None => text.push_str("no project is configured yet\n\n"),
    }
    for e in &s.environments {
        text.push_str(&environment(out, e));
    }
    if !s.promotions.is_empty() {
        text.push_str("\npromotions\n");
    }
    for p in &s.promotions {
        let whole = promotion(out, p);
        // What has ended is a line; `why` tells the rest.
        let shown =
            if p.stage.is_active() { &whole } else { whole.split_inclusive('\n').next().unwrap_or_default() };
        text.push_str(&indent(shown));
    }
    text.push_str(&next(out, &s.next));
    text
}

/// The next sensible command.
pub(crate) fn next(out: Out, command: &str) -> String {
    if command.is_empty() { String::new() } else { format!("\nnext: {}\n", out.mark(Tone::Strong, command)) }
}

/// A plan.
pub(crate) fn plan(out: Out, v: &PlanView) -> String {
    let p = &v.plan;
    let mut text = format!("plan  {} v{} → {}\n", p.model, p.revision.model_version, p.environment);
    text.push_str(&format!("  release    {}\n", p.revision.release.short()));
    for change in &v.changes {
        text.push_str(&format!("  change     {change}\n"));
    }
    text.push_str(&terms(&v.terms));
    for change in &v.changed_terms {
        text.push_str(&format!("  {}    {change}\n", out.mark(Tone::Warn, "changed")));
    }
    text.push_str(&format!("  rollback   {}\n", v.rollback));
    if let Some(f) = &v.forecast {
        match f.rate {
            rate if rate > 0.0 => {
                text.push_str(&format!("  forecast   at {rate:.1} requests/s ({})\n", f.basis));
            }
            _ => text.push_str(&format!("  forecast   {}\n", f.basis)),
        }
        for row in &f.rows {
            let time = row.seconds.map_or_else(|| out.mark(Tone::Warn, "can't be foretold"), span);
            let until = row.outcomes.map_or_else(
                || "to `not worse`".to_owned(),
                |n| format!("to its proof (about {n:.0} outcomes)"),
            );
            text.push_str(&format!(
                "             {}{} share, guard {}: {time} {until}\n",
                if row.shadow { "shadow " } else { "" },
                percent(row.share),
                row.guard
            ));
        }
        if let Some(total) = f.total_seconds.filter(|_| !f.rows.is_empty()) {
            text.push_str(&format!("             all steps together: about {}\n", span(total)));
        }
        for advice in &f.advice {
            text.push_str(&format!("  {}     {advice}\n", out.mark(Tone::Warn, "advice")));
        }
    }
    for warning in &v.warnings {
        text.push_str(&format!("  {}    {warning}\n", out.mark(Tone::Warn, "warning")));
    }
    for obstacle in &v.obstacles {
        text.push_str(&format!("  {}   {obstacle}\n", out.mark(Tone::Bad, "obstacle")));
    }
    text.push_str(&next(out, &v.next));
    text
}

/// Why a promotion stands where it stands.
pub(crate) fn why(out: Out, v: &WhyView) -> String {
    let mut text = format!("{}\n\n{}", out.mark(Tone::Strong, &v.answer), promotion(out, &v.promotion));
    // What the agent sees now stands above already.
    if let (Stage::Rolling { rollout }, None) = (&v.promotion.stage, &v.promotion.live)
        && let Some(j) = &rollout.judgement
    {
        text.push_str("  what the guards said last\n");
        text.push_str(&indent(&judgement(out, j)));
    }
    if let Stage::RolledBack { cause: lockgate_core::event::Cause::Guard { judgement: j, .. }, .. } =
        &v.promotion.stage
    {
        text.push_str("  what the guards said when it was decided\n");
        text.push_str(&indent(&judgement(out, j)));
        for r in &j.readings {
            for c in r.goal.iter().flat_map(|goal| &goal.counts) {
                text.push_str(&format!("    {}\n", counted(r, c)));
            }
            for s in &r.segments {
                text.push_str(&format!(
                    "    {} {}: candidate {} events, baseline {} events\n",
                    r.guard,
                    if s.shadow {
                        "of mirrored requests".to_owned()
                    } else {
                        format!("at {} share", percent(s.weight))
                    },
                    s.candidate,
                    s.baseline
                ));
            }
        }
        text.push_str(&format!(
            "    merged evidence e = {:.1}, rolls back at {:.1} (chance of a false rollback {:.3})\n",
            j.log_e_rollback.exp().min(1e12),
            j.needed_rollback.exp(),
            (-j.needed_rollback).exp()
        ));
    }
    text.push_str("\nits plan's terms\n");
    text.push_str(&terms(&v.promotion.terms));
    text.push_str("\nwhat happened\n");
    let rows: Vec<Vec<String>> = v
        .timeline
        .iter()
        .map(|t| vec![format!("  {}", clock(t.at)), format!("#{}", t.seq), t.by.clone(), t.what.clone()])
        .collect();
    text.push_str(&table(&rows));
    text.push_str(&next(out, &v.promotion.next));
    text
}

/// The terms of a plan.
fn terms(all: &[Term]) -> String {
    let rows: Vec<Vec<String>> = all.iter().map(|t| vec![format!("  {}", t.name), t.text.clone()]).collect();
    table(&rows)
}

/// A release.
pub(crate) fn release(out: Out, r: &ReleaseView) -> String {
    let m = &r.manifest;
    let mut text = format!("release {}\n", out.mark(Tone::Strong, &r.digest.to_string()));
    text.push_str(&format!("  model      {} v{}\n", m.model, m.model_version));
    text.push_str(&format!("  made       {} by {}\n", clock(r.created), some(&r.authors)));
    if let Some(code) = &m.code {
        let dirty = if code.patch.is_some() { " with uncommitted changes" } else { "" };
        text.push_str(&format!("  code       {}{dirty}\n", &code.commit[..code.commit.len().min(12)]));
    }
    if let Some(run) = &m.run_id {
        text.push_str(&format!("  run        {run}\n"));
    }
    let bytes: u64 = m.files.iter().map(|f| f.size).sum();
    text.push_str(&format!("  files      {} ({bytes} bytes)\n", m.files.len()));
    for d in &m.data {
        text.push_str(&format!("  data       {} {}\n", d.name, d.sha256.short()));
    }
    let inputs: Vec<&str> = m.feature_schema.inputs.iter().map(|c| c.name.as_str()).collect();
    if !inputs.is_empty() {
        text.push_str(&format!("  inputs     {}\n", inputs.join(", ")));
    }
    text.push_str(&format!("  served by  {}\n", m.runtime.words()));
    text.push_str(&m.optimised.as_deref().map_or_else(String::new, optimised));
    for (environment, stage) in &r.environments {
        text.push_str(&format!("  {environment}: {stage}\n"));
    }
    text
}

/// What showed that a graph may stand in for a model.
fn optimised(o: &lockgate_core::release::Optimised) -> String {
    let rows: Vec<String> = o.rows.iter().map(|(source, n)| format!("{n} {source}")).collect();
    let versions: Vec<String> = o.versions.iter().map(|(name, v)| format!("{name} {v}")).collect();
    format!(
        "  optimised  a graph {}, in place of {}\n             answered alike: rows by source: {}; both refused {}\n             \
         largest difference {:.1e}, allowed {:.0e} and as much of the number\n             {}\n",
        o.numbers,
        o.original.words(),
        rows.join(", "),
        o.refused,
        o.largest,
        o.tolerance,
        versions.join(", ")
    )
}

/// Moves a block two columns to the right.
pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The first few of a list of names: a whole history may have hundreds of authors.
pub(crate) fn some(names: &[String]) -> String {
    let shown = names.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 4 { format!("{shown} and {} more", names.len() - 4) } else { shown }
}
