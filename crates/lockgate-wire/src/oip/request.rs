//! The inference request.

use super::binary::{self, Tail};
use super::parameter::{self, Parameter};
use super::{InputSpec, once, tensor};
use crate::error::WireError;
use crate::json::{Limits, Scanner, write};
use crate::tensor::Tensor;

/// `POST /v2/models/{model}/infer`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InferRequest {
    /// The caller's id, echoed in the response.
    pub id: Option<String>,
    /// Parameters of the request.
    pub parameters: Vec<(String, Parameter)>,
    /// At least one tensor; names differ.
    pub inputs: Vec<Tensor>,
    /// The outputs that are wanted; empty means all.
    pub outputs: Vec<RequestedOutput>,
}

/// An output that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Whether it is wanted in binary form; none where the request's own parameters say it.
    pub binary: Option<bool>,
}

impl InferRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<Self, WireError> {
        Self::parse_parts(body, None, limits)
    }

    /// Reads the body of a request with tensors in binary form; `json` is how many of its bytes are JSON.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse_binary(body: &[u8], json: usize, limits: &Limits) -> Result<Self, WireError> {
        Self::parse_parts(body, Some(json), limits)
    }

    /// A request whose body is nothing but the bytes of the model's one input; its outputs are wanted in binary form.
    ///
    /// # Errors
    /// Where the model has other inputs, or the bytes don't fit this one.
    pub fn parse_raw(body: &[u8], inputs: &[InputSpec]) -> Result<Self, WireError> {
        let [only] = inputs else {
            return Err(WireError::bad(format!(
                "a body without JSON (Inference-Header-Content-Length: 0) is for models with one input; this one has {}",
                inputs.len()
            )));
        };
        let parameters = vec![("binary_data_output".to_owned(), Parameter::Bool(true))];
        let inputs = vec![binary::whole_body(only, body)?];
        Ok(Self { id: None, parameters, inputs, outputs: Vec::new() })
    }

    /// Whether an output is wanted in binary form: what is said of it counts more than what is said of all.
    #[must_use]
    pub fn wants_binary(&self, output: &str) -> bool {
        let said = self.outputs.iter().find(|o| o.name == output).and_then(|o| o.binary);
        let all = || self.parameters.contains(&("binary_data_output".to_owned(), Parameter::Bool(true)));
        said.unwrap_or_else(all)
    }

    fn parse_parts(body: &[u8], json: Option<usize>, limits: &Limits) -> Result<Self, WireError> {
        let (json, mut tail) = Tail::split(body, json)?;
        let mut s = Scanner::new(json, limits);
        let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
        s.object("an object with `inputs`", |s, key| match &*key {
            "id" => {
                let text = s.string("a string").map_err(|e| e.at("id"))?.into_owned();
                once(&mut id, text, "id")
            }
            "parameters" => {
                let found = parameter::read(s).map_err(|e| e.at("parameters"))?;
                parameter::switch(&found, "binary_data_output").map_err(|e| e.at("parameters"))?;
                once(&mut parameters, found, "parameters")
            }
            "inputs" => {
                let found = tensor::read_list(s, limits.max_names, &mut tail).map_err(|e| e.at("inputs"))?;
                once(&mut inputs, found, "inputs")
            }
            "outputs" => {
                let found = read_outputs(s).map_err(|e| e.at("outputs"))?;
                once(&mut outputs, found, "outputs")
            }
            _ => s.skip(),
        })?;
        s.end()?;
        tail.end()?;
        let inputs = inputs.ok_or_else(|| WireError::bad("the request has no `inputs`"))?;
        if inputs.is_empty() {
            return Err(WireError::bad("there must be at least one tensor").at("inputs"));
        }
        let (parameters, outputs) = (parameters.unwrap_or_default(), outputs.unwrap_or_default());
        Ok(Self { id, parameters, inputs, outputs })
    }

    /// Writes the request's body, all of it JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        if let Some(id) = &self.id {
            out.extend_from_slice(b"\"id\":");
            write::string(&mut out, id);
            out.push(b',');
        }
        out.extend_from_slice(b"\"inputs\":");
        write::list(&mut out, &self.inputs, tensor::write);
        parameter::write_member(&mut out, &self.parameters);
        if !self.outputs.is_empty() {
            out.extend_from_slice(b",\"outputs\":");
            write::list(&mut out, &self.outputs, |out, output| {
                out.extend_from_slice(b"{\"name\":");
                write::string(out, &output.name);
                if let Some(binary) = output.binary {
                    let parameters = [("binary_data".to_owned(), Parameter::Bool(binary))];
                    parameter::write_member(out, &parameters);
                }
                out.push(b'}');
            });
        }
        out.push(b'}');
        out
    }
}

fn read_outputs(s: &mut Scanner<'_>) -> Result<Vec<RequestedOutput>, WireError> {
    let mut outputs: Vec<RequestedOutput> = Vec::new();
    s.list("an array of outputs", |s, i| {
        let (mut name, mut binary) = (None, None);
        let fail = |e: WireError| e.at(&format!("[{i}]"));
        s.object("an object with `name`", |s, key| match &*key {
            "name" => {
                let text = s.string("a string")?.into_owned();
                once(&mut name, text, "name")
            }
            "parameters" => {
                let found = parameter::read(s).map_err(|e| e.at("parameters"))?;
                parameter::refuse_elsewhere(&found).map_err(|e| e.at("parameters"))?;
                binary = parameter::switch(&found, "binary_data").map_err(|e| e.at("parameters"))?;
                Ok(())
            }
            _ => s.skip(),
        })
        .map_err(fail)?;
        let name = name.ok_or_else(|| fail(WireError::bad("the output has no `name`")))?;
        if outputs.iter().any(|o| o.name == name) || outputs.len() >= 1024 {
            return Err(fail(WireError::bad("an output is asked for twice, or there are more than 1024")));
        }
        outputs.push(RequestedOutput { name, binary });
        Ok(())
    })?;
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Data;

    fn parse(body: &str) -> Result<InferRequest, WireError> {
        InferRequest::parse(body.as_bytes(), &Limits::default())
    }

    #[test]
    fn members_may_come_in_any_order_and_data_nested_or_flat() {
        let flat = r#"{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,NaN,-Infinity,4.5]}],
            "parameters":{"a":1,"b":"s","c":true,"d":1.5},"outputs":[{"name":"y"}],"unknown":{"deep":[1,null]}}"#;
        let nested = r#"{"outputs":[{"name":"y","parameters":{"whatever":false}}],"id":"7",
            "parameters":{"a":1,"b":"s","c":true,"d":1.5},
            "inputs":[{"data":[[1,NaN],[-Infinity,4.5]],"shape":[2,2],"datatype":"FP32","name":"x"}]}"#;
        let (flat, nested) = (parse(flat).unwrap(), parse(nested).unwrap());
        assert_eq!(flat.to_bytes(), nested.to_bytes());
        let Data::Fp32(values) = flat.inputs[0].data() else { panic!("FP32") };
        assert!(values[1].is_nan() && values[2] == f32::NEG_INFINITY && values[3] == 4.5);
        assert_eq!(flat.parameters[3].1, Parameter::Float(1.5));
    }

    #[test]
    fn errors_name_the_field() {
        let tensor = |t: &str| format!(r#"{{"inputs":[{t}]}}"#);
        for (body, want) in [
            (String::new(), "the body ends"),
            ("[]".to_owned(), "an array where an object"),
            ("{}".to_owned(), "no `inputs`"),
            (r#"{"inputs":[]}"#.to_owned(), "inputs: there must be"),
            (r#"{"inputs":[1]}"#.to_owned(), "inputs[0]: a number where a tensor"),
            (tensor(r#"{"name":"x","shape":[1],"datatype":"FP32"}"#), "inputs[0]: the tensor has no `data`"),
            (
                tensor(r#"{"name":"x","shape":[1],"datatype":"FP32","data":["a"]}"#),
                "inputs[0].data: a string where FP32",
            ),
            (
                tensor(r#"{"name":"x","shape":[1],"datatype":"INT64","data":[1.5]}"#),
                "inputs[0].data: a fraction",
            ),
            (
                tensor(r#"{"name":"x","shape":[1],"datatype":"FP32","data":[null]}"#),
                "inputs[0].data: null where FP32",
            ),
            (
                tensor(r#"{"name":"x","shape":[2],"datatype":"FP32","data":[1]}"#),
                "holds 2 elements, but data has 1",
            ),
            (
                tensor(r#"{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}"#),
                "inputs[0].shape: a number is out",
            ),
            (
                tensor(r#"{"name":"x","shape":[4],"datatype":"FP32","data":[[1,2],[3,4]]}"#),
                "data has the shape [2, 2]",
            ),
            (
                tensor(r#"{"name":"x","shape":[1],"datatype":"FP16","data":[70000]}"#),
                "inputs[0].data: a number is out of the range of FP16",
            ),
            (
                tensor(r#"{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}"#),
                "inputs[0]: the tensor has a `binary_data_size`, but the request lacks the header",
            ),
            (
                tensor(r#"{"name":"x","parameters":{"shared_memory_region":"r"}}"#),
                "inputs[0].parameters.shared_memory_region: this server has no shared memory",
            ),
            (
                r#"{"outputs":[{"name":"y","parameters":{"classification":3}}]}"#.to_owned(),
                "outputs[0].parameters.classification: this server",
            ),
            (r#"{"inputs":[],"inputs":[]}"#.to_owned(), "inputs: this member is given twice"),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]} x"#.to_owned(),
                "the end of the body",
            ),
            (r#"{"id":5}"#.to_owned(), "id: a number where a string"),
        ] {
            let error = parse(&body).unwrap_err();
            assert!(error.text().contains(want), "{body}: {error}");
            assert!(matches!(error.status, 400 | 415));
        }
        let huge = r#"{"inputs":[{"name":"x","shape":[4294967296,4294967296],"datatype":"FP32","data":[]}]}"#;
        assert!(parse(huge).unwrap_err().text().contains("inputs[0].shape"));
        let twice = r#"{"name":"x","shape":[1],"datatype":"FP32","data":[1]}"#;
        assert!(
            parse(&tensor(&format!("{twice},{twice}"))).unwrap_err().text().contains("`x` is given twice")
        );
    }
}
