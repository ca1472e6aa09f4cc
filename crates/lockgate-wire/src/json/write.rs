//! Writing JSON: numbers in their shortest exact form, non-finite floats as `NaN`, `Infinity`, `-Infinity`.

use crate::tensor::Data;

/// Appends `text` in quotes, escaped.
pub fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(stop) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, after) = rest.split_at(stop);
        out.extend_from_slice(plain);
        let byte = after.first().copied().unwrap_or_default();
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                let digits = [byte >> 4, byte & 15].map(|d| HEX.get(usize::from(d)).copied().unwrap_or(b'0'));
                out.extend_from_slice(&digits);
            }
        }
        rest = after.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn token(nan: bool, positive: bool) -> &'static [u8] {
    match (nan, positive) {
        (true, _) => b"NaN",
        (false, true) => b"Infinity",
        (false, false) => b"-Infinity",
    }
}

/// Appends a 32-bit float.
pub fn f32(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(token(value.is_nan(), value > 0.0));
    }
}

/// Appends a 64-bit float.
pub fn f64(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(token(value.is_nan(), value > 0.0));
    }
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `[a,b,c]`.
pub fn list<T>(out: &mut Vec<u8>, values: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        one(out, value);
    }
    out.push(b']');
}

/// Appends the elements `from..to` as `a,b,c`, without brackets.
pub fn span(out: &mut Vec<u8>, data: &Data, from: usize, to: usize) {
    fn each<T>(out: &mut Vec<u8>, values: &[T], from: usize, to: usize, one: impl Fn(&mut Vec<u8>, &T)) {
        for (i, value) in values.get(from..to).unwrap_or_default().iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            one(out, value);
        }
    }
    match data {
        Data::Bool(v) => {
            each(out, v, from, to, |o, x| o.extend_from_slice(if *x { b"true" } else { b"false" }))
        }
        Data::Uint8(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Uint16(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Uint32(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Uint64(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Int8(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Int16(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Int32(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Int64(v) => each(out, v, from, to, |o, x| integer(o, *x)),
        Data::Fp16(v) => each(out, v, from, to, |o, x| f32(o, x.to_f32())),
        Data::Bf16(v) => each(out, v, from, to, |o, x| f32(o, x.to_f32())),
        Data::Fp32(v) => each(out, v, from, to, |o, x| f32(o, *x)),
        Data::Fp64(v) => each(out, v, from, to, |o, x| f64(o, *x)),
        Data::Bytes(v) => each(out, v, from, to, |o, x| string(o, x)),
    }
}
