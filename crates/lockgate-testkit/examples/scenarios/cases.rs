//! What is played: a script up to the moment in which the candidate is asked for, and how long it may take from there.

use lockgate_core::clock::Millis;

/// Whether the candidate must come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twin {
    Good,
    Bad,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) scenario: &'static str,
    pub(crate) twin: Twin,
    pub(crate) what: String,
    pub(crate) runs: u64,
    pub(crate) script: String,
    pub(crate) horizon: Millis,
    pub(crate) fault: Fault,
}

/// What is bad about a bad candidate's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They are seen to be bad.
    Errors,
    /// Every one is, and none looks so.
    Silent,
    /// They come late.
    Slow,
}

const MINUTE: Millis = 60_000;

/// A rollout: traffic, steps, what both are like.
#[derive(Clone, Copy)]
struct Setting {
    steps: &'static str,
    environment: &'static str,
    traffic: &'static str,
    baseline: &'static str,
    candidate: &'static str,
    /// Commands between the request for the candidate and the rest.
    then: &'static str,
    minutes: Millis,
}

const USUAL: Setting = Setting {
    steps: "5%/60m,100%/5m",
    environment: "",
    traffic: "20/s",
    baseline: "errors=0.5%",
    candidate: "errors=0.5%",
    then: "",
    minutes: 60,
};

/// In three steps to all the traffic.
const RAMP: &str = "5%/5m,25%/5m,100%/5m";

/// A candidate that goes wrong once it has all the traffic.
const AFTERWARDS: Setting = Setting {
    steps: "25%/2m,100%/60m",
    environment: "",
    traffic: "200/s",
    baseline: "errors=0.1%",
    candidate: "errors=0.1%",
    then: "run 10m\nbehave v2 errors=4%",
    minutes: 30,
};

impl Case {
    fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
}

impl Setting {
    fn case(self, scenario: &'static str, twin: Twin, what: &str, runs: u64) -> Case {
        let Self { steps, environment, traffic, baseline, candidate, then, minutes } = self;
        // The baseline comes in without a fault, for a first release has nothing to be compared with.
        let script = format!(
            "environment steps={steps} probation=2h deadline=24h {environment}
release v1
traffic 60/s
promote v1
run {}m
expect p1 probation
behave v1 {baseline}
traffic {traffic}
release v2 {candidate}
promote v2
run 5250ms
{then}",
            // As long as the last step takes.
            if steps.contains("100%/60m") { 62 } else { 6 }
        );
        let (what, horizon) = (what.to_owned(), minutes * MINUTE);
        Case { scenario, twin, what, runs, script, horizon, fault: Fault::Errors }
    }
}

/// Everything that is played.
pub(crate) fn all() -> Vec<Case> {
    let mut all = identical();
    all.extend(errors());
    all.extend(silent());
    all.extend(disturbed());
    all
}

/// What must not be sent back.
fn identical() -> Vec<Case> {
    use Twin::Good;
    vec![
        USUAL.case("S1", Good, "identical, 0.5 % errors, 20/s at 5 % for 60 min", 1000),
        Setting { traffic: "200/s", minutes: 20, ..USUAL }.case(
            "S1",
            Good,
            "identical, 0.5 % errors, 200/s at 5 % for 20 min",
            300,
        ),
        Setting { steps: RAMP, traffic: "100/s", minutes: 30, ..USUAL }.case(
            "S1",
            Good,
            "identical, 0.5 % errors, 100/s in steps of 5, 25 and 100 %, 30 min",
            1000,
        ),
        Setting { steps: RAMP, environment: "latency=yes", traffic: "100/s", minutes: 30, ..USUAL }.case(
            "S1",
            Good,
            "the same with a guard on latency",
            300,
        ),
        Setting { then: "run 10m\nincident 4%\nrun 8m\nincident 0%", minutes: 42, ..USUAL }.case(
            "S2",
            Good,
            "identical, an incident of 4 % for 8 min hits both, 20/s at 5 %",
            500,
        ),
        Setting { baseline: "errors=1.2%", candidate: "errors=1.2%", ..USUAL }.case(
            "S3",
            Good,
            "both 1.2 %, 20/s at 5 %",
            500,
        ),
        Setting {
            steps: "5%/10m,25%/10m,50%/10m,100%/5m",
            traffic: "100/s",
            then: "incident 0.1%\nincident 4% over=40m",
            baseline: "errors=0.1%",
            candidate: "errors=0.1%",
            minutes: 45,
            ..USUAL
        }
        .case("S4", Good, "identical, errors rise from 0.2 to 4 % during the steps, 100/s", 300),
        Setting { then: "run 2m\nheavy 2/s\nrun 2m\nheavy 0/s", minutes: 40, ..USUAL }.case(
            "S7",
            Good,
            "identical, one user of the candidate meets 240 errors, 20/s at 5 %",
            300,
        ),
        Setting {
            traffic: "40/s retries=90%",
            baseline: "errors=4%",
            candidate: "errors=4%",
            minutes: 20,
            steps: "25%/60m,100%/5m",
            ..USUAL
        }
        .case(
            "S15",
            Good,
            "identical at 4 %, nine of ten bad answers are asked for again, 40/s at 25 %",
            300,
        ),
        Setting {
            steps: "shadow-100%/60m,100%/5m",
            environment: "disagreement=5%",
            baseline: "errors=0.5% noise=8%",
            candidate: "errors=0.5% noise=8%",
            minutes: 20,
            ..USUAL
        }
        .case("S25", Good, "identical, 8 % of answers vary by themselves, in a shadow, 20/s", 300),
    ]
}

/// Faults that show as bad answers, by severity.
fn errors() -> Vec<Case> {
    use Twin::Bad;
    let at = |traffic, steps, baseline, candidate, minutes| Setting {
        traffic,
        steps,
        baseline,
        candidate,
        minutes,
        ..USUAL
    };
    let five = "5%/60m,100%/5m";
    let one = "1%/60m,100%/5m";
    let (usual, low) = ("errors=0.5%", "errors=0.1%");
    vec![
        at("20/s", five, usual, "errors=100%", 60).case("S1", Bad, "0.5 → 100 %, 20/s at 5 %", 300),
        at("20/s", five, usual, "errors=20%", 60).case("S1", Bad, "0.5 → 20 %, 20/s at 5 %", 300),
        at("20/s", five, usual, "errors=2%", 60).case("S1", Bad, "0.5 → 2 %, 20/s at 5 %", 300),
        at("20/s", five, usual, "errors=1.5%", 60).case("S1", Bad, "0.5 → 1.5 %, 20/s at 5 %", 300),
        at("200/s", one, usual, "errors=20%", 60).case("S1", Bad, "0.5 → 20 %, 200/s at 1 %", 300),
        at("200/s", one, usual, "errors=2%", 60).case("S1", Bad, "0.5 → 2 %, 200/s at 1 %", 100),
        at("1/s", "10%/60m,100%/5m", usual, "errors=1.5%", 60).case(
            "S1",
            Bad,
            "0.5 → 1.5 %, 1/s at 10 %: too little to tell",
            300,
        ),
        Setting { candidate: "errors=1.5%", then: "incident 4%\nrun 8m\nincident 0%", minutes: 52, ..USUAL }
            .case("S2", Bad, "0.5 → 1.5 % under an incident of 4 % for 8 min, 20/s at 5 %", 300),
        at("20/s", five, "errors=1.2%", "errors=2.4%", 60).case("S3", Bad, "1.2 → 2.4 %, 20/s at 5 %", 300),
        at("20/s", five, low, "errors=0.8%", 60).case("S5", Bad, "0.1 → 0.8 %, 20/s at 5 %", 300),
        at("200/s", five, low, "errors=0.8%", 60).case("S5", Bad, "0.1 → 0.8 %, 200/s at 5 %", 100),
        at("20/s", five, "errors=0%", "errors=3%", 60).case("S6", Bad, "0 → 3 %, 20/s at 5 %", 300),
        at("20/s", five, usual, "errors=30% flap=10s/60s", 60).case(
            "S51",
            Bad,
            "30 % in ten seconds of each minute, 20/s at 5 %",
            300,
        ),
        at("20/s", five, usual, "errors=0.5% nan=5%", 60).case(
            "S24",
            Bad,
            "5 % NaN with 200, 20/s at 5 %",
            300,
        ),
        at("20/s", five, usual, "errors=0.5% unavailable=30%", 60).case(
            "S50",
            Bad,
            "30 % unavailable, and the baseline answers instead, 20/s at 5 %",
            300,
        ),
    ]
}

/// Faults that don't show as bad answers.
fn silent() -> Vec<Case> {
    let calm = Setting { baseline: "errors=0%", ..USUAL };
    let shadow = |candidate, what| {
        let (steps, environment) = ("shadow-100%/60m,100%/5m", "disagreement=3%");
        let setting = Setting { steps, environment, candidate, ..calm };
        setting.case("S17", Twin::Bad, what, 300).with(Fault::Silent)
    };
    let latency = |candidate, what, runs| {
        let (steps, environment, baseline) = ("25%/60m,100%/5m", "latency=yes", "latency=20ms");
        let setting = Setting { steps, environment, baseline, candidate, ..calm };
        setting.case("S11", Twin::Bad, what, runs).with(Fault::Slow)
    };
    vec![
        Setting { candidate: "constant=yes", ..calm }
            .case("S16", Twin::Bad, "always the same answer, 20/s at 5 %", 300)
            .with(Fault::Silent),
        shadow("differs=20%", "20 % of answers differ, in a shadow, 20/s"),
        shadow("differs=6%", "6 % of answers differ where 3 % may, in a shadow, 20/s"),
        Case { scenario: "S19", ..shadow("differs=100%", "classes flipped, in a shadow, 20/s") },
        latency("latency=40ms", "twice as slow, 20/s at 25 %", 300),
        latency("latency=20ms slow=3%/500ms", "half a second more in 3 % of requests, 20/s at 25 %", 300),
        latency("latency=20ms slow=0.1%/500ms", "half a second more in 0.1 % of requests, 20/s at 25 %", 100),
    ]
}

/// Counts that can't be trusted, and processes that die.
fn disturbed() -> Vec<Case> {
    use Twin::{Bad, Good};
    vec![
        Setting { traffic: "0/s", ..USUAL }.case("S8", Bad, "nobody asks", 100),
        Setting { steps: "50%/60m,100%/5m", traffic: "100/s", then: "lose 3%", ..USUAL }.case(
            "S14",
            Bad,
            "3 % of the candidate's requests vanish before they are counted, 100/s at 50 %",
            100,
        ),
        Setting {
            steps: RAMP,
            traffic: "100/s",
            environment: "gateways=3",
            then: "run 61s\nkill now\nrun 47s\nkill now\nrun 83s\nkill now",
            minutes: 57,
            ..USUAL
        }
        .case(
            "S31",
            Good,
            "the agent is killed three times, three gateways, 100/s in three steps",
            100,
        ),
        Setting {
            environment: "gateways=5",
            traffic: "100/s",
            steps: "25%/60m,100%/5m",
            candidate: "errors=30%",
            then: "kill flip-2",
            ..USUAL
        }
        .case(
            "S33",
            Bad,
            "30 % errors, the agent dies when two of five gateways know, 100/s at 25 %",
            300,
        ),
        Setting {
            steps: RAMP,
            traffic: "100/s",
            baseline: "errors=0%",
            candidate: "errors=0% breaks-at=30%",
            ..USUAL
        }
        .case("S13", Bad, "its workers break with more than 30 % of the traffic, 100/s", 100),
        Setting {
            steps: "25%/60m,100%/5m",
            traffic: "100/s",
            then: "run 3m\nbehave v2 restarting=yes\nrun 20s\nbehave v2 restarting=no",
            minutes: 37,
            ..USUAL
        }
        .case(
            "S60",
            Good,
            "identical, all of its workers are lost for 20 s after 3 min, 100/s at 25 %",
            300,
        ),
        Setting {
            steps: "25%/60m,100%/5m",
            traffic: "100/s",
            then: "behave v2 restarting=yes\nrun 20s\nbehave v2 restarting=no",
            minutes: 40,
            ..USUAL
        }
        .case("S60", Good, "the same in its first second", 300),
        Setting {
            steps: "25%/2m,100%/60m",
            traffic: "200/s",
            baseline: "errors=0.1%",
            candidate: "errors=0.1%",
            then: "run 10m\nincident 4%\nrun 8m\nincident 0%",
            minutes: 10,
            ..USUAL
        }
        .case(
            "S30",
            Good,
            "identical, an incident of 4 % for 8 min once the candidate has everything, 200/s",
            100,
        ),
        Setting {
            steps: "25%/2m,100%/60m",
            environment: "holdout=5%",
            traffic: "200/s",
            baseline: "errors=0.1%",
            candidate: "errors=0.1%",
            then: "run 10m\nincident 4%\nrun 8m\nincident 0%",
            minutes: 10,
        }
        .case("S30", Good, "the same with a hold-out of 5 %", 300),
        AFTERWARDS.case("S30", Bad, "0.1 → 4 % once it has everything, 200/s", 100),
        Setting { environment: "holdout=5%", ..AFTERWARDS }.case(
            "S30",
            Bad,
            "the same with a hold-out of 5 %",
            300,
        ),
    ]
}
