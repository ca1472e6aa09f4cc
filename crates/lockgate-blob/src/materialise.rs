//! A release's files as a folder: complete and verified, or not there.

use crate::error::{BlobError, failed};
use crate::incoming::sync_folder;
use crate::store::{BlobStore, blocking, open_blob, verify_file};
use lockgate_core::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// One file of a folder to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileToPlace {
    /// Where, relative to the folder, with `/` between the parts.
    pub path: String,
    /// Its bytes.
    pub digest: Digest,
}

/// How a file's bytes get into the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As a second name of the stored bytes where the file system allows it, otherwise as a copy. Whoever can write the
    /// folder's files (root) can damage the stored bytes; verification finds that.
    Link,
    /// As bytes of its own.
    Copy,
}

impl BlobStore {
    /// Makes `folder` hold exactly these files, read-only, each verified. A folder that already does is left as it is.
    /// The folder appears with everything in it or not at all; on the way there `<folder>.partial` is used.
    ///
    /// # Errors
    /// Where a path could leave the folder or two paths collide, a blob is missing or damaged, the folder holds
    /// anything else, it can't be written, or the bytes are in a bucket.
    pub async fn materialise(
        &self,
        files: &[FileToPlace],
        folder: impl AsRef<Path>,
        how: How,
    ) -> Result<(), BlobError> {
        self.files()?;
        let files = check_paths(files)?;
        let blobs: BTreeMap<PathBuf, (PathBuf, Digest)> =
            files.into_iter().map(|(path, digest)| (path, (self.path(&digest), digest))).collect();
        let folder = folder.as_ref().to_owned();
        let this = self.clone();
        blocking(move || {
            let folder = std::path::absolute(&folder).map_err(failed("create", &folder))?;
            let _one_at_a_time = this.materialising();
            if holds_exactly(&folder, &blobs)? {
                return Ok(());
            }
            let mut partial = folder.clone().into_os_string();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            remove(&partial)?;
            let built = build(&partial, &blobs, how).and_then(|()| appear(&partial, &folder));
            if built.is_err() {
                // The first error is the one to report.
                let _leftover = remove(&partial);
            }
            built
        })
        .await
    }
}

const PATH_LIMIT: usize = 1024;

/// The files by path; refuses every path that could lead out of the folder or collide with another.
fn check_paths(files: &[FileToPlace]) -> Result<BTreeMap<PathBuf, Digest>, BlobError> {
    let mut checked = BTreeMap::new();
    let mut folders = BTreeSet::new();
    for file in files {
        let wrong = |why| BlobError::Path { path: file.path.clone(), why };
        let path = Path::new(&file.path);
        if file.path.is_empty() || file.path.len() > PATH_LIMIT {
            return Err(wrong("it is empty or longer than 1024 bytes"));
        }
        if file.path.chars().any(|c| c.is_control() || c == '\\') {
            return Err(wrong("it holds a control character or a backslash"));
        }
        // `components` drops `.` and doubled or trailing slashes; what is left must be what was given.
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let normal: PathBuf = path.components().collect();
        if !plain || normal.as_os_str() != path.as_os_str() {
            return Err(wrong("use a relative path without `.`, `..` and empty parts"));
        }
        folders.extend(path.ancestors().skip(1).map(Path::to_owned));
        if checked.insert(normal, file.digest).is_some() {
            return Err(wrong("it occurs twice"));
        }
    }
    match checked.keys().find(|path| folders.contains(*path)) {
        Some(path) => Err(BlobError::Path {
            path: path.display().to_string(),
            why: "it is a file and a folder at once",
        }),
        None => Ok(checked),
    }
}

fn build(folder: &Path, blobs: &BTreeMap<PathBuf, (PathBuf, Digest)>, how: How) -> Result<(), BlobError> {
    std::fs::create_dir_all(folder).map_err(failed("create the folder", folder))?;
    let mut folders = BTreeSet::from([folder.to_owned()]);
    for (path, (blob, digest)) in blobs {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed("create the folder", parent))?;
            folders
                .extend(parent.ancestors().take_while(|above| above.starts_with(folder)).map(Path::to_owned));
        }
        place(blob, &target, digest, how)?;
        // What is verified is what lies in the folder, not what was meant to be put there.
        verify_file(&target, digest)?;
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

fn place(blob: &Path, target: &Path, digest: &Digest, how: How) -> Result<(), BlobError> {
    if how == How::Link && std::fs::hard_link(blob, target).is_ok() {
        return Ok(());
    }
    // Linking fails between file systems and where there are too many links; copying also tells why it can't be read.
    let mut source = open_blob(blob, digest)?;
    let mut copy = File::create_new(target).map_err(failed("write", target))?;
    std::io::copy(&mut source, &mut copy).map_err(failed("write", target))?;
    copy.set_permissions(std::fs::Permissions::from_mode(0o444)).map_err(failed("write", target))?;
    copy.sync_all().map_err(failed("write", target))
}

fn appear(partial: &Path, folder: &Path) -> Result<(), BlobError> {
    // Takes the place of nothing or of an empty folder only.
    std::fs::rename(partial, folder).map_err(|error| match error.kind() {
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            BlobError::Occupied { folder: folder.display().to_string() }
        }
        _ => failed("write", folder)(error),
    })?;
    folder.parent().map_or(Ok(()), sync_folder)
}

fn remove(folder: &Path) -> Result<(), BlobError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("delete", folder)(error)),
        _ => Ok(()),
    }
}

/// Whether the folder holds these files with these bytes and nothing else. Links in it count as something else.
fn holds_exactly(folder: &Path, blobs: &BTreeMap<PathBuf, (PathBuf, Digest)>) -> Result<bool, BlobError> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(current) = waiting.pop() {
        let items = match std::fs::read_dir(&current) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(false);
            }
            items => items.map_err(failed("read", &current))?,
        };
        for item in items {
            let item = item.map_err(failed("read", &current))?;
            let (path, kind) = (item.path(), item.file_type().map_err(failed("read", &current))?);
            let relative = path.strip_prefix(folder).map(Path::to_owned).unwrap_or_default();
            match blobs.get(&relative) {
                Some((_, digest)) if kind.is_file() && verify_file(&path, digest).is_ok() => {
                    found.insert(relative);
                }
                None if kind.is_dir() => waiting.push(path),
                _ => return Ok(false),
            }
        }
    }
    Ok(found.len() == blobs.len())
}
