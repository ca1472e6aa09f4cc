//! Uploads in parts: each part is a durable file of its own until all are joined into one blob.
//!
//! A part's file is named by its number and its bytes' digest, so that a part that is sent again takes the place of the
//! first one, and joining takes exactly those that the sender names and checks them on the way. What arrived stays through
//! crashes and restarts, and other processes over the same folder see it.

use crate::error::{BlobError, failed};
use crate::incoming::{Incoming, sync_folder};
use crate::put::{Blob, Expect};
use crate::store::{BlobStore, blocking, create_folder};
use bytes::Bytes;
use futures_util::Stream;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{SyncSender, sync_channel};

/// How many bytes are read at a time when parts are joined, and how many times that may wait to be written.
const BLOCK: usize = 1 << 20;
const AHEAD: usize = 4;
/// The file that says what the parts became.
const JOINED: &str = "joined";
/// The file that says that the blob has been put to its use.
const USED: &str = "used";
/// The file that whoever joins holds locked.
const LOCK: &str = "lock";
/// The beginning of names of folders that are being deleted.
const GONE: &str = "gone-";

/// An upload's name: when it began, how many parts it has, and 32 random hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadId {
    /// When it began.
    pub began: Millis,
    /// How many parts it has.
    pub parts: u32,
    random: String,
}

impl UploadId {
    /// A new name out of 16 random bytes.
    #[must_use]
    pub fn new(began: Millis, parts: u32, random: [u8; 16]) -> Self {
        Self { began, parts, random: hex::encode(random) }
    }
}

impl Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.began, self.parts, self.random)
    }
}

/// The text is no upload's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoUploadId;

impl FromStr for UploadId {
    type Err = NoUploadId;

    fn from_str(text: &str) -> Result<Self, NoUploadId> {
        let mut fields = text.splitn(3, '-');
        let mut field = || fields.next().ok_or(NoUploadId);
        let began = field()?.parse().map_err(|_| NoUploadId)?;
        let parts = field()?.parse().map_err(|_| NoUploadId)?;
        let random = field()?;
        if random.len() != 32 || !random.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NoUploadId);
        }
        Ok(Self { began, parts, random: random.to_owned() })
    }
}

/// A part that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1 on.
    pub number: u32,
    /// Its bytes' digest.
    pub digest: Digest,
}

impl Part {
    fn name(&self) -> String {
        format!("{}-{}", self.number, self.digest.hex())
    }
}

impl BlobStore {
    fn uploads(&self) -> PathBuf {
        self.incoming().with_file_name("uploads")
    }

    fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    /// Makes room for an upload.
    ///
    /// # Errors
    /// Where the folder can't be written.
    pub async fn begin_upload(&self, id: &UploadId) -> Result<(), BlobError> {
        let (all, own) = (self.uploads(), self.upload(id));
        blocking(move || {
            create_folder(&all)?;
            create_folder(&own)
        })
        .await
    }

    /// Keeps one part, durably, in the place of one that came before under the same number.
    ///
    /// # Errors
    /// Where there is no such upload (any more), the stream breaks or the bytes can't be written.
    pub async fn put_part<S>(&self, id: &UploadId, number: u32, source: S) -> Result<Part, BlobError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        let folder = self.upload(id);
        if !folder.is_dir() || folder.join(JOINED).exists() || number == 0 || number > id.parts {
            return Err(BlobError::NoUpload);
        }
        let (incoming, blob) = self.receive(source, Expect::anything(), true).await?;
        let part = Part { number, digest: blob.digest };
        blocking(move || {
            // Two that send the same part must not take each other's away.
            let _lock = locked(&folder)?;
            if let Err(error) = incoming.keep(&folder.join(part.name())) {
                // Aborted meanwhile.
                return Err(if folder.is_dir() { error } else { BlobError::NoUpload });
            }
            let before = format!("{number}-");
            for name in names(&folder)? {
                if name.starts_with(&before) && name != part.name() {
                    remove(&folder.join(name))?;
                }
            }
            Ok(part)
        })
        .await
    }

    /// Joins parts into a blob, in the order given. Done again, also after the parts are gone, it gives the same blob.
    ///
    /// # Errors
    /// Where there is no such upload, a part is not there (any more), or it was joined from other parts.
    pub async fn join_parts(&self, id: &UploadId, parts: Vec<Part>) -> Result<Blob, BlobError> {
        let (folder, store) = (self.upload(id), self.clone());
        // Goes on when the caller has gone: whoever asks again finds it done.
        tokio::spawn(async move { store.join_in(folder, parts).await })
            .await
            .unwrap_or(Err(BlobError::Ending))
    }

    async fn join_in(&self, folder: PathBuf, parts: Vec<Part>) -> Result<Blob, BlobError> {
        let (under_way, from, list) = (self.incoming().to_owned(), folder.clone(), parts.clone());
        let (lock, joined) = blocking(move || {
            let lock = locked(&from)?;
            if let Some(done) = joined(&from, &list)? {
                return Ok((lock, Err(done)));
            }
            let incoming = Incoming::create(&under_way)?;
            let blob = join(&from, &list, &incoming)?;
            Ok((lock, Ok((incoming, blob))))
        })
        .await?;
        let (incoming, blob) = match joined {
            Ok(fresh) => fresh,
            // Long after it was joined the bytes may have been taken away again.
            Err(done) if self.exists(&done.digest).await? => return Ok(done),
            Err(_) => return Err(BlobError::NoUpload),
        };
        self.settle(incoming, &blob).await?;
        blocking(move || {
            let _until_noted = lock;
            note(&folder, &parts, &blob)?;
            parts.iter().try_for_each(|part| remove(&folder.join(part.name())))?;
            Ok(blob)
        })
        .await
    }

    /// Whether the blob that an upload became has been put to its use: asked again, it is not to be put there again.
    ///
    /// # Errors
    /// Where the folder can't be read.
    pub async fn is_upload_used(&self, id: &UploadId) -> Result<bool, BlobError> {
        let mark = self.upload(id).join(USED);
        blocking(move || mark.try_exists().map_err(failed("read", &mark))).await
    }

    /// Notes durably that the blob which an upload became has been put to its use; nothing happens where the upload is gone.
    ///
    /// # Errors
    /// Where it can't be noted.
    pub async fn use_upload(&self, id: &UploadId) -> Result<(), BlobError> {
        let folder = self.upload(id);
        let mark = folder.join(USED);
        blocking(move || match File::create(&mark).and_then(|file| file.sync_all()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("write", &mark)(error)),
            Ok(()) => sync_folder(&folder),
        })
        .await
    }

    /// What uploads became that may still be put to their use.
    ///
    /// # Errors
    /// Where one can't be read or understood.
    pub async fn joined_uploads(&self) -> Result<Vec<Digest>, BlobError> {
        let all = self.uploads();
        blocking(move || {
            let mut found = Vec::new();
            for name in names(&all)? {
                let path = all.join(name).join(JOINED);
                let text = match std::fs::read_to_string(&path) {
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                        continue;
                    }
                    text => text.map_err(failed("read", &path))?,
                };
                let digest = text.split(' ').next().unwrap_or_default().parse();
                let unclear = |_| io::Error::new(ErrorKind::InvalidData, "it names no digest");
                found.push(digest.map_err(unclear).map_err(failed("understand", &path))?);
            }
            Ok(found)
        })
        .await
    }

    /// Deletes an upload with its parts; nothing happens where there is none.
    ///
    /// # Errors
    /// Where it can't be deleted.
    pub async fn drop_upload(&self, id: &UploadId) -> Result<(), BlobError> {
        let (folder, gone) = (self.upload(id), self.uploads().join(format!("{GONE}{id}")));
        blocking(move || discard(&folder, &gone)).await
    }

    /// Deletes uploads that began before; says how many.
    ///
    /// # Errors
    /// Where one can't be deleted.
    pub async fn sweep_uploads(&self, before: Millis) -> Result<usize, BlobError> {
        let all = self.uploads();
        blocking(move || {
            let mut swept = 0;
            for name in names(&all)? {
                let given = name.strip_prefix(GONE).unwrap_or(&name);
                let Ok(id) = given.parse::<UploadId>() else { continue };
                if id.began < before {
                    discard(&all.join(&name), &all.join(format!("{GONE}{id}")))?;
                    swept += 1;
                }
            }
            Ok(swept)
        })
        .await
    }
}

/// Waits until nobody else changes the upload.
fn locked(folder: &Path) -> Result<File, BlobError> {
    let file = match File::create(folder.join(LOCK)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(BlobError::NoUpload),
        created => created.map_err(failed("lock", folder))?,
    };
    file.lock().map_err(failed("lock", folder))?;
    Ok(file)
}

/// Under its new name no part can come into it any more.
fn discard(folder: &Path, gone: &Path) -> Result<(), BlobError> {
    match std::fs::rename(folder, gone) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(failed("delete", folder))?,
    }
    std::fs::remove_dir_all(gone).map_err(failed("delete", gone))
}

/// Writes the parts one after the other. A second thread reads and checks them meanwhile, and is a few blocks ahead.
fn join(folder: &Path, parts: &[Part], incoming: &Incoming) -> Result<Blob, BlobError> {
    let mut target = incoming.handle()?;
    let (mut hasher, mut size) = (Sha256::new(), 0_u64);
    let (sender, blocks) = sync_channel::<Vec<u8>>(AHEAD);
    let written = std::thread::scope(|scope| {
        let reading = scope.spawn(move || parts.iter().try_for_each(|part| read_part(folder, part, &sender)));
        // Ends when the reader has; dropping it ends the reader where writing fails.
        let writing = blocks.into_iter().try_for_each(|block| {
            hasher.update(&block);
            size += block.len() as u64;
            target.write_all(&block).map_err(failed("write", incoming.path()))
        });
        writing.and(reading.join().unwrap_or(Err(BlobError::Ending)))
    });
    written?;
    Ok(Blob { digest: Digest::from_bytes(hasher.finalize().into()), size })
}

/// Hands a part's blocks on, and checks that they are what arrived.
fn read_part(folder: &Path, part: &Part, blocks: &SyncSender<Vec<u8>>) -> Result<(), BlobError> {
    let path = folder.join(part.name());
    let missing = || BlobError::NoPart { number: part.number };
    let mut source = File::open(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => missing(),
        _ => failed("read", &path)(error),
    })?;
    let mut hasher = Sha256::new();
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let read = (&mut source).take(BLOCK as u64).read_to_end(&mut block).map_err(failed("read", &path))?;
        if read == 0 {
            break;
        }
        hasher.update(&block);
        if blocks.send(block).is_err() {
            return Err(BlobError::Ending);
        }
    }
    if Digest::from_bytes(hasher.finalize().into()) == part.digest {
        return Ok(());
    }
    remove(&path)?;
    Err(missing())
}

/// One text for a list of parts.
fn list(parts: &[Part]) -> Digest {
    Digest::of(parts.iter().map(|part| format!("{}\n", part.name())).collect::<String>().as_bytes())
}

/// Says durably what the parts became.
fn note(folder: &Path, parts: &[Part], blob: &Blob) -> Result<(), BlobError> {
    let partial = folder.join("joining");
    let text = format!("{} {} {}", blob.digest, blob.size, list(parts));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(failed("write", &partial))?;
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&partial, folder.join(JOINED)))
        .map_err(failed("write", &partial))?;
    sync_folder(folder)
}

/// What the parts became, where that is so already.
fn joined(folder: &Path, parts: &[Part]) -> Result<Option<Blob>, BlobError> {
    let path = folder.join(JOINED);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed("read", &path))?,
    };
    let fields: Vec<&str> = text.split(' ').collect();
    let [digest, size, of] = fields[..] else { return Ok(None) };
    match (digest.parse(), size.parse()) {
        (Ok(digest), Ok(size)) if of == list(parts).to_string() => Ok(Some(Blob { digest, size })),
        (Ok(_), Ok(_)) => Err(BlobError::NoUpload),
        _ => Ok(None),
    }
}

fn names(folder: &Path) -> Result<Vec<String>, BlobError> {
    let items = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        items => items.map_err(failed("read", folder))?,
    };
    let names: Result<Vec<_>, _> = items.map(|item| item.map(|item| item.file_name())).collect();
    let names = names.map_err(failed("read", folder))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn remove(path: &Path) -> Result<(), BlobError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("delete", path)(error)),
        _ => Ok(()),
    }
}
