//! Find or install the ONNX Runtime library.
//!
//! The library comes from the PyPI wheel `onnxruntime`, pinned by the SHA-256 of the library itself.

mod install;

pub use install::{InstallOptions, install};

use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The version of ONNX Runtime that this program is tested with.
pub const VERSION: &str = "1.32.0";

/// SHA-256 of `libonnxruntime.so` in the wheel of [`VERSION`] for CPython 3.11, manylinux x86-64.
pub const SHA256: &str = "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f";

/// The library's file name.
#[must_use]
pub fn file_name() -> String {
    format!("libonnxruntime.so.{VERSION}")
}

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct LocateOptions {
    /// A file named by the user (`LOCKGATE_ORT_LIB`). It is taken or refused; nothing else is looked at.
    pub explicit: Option<PathBuf>,
    /// Lockgate's own folder; the library lies in `lib/` below it.
    pub home: PathBuf,
    /// `site-packages` folders of Pythons that may have the wheel installed. Taken only if the bytes are the pinned ones.
    pub site_packages: Vec<PathBuf>,
}

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The file that was named isn't there.
    #[error("there is no ONNX Runtime library at {}: correct LOCKGATE_ORT_LIB, or unset it to use an installed one", .0.display())]
    ExplicitMissing(PathBuf),
    /// None was found.
    #[error(
        "ONNX Runtime {VERSION} is not installed; looked at {looked}. Install it with `lockgate ort install`, or set LOCKGATE_ORT_LIB to a libonnxruntime.so.{VERSION}"
    )]
    NotFound {
        /// The places, with what was wrong with each.
        looked: String,
    },
    /// This platform has no pinned library.
    #[error(
        "there is no pinned ONNX Runtime for {0}: install onnxruntime {VERSION} yourself and set LOCKGATE_ORT_LIB to its library"
    )]
    Platform(String),
    /// pip failed.
    #[error(
        "pip could not download onnxruntime {VERSION}: {0}\nOffline? Copy libonnxruntime.so.{VERSION} from the wheel onnxruntime-{VERSION}-cp311-…-x86_64.whl to this machine and set LOCKGATE_ORT_LIB to it"
    )]
    Download(String),
    /// The bytes are not the ones that were pinned.
    #[error(
        "the downloaded ONNX Runtime library is not the expected one: SHA-256 {found}, expected {SHA256}; nothing was installed"
    )]
    Digest {
        /// SHA-256 of what came.
        found: String,
    },
    /// A file could not be read or written.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Finds the library: the named file, or the installed one, or the one in a Python with the same bytes.
///
/// # Errors
/// Where there is none, with every place that was looked at.
pub fn locate(options: &LocateOptions) -> Result<PathBuf, LibraryError> {
    if let Some(path) = &options.explicit {
        return if path.is_file() {
            Ok(path.clone())
        } else {
            Err(LibraryError::ExplicitMissing(path.clone()))
        };
    }
    let installed = installed_path(&options.home);
    // Its digest was checked when it was put there; hashing 35 MB again would double a worker's start.
    if installed.is_file() {
        return Ok(installed);
    }
    let mut looked = vec![format!("{} (missing)", installed.display())];
    for folder in &options.site_packages {
        let path = folder.join("onnxruntime").join("capi").join(file_name());
        if !path.is_file() {
            looked.push(format!("{} (missing)", path.display()));
        } else if sha256(&path)? == SHA256 {
            return Ok(path);
        } else {
            looked.push(format!("{} (other bytes than the pinned ones)", path.display()));
        }
    }
    Err(LibraryError::NotFound { looked: looked.join(", ") })
}

/// Where [`install`] puts the library.
#[must_use]
pub fn installed_path(home: &Path) -> PathBuf {
    home.join("lib").join(file_name())
}

fn sha256(path: &Path) -> Result<String, LibraryError> {
    let failed = |source| LibraryError::Io { what: "can't read", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        match buffer.get(..count) {
            Some([]) | None => return Ok(hex::encode(hasher.finalize())),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_taken_or_refused_and_nothing_else_is_looked_at() {
        let home = tempfile::tempdir().unwrap();
        let path = installed_path(home.path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"x").unwrap();
        let explicit = Some(home.path().join("other.so"));
        let options = LocateOptions { explicit, home: home.path().to_owned(), site_packages: vec![] };
        assert!(matches!(locate(&options), Err(LibraryError::ExplicitMissing(_))));
        let options = LocateOptions { explicit: None, ..options };
        assert_eq!(locate(&options).unwrap(), path);
    }

    #[test]
    fn a_foreign_library_in_site_packages_is_not_taken() {
        let home = tempfile::tempdir().unwrap();
        let capi = home.path().join("onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        std::fs::write(capi.join(file_name()), b"not the pinned bytes").unwrap();
        let options = LocateOptions {
            explicit: None,
            home: home.path().to_owned(),
            site_packages: vec![home.path().to_owned()],
        };
        let message = locate(&options).unwrap_err().to_string();
        assert!(message.contains("other bytes") && message.contains("lockgate ort install"), "{message}");
    }
}
