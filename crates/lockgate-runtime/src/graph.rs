//! What an ONNX graph says about files outside itself.
//!
//! A graph may keep its weights in other files ("external data"). ONNX Runtime opens whatever path the graph names,
//! so the names are read here first: a walk over the protobuf bytes, without trusting any length in them.

use lockgate_core::release::is_safe_path;
use std::path::{Path, PathBuf};

/// A graph that names files it may not read, or is no ONNX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The bytes are not a protobuf message of the expected form.
    #[error("the model file is not a valid ONNX graph: {0}")]
    Invalid(&'static str),
    /// A path that leaves the model's folder, or isn't there.
    #[error(
        "the graph keeps data in `{0}`, which is not a file inside the model's folder; save the model with its data beside it"
    )]
    Outside(String),
}

/// The messages that can lead to a tensor, as field numbers of the ONNX protobuf schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Tensor,
    SparseTensor,
    Entry,
}

fn child(of: Message, field: u64) -> Option<Message> {
    Some(match (of, field) {
        (Message::Model, 7) | (Message::Attribute, 6 | 11) => Message::Graph,
        (Message::Model, 25) => Message::Function,
        (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
        (Message::Graph, 5) | (Message::Attribute, 5 | 10) | (Message::SparseTensor, 1 | 2) => {
            Message::Tensor
        }
        (Message::Graph, 15) | (Message::Attribute, 22 | 23) => Message::SparseTensor,
        (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
        (Message::Tensor, 13) => Message::Entry,
        _ => return None,
    })
}

const MAX_DEPTH: usize = 64;

/// The files that a graph keeps data in, each once, as the graph names them.
///
/// # Errors
/// Where the bytes are not a protobuf message.
pub fn external_files(onnx: &[u8]) -> Result<Vec<String>, GraphError> {
    let mut found = Vec::new();
    walk(onnx, Message::Model, 0, &mut found)?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Checks that every file that a graph keeps data in lies inside `folder` (links resolved), and gives their paths.
///
/// # Errors
/// Names the first that doesn't.
pub fn check_external_files(onnx: &[u8], folder: &Path) -> Result<Vec<PathBuf>, GraphError> {
    let files = external_files(onnx)?;
    let outside = |name: &String| GraphError::Outside(name.chars().take(200).collect());
    let mut paths = Vec::with_capacity(files.len());
    for name in &files {
        if !is_safe_path(name) {
            return Err(outside(name));
        }
        let root = folder.canonicalize().map_err(|_| outside(name))?;
        let path = root.join(name).canonicalize().map_err(|_| outside(name))?;
        if !path.starts_with(&root) || !path.is_file() {
            return Err(outside(name));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn walk(bytes: &[u8], message: Message, depth: usize, found: &mut Vec<String>) -> Result<(), GraphError> {
    if depth > MAX_DEPTH {
        return Err(GraphError::Invalid("it is nested too deeply"));
    }
    let mut rest = bytes;
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = tag >> 3;
        let content = match tag & 7 {
            0 => {
                varint(&mut rest)?;
                continue;
            }
            1 => {
                take(&mut rest, 8)?;
                continue;
            }
            5 => {
                take(&mut rest, 4)?;
                continue;
            }
            2 => {
                let len = usize::try_from(varint(&mut rest)?)
                    .map_err(|_| GraphError::Invalid("a length is too large"))?;
                take(&mut rest, len)?
            }
            _ => return Err(GraphError::Invalid("an unknown wire type")),
        };
        match (message, field) {
            (Message::Entry, 1) => key = content,
            (Message::Entry, 2) => value = content,
            _ => {
                if let Some(inner) = child(message, field) {
                    walk(content, inner, depth + 1, found)?;
                }
            }
        }
    }
    if message == Message::Entry && key == b"location" {
        let name = std::str::from_utf8(value).map_err(|_| GraphError::Invalid("a file name is not UTF-8"))?;
        found.push(name.to_owned());
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], GraphError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(GraphError::Invalid("it ends too early"))?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, GraphError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first().unwrap_or(&0);
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(GraphError::Invalid("a number is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
    }

    #[test]
    fn data_outside_the_folder_is_found_and_refused() {
        let bytes = fixture("external.onnx");
        assert_eq!(external_files(&bytes).unwrap(), ["../outside.bin"]);
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("model");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(folder.path().join("outside.bin"), [0; 16]).unwrap();
        assert_eq!(
            check_external_files(&bytes, &inner),
            Err(GraphError::Outside("../outside.bin".to_owned()))
        );
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused_and_a_file_inside_is_fine() {
        // The same graph with a name of the same length inside the folder.
        let text = fixture("external.onnx");
        let at = text.windows(14).position(|w| w == b"../outside.bin").unwrap();
        let mut bytes = text;
        bytes[at..at + 14].copy_from_slice(b"xx-outside.bin");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("xx-outside.bin");
        assert!(check_external_files(&bytes, folder.path()).is_err());
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(check_external_files(&bytes, folder.path()).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [0; 16]).unwrap();
        assert_eq!(check_external_files(&bytes, folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn plain_graphs_have_no_files() {
        for name in ["logreg.onnx", "mixed.onnx", "lookup.onnx", "log.onnx"] {
            assert_eq!(external_files(&fixture(name)).unwrap(), Vec::<String>::new());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = external_files(&bytes);
        }

        #[test]
        fn damaged_graphs_are_read_or_refused(at in 0usize..119, with in any::<u8>()) {
            let mut bytes = fixture("external.onnx");
            bytes[at] = with;
            let _ = external_files(&bytes);
        }
    }
}
