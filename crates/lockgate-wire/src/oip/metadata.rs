//! Model metadata, and the description of a model's tensors that the rest of the crate uses.

use crate::error::WireError;
use crate::json::write;
use crate::tensor::{Datatype, Tensor};

/// One input (or output) of a model's graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: Datatype,
    /// Its shape; `None` for an axis that may have any length.
    pub shape: Vec<Option<usize>>,
}

impl InputSpec {
    /// The shape as the protocol writes it, with -1 for an axis of any length.
    #[must_use]
    pub fn shape_text(&self) -> String {
        let dims: Vec<String> =
            self.shape.iter().map(|d| d.map_or("-1".to_owned(), |d| d.to_string())).collect();
        format!("[{}]", dims.join(","))
    }

    /// Checks that a tensor has this type and fits this shape.
    ///
    /// # Errors
    /// Says both sides.
    pub fn check(&self, tensor: &Tensor) -> Result<(), WireError> {
        if tensor.datatype() != self.datatype {
            let message =
                format!("the model takes {}, but the request has {}", self.datatype, tensor.datatype());
            return Err(WireError::bad(message).at(&self.name));
        }
        let fits = tensor.shape().len() == self.shape.len()
            && self.shape.iter().zip(tensor.shape()).all(|(want, have)| want.is_none_or(|w| w == *have));
        if fits {
            return Ok(());
        }
        let shapes = format!(
            "the model takes the shape {}, but the request has {:?}",
            self.shape_text(),
            tensor.shape()
        );
        Err(WireError::bad(shapes).at(&self.name))
    }
}

/// The body of `GET /v2/models/{model}`.
#[must_use]
pub fn model_metadata(
    name: &str,
    version: Option<&str>,
    platform: &str,
    inputs: &[InputSpec],
    outputs: &[InputSpec],
) -> Vec<u8> {
    let mut out = b"{\"name\":".to_vec();
    write::string(&mut out, name);
    if let Some(version) = version {
        out.extend_from_slice(b",\"versions\":[");
        write::string(&mut out, version);
        out.push(b']');
    }
    out.extend_from_slice(b",\"platform\":");
    write::string(&mut out, platform);
    for (key, specs) in [(&b",\"inputs\":"[..], inputs), (b",\"outputs\":", outputs)] {
        out.extend_from_slice(key);
        write::list(&mut out, specs, |out, spec| {
            out.extend_from_slice(b"{\"name\":");
            write::string(out, &spec.name);
            out.extend_from_slice(
                format!(",\"datatype\":\"{}\",\"shape\":{}}}", spec.datatype, spec.shape_text()).as_bytes(),
            );
        });
    }
    out.push(b'}');
    out
}

/// The body of `GET /v2/models/{model}/config`, in the form of Triton's model configuration. `max_batch_size` is 0, which
/// means there that a shape names the rows' axis too.
#[must_use]
pub fn model_config(name: &str, platform: &str, inputs: &[InputSpec], outputs: &[InputSpec]) -> Vec<u8> {
    let mut out = b"{\"name\":".to_vec();
    write::string(&mut out, name);
    out.extend_from_slice(b",\"platform\":");
    write::string(&mut out, platform);
    out.extend_from_slice(b",\"backend\":\"onnxruntime\",\"max_batch_size\":0");
    for (key, specs) in [(&b",\"input\":"[..], inputs), (b",\"output\":", outputs)] {
        out.extend_from_slice(key);
        write::list(&mut out, specs, |out, spec| {
            out.extend_from_slice(b"{\"name\":");
            write::string(out, &spec.name);
            let kind = if spec.datatype == Datatype::Bytes { "STRING" } else { spec.datatype.as_str() };
            let shape = spec.shape_text();
            out.extend_from_slice(format!(",\"data_type\":\"TYPE_{kind}\",\"dims\":{shape}}}").as_bytes());
        });
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Data;

    #[test]
    fn a_tensor_of_another_type_or_width_is_refused_with_both_sides() {
        let spec = InputSpec { name: "x".to_owned(), datatype: Datatype::Fp32, shape: vec![None, Some(2)] };
        assert!(spec.check(&Tensor::new("x", vec![3, 2], Data::Fp32(vec![0.0; 6])).unwrap()).is_ok());
        let error = spec.check(&Tensor::new("x", vec![2, 3], Data::Fp32(vec![0.0; 6])).unwrap()).unwrap_err();
        assert_eq!(error.text(), "x: the model takes the shape [-1,2], but the request has [2, 3]");
        assert!(spec.check(&Tensor::new("x", vec![2], Data::Fp32(vec![0.0; 2])).unwrap()).is_err());
        assert!(spec.check(&Tensor::new("x", vec![1, 2], Data::Int64(vec![0; 2])).unwrap()).is_err());
        let body = model_metadata("m", Some("3"), "onnxruntime_onnx", &[spec], &[]);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["inputs"][0]["shape"], serde_json::json!([-1, 2]));
        let text = InputSpec { name: "s".to_owned(), datatype: Datatype::Bytes, shape: vec![None] };
        let body: serde_json::Value = serde_json::from_slice(&model_config("m", "p", &[text], &[])).unwrap();
        assert_eq!(
            body["input"][0],
            serde_json::json!({"name": "s", "data_type": "TYPE_STRING", "dims": [-1]})
        );
    }
}
