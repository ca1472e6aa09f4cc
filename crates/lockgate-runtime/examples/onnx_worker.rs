//! A worker on its own, as the tests and the benchmark start it:
//! `onnx_worker --model-dir D --manifest M --library L [--warm-up F] [--python P] [--batch-rows N] [--call-limit MS] [--instances N] [--memory BYTES] (--socket S | --tcp HOST:PORT)`

#![expect(clippy::print_stderr, reason = "a program tells its user why it stops")]

use lockgate_core::route::WorkerAddress;
use lockgate_runtime::worker::{WorkerOptions, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

fn options() -> Result<WorkerOptions, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err("every option needs a value".to_owned()) };
        given.insert(name, value);
    }
    let need = |name: &str| given.get(name).copied().ok_or(format!("{name} is missing"));
    let manifest = std::fs::read(need("--manifest")?).map_err(|e| e.to_string())?;
    let manifest = serde_json::from_slice(&manifest).map_err(|e| e.to_string())?;
    let listen = match given.get("--tcp") {
        Some(address) => WorkerAddress::Tcp((*address).to_owned()),
        None => WorkerAddress::Unix(need("--socket")?.to_owned()),
    };
    let mut options =
        WorkerOptions::new(listen, need("--model-dir")?.into(), manifest, need("--library")?.into());
    options.warm_up = given.get("--warm-up").map(Into::into);
    options.stop_with_stdin = true;
    options.python = given.get("--python").map(Into::into);
    if let Some(rows) = given.get("--batch-rows") {
        options.batch_rows = rows.parse().map_err(|_| "--batch-rows is no number")?;
    }
    if let Some(ms) = given.get("--call-limit") {
        options.call_limit = Duration::from_millis(ms.parse().map_err(|_| "--call-limit is no number")?);
    }
    if let Some(count) = given.get("--instances") {
        options.instances = count.parse().map_err(|_| "--instances is no number")?;
    }
    if let Some(bytes) = given.get("--memory") {
        options.memory_limit = Some(bytes.parse().map_err(|_| "--memory is no number")?);
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|o| run(&o).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("onnx_worker: {message}");
            ExitCode::FAILURE
        }
    }
}
