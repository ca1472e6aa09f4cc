//! The binary tensor extension: JSON first, then the tensors' bytes, little-endian, in the order of the JSON.
//!
//! `Inference-Header-Content-Length` says how long the JSON is; `binary_data_size` among a tensor's parameters says how many
//! of the bytes behind it are that tensor's.

use super::InputSpec;
use crate::error::WireError;
use crate::tensor::{Data, Datatype, Tensor, elements};
use half::{bf16, f16};

/// What follows the JSON.
#[derive(Debug)]
pub(super) struct Tail<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Tail<'a> {
    /// Splits a body at `json` bytes; without a number all of it is JSON.
    pub(super) fn split(body: &'a [u8], json: Option<usize>) -> Result<(&'a [u8], Self), WireError> {
        let Some(length) = json else { return Ok((body, Self { rest: None })) };
        let Some((json, rest)) = body.split_at_checked(length) else {
            return Err(WireError::bad(format!(
                "Inference-Header-Content-Length says that the JSON has {length} bytes, but the body has {}",
                body.len()
            )));
        };
        Ok((json, Self { rest: Some(rest) }))
    }

    /// The next `size` bytes.
    pub(super) fn take(&mut self, size: usize) -> Result<&'a [u8], WireError> {
        let Some(rest) = self.rest else {
            return Err(WireError::bad(
                "the tensor has a `binary_data_size`, but the request lacks the header \
                 Inference-Header-Content-Length, which says where the JSON ends",
            ));
        };
        let Some((taken, rest)) = rest.split_at_checked(size) else {
            return Err(WireError::bad(format!(
                "binary_data_size says {size} bytes, but only {} are left of the body",
                rest.len()
            )));
        };
        self.rest = Some(rest);
        Ok(taken)
    }

    /// Says that nothing is left.
    pub(super) fn end(&self) -> Result<(), WireError> {
        match self.rest {
            Some([_, ..]) => Err(WireError::bad(format!(
                "the last {} bytes of the body belong to no tensor",
                self.rest.map_or(0, <[u8]>::len)
            ))),
            _ => Ok(()),
        }
    }
}

/// Reads the value of `Inference-Header-Content-Length`.
///
/// # Errors
/// Where it is no whole number that a body could be long.
pub fn header_length(value: &[u8]) -> Result<usize, WireError> {
    let digits =
        std::str::from_utf8(value).ok().map(str::trim).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|t| t.parse().ok()).ok_or_else(|| {
        WireError::bad("a whole number of bytes was expected").at("Inference-Header-Content-Length")
    })
}

/// A tensor from its bytes.
pub(super) fn tensor(
    name: String,
    shape: Vec<usize>,
    datatype: Datatype,
    bytes: &[u8],
) -> Result<Tensor, WireError> {
    let overflow = || WireError::bad("the shape holds more elements than can be counted").at("shape");
    let count = elements(&shape).ok_or_else(overflow)?;
    if let Some(size) = datatype.size() {
        let expected = count.checked_mul(size).ok_or_else(overflow)?;
        if expected != bytes.len() {
            return Err(WireError::bad(format!(
                "the shape {shape:?} of {datatype} takes {expected} bytes, but there are {}",
                bytes.len()
            )));
        }
    }
    let data = read(datatype, bytes)?;
    Tensor::new(name, shape, data)
}

/// The elements that bytes hold.
///
/// # Errors
/// Where the bytes are no whole number of elements, a BOOL is neither 0 nor 1, or text is not UTF-8.
pub fn read(datatype: Datatype, bytes: &[u8]) -> Result<Data, WireError> {
    if let Some(size) = datatype.size()
        && !bytes.len().is_multiple_of(size)
    {
        return Err(WireError::bad(format!("{} bytes are no whole number of {datatype}", bytes.len())));
    }
    macro_rules! numbers {
        ($t:ty, $wrap:expr) => {{
            let (chunks, _) = bytes.as_chunks::<{ size_of::<$t>() }>();
            Ok($wrap(chunks.iter().map(|c| <$t>::from_le_bytes(*c)).collect()))
        }};
    }
    match datatype {
        Datatype::Bool => booleans(bytes).map(Data::Bool),
        Datatype::Uint8 => Ok(Data::Uint8(bytes.to_vec())),
        Datatype::Uint16 => numbers!(u16, Data::Uint16),
        Datatype::Uint32 => numbers!(u32, Data::Uint32),
        Datatype::Uint64 => numbers!(u64, Data::Uint64),
        Datatype::Int8 => numbers!(i8, Data::Int8),
        Datatype::Int16 => numbers!(i16, Data::Int16),
        Datatype::Int32 => numbers!(i32, Data::Int32),
        Datatype::Int64 => numbers!(i64, Data::Int64),
        Datatype::Fp16 => numbers!(f16, Data::Fp16),
        Datatype::Bf16 => numbers!(bf16, Data::Bf16),
        Datatype::Fp32 => numbers!(f32, Data::Fp32),
        Datatype::Fp64 => numbers!(f64, Data::Fp64),
        Datatype::Bytes => texts(bytes).map(Data::Bytes),
    }
}

/// How many elements BYTES may have. Empty ones take six times as much memory as they take bytes.
const MOST_TEXTS: usize = 4 << 20;

fn booleans(bytes: &[u8]) -> Result<Vec<bool>, WireError> {
    if let Some(at) = bytes.iter().position(|b| *b > 1) {
        return Err(WireError::bad(format!("a BOOL is one byte, 0 or 1; element {at} is neither")));
    }
    Ok(bytes.iter().map(|b| *b == 1).collect())
}

fn texts(bytes: &[u8]) -> Result<Vec<String>, WireError> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if found.len() == MOST_TEXTS {
            return Err(WireError::too_large(format!("a tensor has more than {MOST_TEXTS} texts")));
        }
        let element = rest.split_first_chunk::<4>().and_then(|(length, after)| {
            after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let Some((text, after)) = element else {
            return Err(WireError::bad(format!(
                "element {} of BYTES is longer than the bytes that are left",
                found.len()
            )));
        };
        found.push(utf8(text, found.len())?);
        rest = after;
    }
    Ok(found)
}

/// An element of BYTES as text: what takes strings takes no other bytes.
pub(super) fn utf8(bytes: &[u8], index: usize) -> Result<String, WireError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
        WireError::bad(format!(
            "element {index} of BYTES is not UTF-8, and models take text there; encode other bytes as base64, \
             or send them as UINT8"
        ))
    })
}

/// How many bytes the elements take.
#[must_use]
pub fn size(data: &Data) -> usize {
    match (data, data.datatype().size()) {
        (Data::Bytes(texts), _) => texts.iter().map(|t| t.len().saturating_add(4)).sum(),
        (_, size) => data.len().saturating_mul(size.unwrap_or(0)),
    }
}

/// Appends the elements' bytes.
pub fn append(out: &mut Vec<u8>, data: &Data) {
    macro_rules! numbers {
        ($t:ty, $values:expr) => {{
            let start = out.len();
            out.resize(start + size(data), 0);
            let (slots, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<{ size_of::<$t>() }>();
            slots.iter_mut().zip($values).for_each(|(slot, value)| *slot = value.to_le_bytes());
        }};
    }
    match data {
        Data::Bool(values) => out.extend(values.iter().map(|v| u8::from(*v))),
        Data::Bytes(values) => values.iter().for_each(|text| {
            // What is longer can't have been read, and models make no such text.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }),
        Data::Uint8(values) => out.extend_from_slice(values),
        Data::Uint16(values) => numbers!(u16, values),
        Data::Uint32(values) => numbers!(u32, values),
        Data::Uint64(values) => numbers!(u64, values),
        Data::Int8(values) => numbers!(i8, values),
        Data::Int16(values) => numbers!(i16, values),
        Data::Int32(values) => numbers!(i32, values),
        Data::Int64(values) => numbers!(i64, values),
        Data::Fp16(values) => numbers!(f16, values),
        Data::Bf16(values) => numbers!(bf16, values),
        Data::Fp32(values) => numbers!(f32, values),
        Data::Fp64(values) => numbers!(f64, values),
    }
}

/// The one input of a model from a body that is nothing but its bytes (`Inference-Header-Content-Length: 0`): the axis of
/// any length is what the bytes fill, further ones are 1. Of BYTES, all is one element.
pub(super) fn whole_body(spec: &InputSpec, body: &[u8]) -> Result<Tensor, WireError> {
    let Some(size) = spec.datatype.size() else {
        let shape = spec.shape.iter().map(|d| d.unwrap_or(1)).collect();
        return Tensor::new(&spec.name, shape, Data::Bytes(vec![utf8(body, 0)?]))
            .map_err(|e| e.at(&spec.name));
    };
    let fixed = spec.shape.iter().flatten().try_fold(size, |product, d| product.checked_mul(*d));
    let fixed = fixed.ok_or_else(|| WireError::bad("the model's input holds more than can be counted"))?;
    // Rows come first: where another axis is of any length too, the body is one row.
    let last = spec.shape.iter().rposition(Option::is_none);
    let filled = body.len().checked_div(fixed).unwrap_or(0);
    let axis = |(i, d): (usize, &Option<usize>)| d.unwrap_or(if Some(i) == last { filled } else { 1 });
    let shape: Vec<usize> = spec.shape.iter().enumerate().map(axis).collect();
    tensor(spec.name.clone(), shape, spec.datatype, body).map_err(|e| e.at(&spec.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Limits;
    use crate::oip::InferRequest;

    fn parse(json: &str, tail: &[u8]) -> Result<InferRequest, WireError> {
        let body = [json.as_bytes(), tail].concat();
        InferRequest::parse_binary(&body, json.len(), &Limits::default())
    }

    fn input(shape: &str, datatype: &str, size: &str) -> String {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    }

    #[test]
    fn tensors_lie_behind_the_json_in_its_order() {
        let json = r#"{"inputs":[{"parameters":{"binary_data_size":8},"name":"a","shape":[2],"datatype":"FP32"},
            {"name":"j","shape":[1],"datatype":"INT8","data":[5]},
            {"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}],
            "parameters":{"binary_data_output":true},"outputs":[{"name":"y","parameters":{"binary_data":false}}]}"#;
        let tail =
            [&1.5_f32.to_le_bytes()[..], &[0, 0, 0xc0, 0x7f], b"\x03\0\0\0\xe2\x82\xac\0\0\0\0"].concat();
        let request = parse(json, &tail).unwrap();
        let Data::Fp32(values) = request.inputs[0].data() else { panic!("FP32") };
        assert!(values[0] == 1.5 && values[1].is_nan());
        assert_eq!(request.inputs[2].data(), &Data::Bytes(vec!["€".to_owned(), String::new()]));
        assert!(!request.wants_binary("y") && request.wants_binary("other"));
    }

    #[test]
    fn sizes_that_lie_overflow_or_are_none_are_refused() {
        for (json, tail, want) in [
            (input("[2]", "FP32", "8"), &[0_u8; 4][..], "only 4 are left"),
            (input("[2]", "FP32", "4"), &[0; 4], "takes 8 bytes, but there are 4"),
            (input("[2]", "FP32", "8"), &[0; 9], "the last 1 bytes of the body belong to no tensor"),
            (input("[2]", "FP32", "-8"), &[0; 8], "parameters.binary_data_size: a whole number"),
            (input("[2]", "FP32", "8.5"), &[0; 8], "parameters.binary_data_size: a whole number"),
            (input("[2]", "FP32", "1e30"), &[0; 8], "parameters.binary_data_size: a whole number"),
            (input("[2]", "FP32", "\"8\""), &[0; 8], "parameters.binary_data_size: a whole number"),
            (input("[2]", "FP32", "9223372036854775807"), &[0; 8], "only 8 are left"),
            (input("[4611686018427387904,1]", "FP64", "0"), &[], "more elements than can be counted"),
            (input("[1]", "BOOL", "1"), &[2], "element 0 is neither"),
            (input("[1]", "BYTES", "4"), &[9, 0, 0, 0], "element 0 of BYTES is longer"),
            (input("[1]", "BYTES", "4"), &[255; 4], "element 0 of BYTES is longer"),
            (input("[1]", "BYTES", "3"), &[0; 3], "element 0 of BYTES is longer"),
            (input("[1]", "BYTES", "5"), &[1, 0, 0, 0, 0xff], "element 0 of BYTES is not UTF-8"),
            (input("[2]", "BYTES", "4"), &[0; 4], "holds 2 elements, but data has 1"),
        ] {
            let error = parse(&json, tail).unwrap_err();
            assert!(error.text().contains(want) && error.status == 400, "{json}: {error}");
        }
        let both = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}}]}"#;
        assert!(parse(both, &[1]).unwrap_err().text().contains("it takes one of them"));
        let short = InferRequest::parse_binary(b"{}", 3, &Limits::default()).unwrap_err();
        assert!(short.text().contains("the JSON has 3 bytes, but the body has 2"));
    }

    #[test]
    fn the_header_is_a_plain_number() {
        assert_eq!(header_length(b"120").unwrap(), 120);
        for bad in ["", "-1", "+1", "1.0", "0x10", "99999999999999999999999", "12, 12", "\u{ff11}"] {
            assert_eq!(header_length(bad.as_bytes()).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn a_body_without_json_fills_the_one_input() {
        let spec = |datatype, shape: &[Option<usize>]| InputSpec {
            name: "x".to_owned(),
            datatype,
            shape: shape.to_vec(),
        };
        let raw = |s: InputSpec, body: &[u8]| {
            InferRequest::parse_raw(body, &[s]).map(|r| r.inputs[0].shape().to_vec())
        };
        assert_eq!(raw(spec(Datatype::Fp32, &[None, Some(2)]), &[0; 24]).unwrap(), [3, 2]);
        assert_eq!(raw(spec(Datatype::Uint8, &[None, None]), &[0; 5]).unwrap(), [1, 5]);
        assert_eq!(raw(spec(Datatype::Bytes, &[None, Some(1)]), "é".as_bytes()).unwrap(), [1, 1]);
        for (bad, body) in [
            (spec(Datatype::Fp32, &[None, Some(2)]), &[0_u8; 12][..]),
            (spec(Datatype::Fp32, &[Some(2)]), &[0; 4]),
            (spec(Datatype::Fp32, &[None, Some(0)]), &[0; 4]),
            (spec(Datatype::Bytes, &[None]), &[0xff]),
            (spec(Datatype::Bytes, &[Some(2)]), b"a"),
        ] {
            assert_eq!(raw(bad, body).unwrap_err().status, 400);
        }
        assert!(InferRequest::parse_raw(&[], &[]).unwrap_err().text().contains("models with one input"));
    }
}
