//! The nouns and the rules of Lockgate: pure data, pure state machines.
//!
//! Nothing here performs I/O, reads a clock or draws randomness; both come in as values.
//!
//! | module | subject |
//! |---|---|
//! | [`bearer`] | bearer tokens that are checked where they arrive |
//! | [`clock`] | time and randomness as arguments |
//! | [`id`] | typed names and ids |
//! | [`digest`] | SHA-256 digests and canonical JSON (RFC 8785) |
//! | [`actor`] | who acts |
//! | [`access`] | the one door: may this actor do this to that? |
//! | [`entry`] | the audit entry, its leaf hash and the hash chain |
//! | [`event`] | everything that can happen to governed state |
//! | [`server`] | servers that a team has already, in the place of workers |
//! | [`schema`] | the feature schema of a model |
//! | [`release`] | the release manifest and its digest |
//! | [`gate`] | gates, evidence and its signature (DSSE) |
//! | [`goal`] | what a release is for, told by outcomes that come later |
//! | [`guard`] | guards and their verdicts during a rollout |
//! | [`plan`] | what a promotion will do, fixed beforehand |
//! | [`promotion`] | the promotion's state machine (server) |
//! | [`rollout`] | the rollout's state machine (agent) |
//! | [`report`] | what an agent may report about a rollout |
//! | [`route`] | the routing table of one environment |
//! | [`wire`] | what server and agent say to each other |

pub mod access;
pub mod actor;
pub mod bearer;
pub mod clock;
pub mod digest;
pub mod entry;
pub mod event;
pub mod gate;
pub mod goal;
pub mod guard;
pub mod id;
pub mod plan;
pub mod preview;
pub mod promotion;
pub mod release;
pub mod report;
pub mod rollout;
pub mod route;
pub mod schema;
pub mod server;
pub mod wire;
