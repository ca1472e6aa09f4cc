//! Taking objects away that nothing refers to, and the marks of those whose they are.

use super::Bucket;
use super::service::{failed, within};
use crate::error::BlobError;
use crate::sweep::Resting;
use futures_util::{StreamExt, TryStreamExt};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};

/// How many objects are looked at and taken away at a time.
const AT_ONCE: usize = 16;

fn resting(digest: Digest, found: &ObjectMeta) -> Resting {
    Resting { digest, size: found.size, modified: found.last_modified.timestamp_millis() }
}

impl Bucket {
    pub(crate) async fn resting(&self, begins: u8) -> Result<Vec<Resting>, BlobError> {
        let shard = format!("{begins:02x}");
        let found = self.below(&format!("blobs/{shard}")).await?;
        let of = |object: &ObjectMeta| {
            let tail = object.location.filename()?;
            let digest = format!("sha256:{shard}{tail}").parse().ok()?;
            // A name that only ends like one of ours is not.
            (object.location == self.object(&digest)).then(|| resting(digest, object))
        };
        Ok(found.iter().filter_map(of).collect())
    }

    async fn below(&self, name: &str) -> Result<Vec<ObjectMeta>, BlobError> {
        let mut found = Vec::new();
        let key = self.key(name);
        let mut objects = self.service.list(Some(&key));
        // Each page is waited for on its own.
        while let Some(object) =
            within(0, objects.try_next()).await.map_err(failed("list what is in", &self.name))?
        {
            found.push(object);
        }
        Ok(found)
    }

    pub(crate) async fn take_away(
        &self,
        digests: Vec<Digest>,
        before: Millis,
    ) -> Result<Vec<Resting>, BlobError> {
        let gone = futures_util::stream::iter(digests)
            .map(|digest| self.take_one(digest, before))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<Option<Resting>>>()
            .await?;
        Ok(gone.into_iter().flatten().collect())
    }

    async fn take_one(&self, digest: Digest, before: Millis) -> Result<Option<Resting>, BlobError> {
        let key = self.object(&digest);
        let found = match within(0, self.service.head(&key)).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => resting(digest, &found.map_err(failed("read", &self.name))?),
        };
        if found.modified >= before {
            return Ok(None);
        }
        within(0, self.service.delete(&key)).await.map_err(failed("delete from", &self.name))?;
        Ok(Some(found))
    }

    pub(crate) async fn claim(&self, owner: &str, says: &str) -> Result<(), BlobError> {
        let key = self.key(&format!("owners/{owner}"));
        within(0, self.service.put(&key, says.to_owned().into()))
            .await
            .map(drop)
            .map_err(failed("write into", &self.name))
    }

    pub(crate) async fn owners(&self) -> Result<Vec<String>, BlobError> {
        let found = self.below("owners").await?;
        Ok(found.iter().filter_map(|mark| mark.location.filename().map(str::to_owned)).collect())
    }
}
