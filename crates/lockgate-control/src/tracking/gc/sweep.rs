//! Taking bytes away that nothing refers to.

use super::Report;
use super::survey::Survey;
use crate::error::ControlError;
use lockgate_blob::{BlobStore, Resting};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_store::Store;

/// How many files go between two looks at what came newly into use.
const AT_ONCE: usize = 256;

/// Takes away what lies there since before a moment and is not named.
pub(super) async fn sweep(
    store: &Store,
    blobs: &BlobStore,
    mut survey: Survey,
    before: Millis,
    report: &mut Report,
) -> Result<(), ControlError> {
    for begins in 0..=u8::MAX {
        let resting = blobs.resting(begins).await?;
        let idle: Vec<Resting> = resting.into_iter().filter(|found| !survey.names(&found.digest)).collect();
        let (old, young): (Vec<Resting>, Vec<Resting>) =
            idle.into_iter().partition(|found| found.modified < before);
        report.young += young.len() as u64;
        if report.dry_run {
            report.add(&old);
            continue;
        }
        for some in old.chunks(AT_ONCE) {
            survey = survey.catch_up(store).await?;
            let digests = some.iter().map(|found| found.digest).filter(|digest| !survey.names(digest));
            let digests = unused(store, digests.collect()).await?;
            report.add(&blobs.take_away(digests, before).await?);
        }
    }
    Ok(())
}

impl Report {
    fn add(&mut self, gone: &[Resting]) {
        self.blobs += gone.len() as u64;
        self.bytes += gone.iter().map(|found| found.size).sum::<u64>();
    }
}

/// Those that no file names by now.
async fn unused(store: &Store, mut digests: Vec<Digest>) -> Result<Vec<Digest>, ControlError> {
    let asked = digests.clone();
    let used = store.read(move |conn| Box::pin(async move { conn.digests_in_use(&asked).await })).await?;
    digests.retain(|digest| !used.contains(digest));
    Ok(digests)
}
