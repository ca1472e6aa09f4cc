//! Whose bytes they are: every database that refers to some leaves a mark beside them, so that nobody takes away what
//! another one needs.

use crate::copy::names;
use crate::error::{BlobError, failed};
use crate::incoming::Incoming;
use crate::store::{BlobStore, blocking, create_folder};
use std::io::Write as _;
use std::path::PathBuf;

impl BlobStore {
    fn owners_folder(&self) -> PathBuf {
        self.root().with_file_name("owners")
    }

    /// Leaves a database's mark. Its name is letters and digits.
    ///
    /// # Errors
    /// Where the place can't be written.
    pub async fn claim(&self, owner: &str, says: &str) -> Result<(), BlobError> {
        if let Some(bucket) = self.bucket() {
            return bucket.claim(owner, says).await;
        }
        let (folder, incoming) = (self.owners_folder(), self.incoming().to_owned());
        let (owner, says) = (owner.to_owned(), says.to_owned());
        blocking(move || {
            create_folder(&folder)?;
            let target = folder.join(owner);
            if target.is_file() {
                return Ok(());
            }
            let mark = Incoming::create(&incoming)?;
            mark.handle()?.write_all(says.as_bytes()).map_err(failed("write", mark.path()))?;
            mark.keep(&target)
        })
        .await
    }

    /// The databases that left their marks.
    ///
    /// # Errors
    /// Where the place can't be read.
    pub async fn owners(&self) -> Result<Vec<String>, BlobError> {
        if let Some(bucket) = self.bucket() {
            return bucket.owners().await;
        }
        let folder = self.owners_folder();
        blocking(move || names(&folder)).await
    }

    /// Where a database's mark is, for people.
    #[must_use]
    pub fn mark_of(&self, owner: &str) -> String {
        match self.bucket() {
            Some(bucket) => format!("{bucket}owners/{owner}"),
            None => self.owners_folder().join(owner).display().to_string(),
        }
    }
}
