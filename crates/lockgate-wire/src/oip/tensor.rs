//! One tensor: `{"name","shape","datatype","data"}`.

use super::binary::{self, Tail};
use super::{once, parameter};
use crate::error::WireError;
use crate::json::{Scanner, write};
use crate::tensor::{Data, Datatype, Tensor, elements, shown};

/// Reads one tensor. Its members may come in any order.
pub(super) fn read(s: &mut Scanner<'_>, tail: &mut Tail<'_>) -> Result<Tensor, WireError> {
    let (mut name, mut shape, mut datatype, mut data) = (None, None, None, None);
    let mut size = None;
    let mut waiting = None;
    s.object("a tensor", |s, key| match &*key {
        "name" => {
            let text = s.string("a string").map_err(|e| e.at("name"))?.into_owned();
            once(&mut name, text, "name")
        }
        "shape" => {
            let dims = read_shape(s).map_err(|e| e.at("shape"))?;
            once(&mut shape, dims, "shape")
        }
        "datatype" => {
            let text = s.string("a string").map_err(|e| e.at("datatype"))?;
            once(&mut datatype, Datatype::parse(&text).map_err(|e| e.at("datatype"))?, "datatype")
        }
        "data" => {
            if waiting.is_some() {
                return Err(WireError::bad("this member is given twice").at("data"));
            }
            match datatype {
                Some(datatype) => {
                    let found = read_data(s, datatype).map_err(|e| e.at("data"))?;
                    once(&mut data, found, "data")
                }
                None => {
                    let _ = s.peek();
                    waiting = Some(s.position());
                    s.skip().map_err(|e| e.at("data"))
                }
            }
        }
        "parameters" => {
            let parameters = parameter::read(s).map_err(|e| e.at("parameters"))?;
            parameter::refuse_elsewhere(&parameters).map_err(|e| e.at("parameters"))?;
            size = parameter::binary_size(&parameters).map_err(|e| e.at("parameters"))?;
            Ok(())
        }
        _ => s.skip(),
    })?;
    let missing = |what: &str| WireError::bad(format!("the tensor has no `{what}`"));
    let name = name.ok_or_else(|| missing("name"))?;
    let datatype = datatype.ok_or_else(|| missing("datatype"))?;
    let shape = shape.ok_or_else(|| missing("shape"))?;
    if let Some(start) = waiting {
        let end = s.position();
        s.go_back(start);
        let found = read_data(s, datatype).map_err(|e| e.at("data"))?;
        once(&mut data, found, "data")?;
        s.go_on(end);
    }
    if let Some(size) = size {
        if data.is_some() {
            let both = "the tensor has `data` and `binary_data_size`; it takes one of them";
            return Err(WireError::bad(both));
        }
        return binary::tensor(name, shape, datatype, tail.take(size)?);
    }
    let (data, found) = data.ok_or_else(|| missing("data"))?;
    if found.len() > 1 && found != shape {
        return Err(
            WireError::bad(format!("data has the shape {found:?}, but `shape` says {shape:?}")).at("data")
        );
    }
    Tensor::new(name, shape, data).map_err(|e| if e.field.is_none() { e.at("data") } else { e })
}

fn read_shape(s: &mut Scanner<'_>) -> Result<Vec<usize>, WireError> {
    let mut dims = Vec::new();
    s.list("an array of sizes", |s, _| {
        if dims.len() >= 8 {
            return Err(WireError::bad("a shape has at most eight axes"));
        }
        let size = s
            .integer::<u64>()
            .map_err(|e| WireError { message: e.message.replace("UINT64", "a size"), ..e })?;
        dims.push(usize::try_from(size).map_err(|_| WireError::bad("a size is too large"))?);
        Ok(())
    })?;
    match elements(&dims) {
        Some(_) => Ok(dims),
        None => Err(WireError::bad("the shape holds more elements than can be counted")),
    }
}

fn read_data(s: &mut Scanner<'_>, datatype: Datatype) -> Result<(Data, Vec<usize>), WireError> {
    Ok(match datatype {
        Datatype::Bool => pair(s.elements(Scanner::boolean)?, Data::Bool),
        Datatype::Uint8 => pair(s.elements(Scanner::integer)?, Data::Uint8),
        Datatype::Uint16 => pair(s.elements(Scanner::integer)?, Data::Uint16),
        Datatype::Uint32 => pair(s.elements(Scanner::integer)?, Data::Uint32),
        Datatype::Uint64 => pair(s.elements(Scanner::integer)?, Data::Uint64),
        Datatype::Int8 => pair(s.elements(Scanner::integer)?, Data::Int8),
        Datatype::Int16 => pair(s.elements(Scanner::integer)?, Data::Int16),
        Datatype::Int32 => pair(s.elements(Scanner::integer)?, Data::Int32),
        Datatype::Int64 => pair(s.elements(Scanner::integer)?, Data::Int64),
        Datatype::Fp16 => pair(s.elements(Scanner::half)?, Data::Fp16),
        Datatype::Bf16 => pair(s.elements(Scanner::half)?, Data::Bf16),
        Datatype::Fp32 => pair(s.elements(|s| s.float(false))?, Data::Fp32),
        Datatype::Fp64 => pair(s.elements(|s| s.float(false))?, Data::Fp64),
        Datatype::Bytes => pair(s.elements(|s| s.string("BYTES (a string)").map(Into::into))?, Data::Bytes),
    })
}

fn pair<T>((values, shape): (Vec<T>, Vec<usize>), wrap: impl Fn(Vec<T>) -> Data) -> (Data, Vec<usize>) {
    (wrap(values), shape)
}

/// Reads a list of tensors with different names.
pub(super) fn read_list(
    s: &mut Scanner<'_>,
    max: usize,
    tail: &mut Tail<'_>,
) -> Result<Vec<Tensor>, WireError> {
    let mut tensors: Vec<Tensor> = Vec::new();
    s.list("an array of tensors", |s, i| {
        if i >= max {
            return Err(WireError::too_large(format!("there are more than {max} tensors")));
        }
        tensors.push(read(s, tail).map_err(|e| e.at(&format!("[{i}]")))?);
        Ok(())
    })?;
    let mut names: Vec<&str> = tensors.iter().map(Tensor::name).collect();
    names.sort_unstable();
    match names.windows(2).find_map(|w| if w.first() == w.last() { w.first() } else { None }) {
        Some(twice) => Err(WireError::bad(format!("the tensor `{}` is given twice", shown(twice)))),
        None => Ok(tensors),
    }
}

/// Writes one tensor, its data flat.
pub(super) fn write(out: &mut Vec<u8>, tensor: &Tensor) {
    head(out, tensor);
    out.extend_from_slice(b",\"data\":[");
    write::span(out, tensor.data(), 0, tensor.data().len());
    out.extend_from_slice(b"]}");
}

/// Writes one tensor whose data follow the JSON in binary form.
pub(super) fn write_binary(out: &mut Vec<u8>, tensor: &Tensor) {
    head(out, tensor);
    out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
    write::integer(out, binary::size(tensor.data()));
    out.extend_from_slice(b"}}");
}

fn head(out: &mut Vec<u8>, tensor: &Tensor) {
    out.extend_from_slice(b"{\"name\":");
    write::string(out, tensor.name());
    out.extend_from_slice(b",\"shape\":");
    write::list(out, tensor.shape(), |o, d| write::integer(o, *d));
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(tensor.datatype().as_str().as_bytes());
    out.push(b'"');
}
