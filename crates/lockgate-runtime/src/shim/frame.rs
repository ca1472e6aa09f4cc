//! Frames between a worker and its shim: a header, JSON, and the tensors' raw bytes.
//!
//! What comes from the shim comes from a process that runs somebody's model: nothing of it is believed before it is checked, and
//! no more memory is taken than bytes have arrived.

use crate::session::{RunError, without_paths};
use lockgate_wire::oip::{InputSpec, binary};
use lockgate_wire::tensor::{elements, shown};
use lockgate_wire::{Datatype, Tensor};
use serde_json::{Map, Value, json};
use std::io::{ErrorKind, Read};

const MAGIC: &[u8; 4] = b"LGS1";

/// The largest JSON part of an answer.
const MAX_JSON: u32 = 4 << 20;

/// The largest raw part of an answer.
pub(super) const MAX_RAW: u64 = 256 << 20;

/// Answers with more outputs than this are refused.
const MAX_OUTPUTS: usize = 10_000;

/// Why an answer can't be understood. After one of these nothing else that comes can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end is closed.
    #[error("it closed its end")]
    Ended,
    /// The socket failed.
    #[error("its socket failed: {0}")]
    Io(#[from] std::io::Error),
    /// The frame breaks the protocol.
    #[error("it broke the protocol: {0}")]
    Broken(String),
}

fn broken(what: impl Into<String>) -> FrameError {
    FrameError::Broken(what.into())
}

/// A frame as it came: its JSON and what follows it.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) head: Map<String, Value>,
    pub(super) raw: Vec<u8>,
}

/// Lays a frame out.
pub(super) fn frame(head: &Value, raw: &[u8]) -> Vec<u8> {
    let head = head.to_string();
    let mut out = Vec::with_capacity(16 + head.len() + raw.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&(raw.len() as u64).to_le_bytes());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(raw);
    out
}

/// The call of a model with the inputs of one or more requests: the same tensors each, whose rows follow one another.
pub(super) fn call(id: u64, requests: &[&[Tensor]]) -> Vec<u8> {
    let mut raw = Vec::new();
    let first = requests.first().copied().unwrap_or_default();
    let inputs: Vec<Value> = first
        .iter()
        .enumerate()
        .map(|(i, tensor)| {
            let before = raw.len();
            let mut shape = tensor.shape().to_vec();
            let mut rows = 0_usize;
            for part in requests.iter().filter_map(|r| r.get(i)) {
                binary::append(&mut raw, part.data());
                rows += part.rows();
            }
            if let Some(axis) = shape.first_mut() {
                *axis = rows;
            }
            let size = raw.len() - before;
            json!({"name": tensor.name(), "datatype": tensor.datatype().as_str(), "shape": shape, "size": size})
        })
        .collect();
    frame(&json!({"id": id, "inputs": inputs}), &raw)
}

/// Reads the next frame.
pub(super) fn read(from: &mut impl Read) -> Result<Frame, FrameError> {
    let mut header = [0; 16];
    from.read_exact(&mut header).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => FrameError::Ended,
        _ => FrameError::Io(e),
    })?;
    let [m0, m1, m2, m3, j0, j1, j2, j3, raw @ ..] = header;
    if [m0, m1, m2, m3] != *MAGIC {
        return Err(broken("a frame does not begin as frames do"));
    }
    let (head, raw) = (u32::from_le_bytes([j0, j1, j2, j3]), u64::from_le_bytes(raw));
    if head > MAX_JSON || raw > MAX_RAW {
        return Err(broken(format!("a frame of {head} and {raw} bytes is too large")));
    }
    let head = part(from, u64::from(head))?;
    let raw = part(from, raw)?;
    match serde_json::from_slice(&head) {
        Ok(Value::Object(head)) => Ok(Frame { head, raw }),
        Ok(_) => Err(broken("a frame's head is no object")),
        Err(e) => Err(broken(format!("a frame's head is no JSON: {e}"))),
    }
}

/// Exactly so many bytes; memory grows with what arrives.
fn part(from: &mut impl Read, length: u64) -> Result<Vec<u8>, FrameError> {
    let length_here = usize::try_from(length).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length_here.min(64 << 10));
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() == length_here { Ok(bytes) } else { Err(broken("a frame is cut off")) }
}

/// Reads what a frame answers to call `id`: outputs, or what the model says went wrong.
pub(super) fn answer(frame: Frame, id: u64) -> Result<Result<Vec<Tensor>, RunError>, FrameError> {
    let head = checked(&frame, id)?;
    if let Some(error) = head.get("error") {
        return Ok(Err(failure(error)));
    }
    let list =
        head.get("outputs").and_then(Value::as_array).ok_or_else(|| broken("an answer has no outputs"))?;
    if list.is_empty() || list.len() > MAX_OUTPUTS {
        return Err(broken(format!("an answer has {} outputs", list.len())));
    }
    let mut rest = frame.raw.as_slice();
    let mut outputs = Vec::with_capacity(list.len());
    for item in list {
        let spec = Described::read(item)?;
        let size = item.get("size").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let size = size.ok_or_else(|| broken("an output has no size"))?;
        let (bytes, behind) =
            rest.split_at_checked(size).ok_or_else(|| broken("an output is larger than its frame"))?;
        rest = behind;
        let shape: Option<Vec<usize>> = spec.shape.iter().copied().collect();
        let shape = shape.ok_or_else(|| broken("an output's shape is not known"))?;
        let count = elements(&shape).ok_or_else(|| broken("an output's shape is too large"))?;
        let data = binary::read(spec.datatype, bytes).map_err(|e| broken(e.message))?;
        if data.len() != count {
            return Err(broken(format!("an output of {count} elements has {}", data.len())));
        }
        outputs.push(Tensor::new(spec.name, shape, data).map_err(|e| broken(e.message))?);
    }
    if !rest.is_empty() {
        return Err(broken("there are bytes behind the last output"));
    }
    Ok(Ok(outputs))
}

/// What a model takes and gives, as its shim says once it has loaded it.
pub(super) type Signature = (Vec<InputSpec>, Vec<InputSpec>);

/// Reads the shim's first frame.
pub(super) fn signature(frame: &Frame) -> Result<Result<Signature, RunError>, FrameError> {
    let head = checked(frame, 0)?;
    if let Some(error) = head.get("error") {
        return Ok(Err(failure(error)));
    }
    let specs = |key: &str| {
        let list =
            head.get(key).and_then(Value::as_array).ok_or_else(|| broken("the signature is missing"))?;
        let read = |item| Described::read(item).map(Described::spec);
        list.iter().take(MAX_OUTPUTS).map(read).collect::<Result<Vec<_>, _>>()
    };
    Ok(Ok((specs("inputs")?, specs("outputs")?)))
}

fn checked(frame: &Frame, id: u64) -> Result<&Map<String, Value>, FrameError> {
    match frame.head.get("id").and_then(Value::as_u64) {
        Some(found) if found == id => Ok(&frame.head),
        _ => Err(broken("it answers another call than the one that was made")),
    }
}

fn failure(error: &Value) -> RunError {
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let message = without_paths(text("message"));
    match text("kind") {
        "input" => RunError::Input(message),
        _ => RunError::Model(message),
    }
}

struct Described {
    name: String,
    datatype: Datatype,
    shape: Vec<Option<usize>>,
}

impl Described {
    fn read(item: &Value) -> Result<Self, FrameError> {
        let text = |key: &str| item.get(key).and_then(Value::as_str);
        let name = text("name").ok_or_else(|| broken("a tensor has no name"))?.to_owned();
        let datatype = text("datatype").unwrap_or_default();
        let datatype = Datatype::parse(datatype)
            .map_err(|e| broken(format!("the tensor `{}`: {}", shown(&name), e.message)))?;
        let axes = item.get("shape").and_then(Value::as_array);
        let axes = axes.filter(|a| a.len() <= 32).ok_or_else(|| broken("a tensor has no shape"))?;
        let shape = axes.iter().map(axis).collect::<Option<Vec<_>>>();
        Ok(Self {
            name,
            datatype,
            shape: shape.ok_or_else(|| broken("a tensor's shape is no list of lengths"))?,
        })
    }

    fn spec(self) -> InputSpec {
        InputSpec { name: self.name, datatype: self.datatype, shape: self.shape }
    }
}

/// A length; -1 is one that is not known.
fn axis(value: &Value) -> Option<Option<usize>> {
    match value.as_i64()? {
        -1 => Some(None),
        n => Some(Some(usize::try_from(n).ok()?)),
    }
}
