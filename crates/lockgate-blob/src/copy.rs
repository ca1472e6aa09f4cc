//! Taking all bytes along: into a backup, and back.

use crate::error::{BlobError, failed};
use crate::incoming::{Incoming, sync_folder};
use crate::store::{BlobStore, blocking, create_folder, open_blob, verify_file};
use lockgate_core::digest::Digest;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What was taken along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many blobs there are.
    pub blobs: u64,
    /// How many of them were not there before.
    pub new: u64,
    /// How many bytes they are.
    pub bytes: u64,
}

impl BlobStore {
    /// Opens the store in `folder` and leaves it as it is; none where there is no store.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub async fn existing(folder: impl AsRef<Path>) -> Result<Option<Self>, BlobError> {
        let folder = folder.as_ref().to_owned();
        blocking(move || {
            let folder = std::path::absolute(&folder).map_err(failed("open", &folder))?;
            Ok(folder.join("blobs").is_dir().then(|| Self::at(&folder, None)))
        })
        .await
    }

    /// Puts every blob into the store in `folder` as well: as another link to the same bytes where the file system can
    /// do that, as a copy elsewhere. What is there already stays. Each is verified first where `verify` says so.
    ///
    /// # Errors
    /// Where a blob is damaged or can't be read, or the folder can't be written.
    pub async fn copy_into(&self, folder: impl AsRef<Path>, verify: bool) -> Result<Copied, BlobError> {
        self.files()?;
        let (from, folder) = (self.clone(), folder.as_ref().to_owned());
        blocking(move || {
            create_folder(&folder)?;
            for part in ["blobs", "incoming"] {
                create_folder(&folder.join(part))?;
            }
            let to = Self::at(&folder, None);
            let mut copied = Copied::default();
            for shard in names(from.root())? {
                copy_shard(&from, &to, &shard, verify, &mut copied)?;
            }
            Ok(copied)
        })
        .await
    }
}

/// Copies the blobs whose digests begin with the same two digits.
fn copy_shard(
    from: &BlobStore,
    to: &BlobStore,
    shard: &str,
    verify: bool,
    copied: &mut Copied,
) -> Result<(), BlobError> {
    let mut changed: Option<PathBuf> = None;
    for tail in names(&from.root().join(shard))? {
        // Anything else in the folder is not ours.
        let Ok(digest) = format!("sha256:{shard}{tail}").parse::<Digest>() else { continue };
        let (source, target) = (from.path(&digest), to.path(&digest));
        let size = if verify { verify_file(&source, &digest)? } else { size(&source)? };
        copied.blobs += 1;
        copied.bytes += size;
        if target.exists() && (!verify || verify_file(&target, &digest).is_ok()) {
            continue;
        }
        if let Some(above) = target.parent() {
            create_folder(above)?;
            changed = Some(above.to_owned());
        }
        match std::fs::remove_file(&target) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("replace", &target)(error));
            }
            _ => link_or_copy(&source, &target, &digest, to)?,
        }
        copied.new += 1;
    }
    changed.as_deref().map_or(Ok(()), sync_folder)
}

fn link_or_copy(source: &Path, target: &Path, digest: &Digest, to: &BlobStore) -> Result<(), BlobError> {
    if std::fs::hard_link(source, target).is_ok() {
        return Ok(());
    }
    // Between file systems. The copy gets its name when it is whole.
    let copy = Incoming::create(to.incoming())?;
    let mut file = copy.handle()?;
    std::io::copy(&mut open_blob(source, digest)?, &mut file).map_err(failed("write", copy.path()))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o444)).map_err(failed("write", copy.path()))?;
    copy.keep(target)
}

fn size(path: &Path) -> Result<u64, BlobError> {
    path.metadata().map(|found| found.len()).map_err(failed("read", path))
}

/// The names in a folder, in order; none where it is no folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, BlobError> {
    let items = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
            return Ok(Vec::new());
        }
        items => items.map_err(failed("read", folder))?,
    };
    let mut names = Vec::new();
    for item in items {
        let item = item.map_err(failed("read", folder))?;
        names.extend(item.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
