//! For tests only: time and randomness on a string, and a simulated world.
//!
//! The world runs the server's machine ([`lockgate_core::promotion`]) and the agent's ([`lockgate_core::rollout`]) with
//! gateways that lag, traffic that fails and processes that die, all from one seed: the same script gives the same story.
//! Scripts stand in `scripts/*.txt` with the story that they tell beside them (`*.out`); the example `scenarios` plays thousands
//! of worlds and measures (docs/scenarios.md).
//!
//! | module | subject |
//! |---|---|
//! | [`clock`] | a clock that stands still until it is told, and seeded randomness |
//! | [`world`] | server, agent, gateways and traffic |
//! | [`script`] | the commands of a script |
//! | [`s3`] | a service that speaks S3 over a folder |
//! | [`story`] | running a script and telling what happens |
//!
//! What is real in the world: both state machines, journal lines as they are stored, and, handed in by the test, a gateway's
//! assignment and counting and the agent's judge ([`world::Parts`]). What is not: HTTP, SQL, processes, and the server's rules about who may ask for
//! what, which [`world`] repeats in a few lines.

pub mod clock;
pub mod s3;
pub mod script;
pub mod story;
pub mod world;
