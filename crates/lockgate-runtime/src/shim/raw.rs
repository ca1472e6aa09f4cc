//! Tensors' elements as raw bytes, little-endian, as the Open Inference Protocol lays them out.

use lockgate_wire::{Data, Datatype};

/// An element whose bytes have one length.
trait Element: Copy {
    fn append(self, out: &mut Vec<u8>);
}

macro_rules! element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            fn append(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

element!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

impl Element for bool {
    fn append(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

fn append_all<T: Element>(values: &[T], out: &mut Vec<u8>) {
    out.reserve(size_of_val(values));
    values.iter().for_each(|v| v.append(out));
}

/// Appends all elements.
pub(super) fn append(data: &Data, out: &mut Vec<u8>) {
    match data {
        Data::Bool(v) => append_all(v, out),
        Data::Uint8(v) => append_all(v, out),
        Data::Uint16(v) => append_all(v, out),
        Data::Uint32(v) => append_all(v, out),
        Data::Uint64(v) => append_all(v, out),
        Data::Int8(v) => append_all(v, out),
        Data::Int16(v) => append_all(v, out),
        Data::Int32(v) => append_all(v, out),
        Data::Int64(v) => append_all(v, out),
        Data::Fp32(v) => append_all(v, out),
        Data::Fp64(v) => append_all(v, out),
        Data::Bytes(v) => v.iter().for_each(|text| {
            // A text is part of a body, which is never that long.
            out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }),
    }
}

/// Reads `count` elements, which must be all of `bytes`. Nothing is made before it is known to be there.
pub(super) fn read(datatype: Datatype, bytes: &[u8], count: usize) -> Result<Data, String> {
    macro_rules! numbers {
        ($t:ty, $wrap:expr) => {{
            const SIZE: usize = size_of::<$t>();
            if count.checked_mul(SIZE) != Some(bytes.len()) {
                return Err(format!("{} bytes for {count} elements of {datatype}", bytes.len()));
            }
            let pieces = bytes.as_chunks::<SIZE>().0;
            $wrap(pieces.iter().map(|piece| <$t>::from_le_bytes(*piece)).collect())
        }};
    }
    Ok(match datatype {
        Datatype::Bool => {
            if bytes.len() != count {
                return Err(format!("{} bytes for {count} elements of BOOL", bytes.len()));
            }
            Data::Bool(bytes.iter().map(|b| *b != 0).collect())
        }
        Datatype::Uint8 => numbers!(u8, Data::Uint8),
        Datatype::Uint16 => numbers!(u16, Data::Uint16),
        Datatype::Uint32 => numbers!(u32, Data::Uint32),
        Datatype::Uint64 => numbers!(u64, Data::Uint64),
        Datatype::Int8 => numbers!(i8, Data::Int8),
        Datatype::Int16 => numbers!(i16, Data::Int16),
        Datatype::Int32 => numbers!(i32, Data::Int32),
        Datatype::Int64 => numbers!(i64, Data::Int64),
        Datatype::Fp32 => numbers!(f32, Data::Fp32),
        Datatype::Fp64 => numbers!(f64, Data::Fp64),
        Datatype::Bytes => Data::Bytes(texts(bytes, count)?),
    })
}

fn texts(mut bytes: &[u8], count: usize) -> Result<Vec<String>, String> {
    // Every text has four bytes of its own, so this bounds what is made.
    if count > bytes.len() / 4 {
        return Err(format!("{} bytes for {count} texts", bytes.len()));
    }
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or("a text's length is cut off")?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (text, rest) = rest.split_at_checked(length).ok_or("a text is longer than what there is")?;
        found.push(String::from_utf8(text.to_vec()).map_err(|_| "a text is not UTF-8")?);
        bytes = rest;
    }
    if bytes.is_empty() { Ok(found) } else { Err("there are bytes behind the last text".to_owned()) }
}
