//! `export mlflow`: everything that a server holds, as a file store that stock MLflow opens.
//!
//! Everything is read back from the folder with the reader of file stores and compared. What describes a thing is written
//! last, so that an export which was broken off is seen to be unfinished; started again it goes on where it was.

mod artifacts;
mod folder;
mod registry;
mod traces;
mod tracking;
mod yaml;

use super::report::{Kind, Level, Report};
use super::sources::Source;
use super::sources::http::Http;
use super::target::Target;
use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Out;
use folder::Folder;
use lockgate_control::tracking::Experiment;
use std::time::{Duration, Instant};

/// How often a line of progress is written.
const PROGRESS: Duration = Duration::from_secs(2);

/// An export in progress.
pub(super) struct Exporter {
    source: Http,
    /// The same server, for the digests of its files.
    server: Target,
    folder: Folder,
    report: Report,
    out: Out,
    told: Instant,
}

/// `export mlflow`
pub(crate) async fn export(ctx: &Context, args: &cli::ExportMlflow) -> anyhow::Result<Exit> {
    let client = ctx.client()?;
    let folder = Folder::begin(&args.folder, client.base())?;
    let report = Report::new(ctx.out, client.base(), &folder.uri(""), false);
    let (source, server) = (Http::ours(client.clone()), Target::new(client));
    let mut exporter = Exporter { source, server, folder, report, out: ctx.out, told: Instant::now() };
    exporter.run().await?;
    let Exporter { report, folder, .. } = exporter;
    let whole = report.is_whole();
    if whole {
        folder.finish()?;
    }
    report.show()?;
    ctx.out.aside(&format!(
        "open it with MLFLOW_ALLOW_FILE_STORE=true and mlflow.set_tracking_uri(\"{}\")",
        folder.uri("")
    ));
    Ok(if whole { Exit::Done } else { Exit::Error })
}

impl Exporter {
    async fn run(&mut self) -> anyhow::Result<()> {
        let experiments = self.source.experiments().await?;
        for experiment in &experiments {
            self.experiment(experiment)?;
            self.runs(experiment).await?;
            self.logged_models(experiment).await?;
            self.traces(experiment).await?;
        }
        self.registry().await
    }

    fn progress(&mut self, what: &str) {
        if self.told.elapsed() < PROGRESS {
            return;
        }
        self.told = Instant::now();
        let (runs, files) = (self.report.of(Kind::Runs).found, self.report.of(Kind::Artifacts).found);
        self.out.aside(&format!("{what}: {runs} runs, {files} files so far"));
    }

    /// Counts a thing that was written now or before, and is, or is not, what the server has.
    fn compared(&mut self, kind: Kind, what: &str, was_there: bool, differences: &[&str]) {
        let counts = self.report.of(kind);
        counts.found += 1;
        match was_there {
            true => counts.same += 1,
            false => counts.new += 1,
        }
        if differences.is_empty() {
            counts.compared += 1;
        } else {
            self.report.differ(kind, what, format!("its {} differ when read back", differences.join(", ")));
        }
    }

    /// Tells that something can't be written to a file store.
    fn unwritable(&mut self, kind: Kind, what: &str, why: &str) {
        self.report.of(kind).found += 1;
        self.report.skip(kind, what, why);
    }

    /// Tells that files stay where they are.
    fn left(&mut self, what: &str, uri: &str) {
        self.report.of(Kind::Artifacts).left += 1;
        let why = format!("they lie at {uri}, not with this server; the address is kept");
        self.report.tell(Level::Left, Kind::Artifacts, what, why);
    }
}

/// The folder of an experiment: deleted ones lie in the bin.
fn home(experiment: &Experiment) -> String {
    match experiment.lifecycle {
        lockgate_control::tracking::Lifecycle::Active => experiment.id.to_string(),
        lockgate_control::tracking::Lifecycle::Deleted => format!(".trash/{}", experiment.id),
    }
}
