//! Real worker processes on real sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
mod inline;
mod pool;
mod python;
mod servers;
mod supervisor;
mod worker;
