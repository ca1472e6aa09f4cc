//! Content-addressed bytes: what a digest names is there entirely, or not at all.
//!
//! | module | subject |
//! |---|---|
//! | [`store`] | [`BlobStore`]: opening, reading, verifying |
//! | `put` | writing: hashed on the way, durable before it is visible |
//! | [`parts`] | uploads in parts |
//! | [`materialise`] | a release's files as a folder that a worker can open |
//! | [`copy`] | all bytes into a backup, and back |
//! | `incoming` | files under way, and cleaning up after a crash |
//! | [`error`] | what can go wrong, and what to do about it |
//!
//! The bytes lie in plain files below one folder, `blobs/ab/cdef…` by SHA-256. We write them ourselves because
//! *acknowledged* must mean durable (file and folder are synced before a digest is returned) and `object_store`'s local
//! backend does not sync. Nothing in [`BlobStore`]'s interface but [`BlobStore::materialise`] knows of paths, so that
//! an S3 bucket can stand behind it: that comes with a later issue.
//!
//! A path below the store is only ever made from a digest's hexadecimal digits; no text of a client's is part of it.

pub mod copy;
pub mod error;
mod incoming;
pub mod materialise;
pub mod parts;
mod put;
pub mod store;
#[cfg(test)]
mod tests;

pub use copy::Copied;
pub use error::BlobError;
pub use materialise::{FileToPlace, How};
pub use parts::{Part, UploadId};
pub use put::{Blob, Expect};
pub use store::{BlobReader, BlobStore};
