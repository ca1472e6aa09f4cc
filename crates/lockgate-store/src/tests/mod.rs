//! Tests of the store as a whole, on both engines.

mod child;
mod faults;
mod feedback;
mod jobs;
mod log;
mod opening;
mod people;
mod statements;
mod states;
mod upkeep;
