//! Puts the example that `lockgate demo` unpacks into the binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let example = root.join("../../examples/flight-delays").canonicalize()?;
    println!("cargo:rerun-if-changed={}", example.display());
    let mut files = Vec::new();
    collect(&example, &mut files)?;
    files.sort();
    let mut text = String::from("pub(crate) static FILES: &[(&str, &[u8])] = &[\n");
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&example)?.to_string_lossy().replace('\\', "/");
        writeln!(text, "    ({name:?}, include_bytes!({:?})),", file.display().to_string())?;
    }
    text.push_str("];\n");
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("example.rs"), text)?;
    Ok(())
}

/// The example's own files: what tools and runs leave behind is no part of it.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    const LEFT_BEHIND: [&str; 9] = [
        "__pycache__",
        "data",
        "models",
        ".venv",
        ".pytest_cache",
        "mlruns",
        ".git",
        ".ruff_cache",
        "mlartifacts",
    ];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if LEFT_BEHIND.contains(&name.as_str()) || name.ends_with(".pyc") || name.ends_with(".db") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
