//! Content-addressed bytes: what a digest names is there entirely, or not at all.
//!
//! | module | subject |
//! |---|---|
//! | [`store`] | [`BlobStore`]: opening, reading, verifying |
//! | `put` | writing: hashed on the way, durable before it is visible |
//! | [`blocks`] | bytes in blocks, as they come |
//! | `reading` | a file's bytes in blocks, as they go |
//! | [`parts`] | uploads in parts |
//! | [`materialise`] | a release's files as a folder that a worker can open |
//! | [`copy`] | all bytes into a backup, and back |
//! | `incoming` | files under way, and cleaning up after a crash |
//! | `sweep` | taking bytes away that nothing refers to |
//! | `owners` | whose bytes they are |
//! | [`place`] | a folder, or a bucket |
//! | `bucket` | bytes in a bucket of a service that speaks S3 |
//! | [`error`] | what can go wrong, and what to do about it |
//!
//! The bytes lie in plain files below one folder, `blobs/ab/cdef…` by SHA-256. We write them ourselves because
//! *acknowledged* must mean durable (file and folder are synced before a digest is returned) and `object_store`'s local
//! backend does not sync. In a bucket they have the same names; a folder takes what is under way there, because a name is
//! known only when the last byte has come.
//!
//! A path below the store is only ever made from a digest's hexadecimal digits; no text of a client's is part of it.

pub mod blocks;
mod bucket;
pub mod copy;
pub mod error;
mod incoming;
pub mod materialise;
mod owners;
pub mod parts;
pub mod place;
mod put;
mod reading;
pub mod store;
mod sweep;
#[cfg(test)]
mod tests;

pub use blocks::blocks;
pub use copy::Copied;
pub use error::BlobError;
pub use materialise::{FileToPlace, How};
pub use parts::{Part, UploadId};
pub use place::{BlobPlace, BucketName, NoPlace};
pub use put::{Blob, Expect};
pub use store::{BlobReader, BlobStore};
pub use sweep::{Alone, Resting};
