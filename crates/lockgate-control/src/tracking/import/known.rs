//! What a server has, in the form that an import compares.

use crate::tracking::artifacts::is_seen;
use crate::tracking::exchange::{History, KnownFile, KnownRun, RunDigests, points, run_record};
use crate::tracking::{Tracking, TrackingError, may_read, places};
use lockgate_core::actor::Actor;
use lockgate_store::Conn;

/// How many points are read at a time.
const PAGE: i64 = 10_000;

async fn digests(conn: &mut Conn, id: &str) -> Result<Option<RunDigests>, TrackingError> {
    let Some(run) = conn.run(id).await? else { return Ok(None) };
    let mut history = History::default();
    let mut page = conn.run_points(id, None, PAGE).await?;
    while let Some(last) = page.last().cloned() {
        history.add(&points(&page));
        page = conn.run_points(id, Some(&last), PAGE).await?;
    }
    Ok(Some(RunDigests::of(&run_record(&run), history)))
}

impl Tracking {
    /// The digests of runs, from what the database holds.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn known_runs(&self, actor: &Actor, runs: Vec<String>) -> Result<Vec<KnownRun>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| {
            Box::pin(async move {
                let mut found = Vec::with_capacity(runs.len());
                for run_id in runs {
                    let digests = digests(conn, &run_id).await?;
                    found.push(KnownRun { run_id, digests });
                }
                Ok(found)
            })
        })
        .await
    }

    /// All files below an artifact URI of this server, with their digests; none where the URI is another's.
    ///
    /// # Errors
    /// Where the path is not safe or the database fails.
    pub async fn known_files(&self, actor: &Actor, uri: &str) -> Result<Vec<KnownFile>, TrackingError> {
        may_read(actor)?;
        let Some(path) = places::root_of(uri) else { return Ok(Vec::new()) };
        let Some(place) = places::split(places::checked(path)?) else { return Ok(Vec::new()) };
        let prefix = place.prefix();
        let cut = prefix.len();
        let found = self
            .read(move |conn| {
                Box::pin(async move {
                    if !is_seen(conn, &place).await? {
                        return Ok(Vec::new());
                    }
                    Ok(conn.artifacts(&place.root, &prefix).await?)
                })
            })
            .await?;
        let one = |file: lockgate_store::tracking::Artifact| KnownFile {
            path: file.path[cut..].to_owned(),
            size: file.size,
            digest: file.digest,
        };
        Ok(found.into_iter().map(one).collect())
    }
}
