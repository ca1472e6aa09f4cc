//! What can go wrong with a gateway (not with a request: requests get answers).

use lockgate_core::id::ModelName;
use std::net::SocketAddr;

/// A gateway's failure.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address can't be had.
    #[error("the gateway can't listen on {address}: {source}; {}", bind_hint(source))]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread or its event loop can't be started.
    #[error("the gateway can't start a reactor thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A setting that makes no sense.
    #[error("gateway option `{field}`: {reason}")]
    Option {
        /// The setting.
        field: &'static str,
        /// What it has to be.
        reason: String,
    },
    /// A table that isn't newer than the one in use.
    #[error("routing epoch {offered} is not larger than {applied}, which is in use; publish a larger one")]
    Epoch {
        /// The epoch of the table that was refused.
        offered: u64,
        /// The newest epoch that was accepted.
        applied: u64,
    },
    /// A table that can't be carried out. The one before it stays in use.
    #[error("routing table, model `{model}`: {reason}")]
    Table {
        /// Whose route.
        model: ModelName,
        /// What is wrong.
        reason: String,
    },
    /// Latency thresholds that make no sense.
    #[error("latency thresholds of model `{model}`: {reason}")]
    Thresholds {
        /// Whose thresholds.
        model: ModelName,
        /// What is wrong.
        reason: String,
    },
    /// A reactor thread has ended, so nothing can be promised any more.
    #[error("reactor thread {0} of the gateway has ended; restart the gateway")]
    Gone(usize),
}

fn bind_hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => "another process has this port: stop it or choose another port",
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one that it has",
        std::io::ErrorKind::PermissionDenied => "choose a port above 1023",
        _ => "choose another address",
    }
}
