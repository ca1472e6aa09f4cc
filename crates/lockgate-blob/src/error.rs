//! What can go wrong, in words that say what to do.

use lockgate_core::digest::Digest;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Why the blob store did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// There are no such bytes.
    #[error("there is no blob {0}: upload it first")]
    NotFound(Digest),
    /// The bytes that came are others than were announced; nothing was kept.
    #[error("the bytes have digest {found}, but {expected} was announced: nothing was kept, send them again")]
    Mismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The bytes that lie there are not the ones that were put.
    #[error(
        "blob {digest} is damaged (its bytes have digest {found}): upload it again or restore it from a backup"
    )]
    Damaged {
        /// What it should be.
        digest: Digest,
        /// What it is.
        found: Digest,
    },
    /// There are more bytes than allowed.
    #[error("there are more than the allowed {limit} bytes")]
    TooLarge {
        /// How many are allowed.
        limit: u64,
    },
    /// No space is left.
    #[error("no space is left to {what} {place} ({detail}): free some space and try again; nothing was kept")]
    DiskFull {
        /// What was to be done.
        what: &'static str,
        /// Where.
        place: String,
        /// The system's words.
        detail: String,
    },
    /// This user may not do it.
    #[error("this user may not {what} {place} ({detail}): make it accessible")]
    Denied {
        /// What was to be done.
        what: &'static str,
        /// Where.
        place: String,
        /// The system's words.
        detail: String,
    },
    /// A file operation failed otherwise.
    #[error("can't {what} {place}: {detail}")]
    Files {
        /// What was to be done.
        what: &'static str,
        /// Where.
        place: String,
        /// The system's words.
        detail: String,
    },
    /// The service that keeps the bytes did not do it.
    #[error("can't {what} {bucket} ({detail}): {hint}")]
    Bucket {
        /// What was to be done.
        what: &'static str,
        /// Which bucket.
        bucket: String,
        /// The service's words.
        detail: String,
        /// What may help.
        hint: &'static str,
    },
    /// An object of somebody else's is where Lockgate's mark should be.
    #[error("{object} is not Lockgate's: choose another prefix")]
    Foreign {
        /// Which object.
        object: String,
    },
    /// There are more or fewer bytes than there should be.
    #[error(
        "blob {digest} is damaged (it has {found} bytes instead of {expected}): upload it again or restore it from a backup"
    )]
    WrongSize {
        /// What it should be.
        digest: Digest,
        /// How many bytes it should have.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// What needs the bytes as files was asked of a bucket.
    #[error(
        "the artifacts are in {bucket}, not in a folder: copy the bucket with its own tools (versions, replication, `aws s3 sync`)"
    )]
    NotFiles {
        /// Which bucket.
        bucket: String,
    },
    /// The sender's stream broke off; nothing was kept.
    #[error("the bytes could not be received ({detail}): nothing was kept, send them again")]
    Source {
        /// What happened.
        detail: String,
    },
    /// A file's path can't be placed in a folder.
    #[error("`{path}` can't be a file of a release: {why}")]
    Path {
        /// The path.
        path: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The folder for a release's files holds something else.
    #[error("{folder} holds other files or damaged ones: delete it, or choose another folder")]
    Occupied {
        /// The folder.
        folder: String,
    },
    /// Somebody else takes bytes away, or takes them along, at this moment.
    #[error(
        "another `lockgate db gc`, `backup` or `restore` is at work in {folder}: try again when it is done"
    )]
    InHand {
        /// Where.
        folder: String,
    },
    /// There is no such upload in parts (any more).
    #[error("there is no such upload, or it has ended: begin a new one")]
    NoUpload,
    /// A part of an upload is not there with these bytes.
    #[error("part {number} is not there with these bytes: send it again")]
    NoPart {
        /// Its number.
        number: u32,
    },
    /// The runtime is shutting down.
    #[error("the operation was broken off because the program is ending")]
    Ending,
}

/// Translates an I/O error.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> BlobError + use<> {
    let place = path.display().to_string();
    move |error| {
        let (place, detail) = (place.clone(), error.to_string());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                BlobError::DiskFull { what, place, detail }
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                BlobError::Denied { what, place, detail }
            }
            _ => BlobError::Files { what, place, detail },
        }
    }
}
