//! Large files: uploads in parts, and downloads by URLs that need no sign-in.
//!
//! A client asks for an upload with its own rights and gets an URL for each part, which it uses without them: what such
//! an URL allows is in its signature. The upload's id is signed too, so that it completes at no other path.

use super::artifacts::{Opened, missing, writable_file};
use super::places::{self, Place};
use super::signatures::Signed;
use super::{Tracking, TrackingError, may_read, may_track};
use bytes::Bytes;
use futures_util::Stream;
use lockgate_blob::{BlobError, Part, UploadId};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;

/// How long an upload may take; what is left of it then is deleted.
const UPLOAD_MS: Millis = 24 * 3_600_000;
/// How long a download may be begun.
const DOWNLOAD_MS: Millis = 3_600_000;
/// How many parts an upload may have.
const MOST_PARTS: u32 = 10_000;

/// An upload that can be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunUpload {
    /// What its sender calls it by.
    pub id: String,
    /// Where its file will be.
    pub path: String,
    /// What allows to send each part, from number 1 on.
    pub parts: Vec<Signed>,
}

/// A file that can be fetched without signing in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDownload {
    /// Its path.
    pub path: String,
    /// Its bytes, whatever is put at the path meanwhile: who fetches it in pieces gets pieces of one file.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// What allows to fetch it.
    pub signed: Signed,
}

fn gone() -> TrackingError {
    TrackingError::missing("No such upload, or it has ended: begin a new one")
}

/// The path of a file below the folder that a request names; clients send the file's path on their own disk.
fn below(folder: &str, local: &str) -> Result<String, TrackingError> {
    let name = local.rsplit(['/', '\\']).next().unwrap_or_default();
    if name.is_empty() {
        return Err(TrackingError::invalid("Invalid path: a file's name is missing"));
    }
    let path = format!("{}/{name}", places::normal(folder)?);
    places::checked(&path).map(str::to_owned)
}

impl Tracking {
    /// Begins an upload of a file in `parts` parts into a folder of a run or a logged model.
    ///
    /// # Errors
    /// Where the path is not safe, belongs to nothing, or there are too many parts.
    pub async fn begin_upload(
        &self,
        actor: &Actor,
        folder: &str,
        local: &str,
        parts: i64,
    ) -> Result<BegunUpload, TrackingError> {
        may_track(actor)?;
        let path = below(folder, local)?;
        self.takes(&writable_file(&path)?).await?;
        let count = u32::try_from(parts).ok().filter(|count| (1..=MOST_PARTS).contains(count));
        let count = count.ok_or_else(|| {
            TrackingError::invalid(format!("num_parts must be from 1 to {MOST_PARTS}, got {parts}"))
        })?;
        let key = self.key().await?;
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        let upload = UploadId::new(self.clock.now_ms(), count, random);
        let expires = upload.began + UPLOAD_MS;
        let name = upload.to_string();
        let part = |number: u32| key.sign(&["part", &name, &number.to_string(), &path], expires);
        let parts = (1..=count).map(part).collect();
        let id = format!("{name}-{}", key.sign(&["upload", &name, &path], expires).signature);
        self.blobs.begin_upload(&upload).await?;
        Ok(BegunUpload { id, path, parts })
    }

    /// Takes one part, by its URL's signature alone; says its digest.
    ///
    /// # Errors
    /// Where the signature is for something else or has expired, the upload has ended, or the bytes break off.
    pub async fn put_part<S>(
        &self,
        path: &str,
        upload: &str,
        number: u32,
        signed: &Signed,
        bytes: S,
    ) -> Result<Digest, TrackingError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let now = self.clock.now_ms();
        self.key().await?.check(&["part", upload, &number.to_string(), path], signed, now)?;
        let upload: UploadId = upload.parse().map_err(|_| gone())?;
        Ok(self.blobs.put_part(&upload, number, bytes).await?.digest)
    }

    /// Joins the parts that were sent and puts the file under its path. Asked again it changes nothing.
    ///
    /// # Errors
    /// Where parts are missing or are others than were sent, or the upload was begun for another path or has ended.
    pub async fn complete_upload(
        &self,
        actor: &Actor,
        folder: &str,
        local: &str,
        id: &str,
        parts: &[(i64, String)],
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (upload, place) = self.own_upload(folder, local, id).await?;
        let parts = checked(parts, upload.parts)?;
        self.takes(&place).await?;
        let blob = self.blobs.join_parts(&upload, parts).await?;
        // What was put at the path since then is newer.
        if self.blobs.is_upload_used(&upload).await? {
            return Ok(());
        }
        self.place(place, blob).await?;
        Ok(self.blobs.use_upload(&upload).await?)
    }

    /// Gives an upload up and deletes its parts; nothing happens where it has ended.
    ///
    /// # Errors
    /// Where it was begun for another path.
    pub async fn abort_upload(
        &self,
        actor: &Actor,
        folder: &str,
        local: &str,
        id: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (upload, _) = self.own_upload(folder, local, id).await?;
        Ok(self.blobs.drop_upload(&upload).await?)
    }

    /// The upload behind an id that was given out for this path.
    async fn own_upload(
        &self,
        folder: &str,
        local: &str,
        id: &str,
    ) -> Result<(UploadId, Place), TrackingError> {
        let path = below(folder, local)?;
        let (name, signature) = id.rsplit_once('-').ok_or_else(gone)?;
        let upload: UploadId = name.parse().map_err(|_| gone())?;
        let signed = Signed { expires: upload.began + UPLOAD_MS, signature: signature.to_owned() };
        self.key()
            .await?
            .check(&["upload", name, &path], &signed, self.clock.now_ms())
            .map_err(|_| gone())?;
        Ok((upload, writable_file(&path)?))
    }

    /// Deletes what is left of uploads that took too long; says how many there were.
    ///
    /// # Errors
    /// Where the files can't be deleted.
    pub async fn sweep_uploads(&self) -> Result<usize, TrackingError> {
        Ok(self.blobs.sweep_uploads(self.clock.now_ms() - UPLOAD_MS).await?)
    }

    /// Lets a file be fetched without signing in, for a while.
    ///
    /// # Errors
    /// Where there is none at this path.
    pub async fn sign_download(&self, actor: &Actor, path: &str) -> Result<SignedDownload, TrackingError> {
        may_read(actor)?;
        let opened = self.open_artifact(actor, path).await?;
        let path = places::normal(path)?;
        let (digest, size) = (opened.digest, opened.size);
        let expires = self.clock.now_ms() + DOWNLOAD_MS;
        let signed = self.key().await?.sign(&["file", &path, &digest.to_string()], expires);
        Ok(SignedDownload { path, digest, size, signed })
    }

    /// Opens a file by its URL's signature alone.
    ///
    /// # Errors
    /// Where the signature is for something else or has expired, or the file was deleted.
    pub async fn open_signed(
        &self,
        path: &str,
        digest: &str,
        signed: &Signed,
    ) -> Result<Opened, TrackingError> {
        self.key().await?.check(&["file", path, digest], signed, self.clock.now_ms())?;
        let digest: Digest = digest.parse().map_err(|_| TrackingError::invalid("The URL names no digest"))?;
        let place = places::split(places::checked(path)?).ok_or_else(|| missing(path))?;
        let there = self
            .read(move |conn| Box::pin(async move { Ok(conn.artifact(&place.root, &place.path).await?) }));
        match there.await? {
            // What was signed is given, also where the file has been replaced since.
            Some(file) => {
                let opened = self.opened(path, digest, (file.digest == digest).then_some(file.size)).await;
                match opened {
                    // Replaced, and taken away for good since.
                    Err(TrackingError::Blob(BlobError::NotFound(_))) if file.digest != digest => {
                        Err(missing(path))
                    }
                    opened => opened,
                }
            }
            None => Err(missing(path)),
        }
    }
}

/// All parts of an upload, in order.
fn checked(parts: &[(i64, String)], count: u32) -> Result<Vec<Part>, TrackingError> {
    let mut sorted: Vec<&(i64, String)> = parts.iter().collect();
    sorted.sort_by_key(|(number, _)| *number);
    let whole = sorted.iter().map(|(number, _)| *number).eq(1..=i64::from(count));
    if !whole {
        return Err(TrackingError::invalid(format!("The upload has the parts 1 to {count}: name each once")));
    }
    let part = |(number, (_, etag)): (u32, &(i64, String))| {
        let digest = format!("sha256:{}", etag.trim_matches('"')).parse();
        digest.map(|digest| Part { number, digest }).map_err(|_| {
            TrackingError::invalid(format!(
                "Part {number}: '{etag}' is not the ETag that it was answered with"
            ))
        })
    };
    (1..=count).zip(sorted.iter().copied()).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lies_below_the_folder_under_its_own_name() {
        for local in ["/home/u/model.bin", "C:\\Users\\u\\model.bin", "model.bin"] {
            assert_eq!(below("0/r/artifacts", local).unwrap(), "0/r/artifacts/model.bin");
        }
        for local in ["", "/home/u/", "a/..", "%2e%2e"] {
            assert!(below("0/r/artifacts", local).is_err(), "{local}");
        }
        assert_eq!(below("0//r/./artifacts/", "a").unwrap(), "0/r/artifacts/a");
        assert!(below("../x", "a").is_err() && below("0/r", ".").is_err());
    }

    #[test]
    fn every_part_must_be_named_once() {
        let etag = format!("\"{}\"", Digest::of(b"x").hex());
        let part = |number| (number, etag.clone());
        assert_eq!(checked(&[part(2), part(1)], 2).unwrap()[0].number, 1);
        for wrong in
            [vec![], vec![part(1)], vec![part(1), part(1)], vec![part(0), part(1)], vec![part(1), part(3)]]
        {
            assert!(checked(&wrong, 2).is_err(), "{wrong:?}");
        }
        assert!(checked(&[(1, "x".to_owned())], 1).is_err());
    }
}
