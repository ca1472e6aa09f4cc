//! What the world asks of the real counting and judging, which are handed in ([`super::Parts`]).

use lockgate_core::guard::Judgement;
use lockgate_core::rollout::Deployment;

/// How one request failed the side that it was assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It answered 5xx.
    Error,
    /// It answered with what is no number.
    NotANumber,
    /// None of its workers could be reached.
    Unreachable,
    /// It answered 4xx.
    Refused,
}

/// How one request of a rollout went.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The candidate's share in parts of 10,000, or the share that is mirrored.
    pub weight: u32,
    /// Whether it was assigned to the candidate.
    pub is_candidate: bool,
    /// Whether it is one arm of a mirrored request.
    pub is_mirrored: bool,
    /// Its unit's hash.
    pub unit: u64,
    /// Whether it names its unit.
    pub named: bool,
    /// When it began, in microseconds.
    pub started_us: u64,
    /// How long it took.
    pub latency_us: u64,
    /// How it failed.
    pub failure: Option<Failure>,
    /// Hash of the answer, where there was a good one.
    pub answer: Option<u64>,
}

/// What is seen of a rollout by its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What the guards say.
    pub judgement: Judgement,
    /// What the gateway's own breaker saw, where it opened.
    pub breaker: Option<String>,
    /// Users' requests that were assigned to the candidate.
    pub requests: u64,
    /// Those among them that it failed.
    pub errors: u64,
}

/// The counting of one rollout, and what is judged by it: a gateway's and an agent's own.
pub trait Counting: std::fmt::Debug {
    /// Counts a request.
    fn record(&mut self, one: &Request);
    /// Counts two compared answers: whether the candidate's differs, and whether the baseline's second one does.
    fn compared(&mut self, candidate: bool, second: bool);
    /// Whether the breaker has taken the candidate's traffic away.
    fn is_open(&self) -> bool;
    /// What is seen now.
    fn look(&mut self, deployment: &Deployment) -> Seen;
}
