//! Runs a script and tells what happens: each command as it stands in the script, and below it what followed.

use crate::script::{self, Behaviour, GateResult, Words};
use crate::world::{self, Parts, World};
use lockgate_core::id::{PrincipalId, PromotionId};
use lockgate_core::promotion::Command;
use std::fmt::Write as _;

/// Runs a script and gives back its story.
///
/// # Errors
/// With the line's number: where a command can't be read, or an expectation isn't met.
pub fn tell(script: &str, seed: u64, parts: Parts) -> Result<String, String> {
    let (story, ended) = tell_all(script, seed, parts);
    ended.map(|_| story)
}

/// Runs a script and gives back its story as far as it went, and the world at its end or why it ended before.
pub fn tell_all(script: &str, seed: u64, parts: Parts) -> (String, Result<World, String>) {
    let mut teller = Teller { world: None, seed, parts, story: String::new() };
    for (number, line) in script.lines().enumerate() {
        // Writing to a text can't fail.
        let _ = writeln!(
            teller.story,
            "{}{line}",
            if line.is_empty() || line.starts_with('#') { "" } else { "> " }
        );
        if let Err(why) = teller.line(line) {
            let why = format!("line {}: {line}: {why}", number + 1);
            let _ = writeln!(teller.story, "error: {why}");
            return (teller.story, Err(why));
        }
    }
    let ended = teller.world.ok_or_else(|| "the script is empty".to_owned());
    (teller.story, ended)
}

struct Teller {
    world: Option<World>,
    seed: u64,
    parts: Parts,
    story: String,
}

impl Teller {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let line = line.split(" #").next().unwrap_or_default();
        let words = Words::new(line);
        match words.at(0) {
            Err(_) => return Ok(()),
            Ok(first) if first.starts_with('#') => return Ok(()),
            Ok("environment") => {
                self.world = Some(World::new(script::environment(&words)?, self.seed, self.parts)?);
                return Ok(());
            }
            Ok(_) => {}
        }
        let world = self.world.as_mut().ok_or("begin with `environment`")?;
        let said = command(world, &words)?;
        for words in world.news().into_iter().chain(said) {
            let _ = writeln!(self.story, "  {words}");
        }
        Ok(())
    }
}

fn command(world: &mut World, words: &Words<'_>) -> Result<Option<String>, String> {
    match words.at(0)? {
        "release" => release(world, words)?,
        "behave" => {
            let mut behaviour = world.behaviour(words.at(1)?)?.clone();
            script::behave(words, &mut behaviour)?;
            *world.behaviour(words.at(1)?)? = behaviour;
        }
        "traffic" => traffic(world, words)?,
        "heavy" => world.demand().heavy = script::rate(words.at(1)?)?,
        "incident" => {
            let over = words.option("over").map(script::span).transpose()?;
            world.incident(script::share(words.at(1)?)?, over);
        }
        "lose" => world.demand().lost = script::share(words.at(1)?)?,
        "counts" => match words.at(1)? {
            "lost" => world.set_counts(true, false),
            "frozen" => world.set_counts(false, true),
            "back" => world.set_counts(false, false),
            other => return Err(format!("counts can be lost, frozen or back, not `{other}`")),
        },
        "promote" => {
            let asked = world.ask(words.at(1)?, &person(words.option("by").unwrap_or("ci"))?);
            return Ok(Some(match asked {
                Ok(id) => format!("{} server  {} is asked for", world.clock(), world::short(&id)),
                Err(why) => format!("{} server  refused: {why}", world.clock()),
            }));
        }
        "approve" | "reject" | "cancel" | "pause" | "resume" | "abort" | "rollback" => {
            return people(world, words).map(Some);
        }
        "run" => world.run(script::span(words.at(1)?)?)?,
        "server" => world.set_server(words.at(1)? == "up"),
        "gateway" => gateway(world, words)?,
        "kill" => world.kill(script::kill_point(words.at(1)?)?),
        "clock" => {
            let text = words.at(1)?;
            let by = script::span(text.trim_start_matches(['+', '-']))?;
            world.jump(if text.starts_with('-') { -by } else { by });
        }
        "show" => return Ok(Some(format!("{} traffic {}", world.clock(), world.routes()))),
        "expect" => expect(world, words)?,
        other => return Err(format!("there is no command `{other}`")),
    }
    Ok(None)
}

fn person(name: &str) -> Result<PrincipalId, String> {
    PrincipalId::new(name).map_err(|e| format!("{e:?}"))
}

fn release(world: &mut World, words: &Words<'_>) -> Result<(), String> {
    let name = words.at(1)?;
    let mut behaviour = Behaviour { latency_ms: 10.0, ..Behaviour::default() };
    script::behave(words, &mut behaviour)?;
    let gates: GateResult = script::gates(words)?;
    world.release(
        name,
        words.option("same-as").unwrap_or(name),
        person(words.option("by").unwrap_or("dana"))?,
        gates,
        behaviour,
    );
    Ok(())
}

/// How much is asked, by whom, and when.
fn traffic(world: &mut World, words: &Words<'_>) -> Result<(), String> {
    let (rate, users) = (script::rate(words.at(1)?)?, words.option("users"));
    let users = users.map(|n| n.parse().map_err(|_| format!("`{n}` is no number"))).transpose()?;
    let retries = words.option("retries").map_or(Ok(0.0), script::share)?;
    let idle = match words.option("idle").map(|text| text.split_once('/').ok_or("write idle=10m/20m")) {
        Some(parts) => {
            let (idle, period) = parts?;
            Some((script::span(idle)?, script::span(period)?))
        }
        None => None,
    };
    let demand = world.demand();
    (demand.per_second, demand.users, demand.idle, demand.retries) = (rate, users, idle, retries);
    Ok(())
}

/// What people do. A refusal is part of the story, not the script's end.
fn people(world: &mut World, words: &Words<'_>) -> Result<String, String> {
    let id: PromotionId = world::promotion(words.at(1)?)?;
    let by = person(words.option("by").unwrap_or("ann"))?;
    let verb = words.at(0)?;
    let done = match (verb, script::instruction(verb)) {
        ("approve", _) => world.approve(&id, by, !words.has("machine"), words.has("stale")),
        ("reject", _) => world.command(&id, &Command::Reject { by, reason: "a person said no".to_owned() }),
        ("cancel", _) => world.command(&id, &Command::Cancel),
        (_, Some(kind)) => world.tell(&id, kind, by, &words.rest(2)),
        _ => Err(format!("nobody can {verb}")),
    };
    Ok(match done {
        Ok(()) => format!("{} server  noted", world.clock()),
        Err(why) => format!("{} server  refused: {why}", world.clock()),
    })
}

fn gateway(world: &mut World, words: &Words<'_>) -> Result<(), String> {
    let number = words.at(1)?.parse().map_err(|_| "write gateway 1".to_owned())?;
    let gateway = world.gateway(number)?;
    if let Some(lag) = words.option("lag") {
        gateway.lag = script::span(lag)?;
        return Ok(());
    }
    match words.at(2)? {
        "partition" => gateway.is_partitioned = true,
        "heal" => gateway.is_partitioned = false,
        other => return Err(format!("a gateway can partition, heal or lag=5s, not `{other}`")),
    }
    Ok(())
}

fn expect(world: &World, words: &Words<'_>) -> Result<(), String> {
    let check = |holds: bool, found: String| if holds { Ok(()) } else { Err(format!("found {found}")) };
    match words.at(1)? {
        "routes" => check(world.routes() == words.rest(2), world.routes()),
        "sticky" => {
            check(world.moved_back() == 0, format!("{} users who were moved back", world.moved_back()))
        }
        "mirrored" => check(world.is_mirrored(), "another picture at the server".to_owned()),
        "unanswered" => compare(world.unanswered(), words.at(2)?, words.at(3)?),
        "fair" => check(world.is_fair(), "a share that was not kept".to_owned()),
        what @ ("requests" | "failed" | "bad") => {
            let totals = world.totals(words.at(2)?);
            let found = match what {
                "requests" => totals.requests,
                "failed" => totals.failed,
                _ => totals.bad_answers,
            };
            compare(found, words.at(3)?, words.at(4)?)
        }
        promotion => {
            let stage = world.stage(&world::promotion(promotion)?).unwrap_or("nothing");
            check(stage == words.at(2)?, stage.to_owned())
        }
    }
}

fn compare(found: u64, sign: &str, limit: &str) -> Result<(), String> {
    let limit: u64 = limit.parse().map_err(|_| format!("`{limit}` is no number"))?;
    let holds = match sign {
        "<" => found < limit,
        ">" => found > limit,
        "is" => found == limit,
        other => return Err(format!("compare by <, > or is, not `{other}`")),
    };
    if holds { Ok(()) } else { Err(format!("found {found}")) }
}
