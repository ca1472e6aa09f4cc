//! Verification: the whole log is read in pages and checked against its hashes, its columns and its head.

use crate::error::StoreError;
use crate::log::Columns;
use crate::store::Store;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{ChainError, Entry, Verifier};

/// How many entries are held in memory at a time.
const PAGE: u32 = 512;

/// What was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many entries.
    pub count: u64,
    /// The chain's hash after the last one.
    pub head: Digest,
}

/// Why the log is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// An entry was changed, added, removed or moved.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A column was changed: queries would give answers that the log doesn't support.
    #[error("the columns of entry {0} were changed: they do not repeat what its text says")]
    Columns(u64),
    /// Entries are missing at the end, or were added there.
    #[error("the log has {found} entries but its head records {recorded}: its end was cut off or forged")]
    End {
        /// How many there should be.
        recorded: u64,
        /// How many there are.
        found: u64,
    },
    /// The head's hash is another one.
    #[error("the log's recorded head does not match its entries: the head was changed")]
    Head,
    /// The log can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads the log page by page; every entry that it hands out is verified.
pub(crate) struct Walk {
    verifier: Verifier,
}

impl Walk {
    pub(crate) fn new() -> Self {
        Self { verifier: Verifier::default() }
    }

    /// The next entries. None are left when the list is empty; then the head has been checked as well.
    pub(crate) async fn page(&mut self, conn: &mut crate::conn::Conn) -> Result<Vec<Entry>, VerifyError> {
        let rows = conn.rows(self.verifier.count(), PAGE).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for (stored, columns) in rows {
            let entry = self.verifier.check(&stored)?;
            if Columns::of(&entry) != columns {
                return Err(VerifyError::Columns(stored.seq));
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            self.end(conn).await?;
        }
        Ok(entries)
    }

    async fn end(&self, conn: &mut crate::conn::Conn) -> Result<(), VerifyError> {
        let head = conn.head().await?;
        let found = self.verifier.count();
        if head.count != found {
            return Err(VerifyError::End { recorded: head.count, found });
        }
        if head.chain != self.verifier.head() {
            return Err(VerifyError::Head);
        }
        Ok(())
    }

    pub(crate) fn verified(&self) -> Verified {
        Verified { count: self.verifier.count(), head: self.verifier.head() }
    }
}

impl Store {
    /// Verifies the whole log. Writes go on meanwhile.
    ///
    /// # Errors
    /// Where the log was changed in any way, with the first entry that shows it.
    pub async fn verify(&self) -> Result<Verified, VerifyError> {
        let mut walk = Walk::new();
        loop {
            let (next, done) = self
                .read(move |conn| {
                    Box::pin(async move {
                        let done = walk.page(conn).await?.is_empty();
                        Ok::<_, VerifyError>((walk, done))
                    })
                })
                .await?;
            walk = next;
            if done {
                return Ok(walk.verified());
            }
        }
    }
}
