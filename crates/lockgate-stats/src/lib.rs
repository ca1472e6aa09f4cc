//! Anytime-valid tests for rollouts: counts in, evidence and verdicts out.
//!
//! No I/O, no clock, no randomness. Everything is a function of counts that may be added up over gateways, seconds and
//! rollout steps in any order, so every verdict can be made again from the numbers that are stored with it.
//!
//! Evidence is the natural logarithm of an *e-value*: a number that is 1 on average, at most, as long as the hypothesis
//! against which it speaks is true. By Ville's inequality it then ever reaches `1/alpha` with a probability of at most
//! `alpha`, however often one looks. A log e of 0 is "nothing known".
//!
//! | module | question |
//! |---|---|
//! | [`thinning`] | does the candidate have more events (errors, slow answers) than its share of the traffic allows? |
//! | [`rate`] | is a rate above or below a fixed bound (a floor, an SLO)? |
//! | [`latency`] | is the candidate slower, judged at several thresholds? |
//! | [`betting`] | is the mean of an outcome that comes later larger or smaller for the candidate? |
//! | [`disagreement`] | do answers to the same requests differ more often than a share allows, net of noise? |
//! | [`srm`] | do the units that each variant got fit the weights? |
//! | [`merge`] | what do several e-values say together? |
//! | [`decision`] | roll back, hold, promote or go on? |
//! | [`forecast`] | how long will that take at this traffic? |
//! | [`histogram`] | latencies as counts that add up |
//!
//! Sources: Lindon & Malek, NeurIPS 2022 (arXiv 2011.03567) for thinning and sample ratios; Vovk & Wang, Annals of
//! Statistics 2021, for merging; Waudby-Smith & Ramdas, JRSS-B 2024, for bounded means. The formulas are in each module.

pub mod betting;
pub mod decision;
pub mod disagreement;
pub mod forecast;
mod grid;
pub mod histogram;
pub mod latency;
pub mod merge;
pub mod rate;
pub mod srm;
pub mod thinning;

mod error;

pub use error::StatsError;
