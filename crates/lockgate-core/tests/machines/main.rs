//! The two state machines under random interleavings: what must hold in every state that they can reach
//! (invariants I1 to I11 of the promotion's specification, as far as pure machines reach them).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod bluegreen;
mod build;
mod deployment;
mod drill;
mod journal;
mod pair;
mod promotion;
mod rules;
mod run;
mod stories;
