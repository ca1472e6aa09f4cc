//! Requests put together for one call of the model, and its answer taken apart again.

use lockgate_wire::oip::binary;
use lockgate_wire::{Data, Tensor};

/// Whether two requests can be one call: the same tensors of the same types, alike but for the number of rows.
pub(super) fn alike(a: &[Tensor], b: &[Tensor]) -> bool {
    let same = |(x, y): (&Tensor, &Tensor)| {
        x.name() == y.name()
            && x.datatype() == y.datatype()
            && !x.shape().is_empty()
            && x.shape().len() == y.shape().len()
            && x.shape().get(1..) == y.shape().get(1..)
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// The rows of requests that are [`alike`], one after the other; nothing where they are not.
pub(super) fn join(requests: &[Vec<Tensor>]) -> Option<Vec<Tensor>> {
    let first = requests.first()?;
    if !requests.iter().all(|request| alike(first, request)) {
        return None;
    }
    let joined = first.iter().enumerate().map(|(i, tensor)| {
        let (mut bytes, mut rows) = (Vec::new(), 0);
        for part in requests.iter().filter_map(|request| request.get(i)) {
            binary::append(&mut bytes, part.data());
            rows += part.rows();
        }
        let mut shape = tensor.shape().to_vec();
        *shape.first_mut()? = rows;
        Tensor::new(tensor.name(), shape, binary::read(tensor.datatype(), &bytes).ok()?).ok()
    });
    joined.collect()
}

/// Whether every tensor has `rows` rows.
pub(super) fn has_rows(tensors: &[Tensor], rows: usize) -> bool {
    tensors.iter().all(|t| !t.shape().is_empty() && t.rows() == rows)
}

/// Takes tensors apart into pieces of so many rows; nothing where they don't have just that many.
pub(super) fn split(tensors: Vec<Tensor>, rows: &[usize]) -> Option<Vec<Vec<Tensor>>> {
    if !has_rows(&tensors, rows.iter().sum()) {
        return None;
    }
    let mut pieces: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(tensors.len())).collect();
    for tensor in tensors {
        let width = tensor.width();
        let (name, shape, data) = tensor.into_parts();
        let counts: Vec<usize> = rows.iter().map(|r| r.saturating_mul(width)).collect();
        for ((piece, data), rows) in pieces.iter_mut().zip(cut(data, &counts)).zip(rows) {
            let mut shape = shape.clone();
            *shape.first_mut()? = *rows;
            piece.push(Tensor::new(name.clone(), shape, data).ok()?);
        }
    }
    Some(pieces)
}

fn cut(data: Data, counts: &[usize]) -> Vec<Data> {
    fn parts<T>(values: Vec<T>, counts: &[usize], wrap: impl Fn(Vec<T>) -> Data) -> Vec<Data> {
        let mut values = values.into_iter();
        counts.iter().map(|n| wrap(values.by_ref().take(*n).collect())).collect()
    }
    match data {
        Data::Bool(v) => parts(v, counts, Data::Bool),
        Data::Uint8(v) => parts(v, counts, Data::Uint8),
        Data::Uint16(v) => parts(v, counts, Data::Uint16),
        Data::Uint32(v) => parts(v, counts, Data::Uint32),
        Data::Uint64(v) => parts(v, counts, Data::Uint64),
        Data::Int8(v) => parts(v, counts, Data::Int8),
        Data::Int16(v) => parts(v, counts, Data::Int16),
        Data::Int32(v) => parts(v, counts, Data::Int32),
        Data::Int64(v) => parts(v, counts, Data::Int64),
        Data::Fp16(v) => parts(v, counts, Data::Fp16),
        Data::Bf16(v) => parts(v, counts, Data::Bf16),
        Data::Fp32(v) => parts(v, counts, Data::Fp32),
        Data::Fp64(v) => parts(v, counts, Data::Fp64),
        Data::Bytes(v) => parts(v, counts, Data::Bytes),
    }
}

/// How many bytes tensors hold.
pub(super) fn size(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|t| binary::size(t.data())).sum()
}

/// Whether two answers say the same: numbers within what another order of additions may change.
pub(super) fn agree(a: &[Tensor], b: &[Tensor]) -> bool {
    let close = |x: f64, y: f64| {
        (x.is_nan() && y.is_nan()) || x == y || (x - y).abs() <= 1e-4 * (1.0 + x.abs().max(y.abs()))
    };
    let same = |x: &Tensor, y: &Tensor| match (x.data(), y.data()) {
        (Data::Fp32(x), Data::Fp32(y)) => x.iter().zip(y).all(|(x, y)| close(f64::from(*x), f64::from(*y))),
        (Data::Fp64(x), Data::Fp64(y)) => x.iter().zip(y).all(|(x, y)| close(*x, *y)),
        (x, y) => x == y,
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|(x, y)| x.name() == y.name() && x.shape() == y.shape() && same(x, y))
}
