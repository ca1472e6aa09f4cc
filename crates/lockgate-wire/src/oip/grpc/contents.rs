//! Elements in the typed fields of a message (`fp32_contents` and its like).

use super::message::InferTensorContents;
use crate::error::WireError;
use crate::oip::binary::utf8;
use crate::tensor::{Data, Datatype};
use bytes::Bytes;

/// The elements of a tensor that a message carries in the field for its type.
pub(super) fn read(datatype: Datatype, contents: InferTensorContents) -> Result<Data, WireError> {
    let c = contents;
    Ok(match datatype {
        Datatype::Bool => Data::Bool(c.bool_contents),
        Datatype::Uint8 => Data::Uint8(narrow(&c.uint_contents, datatype)?),
        Datatype::Uint16 => Data::Uint16(narrow(&c.uint_contents, datatype)?),
        Datatype::Uint32 => Data::Uint32(c.uint_contents),
        Datatype::Uint64 => Data::Uint64(c.uint64_contents),
        Datatype::Int8 => Data::Int8(narrow(&c.int_contents, datatype)?),
        Datatype::Int16 => Data::Int16(narrow(&c.int_contents, datatype)?),
        Datatype::Int32 => Data::Int32(c.int_contents),
        Datatype::Int64 => Data::Int64(c.int64_contents),
        Datatype::Fp32 => Data::Fp32(c.fp32_contents),
        Datatype::Fp64 => Data::Fp64(c.fp64_contents),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(WireError::bad(format!(
                "{datatype} has no typed contents; send it in raw_input_contents"
            )));
        }
        Datatype::Bytes => {
            let texts = c.bytes_contents.iter().enumerate().map(|(i, bytes)| utf8(bytes, i));
            Data::Bytes(texts.collect::<Result<_, _>>()?)
        }
    })
}

/// The field in which a type's elements lie.
pub(super) fn field(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => "raw_input_contents",
    }
}

fn narrow<T: TryFrom<U>, U: Copy + std::fmt::Display>(
    values: &[U],
    datatype: Datatype,
) -> Result<Vec<T>, WireError> {
    let one = |value: &U| {
        T::try_from(*value).map_err(|_| WireError::bad(format!("{value} is out of the range of {datatype}")))
    };
    values.iter().map(one).collect()
}

/// The elements in the field for their type; none for a type that has only a raw form.
pub(super) fn write(data: &Data) -> Option<InferTensorContents> {
    let mut c = InferTensorContents::default();
    match data {
        Data::Bool(v) => c.bool_contents.clone_from(v),
        Data::Uint8(v) => c.uint_contents = v.iter().map(|x| u32::from(*x)).collect(),
        Data::Uint16(v) => c.uint_contents = v.iter().map(|x| u32::from(*x)).collect(),
        Data::Uint32(v) => c.uint_contents.clone_from(v),
        Data::Uint64(v) => c.uint64_contents.clone_from(v),
        Data::Int8(v) => c.int_contents = v.iter().map(|x| i32::from(*x)).collect(),
        Data::Int16(v) => c.int_contents = v.iter().map(|x| i32::from(*x)).collect(),
        Data::Int32(v) => c.int_contents.clone_from(v),
        Data::Int64(v) => c.int64_contents.clone_from(v),
        Data::Fp32(v) => c.fp32_contents.clone_from(v),
        Data::Fp64(v) => c.fp64_contents.clone_from(v),
        Data::Bytes(v) => {
            c.bytes_contents = v.iter().map(|t| Bytes::copy_from_slice(t.as_bytes())).collect();
        }
        Data::Fp16(_) | Data::Bf16(_) => return None,
    }
    Some(c)
}
