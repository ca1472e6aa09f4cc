//! `plan`, `promote`, `approve`, `reject`, `watch`, `pause`, `resume`, `abort`, `why`.

use crate::cli;
use crate::client::{Client, Unanswered};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Out, Tone};
use crate::render;
use anyhow::{Context as _, bail};
use lockgate_control::view::{GateView, PlanView, PromotionRequest, PromotionView, WhyView};
use lockgate_core::digest::Digest;
use lockgate_core::gate::Outcome;
use lockgate_core::id::{EnvironmentName, PromotionId};
use lockgate_core::promotion::Stage;
use lockgate_core::route::Role;
use serde_json::json;
use std::time::{Duration, Instant};

/// How often a waiting command looks.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// How long a waiting command bears a server that does not answer.
const AWAY: Duration = Duration::from_secs(60);

/// The request behind `plan` and `promote`.
fn request(args: &cli::Plan) -> anyhow::Result<PromotionRequest> {
    if args.rps.is_some_and(|r| !(r.is_finite() && r > 0.0)) {
        bail!("--rps must be a number above 0");
    }
    Ok(PromotionRequest {
        release: args.release.clone(),
        environment: EnvironmentName::new(args.env.clone())?,
        rate: args.rps,
        lift_quarantine: None,
        configuration: None,
    })
}

/// `plan`
pub(crate) async fn plan(ctx: &Context, args: &cli::Plan) -> anyhow::Result<Exit> {
    let mut body = request(args)?;
    body.configuration = super::project::configuration(ctx)?;
    let view: PlanView = ctx.client()?.post("plan", &body).await?;
    ctx.out.show(&view, || render::plan(ctx.out, &view))?;
    Ok(if view.obstacles.is_empty() { Exit::Pending } else { Exit::Error })
}

/// `promote`
pub(crate) async fn promote(ctx: &Context, args: &cli::Promote) -> anyhow::Result<Exit> {
    let client = super::project::applied(ctx).await?;
    let mut body = request(&args.plan)?;
    body.lift_quarantine.clone_from(&args.lift_quarantine);
    let timeout = args.timeout.as_deref().map(parse_span).transpose()?;
    let view: PromotionView = client.post("promotions", &body).await?;
    if args.wait {
        return follow(ctx.out, &client, &view, timeout, true).await;
    }
    ctx.out.show(&view, || {
        format!("{}{}", render::promotion(ctx.out, &view), render::next(ctx.out, &view.next))
    })?;
    Ok(exit_of(&view.stage, &view.gates))
}

/// Finds the promotion that a person means.
pub(crate) async fn find(client: &Client, which: &cli::Which) -> anyhow::Result<PromotionView> {
    let mut path = "promotions/find?".to_owned();
    if let Some(id) = &which.promotion {
        path.push_str(&format!("id={}&", super::encode(id)));
    }
    if let Some(environment) = &which.env {
        path.push_str(&format!("environment={}", super::encode(environment)));
    }
    client.get(&path).await
}

/// `approve`
pub(crate) async fn approve(ctx: &Context, args: &cli::Approve) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let found = find(&client, &args.which).await?;
    let plan_hash: Digest = match &args.plan {
        Some(text)
            if found.plan_hash.hex().starts_with(text.trim_start_matches("sha256:")) && text.len() >= 8 =>
        {
            found.plan_hash
        }
        Some(text) => bail!(
            "the plan is {} now, not {text}\n  hint: look at it with `lockgate why {}`",
            found.plan_hash.short(),
            found.id
        ),
        None if found.changed_terms.is_empty() => found.plan_hash,
        // Whoever asks for a promotion may have brought other terms along: nobody agrees to them unseen.
        None => bail!(
            "its terms are not those by which what `{}` serves came there:\n  {}\n  hint: if you agree to that: lockgate approve {} --plan {}   (all terms: lockgate why {})",
            found.environment,
            found.changed_terms.join("\n  "),
            found.id,
            found.plan_hash.short(),
            found.id
        ),
    };
    let body = json!({ "plan_hash": plan_hash });
    let view: PromotionView = client.post(&format!("promotions/{}/approve", found.id), &body).await?;
    ctx.out.show(&view, || {
        format!(
            "approved plan {} of {}\n{}{}",
            plan_hash.short(),
            found.id,
            render::promotion(ctx.out, &view),
            render::next(ctx.out, &view.next)
        )
    })?;
    Ok(Exit::Done)
}

/// `reject`, `pause`, `resume`, `abort`
pub(crate) async fn decide(ctx: &Context, verb: &str, args: &cli::Decision) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let found = find(&client, &args.which).await?;
    let body = json!({ "reason": args.reason });
    let view: PromotionView = client.post(&format!("promotions/{}/{verb}", found.id), &body).await?;
    ctx.out.show(&view, || {
        format!(
            "{verb}: asked of {}\n{}{}",
            found.id,
            render::promotion(ctx.out, &view),
            render::next(ctx.out, &view.next)
        )
    })?;
    Ok(Exit::Done)
}

/// `watch`
pub(crate) async fn watch(ctx: &Context, args: &cli::Watch) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let timeout = args.timeout.as_deref().map(parse_span).transpose()?;
    let found = find(&client, &args.which).await?;
    follow(ctx.out, &client, &found, timeout, false).await
}

/// `why`
pub(crate) async fn why(ctx: &Context, which: &cli::Which) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let found = find(&client, which).await?;
    let view: WhyView = client.get(&format!("promotions/{}/why", found.id)).await?;
    ctx.out.show(&view, || render::why(ctx.out, &view))?;
    Ok(Exit::Done)
}

/// Follows a promotion until it ends, or until it waits for people.
pub(crate) async fn follow(
    out: Out,
    client: &Client,
    first: &PromotionView,
    timeout: Option<Duration>,
    stop_at_approval: bool,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let mut drawn = 0;
    let mut said = String::new();
    loop {
        let view = look(out, client, &first.id, timeout.map(|t| begun + t)).await?;
        let text = render::promotion(out, &view);
        if out.is_live() {
            drawn = out.redraw(drawn, &text);
        } else if !out.is_json() {
            let (line, seen) = brief(&view);
            if line != said {
                out.say(&format!("{line}{seen}"));
                said = line;
            }
        }
        let waits = view.needs_person && (stop_at_approval || view.stage != Stage::AwaitingApproval);
        let late = timeout.is_some_and(|t| begun.elapsed() > t);
        if !view.stage.is_active() || waits || late {
            out.show(&view, || {
                let body = if out.is_live() { String::new() } else { text };
                let late = if late && !waits && view.stage.is_active() {
                    "stopped waiting; the promotion goes on\n"
                } else {
                    ""
                };
                format!("{body}{late}{}", render::next(out, &view.next))
            })?;
            let still = late && view.stage.is_active() && view.stage != Stage::AwaitingApproval;
            return Ok(if still { Exit::Held } else { exit_of(&view.stage, &view.gates) });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A promotion as it stands. A server that is started again goes on where it was, and whoever waits for a promotion does, too:
/// for [`AWAY`], but not beyond the time that the waiting may take.
async fn look(
    out: Out,
    client: &Client,
    id: &PromotionId,
    until: Option<Instant>,
) -> anyhow::Result<PromotionView> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        match client.get(&format!("promotions/{id}")).await {
            Err(error) if error.is::<Unanswered>() => {
                let now = Instant::now();
                if now - begun > AWAY || until.is_some_and(|until| now > until) {
                    return Err(error);
                }
                if !said {
                    out.aside("the server does not answer; waiting for it");
                    said = true;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            answer => return answer,
        }
    }
}

/// One calm line for logs, printed when it changes, and the numbers of that moment.
fn brief(view: &PromotionView) -> (String, String) {
    let gates =
        view.gates.iter().filter(|g| g.outcome.is_some()).map(|g| g.gate.to_string()).collect::<Vec<_>>();
    let done = match view.stage {
        Stage::Gating if !gates.is_empty() => format!(" (done: {})", gates.join(", ")),
        _ => String::new(),
    };
    let live = view.live.as_ref().map_or_else(String::new, |l| {
        let verdicts: Vec<String> =
            l.judgement.readings.iter().map(|r| format!("{} {}", r.guard, verdict(r))).collect();
        if verdicts.is_empty() { String::new() } else { format!("  [{}]", verdicts.join(", ")) }
    });
    // Numbers that change with every look stay out of this line; they come where a verdict changed.
    let candidate = view.sides.iter().find(|s| s.role == Role::Candidate);
    let seen = candidate.map_or_else(String::new, |s| {
        let p99 = s.p99_ms.map_or_else(String::new, |ms| format!(", p99 {ms:.1} ms"));
        let goals: String =
            view.live.iter().flat_map(|l| l.judgement.readings.iter().filter_map(difference)).collect();
        format!("  ({} requests to it, {} bad{p99}{goals})", s.requests, s.errors)
    });
    let line = format!(
        "{} → {}  {}: {}{done}{live}",
        view.model,
        view.environment,
        view.stage_name,
        render::stage_line(view)
    );
    (line, seen)
}

fn verdict(r: &lockgate_core::guard::Reading) -> &'static str {
    match r.verdict {
        lockgate_core::guard::Verdict::Worse => "worse",
        lockgate_core::guard::Verdict::NotWorse if render::asks_for_gain(r) => "better",
        lockgate_core::guard::Verdict::NotWorse => "not worse",
        lockgate_core::guard::Verdict::Unknown => "unknown",
    }
}

/// How a goal's outcomes differ, in short.
fn difference(r: &lockgate_core::guard::Reading) -> Option<String> {
    let goal = r.goal.as_ref()?;
    let (d, low, high) = goal.difference?;
    let [d, low, high] = [d, low, high].map(|share| share * 100.0);
    let outcomes = goal.labelled.candidate + goal.labelled.baseline;
    Some(format!("; {}: {d:+.1} points ({low:+.1} to {high:+.1}) by {outcomes} outcomes", r.guard))
}

/// The exit code of a promotion that somebody waited for, or looked at.
pub(crate) fn exit_of(stage: &Stage, gates: &[GateView]) -> Exit {
    match stage {
        Stage::Confirmed | Stage::Probation { .. } => Exit::Done,
        // It did not enter: a script that goes on as if it had would be wrong.
        Stage::Superseded { .. } | Stage::Cancelled => Exit::Error,
        // A person's no, or an agent that can't run it, is no verdict of a gate.
        Stage::Rejected { .. } if gates.iter().any(|g| g.outcome.is_some_and(|o| o != Outcome::Pass)) => {
            Exit::GateFailed
        }
        Stage::Rejected { .. } => Exit::Error,
        Stage::AwaitingApproval => Exit::AwaitingApproval,
        Stage::RolledBack { .. }
        | Stage::RollingBack { .. }
        | Stage::OnBackup
        | Stage::FailingOver
        | Stage::Stranded { .. } => Exit::RolledBack,
        Stage::Expired { .. } => Exit::Held,
        Stage::Rolling { rollout } if rollout.held.is_some() => Exit::Held,
        Stage::Gating | Stage::Queued | Stage::Rolling { .. } => Exit::Done,
    }
}

/// The exit code of a rollback that somebody asked for: gone back is what was wanted.
fn exit_of_rollback(stage: &Stage) -> Exit {
    match stage {
        Stage::RolledBack { .. } => Exit::Done,
        Stage::OnBackup | Stage::Stranded { .. } => Exit::RolledBack,
        _ => Exit::Error,
    }
}

/// Reads a span of time such as `90s`, `10m`, `2h`.
pub(crate) fn parse_span(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("`{text}` is no span of time\n  hint: write it like 90s, 10m or 2h"),
    };
    let seconds: f64 =
        number.trim().parse().with_context(|| format!("`{text}` is no span of time such as 10m"))?;
    Duration::try_from_secs_f64(seconds * factor).with_context(|| format!("`{text}` is out of range"))
}

/// `rollback`
pub(crate) async fn rollback(ctx: &Context, args: &cli::Rollback) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let environment = EnvironmentName::new(args.environment.clone())?;
    let body = json!({ "model": args.model, "reason": args.reason });
    let view: PromotionView = client.post(&format!("environments/{environment}/rollback"), &body).await?;
    if args.wait {
        return follow_rollback(ctx.out, &client, &view).await;
    }
    ctx.out.show(&view, || {
        format!(
            "asked {environment} to go back from {} v{}\n{}",
            view.model,
            view.model_version,
            render::next(ctx.out, &format!("lockgate watch {}", view.id))
        )
    })?;
    Ok(Exit::Done)
}

/// Waits until an asked-for rollback has ended; gives up after a minute, as a rollback takes milliseconds.
async fn follow_rollback(out: Out, client: &Client, first: &PromotionView) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    loop {
        let view = look(out, client, &first.id, None).await?;
        if view.stage.is_terminal() {
            out.show(&view, || render::promotion(out, &view))?;
            return Ok(exit_of_rollback(&view.stage));
        }
        if begun.elapsed() > Duration::from_secs(60) {
            out.say(&out.mark(Tone::Bad, "the agent has not carried the rollback out within 60 s"));
            return Ok(Exit::Error);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::event::{Cause, Seal};
    use lockgate_core::id::{GateName, PrincipalId};
    use lockgate_core::promotion::{Held, RolloutView, Until};

    fn gates(outcomes: &[Option<Outcome>]) -> Vec<GateView> {
        let gate = |outcome| GateView {
            gate: GateName::new("quality").unwrap(),
            kind: "metric".to_owned(),
            outcome,
            summary: String::new(),
            log: None,
        };
        outcomes.iter().copied().map(gate).collect()
    }

    #[test]
    fn a_failed_gate_has_its_own_code_and_a_persons_no_has_not() {
        let no = Stage::Rejected { reason: "no".to_owned() };
        assert_eq!(exit_of(&no, &gates(&[Some(Outcome::Pass), Some(Outcome::Fail)])), Exit::GateFailed);
        assert_eq!(exit_of(&no, &gates(&[Some(Outcome::Error)])), Exit::GateFailed);
        assert_eq!(exit_of(&no, &gates(&[Some(Outcome::Pass), None])), Exit::Error);
        assert_eq!(exit_of(&no, &[]), Exit::Error);
    }

    #[test]
    fn a_wanted_rollback_is_done_when_it_has_gone_back() {
        let back = Stage::RolledBack {
            cause: Cause::Person { by: PrincipalId::new("u_x").unwrap(), reason: String::new() },
            seal: Seal {
                last_request_ms: 1,
                verified_ms: 2,
                candidate_requests: 0,
                candidate_errors: 0,
                counted_since: None,
            },
        };
        assert_eq!(exit_of_rollback(&back), Exit::Done);
        assert_eq!(exit_of(&back, &[]), Exit::RolledBack);
        assert_eq!(exit_of_rollback(&Stage::OnBackup), Exit::RolledBack);
        let held = Held { reason: "paused".to_owned(), until: Until::Resumed };
        let rollout = RolloutView { step: Some(0), held: Some(held), ..RolloutView::default() };
        assert_eq!(exit_of(&Stage::Rolling { rollout }, &[]), Exit::Held);
    }
}
