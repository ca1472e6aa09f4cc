//! Files below runs, logged models and registered versions.

use super::places::{self, Owner, Place};
use super::{Artifact, Tracking, TrackingError, may_read, may_track, models, runs, traces};
use bytes::Bytes;
use futures_util::Stream;
use lockgate_blob::blocks::Blocks;
use lockgate_blob::{Blob, BlobError, BlobReader, Expect};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_store::Conn;
use std::collections::BTreeMap;

/// One item of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the folder.
    pub name: String,
    /// Its size; none for a folder.
    pub size: Option<u64>,
}

/// A file that can be read.
#[derive(Debug)]
pub struct Opened {
    reader: BlobReader,
    /// How many they are.
    pub size: u64,
    /// Its name, without folders.
    pub name: String,
    /// Its bytes' digest.
    pub digest: Digest,
}

impl Opened {
    /// Its bytes in blocks: from one on, and so many.
    ///
    /// # Errors
    /// Where they can't be read.
    pub async fn blocks(self, from: u64, length: u64) -> Result<Blocks, TrackingError> {
        Ok(self.reader.blocks(from, length).await?)
    }
}

pub(super) fn missing(path: &str) -> TrackingError {
    TrackingError::missing(format!("No such artifact: '{path}'"))
}

/// What lies directly in a folder, of the files whose paths begin with its prefix.
fn folder(files: &[Artifact], prefix: &str) -> Vec<Listed> {
    let mut items: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for file in files {
        let below = file.path.strip_prefix(prefix).unwrap_or(&file.path);
        match below.split_once('/') {
            Some((name, _)) => items.insert(name, None),
            None => items.insert(below, Some(file.size)),
        };
    }
    items.into_iter().map(|(name, size)| Listed { name: name.to_owned(), size }).collect()
}

/// A path is a file or a folder, not both.
async fn fits(conn: &mut Conn, place: &Place) -> Result<(), TrackingError> {
    let refused = |other: &str| {
        TrackingError::invalid(format!("'{}' can't be a file: '{other}' is there already", place.path))
    };
    if let Some(below) = conn.artifacts(&place.root, &place.prefix()).await?.first() {
        return Err(refused(&below.path));
    }
    for (end, _) in place.path.match_indices('/') {
        let above = &place.path[..end];
        if conn.artifact(&place.root, above).await?.is_some() {
            return Err(refused(above));
        }
    }
    Ok(())
}

/// Whether the root's owner keeps its artifacts there.
async fn owned(conn: &mut Conn, place: &Place) -> Result<(), TrackingError> {
    let uri = match &place.owner {
        Owner::Run(id) => runs::row(conn, id).await?.artifact_uri,
        Owner::Model(id) => models::found(conn, id).await?.artifact_uri,
        Owner::Trace(id) => traces::location(conn, id).await?,
        Owner::Version => {
            return Err(TrackingError::invalid(
                "The files of a registered model version can't be changed: register a new version",
            ));
        }
    };
    if places::root_of(&uri) == Some(place.root.as_str()) {
        return Ok(());
    }
    Err(TrackingError::invalid(format!("Invalid path: these artifacts lie at {uri}")))
}

/// Whether the root's owner belongs to the workspace. A registered version's files may belong to several.
pub(super) async fn is_seen(conn: &mut Conn, place: &Place) -> Result<bool, TrackingError> {
    Ok(match &place.owner {
        Owner::Run(id) => conn.run_row(id).await?.is_some(),
        Owner::Model(id) => conn.logged_model_lifecycle(id).await?.is_some(),
        Owner::Trace(id) => conn.trace(id).await?.is_some(),
        Owner::Version => true,
    })
}

/// The place of a safe path that is to be written.
fn writable(path: &str) -> Result<Place, TrackingError> {
    places::split(path).ok_or_else(|| {
        TrackingError::invalid(format!("Invalid path: '{path}' belongs to no run and no logged model"))
    })
}

/// The place of a file that is to be written.
pub(super) fn writable_file(path: &str) -> Result<Place, TrackingError> {
    let safe = places::compact(path)?;
    if path.ends_with('/') {
        return Err(TrackingError::invalid(
            "Invalid path: a file's name must be its last part, it cannot end with '/'",
        ));
    }
    let place = writable(&safe)?;
    if place.path.is_empty() {
        return Err(TrackingError::invalid("Invalid path: a file's name is missing"));
    }
    Ok(place)
}

impl Tracking {
    /// Keeps a file of a run or a logged model. When this returns it is durable. Memory use doesn't depend on its size.
    ///
    /// # Errors
    /// Where the path is not safe or belongs to nothing, or the bytes break off; nothing is kept then.
    pub async fn put_artifact<S>(&self, actor: &Actor, path: &str, bytes: S) -> Result<(), TrackingError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        may_track(actor)?;
        let place = writable_file(path)?;
        // Asked before the bytes are taken, and again when they are there.
        self.takes(&place).await?;
        let blob = self.blobs.put_stream(bytes, Expect::anything()).await?;
        self.place(place, blob).await
    }

    /// Whether a file may be put there.
    pub(super) async fn takes(&self, place: &Place) -> Result<(), TrackingError> {
        let asked = place.clone();
        self.read(move |conn| {
            Box::pin(async move {
                owned(conn, &asked).await?;
                fits(conn, &asked).await
            })
        })
        .await
    }

    /// Puts bytes that are kept under a path.
    pub(super) async fn place(&self, place: Place, blob: Blob) -> Result<(), TrackingError> {
        let now = self.clock.now_ms();
        self.write(move |tx| {
            Box::pin(async move {
                owned(tx, &place).await?;
                fits(tx, &place).await?;
                let new = Artifact { path: place.path, digest: blob.digest, size: blob.size };
                Ok(tx.put_artifact(&place.root, &new, now).await?)
            })
        })
        .await
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Where there is none at this path.
    pub async fn open_artifact(&self, actor: &Actor, path: &str) -> Result<Opened, TrackingError> {
        may_read(actor)?;
        let path = places::normal(path)?;
        let place = places::split(&path).ok_or_else(|| missing(&path))?;
        let wanted = place.clone();
        let (found, below) = self
            .read(move |conn| {
                Box::pin(async move {
                    if !is_seen(conn, &wanted).await? {
                        return Ok((None, Vec::new()));
                    }
                    let found = conn.artifact(&wanted.root, &wanted.path).await?;
                    let below = match found {
                        Some(_) => Vec::new(),
                        None => conn.artifacts(&wanted.root, &wanted.prefix()).await?,
                    };
                    Ok((found, below))
                })
            })
            .await?;
        match found {
            Some(file) => self.opened(&file.path, file.digest, Some(file.size)).await,
            None if below.is_empty() => Err(missing(&path)),
            None => Err(TrackingError::invalid(format!(
                "Artifact path refers to a directory, not a file: '{path}'"
            ))),
        }
    }

    /// Opens the bytes of a file, which must be as many as are known.
    pub(super) async fn opened(
        &self,
        path: &str,
        digest: Digest,
        known: Option<u64>,
    ) -> Result<Opened, TrackingError> {
        let reader = self.blobs.reader(&digest).await?;
        let size = reader.size();
        if let Some(expected) = known.filter(|known| *known != size) {
            return Err(BlobError::WrongSize { digest, expected, found: size }.into());
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Opened { size, reader, name, digest })
    }

    /// What lies in a folder; nothing where there is none, or where the path is a file's.
    ///
    /// # Errors
    /// Where the path is not safe.
    pub async fn list_artifacts(&self, actor: &Actor, path: &str) -> Result<Vec<Listed>, TrackingError> {
        may_read(actor)?;
        let Some(place) = places::split(&places::normal(path)?) else { return Ok(Vec::new()) };
        let prefix = place.prefix();
        let files = self
            .read(move |conn| {
                Box::pin(async move {
                    if !is_seen(conn, &place).await? {
                        return Ok(Vec::new());
                    }
                    Ok(conn.artifacts(&place.root, &place.prefix()).await?)
                })
            })
            .await?;
        Ok(folder(&files, &prefix))
    }

    /// Removes a file or a folder; nothing happens where there is none.
    ///
    /// # Errors
    /// Where the path is not safe, belongs to nothing or to a registered version.
    pub async fn delete_artifact(&self, actor: &Actor, path: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        let place = writable(&places::normal(path)?)?;
        self.write(move |tx| {
            Box::pin(async move {
                owned(tx, &place).await?;
                tx.delete_artifact(&place.root, &place.path).await?;
                tx.delete_artifacts(&place.root, &place.prefix()).await?;
                Ok(())
            })
        })
        .await
    }

    /// Refuses a path below an artifact URI that is not safe, before anything is looked up.
    ///
    /// # Errors
    /// Where it is not safe.
    pub fn check_path(&self, below: &str) -> Result<(), TrackingError> {
        places::checked(below).map(drop)
    }

    /// The path of something below a run's, a logged model's or a version's artifact URI.
    ///
    /// # Errors
    /// Where these artifacts lie elsewhere or the path is not safe.
    pub fn artifact_path(&self, uri: &str, below: &str) -> Result<String, TrackingError> {
        let root = places::root_of(uri).ok_or_else(|| {
            TrackingError::invalid(format!("The artifacts at {uri} are not kept here: read them there"))
        })?;
        Ok(match places::normal(below)?.as_str() {
            "" => root.to_owned(),
            below => format!("{root}/{below}"),
        })
    }

    /// Whether a path leads nowhere else.
    ///
    /// # Errors
    /// Where it does.
    pub fn is_safe(&self, path: &str) -> Result<(), TrackingError> {
        places::normal(path).map(drop)
    }
}
