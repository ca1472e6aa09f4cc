//! `worker`: one model's process. Agents start these.

use crate::cli;
use crate::exit::Exit;
use anyhow::Context as _;
use lockgate_core::release::Manifest;
use lockgate_core::route::WorkerAddress;
use lockgate_runtime::library::{InstallOptions, LocateOptions, install, locate};
use lockgate_runtime::worker::{WorkerOptions, run};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `worker`: blocking, with its own runtime inside.
pub(crate) fn worker(args: &cli::Worker) -> anyhow::Result<Exit> {
    let text = std::fs::read(&args.manifest)
        .with_context(|| format!("{} can't be read", args.manifest.display()))?;
    let manifest: Manifest = serde_json::from_slice(&text).context("the manifest can't be read")?;
    let listen = WorkerAddress::Unix(args.socket.to_string_lossy().into_owned());
    let mut options = WorkerOptions::new(listen, args.model_dir.clone(), manifest, args.onnxruntime.clone());
    options.warm_up.clone_from(&args.warmup);
    options.python.clone_from(&args.python);
    options.batch_rows = args.batch_rows;
    options.call_limit = Duration::from_millis(args.call_limit);
    options.memory_limit = Some(args.memory).filter(|bytes| *bytes > 0);
    options.stop_with_stdin = true;
    run(&options)?;
    Ok(Exit::Done)
}

/// Finds the ONNX Runtime library, or installs it into `lib` from PyPI.
pub(crate) fn library(lib: &Path, say: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
    let home = lib.parent().unwrap_or(lib).to_owned();
    let explicit = std::env::var_os("LOCKGATE_ORT_LIB").map(PathBuf::from);
    let found =
        locate(&LocateOptions { explicit: explicit.clone(), home: home.clone(), site_packages: Vec::new() });
    match (found, explicit) {
        (Ok(path), _) => Ok(path),
        (Err(error), Some(_)) => Err(error.into()),
        (Err(_), None) => {
            Ok(install(&InstallOptions { home, python: PathBuf::from("python3") }, &mut |text| say(text))?)
        }
    }
}
