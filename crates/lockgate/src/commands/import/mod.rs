//! `import mlflow` and `export mlflow`: whole stores of tracking data, in and out.
//!
//! | module | subject |
//! |---|---|
//! | `sources` | reading MLflow's SQLite files, its file store, and servers |
//! | `target` | the server that takes things in |
//! | `mover` | the import: what is sent, what is compared |
//! | `export` | writing a file store |
//! | `places` | paths and URIs as MLflow writes them |
//! | `walk` | the files below a folder of this machine |
//! | `report` | what is told at the end |

mod export;
mod mover;
mod places;
mod report;
mod sources;
mod target;
mod walk;

pub(crate) use export::export;

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use mover::Mover;
use target::Target;

/// `import mlflow`
pub(crate) async fn import(ctx: &Context, args: &cli::ImportMlflow) -> anyhow::Result<Exit> {
    let source = sources::open(&args.source, args.artifacts.as_deref()).await?;
    let target = Target::new(ctx.client()?);
    let report = Mover::new(ctx.out, source, target, args.dry_run).run().await?;
    let exit = match (report.is_whole(), args.dry_run && report.has_news()) {
        (false, _) => Exit::Error,
        (true, true) => Exit::Pending,
        (true, false) => Exit::Done,
    };
    report.show()?;
    Ok(exit)
}
