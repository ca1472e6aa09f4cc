//! How rows are asked of a release: in the protocol that what serves it speaks.
//!
//! Lockgate's own workers and MLflow's server take a data frame. A server of the Open Inference Protocol says in its metadata what
//! it takes: one tensor for each column, or all columns as the matrix that is its only input. TensorFlow Serving's takes rows.

use super::rows::{read_scores, score};
use crate::AgentError;
use crate::caller::Caller;
use bytes::Bytes;
use lockgate_core::release::Manifest;
use lockgate_core::server::{Server, ServerProtocol};
use lockgate_wire::oip::encode;
use serde_json::{Value, json};

/// How rows are written, and answers are read.
#[derive(Debug)]
pub(crate) struct RowForm {
    path: String,
    layout: Layout,
}

#[derive(Debug, PartialEq)]
enum Layout {
    /// MLflow's `dataframe_split`.
    Frame,
    /// One tensor for each column, with its datatype.
    Columns(Vec<(String, String)>),
    /// All columns in the only input, by its name and datatype.
    Matrix(String, String),
    /// TensorFlow Serving's `instances`: each row a list.
    Rows,
}

impl RowForm {
    /// Finds out how a release is asked.
    ///
    /// # Errors
    /// Where rows can't be asked of it, in words.
    pub(crate) async fn of(caller: &mut Caller, manifest: &Manifest) -> Result<Self, AgentError> {
        let frame = Self { path: "/invocations".to_owned(), layout: Layout::Frame };
        let Some(server) = manifest.runtime.server() else { return Ok(frame) };
        match server.protocol {
            ServerProtocol::Mlflow => Ok(frame),
            ServerProtocol::Tfs => Ok(Self {
                path: format!("{}:predict", model_path("/v1/models/", server)),
                layout: Layout::Rows,
            }),
            ServerProtocol::Oip => {
                let path = model_path("/v2/models/", server);
                let reply = caller.get_unless_busy(&path).await?;
                if reply.status != 200 {
                    let why = format!("GET {path} was answered {}: {}", reply.status, reply.words());
                    return Err(AgentError::Gate(why));
                }
                let metadata: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                let columns: Vec<&str> =
                    manifest.feature_schema.inputs.iter().map(|c| c.name.as_str()).collect();
                let layout = Layout::of(&metadata["inputs"], &columns).map_err(AgentError::Gate)?;
                Ok(Self { path: format!("{path}/infer"), layout })
            }
            ServerProtocol::Sagemaker | ServerProtocol::Openai => Err(AgentError::Gate(format!(
                "rows can't be asked of a server that speaks {}",
                server.protocol.title()
            ))),
        }
    }

    /// Where rows are asked.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Rows as one request.
    ///
    /// # Errors
    /// Where the server can't take such rows.
    pub(crate) fn request(
        &self,
        columns: &[impl AsRef<str>],
        rows: &[Vec<Value>],
    ) -> Result<Bytes, AgentError> {
        let names: Vec<&str> = columns.iter().map(AsRef::as_ref).collect();
        let count = rows.len();
        let body = match &self.layout {
            Layout::Frame => json!({"dataframe_split": {"columns": names, "data": rows}}),
            Layout::Rows => json!({"instances": rows}),
            Layout::Matrix(name, datatype) => {
                if rows.iter().flatten().any(|value| !value.is_number() && !value.is_boolean()) {
                    let why = format!(
                        "the server takes all columns as one tensor `{name}`, and a row holds no numbers alone"
                    );
                    return Err(AgentError::Gate(why));
                }
                let data: Vec<&Value> = rows.iter().flatten().collect();
                json!({"inputs": [{"name": name, "shape": [count, names.len()], "datatype": datatype, "data": data}]})
            }
            Layout::Columns(wanted) => {
                let tensors = wanted.iter().map(|(name, datatype)| {
                    let at = names.iter().position(|n| n == name).ok_or_else(|| {
                        AgentError::Gate(format!(
                            "the server takes an input `{name}`, which the rows don't have"
                        ))
                    })?;
                    let data: Vec<&Value> = rows.iter().filter_map(|row| row.get(at)).collect();
                    Ok(json!({"name": name, "shape": [count, 1], "datatype": datatype, "data": data}))
                });
                json!({"inputs": tensors.collect::<Result<Vec<_>, AgentError>>()?})
            }
        };
        Ok(Bytes::from(body.to_string()))
    }

    /// One number a row from an answer.
    ///
    /// # Errors
    /// Where it holds none.
    pub(crate) fn scores(&self, body: &[u8], rows: usize) -> Result<Vec<f64>, AgentError> {
        match self.layout {
            Layout::Frame | Layout::Rows => read_scores(body, rows),
            Layout::Columns(_) | Layout::Matrix(..) => read_outputs(body, rows),
        }
    }
}

impl Layout {
    /// What a server's inputs ask for. One that doesn't say takes a matrix.
    fn of(inputs: &Value, columns: &[&str]) -> Result<Self, String> {
        let said: Vec<(String, String)> = inputs
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|input| {
                Some((input["name"].as_str()?.to_owned(), input["datatype"].as_str()?.to_owned()))
            })
            .collect();
        match said.as_slice() {
            [] => Ok(Self::Matrix("input-0".to_owned(), "FP64".to_owned())),
            all if all.iter().all(|(name, _)| columns.contains(&name.as_str()))
                && all.len() == columns.len() =>
            {
                Ok(Self::Columns(said))
            }
            [(name, datatype)] => Ok(Self::Matrix(name.clone(), datatype.clone())),
            all => {
                let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
                Err(format!(
                    "the server takes the inputs {}, and the model's signature has {}: rows can't be written for it",
                    names.join(", "),
                    columns.join(", ")
                ))
            }
        }
    }
}

/// The path of a server's model, in the version that is pinned.
pub(crate) fn model_path(start: &str, server: &Server) -> String {
    let version = server.version.as_ref().map_or_else(String::new, |v| format!("/versions/{}", encode(v)));
    format!("{start}{}{version}", encode(&server.model))
}

/// Reads one number a row from tensors: the only output, or the one that is called a probability or a score; of two classes'
/// probabilities the second.
fn read_outputs(body: &[u8], rows: usize) -> Result<Vec<f64>, AgentError> {
    let fail = |what: String| AgentError::Gate(format!("the release's answer can't be used: {what}"));
    let value: Value =
        serde_json::from_slice(body).map_err(|e| fail(format!("not finite, or no JSON: {e}")))?;
    let outputs = value["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = ["probability", "probabilities", "predict_proba", "score", "scores", "prediction", "predict"];
    let by_name = || named.iter().find_map(|name| outputs.iter().find(|o| o["name"] == *name));
    let output = match outputs {
        [only] => only,
        _ => by_name().ok_or_else(|| fail("it has no output that could be the score".to_owned()))?,
    };
    let mut flat = Vec::new();
    flatten(&output["data"], &mut flat);
    if rows == 0 || flat.len() % rows != 0 || flat.is_empty() {
        return Err(fail(format!("{} values for {rows} rows", flat.len())));
    }
    let width = flat.len() / rows;
    flat.chunks(width)
        .map(|row| match row {
            [one] | [_, one] => score(one).ok_or_else(|| fail(format!("`{one}` is no number"))),
            _ => Err(fail(format!("{width} values for a row"))),
        })
        .collect()
}

fn flatten<'v>(data: &'v Value, out: &mut Vec<&'v Value>) {
    match data {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, out)),
        other => out.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(layout: Layout) -> RowForm {
        RowForm { path: String::new(), layout }
    }

    #[test]
    fn a_server_s_metadata_says_how_rows_are_written() {
        let of = |inputs: Value, columns: &[&str]| Layout::of(&inputs, columns);
        let input = |name: &str| json!({"name": name, "datatype": "FP32", "shape": [-1, 2]});
        let matrix = |name: &str, kind: &str| Ok(Layout::Matrix(name.to_owned(), kind.to_owned()));
        assert_eq!(of(json!([]), &["a", "b"]), matrix("input-0", "FP64"));
        assert_eq!(of(Value::Null, &["a", "b"]), matrix("input-0", "FP64"));
        assert_eq!(of(json!([input("x")]), &["a", "b"]), matrix("x", "FP32"));
        let both = of(json!([input("b"), input("a")]), &["a", "b"]).unwrap();
        let body =
            form(both).request(&["a", "b"], &[vec![json!(1), json!(2)], vec![json!(3), json!(4)]]).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body["inputs"][0],
            json!({"name": "b", "shape": [2, 1], "datatype": "FP32", "data": [2, 4]})
        );
        assert!(of(json!([input("a"), input("c")]), &["a", "b"]).unwrap_err().contains("a, c"));
        let text = form(matrix("x", "FP32").unwrap()).request(&["a"], &[vec![json!("text")]]);
        assert!(text.unwrap_err().to_string().contains("`x`"));
    }

    #[test]
    fn scores_are_read_from_tensors_and_nothing_else_passes() {
        let read = |body: &str, rows| form(Layout::Columns(vec![])).scores(body.as_bytes(), rows);
        assert_eq!(read(r#"{"outputs":[{"name":"y","data":[0.5,1]}]}"#, 2).unwrap(), [0.5, 1.0]);
        assert_eq!(
            read(r#"{"outputs":[{"name":"y","data":[[0.9,0.1],[0.2,0.8]]}]}"#, 2).unwrap(),
            [0.1, 0.8]
        );
        let two = r#"{"outputs":[{"name":"label","data":[7]},{"name":"probability","data":[0.7]}]}"#;
        assert_eq!(read(two, 1).unwrap(), [0.7]);
        for (bad, rows) in [
            (r#"{"outputs":[]}"#, 1),
            (r#"{"outputs":[{"name":"y","data":[]}]}"#, 1),
            (r#"{"outputs":[{"name":"y","data":[1]}]}"#, 2),
            (r#"{"outputs":[{"name":"y","data":[1,2,3]}]}"#, 1),
            (r#"{"outputs":[{"name":"y","data":["a"]}]}"#, 1),
            (r#"{"outputs":[{"name":"y","data":[NaN]}]}"#, 1),
            (r#"{"outputs":[{"name":"a","data":[1]},{"name":"b","data":[1]}]}"#, 1),
            ("", 1),
        ] {
            assert!(read(bad, rows).is_err(), "{bad}");
        }
    }
}
