//! Answers.

use crate::error::WireError;
use crate::json::write;
use crate::oip::InputSpec;
use crate::tensor::{Data, Datatype, Tensor};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One version of a model that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Its number.
    pub version: u64,
    /// Whether it can answer.
    pub ready: bool,
}

/// The answer to `instances`: `{"predictions": […]}`, a value or array for each row; an object by output name where there are
/// several.
///
/// # Errors
/// With status 500 where there is no output, or the outputs have different numbers of rows.
pub fn write_rows(outputs: &[Tensor]) -> Result<Vec<u8>, WireError> {
    let rows = same_rows(outputs)?;
    let mut out = begin(b"{\"predictions\":", outputs);
    write::list(&mut out, 0..rows, |out, row| {
        let one = |out: &mut Vec<u8>, t: &Tensor| {
            nested(out, t, t.shape().get(1..).unwrap_or_default(), row.saturating_mul(t.width()), t.width());
        };
        match outputs {
            [only] => one(out, only),
            several => by_name(out, several, one),
        }
    });
    out.push(b'}');
    Ok(out)
}

/// The answer to `inputs`: `{"outputs": …}`, the output, or an object of outputs where there are several.
///
/// # Errors
/// With status 500 where there is no output.
pub fn write_outputs(outputs: &[Tensor]) -> Result<Vec<u8>, WireError> {
    let mut out = begin(b"{\"outputs\":", outputs);
    let one = |out: &mut Vec<u8>, t: &Tensor| nested(out, t, t.shape(), 0, t.data().len());
    match outputs {
        [] => return Err(WireError::internal("the model gave no output")),
        [only] => one(&mut out, only),
        several => by_name(&mut out, several, one),
    }
    out.push(b'}');
    Ok(out)
}

/// The answer to `:classify`: for each example a list of label and score. Labels are the numbers of the classes, for a graph
/// doesn't say their names.
///
/// # Errors
/// Where the model gives no scores: floats, one for each class.
pub fn write_classes(outputs: &[Tensor]) -> Result<Vec<u8>, WireError> {
    let scores = outputs.iter().find(|t| t.datatype().is_float() && t.shape().len() <= 2 && t.width() > 0);
    let scores =
        scores.ok_or_else(|| WireError::bad("this model gives no scores of classes; ask `:predict`"))?;
    let mut out = begin(b"{\"results\":", outputs);
    write::list(&mut out, 0..scores.rows(), |out, row| {
        write::list(out, 0..scores.width(), |out, class| {
            let at = row * scores.width() + class;
            out.push(b'[');
            write::string(out, &class.to_string());
            out.push(b',');
            write::span(out, scores.data(), at, at + 1);
            out.push(b']');
        });
    });
    out.push(b'}');
    Ok(out)
}

/// The answer to `:regress`: one number for each example.
///
/// # Errors
/// Where the model gives no single number for each row.
pub fn write_regressions(outputs: &[Tensor]) -> Result<Vec<u8>, WireError> {
    let value = outputs.iter().find(|t| t.datatype().is_float() && t.width() == 1 && !t.shape().is_empty());
    let value = value
        .ok_or_else(|| WireError::bad("this model gives no single number for each row; ask `:predict`"))?;
    let mut out = begin(b"{\"results\":[", outputs);
    write::span(&mut out, value.data(), 0, value.data().len());
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn same_rows(outputs: &[Tensor]) -> Result<usize, WireError> {
    let first = outputs.first().ok_or_else(|| WireError::internal("the model gave no output"))?;
    let rows = first.rows();
    match outputs.iter().find(|t| t.rows() != rows) {
        None => Ok(rows),
        Some(other) => Err(WireError::internal(format!(
            "the outputs `{}` and `{}` have {rows} and {} rows; ask with `inputs` instead of `instances`",
            first.name(),
            other.name(),
            other.rows()
        ))),
    }
}

fn begin(start: &[u8], outputs: &[Tensor]) -> Vec<u8> {
    let elements: usize = outputs.iter().map(|t| t.data().len()).sum();
    let mut out = Vec::with_capacity(elements.saturating_mul(12).saturating_add(32));
    out.extend_from_slice(start);
    out
}

fn by_name(out: &mut Vec<u8>, tensors: &[Tensor], one: impl Fn(&mut Vec<u8>, &Tensor)) {
    for (i, tensor) in tensors.iter().enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        write::string(out, tensor.name());
        out.push(b':');
        one(out, tensor);
    }
    out.push(b'}');
}

/// The elements from `start` on, nested by `axes`; a single value where there is none. Outputs whose name ends in `_bytes` are
/// written in base64.
fn nested(out: &mut Vec<u8>, tensor: &Tensor, axes: &[usize], start: usize, len: usize) {
    match axes {
        [] | [_] => {
            let list = !axes.is_empty();
            if list {
                out.push(b'[');
            }
            match tensor.data() {
                Data::Bytes(texts) if tensor.name().ends_with("_bytes") => {
                    for (i, text) in texts.iter().skip(start).take(len).enumerate() {
                        out.extend_from_slice(if i == 0 { b"{\"b64\":" } else { b",{\"b64\":" });
                        write::string(out, &STANDARD.encode(text));
                        out.push(b'}');
                    }
                }
                data => write::span(out, data, start, start + len),
            }
            if list {
                out.push(b']');
            }
        }
        [0, ..] => out.extend_from_slice(b"[]"),
        [count, rest @ ..] => {
            let step = len / count;
            write::list(out, 0..*count, |out, i| nested(out, tensor, rest, start + i * step, step));
        }
    }
}

/// `GET /v1/models/{model}`: which versions serve. KServe's clients ask the same path for `name` and `ready`, OpenAI's for `id`.
#[must_use]
pub fn status(model: &str, served: &[Served]) -> Vec<u8> {
    let mut out = b"{\"model_version_status\":".to_vec();
    write::list(&mut out, served, |out, one| {
        let state = if one.ready { "AVAILABLE" } else { "LOADING" };
        let version = one.version;
        out.extend_from_slice(
            format!(
                "{{\"version\":\"{version}\",\"state\":\"{state}\",\
                 \"status\":{{\"error_code\":\"OK\",\"error_message\":\"\"}}}}"
            )
            .as_bytes(),
        );
    });
    for key in [",\"name\":", ",\"id\":"] {
        out.extend_from_slice(key.as_bytes());
        write::string(&mut out, model);
    }
    let ready = served.iter().any(|one| one.ready);
    out.extend_from_slice(
        format!(",\"object\":\"model\",\"owned_by\":\"lockgate\",\"ready\":{ready}}}").as_bytes(),
    );
    out
}

/// `GET /v1/models`: what there is, for KServe's and OpenAI's clients.
#[must_use]
pub fn list(models: &[String]) -> Vec<u8> {
    let mut out = b"{\"object\":\"list\",\"data\":".to_vec();
    write::list(&mut out, models, |out, model| {
        out.extend_from_slice(b"{\"id\":");
        write::string(out, model);
        out.extend_from_slice(b",\"object\":\"model\",\"owned_by\":\"lockgate\"}");
    });
    out.extend_from_slice(b",\"models\":");
    write::list(&mut out, models, |out, model| write::string(out, model));
    out.push(b'}');
    out
}

/// `GET /v1/models/{model}/metadata`: the model's only signature.
#[must_use]
pub fn metadata(model: &str, version: &str, inputs: &[InputSpec], outputs: &[InputSpec]) -> Vec<u8> {
    let mut out = b"{\"model_spec\":{\"name\":".to_vec();
    write::string(&mut out, model);
    out.extend_from_slice(b",\"signature_name\":\"\",\"version\":");
    write::string(&mut out, version);
    out.extend_from_slice(b"},\"metadata\":{\"signature_def\":{\"signature_def\":{\"serving_default\":{");
    for (key, specs) in [("\"inputs\":{", inputs), ("},\"outputs\":{", outputs)] {
        out.extend_from_slice(key.as_bytes());
        for (i, spec) in specs.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write::string(&mut out, &spec.name);
            out.extend_from_slice(
                format!(":{{\"dtype\":\"{}\",\"tensor_shape\":{{\"dim\":", dtype(spec.datatype)).as_bytes(),
            );
            write::list(&mut out, &spec.shape, |out, size| {
                let size = size.map_or_else(|| "-1".to_owned(), |size| size.to_string());
                out.extend_from_slice(format!("{{\"size\":\"{size}\",\"name\":\"\"}}").as_bytes());
            });
            out.extend_from_slice(b",\"unknown_rank\":false},\"name\":");
            write::string(&mut out, &spec.name);
            out.push(b'}');
        }
    }
    out.extend_from_slice(b"},\"method_name\":\"tensorflow/serving/predict\"}}}}}");
    out
}

fn dtype(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "DT_BOOL",
        Datatype::Uint8 => "DT_UINT8",
        Datatype::Uint16 => "DT_UINT16",
        Datatype::Uint32 => "DT_UINT32",
        Datatype::Uint64 => "DT_UINT64",
        Datatype::Int8 => "DT_INT8",
        Datatype::Int16 => "DT_INT16",
        Datatype::Int32 => "DT_INT32",
        Datatype::Int64 => "DT_INT64",
        Datatype::Fp32 => "DT_FLOAT",
        Datatype::Fp64 => "DT_DOUBLE",
        Datatype::Bytes => "DT_STRING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tensor(name: &str, shape: &[usize], data: Data) -> Tensor {
        Tensor::new(name, shape.to_vec(), data).unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn rows_and_columns_have_their_own_forms() {
        let y = tensor("y", &[2], Data::Fp32(vec![1.5, f32::NAN]));
        let p = tensor("p", &[2, 2], Data::Fp64(vec![0.25, 0.75, 1.0, 0.0]));
        let image = tensor("image_bytes", &[2, 1], Data::Bytes(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(text(write_rows(std::slice::from_ref(&y)).unwrap()), r#"{"predictions":[1.5,NaN]}"#);
        assert_eq!(
            text(write_rows(&[y.clone(), p.clone()]).unwrap()),
            r#"{"predictions":[{"y":1.5,"p":[0.25,0.75]},{"y":NaN,"p":[1.0,0.0]}]}"#
        );
        assert_eq!(
            text(write_outputs(std::slice::from_ref(&p)).unwrap()),
            r#"{"outputs":[[0.25,0.75],[1.0,0.0]]}"#
        );
        assert_eq!(
            text(write_outputs(&[y.clone(), image]).unwrap()),
            r#"{"outputs":{"y":[1.5,NaN],"image_bytes":[[{"b64":"YQ=="}],[{"b64":"Yg=="}]]}}"#
        );
        let scalar = tensor("s", &[], Data::Int64(vec![7]));
        assert_eq!(text(write_outputs(std::slice::from_ref(&scalar)).unwrap()), r#"{"outputs":7}"#);
        let longer = tensor("z", &[3], Data::Int64(vec![1, 2, 3]));
        assert!(write_rows(&[y, longer]).unwrap_err().message.contains("`inputs`"));
        assert_eq!(write_rows(&[]).unwrap_err().status, 500);
        assert_eq!(write_outputs(&[]).unwrap_err().status, 500);
    }

    #[test]
    fn classes_and_regressions_need_scores_and_numbers() {
        let label = tensor("label", &[2], Data::Int64(vec![0, 1]));
        let scores = tensor("scores", &[2, 2], Data::Fp32(vec![0.75, 0.25, 0.5, 0.5]));
        let value = tensor("value", &[2, 1], Data::Fp32(vec![3.0, 4.0]));
        assert_eq!(
            text(write_classes(&[label.clone(), scores.clone()]).unwrap()),
            r#"{"results":[[["0",0.75],["1",0.25]],[["0",0.5],["1",0.5]]]}"#
        );
        assert_eq!(text(write_regressions(&[value]).unwrap()), r#"{"results":[3.0,4.0]}"#);
        assert_eq!(write_classes(std::slice::from_ref(&label)).unwrap_err().status, 400);
        assert_eq!(write_regressions(&[label, scores]).unwrap_err().status, 400);
    }

    #[test]
    fn questions_have_answers_for_all_three_dialects() {
        let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let found =
            parse(status("m", &[Served { version: 3, ready: true }, Served { version: 4, ready: false }]));
        assert_eq!(found["model_version_status"][0]["version"], "3");
        assert_eq!(found["model_version_status"][1]["state"], "LOADING");
        assert_eq!((&found["name"], &found["ready"], &found["id"]), (&json!("m"), &json!(true), &json!("m")));
        let found = parse(list(&["a\"".to_owned()]));
        assert_eq!((&found["models"], &found["data"][0]["id"]), (&json!(["a\""]), &json!("a\"")));
        let x = InputSpec { name: "x".to_owned(), datatype: Datatype::Fp32, shape: vec![None, Some(2)] };
        let found = parse(metadata("m", "3", &[x.clone(), x], &[]));
        let signature = &found["metadata"]["signature_def"]["signature_def"]["serving_default"];
        assert_eq!(signature["inputs"]["x"]["dtype"], "DT_FLOAT");
        assert_eq!(signature["inputs"]["x"]["tensor_shape"]["dim"][0]["size"], "-1");
        assert_eq!(found["model_spec"]["version"], "3");
    }
}
