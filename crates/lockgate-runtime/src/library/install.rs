//! Install the library from the PyPI wheel.

use super::{LibraryError, SHA256, VERSION, file_name, installed_path, sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How to install.
#[derive(Debug, Clone)]
pub struct InstallOptions {
    /// Lockgate's own folder.
    pub home: PathBuf,
    /// The Python whose pip downloads the wheel.
    pub python: PathBuf,
}

/// Takes one member out of the wheel; the archive's other 300 files are not needed.
const EXTRACT: &str = "import shutil, sys, zipfile\n\
    with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as member, open(sys.argv[3], 'xb') as out:\n\
    \x20   shutil.copyfileobj(member, out)\n";

/// Downloads the wheel, verifies the library in it against the pinned digest, and puts it in place with one rename.
/// Does nothing where it is there already.
///
/// # Errors
/// What failed and what to do. Nothing is left behind.
pub fn install(options: &InstallOptions, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, LibraryError> {
    let target = installed_path(&options.home);
    if target.is_file() && sha256(&target)? == SHA256 {
        progress("ONNX Runtime is installed already");
        return Ok(target);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(LibraryError::Platform(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)));
    }
    let folder = target.parent().unwrap_or(&options.home).to_owned();
    fs::create_dir_all(&folder).map_err(|source| io_error("can't create", &folder, source))?;
    let scratch = folder.join(format!(".install-{}", std::process::id()));
    let outcome = download(options, &scratch, &target, progress);
    // The scratch folder goes in every case; an error to remove it must not hide how the install went.
    let _ = fs::remove_dir_all(&scratch);
    outcome.map(|()| target)
}

fn download(
    options: &InstallOptions,
    scratch: &Path,
    target: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), LibraryError> {
    fs::create_dir(scratch).map_err(|source| io_error("can't create", scratch, source))?;
    progress(&format!("downloading onnxruntime {VERSION} (27 MB) with pip"));
    let wheel = format!("onnxruntime=={VERSION}");
    let pip = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--disable-pip-version-check",
        "--quiet",
        "--only-binary",
        ":all:",
    ];
    let platform =
        ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp"];
    let mut command = Command::new(&options.python);
    command.args(pip).args(platform).args(["--abi", "cp311", "--dest"]).arg(scratch).arg(&wheel);
    run(command)?;
    let found = wheel_in(scratch)?;
    progress("verifying");
    let library = scratch.join(file_name());
    let mut command = Command::new(&options.python);
    command.args(["-c", EXTRACT]).arg(&found).arg(format!("onnxruntime/capi/{}", file_name())).arg(&library);
    run(command)?;
    let digest = sha256(&library)?;
    if digest != SHA256 {
        return Err(LibraryError::Digest { found: digest });
    }
    put_in_place(&library, target)?;
    progress(&format!("installed {}", target.display()));
    Ok(())
}

/// Makes the bytes durable before their name appears, and the name after.
fn put_in_place(from: &Path, target: &Path) -> Result<(), LibraryError> {
    File::open(from).and_then(|f| f.sync_all()).map_err(|source| io_error("can't write", from, source))?;
    fs::rename(from, target).map_err(|source| io_error("can't write", target, source))?;
    let folder = target.parent().unwrap_or(target);
    File::open(folder).and_then(|f| f.sync_all()).map_err(|source| io_error("can't write", folder, source))
}

fn wheel_in(folder: &Path) -> Result<PathBuf, LibraryError> {
    let entries = fs::read_dir(folder).map_err(|source| io_error("can't read", folder, source))?;
    entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .find(|p| p.extension() == Some(OsStr::new("whl")))
        .ok_or_else(|| LibraryError::Download("pip said nothing, but there is no wheel".to_owned()))
}

fn run(mut command: Command) -> Result<(), LibraryError> {
    let program = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output
        .map_err(|e| LibraryError::Download(format!("can't start {}: {e}", Path::new(&program).display())))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    Err(LibraryError::Download(last.get(last.len().saturating_sub(4)..).unwrap_or_default().join("\n")))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> LibraryError {
    LibraryError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A Python that "downloads" a wheel with the wrong library, or fails as pip does when offline.
    fn python(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("python");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn offline_says_what_to_do_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let python = python(home.path(), "echo 'ERROR: No matching distribution found' >&2; exit 1");
        let options = InstallOptions { home: home.path().join("home"), python };
        let message = install(&options, &mut |_| {}).unwrap_err().to_string();
        assert!(
            message.contains("No matching distribution") && message.contains("LOCKGATE_ORT_LIB"),
            "{message}"
        );
        assert_eq!(fs::read_dir(options.home.join("lib")).unwrap().count(), 0);
    }

    #[test]
    fn other_bytes_are_not_installed() {
        let home = tempfile::tempdir().unwrap();
        let script = "for last; do :; done; if [ \"$1\" = -m ]; then while [ \"$1\" != --dest ]; do shift; done; \
                      touch \"$2/x.whl\"; else echo evil > \"$last\"; fi";
        let options = InstallOptions { home: home.path().join("home"), python: python(home.path(), script) };
        assert!(matches!(install(&options, &mut |_| {}), Err(LibraryError::Digest { .. })));
        assert_eq!(fs::read_dir(options.home.join("lib")).unwrap().count(), 0);
    }
}
