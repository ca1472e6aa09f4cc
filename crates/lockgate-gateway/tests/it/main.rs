//! The gateway over real sockets, with workers that the tests play themselves.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;
mod failover;
mod feedback;
mod grpc;
mod hostile;
mod inline;
mod passing;
mod routing;
mod shadow;
mod splits;
mod streaming;
mod testers;
mod views;
