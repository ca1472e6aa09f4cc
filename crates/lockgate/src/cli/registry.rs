//! The model registry, and whom it tells.

use clap::{Args, Subcommand};

/// `model …`
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Show where a model's aliases and stages pointed, when, and who moved them
    History(ModelHistory),
}

/// `model history`
#[derive(Debug, Args)]
pub(crate) struct ModelHistory {
    /// The registered model
    pub(crate) model: String,
    /// Only this alias
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// Where they pointed at this time, for example 2026-11-24T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

/// `webhooks`
#[derive(Debug, Args)]
pub(crate) struct Webhooks {
    /// How many of the newest messages
    #[arg(long, default_value_t = 30)]
    pub(crate) limit: u32,
}
