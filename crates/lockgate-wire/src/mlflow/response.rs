//! `{"predictions": ...}`.

use crate::error::WireError;
use crate::json::write;
use crate::tensor::Tensor;

/// Writes predictions: one output of width 1 is a flat list, one of width k a list of lists, several outputs a list
/// of records. Non-finite floats are written as MLflow's server writes them: `NaN`, `Infinity`, `-Infinity`.
///
/// # Errors
/// With status 500 where there is no output, or the outputs have different numbers of rows.
pub fn write_predictions(outputs: &[Tensor]) -> Result<Vec<u8>, WireError> {
    let first = outputs.first().ok_or_else(|| WireError::internal("the model gave no output"))?;
    let rows = first.rows();
    if let Some(other) = outputs.iter().find(|t| t.rows() != rows) {
        return Err(WireError::internal(format!(
            "the outputs `{}` and `{}` have {rows} and {} rows, which have no form as predictions",
            first.name(),
            other.name(),
            other.rows()
        )));
    }
    let elements: usize = outputs.iter().map(|t| t.data().len()).sum();
    let mut out = Vec::with_capacity(elements.saturating_mul(12).saturating_add(32));
    out.extend_from_slice(b"{\"predictions\":");
    if let [only] = outputs {
        if only.width() == 1 {
            out.push(b'[');
            write::span(&mut out, only.data(), 0, only.data().len());
            out.push(b']');
        } else {
            write::list(&mut out, 0..rows, |out, row| write_row(out, only, row));
        }
    } else {
        write::list(&mut out, 0..rows, |out, row| {
            for (i, tensor) in outputs.iter().enumerate() {
                out.push(if i == 0 { b'{' } else { b',' });
                write::string(out, tensor.name());
                out.push(b':');
                write_row(out, tensor, row);
            }
            out.push(b'}');
        });
    }
    out.push(b'}');
    Ok(out)
}

/// One row of one output: a value where it is one wide, nested lists by its further axes otherwise.
fn write_row(out: &mut Vec<u8>, tensor: &Tensor, row: usize) {
    let width = tensor.width();
    let start = row.saturating_mul(width);
    if width == 1 {
        write::span(out, tensor.data(), start, start + 1);
    } else {
        nested(out, tensor, tensor.shape().get(1..).unwrap_or_default(), start, width);
    }
}

fn nested(out: &mut Vec<u8>, tensor: &Tensor, axes: &[usize], start: usize, len: usize) {
    match axes {
        [] | [_] => {
            out.push(b'[');
            write::span(out, tensor.data(), start, start + len);
            out.push(b']');
        }
        [0, ..] => out.extend_from_slice(b"[]"),
        [count, rest @ ..] => {
            let step = len / count;
            write::list(out, 0..*count, |out, i| nested(out, tensor, rest, start + i * step, step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Data;

    fn text(outputs: &[Tensor]) -> String {
        String::from_utf8(write_predictions(outputs).unwrap()).unwrap()
    }

    #[test]
    fn the_form_follows_number_and_width_of_outputs() {
        let label = Tensor::new("label", vec![2], Data::Int64(vec![0, 1])).unwrap();
        let column = Tensor::new("y", vec![2, 1], Data::Fp32(vec![0.5, f32::NAN])).unwrap();
        let wide = Tensor::new("p", vec![2, 2], Data::Fp64(vec![0.25, 0.75, 1.0, f64::INFINITY])).unwrap();
        let cube = Tensor::new("c", vec![1, 2, 2], Data::Uint8(vec![1, 2, 3, 4])).unwrap();
        assert_eq!(text(std::slice::from_ref(&label)), r#"{"predictions":[0,1]}"#);
        assert_eq!(text(std::slice::from_ref(&column)), r#"{"predictions":[0.5,NaN]}"#);
        assert_eq!(text(std::slice::from_ref(&wide)), r#"{"predictions":[[0.25,0.75],[1.0,Infinity]]}"#);
        assert_eq!(text(std::slice::from_ref(&cube)), r#"{"predictions":[[[1,2],[3,4]]]}"#);
        assert_eq!(
            text(&[label, wide]),
            r#"{"predictions":[{"label":0,"p":[0.25,0.75]},{"label":1,"p":[1.0,Infinity]}]}"#
        );
        assert_eq!(write_predictions(&[]).unwrap_err().status, 500);
        assert_eq!(write_predictions(&[column, cube]).unwrap_err().status, 500);
    }
}
