//! The agent's own folder: everything that it keeps, and its key.

use crate::AgentError;
use lockgate_core::clock::Entropy;
use lockgate_core::gate::PublicKey;
use p256::ecdsa::SigningKey;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// How long the folder's path may be: a socket's has at most 107 bytes (unix(7)), and one here goes on
/// `/run/00/w-00000000-0.sock`.
const LONGEST: usize = 107 - "/run/00/w-00000000-0.sock".len();

/// The file that an agent locks for its life.
const LIFE: &str = "alive";

/// The agent's folder.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Opens the folder, and makes it if it is new: for its owner only.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn open(root: &Path) -> Result<Self, AgentError> {
        let root = std::path::absolute(root).map_err(|e| AgentError::io("resolve", root, e))?;
        for dir in ["", "blobs", "releases", "run", "logs", "predictions", "work"] {
            let dir = root.join(dir);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|e| AgentError::io("make the folder", &dir, e))?;
        }
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A place in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A new folder for the sockets of one life of the agent; it is that life's as long as the lock that comes with it is held.
    /// Those of lives that are over go.
    ///
    /// # Errors
    /// Where it can't be made, or its path would be too long for sockets.
    pub(crate) fn sockets(&self, entropy: &dyn Entropy) -> Result<(PathBuf, File), AgentError> {
        let all = self.path("run");
        if self.root.as_os_str().len() > LONGEST {
            let source = std::io::Error::other(format!(
                "its path has more than {LONGEST} bytes, too long for the sockets in it; choose a shorter one"
            ));
            return Err(AgentError::io("use the folder", &self.root, source));
        }
        let wrong = |e| AgentError::io("make a folder for sockets in", &all, e);
        for life in std::fs::read_dir(&all).map_err(wrong)?.flatten().map(|entry| entry.path()) {
            // Older agents left sockets without a folder.
            let over = File::open(life.join(LIFE)).map_or(true, |lock| lock.try_lock().is_ok());
            if life.is_dir() && over {
                std::fs::remove_dir_all(&life).map_err(wrong)?;
            }
        }
        loop {
            let mut byte = [0];
            entropy.fill(&mut byte);
            // Short, for a socket's path may have 107 bytes only.
            let own = all.join(format!("{:02x}", byte[0]));
            match std::fs::DirBuilder::new().mode(0o700).create(&own) {
                Ok(()) => {
                    let lock = File::create(own.join(LIFE)).map_err(wrong)?;
                    lock.lock().map_err(wrong)?;
                    return Ok((own, lock));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(wrong(e)),
            }
        }
    }

    /// The agent's key; made at first start and never sent anywhere.
    ///
    /// # Errors
    /// Where it can't be read or written, or others may read it.
    pub fn key(&self, entropy: &dyn Entropy) -> Result<SigningKey, AgentError> {
        let path = self.path("key.pem");
        match std::fs::read_to_string(&path) {
            Ok(pem) => {
                let mode = std::fs::metadata(&path)
                    .map_err(|e| AgentError::io("look at", &path, e))?
                    .permissions()
                    .mode();
                if mode & 0o077 != 0 {
                    return Err(AgentError::Key(format!(
                        "{} can be read by others (mode {:o}); run: chmod 600 {}",
                        path.display(),
                        mode & 0o777,
                        path.display()
                    )));
                }
                SigningKey::from_pkcs8_pem(&pem)
                    .map_err(|e| AgentError::Key(format!("{} holds no P-256 key: {e}", path.display())))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.new_key(&path, entropy),
            Err(e) => Err(AgentError::io("read", &path, e)),
        }
    }

    fn new_key(&self, path: &Path, entropy: &dyn Entropy) -> Result<SigningKey, AgentError> {
        // A random 256-bit number is a valid key but for a chance of 2^-32 on this curve; then the next one is.
        let key = loop {
            let mut bytes = [0; 32];
            entropy.fill(&mut bytes);
            if let Ok(key) = SigningKey::from_slice(&bytes) {
                break key;
            }
        };
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| AgentError::Key(e.to_string()))?;
        write_private(path, pem.as_bytes())?;
        let public = PublicKey::of(&key).map_err(|e| AgentError::Key(e.to_string()))?;
        write_private(&self.path("key.pub.pem"), public.pem().as_bytes())?;
        Ok(key)
    }
}

/// Writes a file for its owner only, durable before it has its name.
///
/// # Errors
/// Where it can't be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AgentError> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|e| AgentError::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Entropy for Fixed {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(3);
        }
    }

    #[test]
    fn each_life_has_a_folder_for_its_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("production")).unwrap();
        let counter = |from: u8| Counted(std::sync::atomic::AtomicU8::new(from));
        let (old, alive) = home.sockets(&counter(1)).unwrap();
        // Beside one that lives another place is looked for.
        let (new, _alive) = home.sockets(&counter(1)).unwrap();
        assert!(old != new && old.is_dir() && new.is_dir());
        drop(alive);
        let (next, _alive) = home.sockets(&counter(7)).unwrap();
        assert!(next.is_dir() && !old.exists() && new.exists());
        let deep = Home::open(&dir.path().join("x".repeat(90))).unwrap();
        assert!(deep.sockets(&Fixed).unwrap_err().to_string().contains("shorter"));
    }

    struct Counted(std::sync::atomic::AtomicU8);
    impl Entropy for Counted {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("production")).unwrap();
        let key = home.key(&Fixed).unwrap();
        assert_eq!(key.to_bytes(), home.key(&Fixed).unwrap().to_bytes());
        let path = home.path("key.pem");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(home.key(&Fixed).unwrap_err().to_string().contains("chmod 600"));
    }
}
