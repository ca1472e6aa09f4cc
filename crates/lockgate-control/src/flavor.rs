//! What an `MLmodel` file says of a model: its feature schema, and what runs it.
//!
//! ONNX is preferred: it needs no Python where it serves. Any other model runs in Python, through MLflow's own loader.

use crate::error::ControlError;
use lockgate_core::digest::Digest;
use lockgate_core::release::{File, Runtime};
use lockgate_core::schema::{Column, ColumnType, FeatureSchema};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The flavour that every model has which MLflow can call from Python.
const PYFUNC: &str = "python_function";

/// The requirements file that MLflow writes with every model.
const REQUIREMENTS: &str = "requirements.txt";

/// What Lockgate reads of an `MLmodel` file.
#[derive(Debug, Deserialize)]
struct MlModel {
    #[serde(default)]
    flavors: BTreeMap<String, Value>,
    #[serde(default)]
    signature: Option<Signature>,
}

#[derive(Debug, Deserialize)]
struct Signature {
    #[serde(default)]
    inputs: Option<String>,
    #[serde(default)]
    outputs: Option<String>,
}

/// One column of a signature as MLflow writes it.
#[derive(Debug, Deserialize)]
struct Spec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    required: Option<bool>,
}

/// The feature schema and the runtime that an `MLmodel` file describes.
pub(crate) fn describe(text: &str, files: &[File]) -> Result<(FeatureSchema, Runtime), ControlError> {
    let model: MlModel = serde_saphyr::from_str(text)
        .map_err(|e| ControlError::invalid(format!("the model's MLmodel file can't be read: {e}")))?;
    let (onnx, pyfunc) = (model.flavors.get("onnx"), model.flavors.get(PYFUNC));
    if onnx.is_none() && pyfunc.is_none() {
        let flavours: Vec<&str> = model.flavors.keys().map(String::as_str).collect();
        return Err(ControlError::invalid(format!(
            "the model has neither an ONNX nor a Python flavour; it has {}",
            if flavours.is_empty() { "none at all".to_owned() } else { flavours.join(", ") }
        ))
        .with_hint("log it with a log_model of MLflow: mlflow.sklearn.log_model, mlflow.onnx.log_model, …"));
    }
    let signature = model.signature.ok_or_else(no_signature)?;
    let runtime = match (onnx, pyfunc) {
        (Some(onnx), _) => {
            let entry = onnx.get("data").and_then(Value::as_str).unwrap_or("model.onnx").to_owned();
            Runtime::Onnx { entry }
        }
        (None, pyfunc) => python(pyfunc.unwrap_or(&Value::Null), &signature, files)?,
    };
    let any = !matches!(runtime, Runtime::Onnx { .. });
    let inputs = columns(signature.inputs.as_deref().unwrap_or("[]"), "input", any)?;
    let outputs = signature.outputs.as_deref().unwrap_or("[]");
    // What Python answers is typed by what it answers; a type that has no name here is no reason to refuse it.
    let outputs = match columns(outputs, "output", any) {
        Err(_) if any => Vec::new(),
        other => other?,
    };
    Ok((FeatureSchema { inputs, outputs }, runtime))
}

/// The feature schema of a model that a server of the team's own runs: what its `MLmodel` file says, where it has one. Without a
/// signature nothing is known of its inputs, and gates that ask rows say so.
pub(crate) fn schema_of_served(text: Option<&str>) -> Result<FeatureSchema, ControlError> {
    let Some(text) = text else { return Ok(FeatureSchema::default()) };
    let model: MlModel = serde_saphyr::from_str(text)
        .map_err(|e| ControlError::invalid(format!("the model's MLmodel file can't be read: {e}")))?;
    let of = |json: Option<&String>, what| {
        columns(json.map_or("[]", String::as_str), what, true).unwrap_or_default()
    };
    let signature = model.signature.as_ref();
    Ok(FeatureSchema {
        inputs: of(signature.and_then(|s| s.inputs.as_ref()), "input"),
        outputs: of(signature.and_then(|s| s.outputs.as_ref()), "output"),
    })
}

fn no_signature() -> ControlError {
    ControlError::invalid("the model has no signature, so nothing can check what it is asked")
        .with_hint("log it with signature=mlflow.models.infer_signature(inputs, outputs)")
}

fn python(pyfunc: &Value, signature: &Signature, files: &[File]) -> Result<Runtime, ControlError> {
    let text = |key: &str| pyfunc.get(key).and_then(Value::as_str).map(str::to_owned);
    let loader = text("loader_module").ok_or_else(|| {
        ControlError::invalid("the model's Python flavour has no loader_module, so MLflow can't load it")
    })?;
    let python = text("python_version").filter(|v| is_version(v)).ok_or_else(|| {
        ControlError::invalid("the model's MLmodel file doesn't say which Python it was made with")
            .with_hint("log it again with a newer MLflow")
    })?;
    // A graph says itself what it takes; Python says nothing.
    let unsaid = |s: &str| serde_json::from_str::<Vec<Value>>(s).is_ok_and(|list| list.is_empty());
    if signature.inputs.as_deref().is_none_or(unsaid) {
        return Err(no_signature());
    }
    if !files.iter().any(|f| f.path == REQUIREMENTS) {
        return Err(ControlError::invalid(format!(
            "the model has no {REQUIREMENTS}, so its Python environment can't be made"
        ))
        .with_hint("log it with MLflow 1.18 or newer, or with pip_requirements=[…]"));
    }
    let said = (without_places(pyfunc), &signature.inputs, &signature.outputs);
    let flavor = Digest::of_json(&said)
        .map_err(|e| ControlError::invalid(format!("the model's MLmodel file can't be used: {e}")))?;
    Ok(Runtime::Python { loader, requirements: REQUIREMENTS.to_owned(), python, flavor })
}

/// Whether a text is a version of Python, at least with its minor part.
fn is_version(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    (2..=4).contains(&numbers.len())
        && numbers
            .iter()
            .take(2)
            .all(|n| !n.is_empty() && n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The flavour without the places that files came from: they are others with each run and load nothing.
fn without_places(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(k, _)| *k != "uri").map(|(k, v)| (k.clone(), without_places(v))).collect(),
        ),
        Value::Array(list) => list.iter().map(without_places).collect(),
        other => other.clone(),
    }
}

/// The columns of a signature; `any` where moments and bytes are taken too.
fn columns(json: &str, what: &str, any: bool) -> Result<Vec<Column>, ControlError> {
    let specs: Vec<Spec> = serde_json::from_str(json)
        .map_err(|e| ControlError::invalid(format!("the model's signature can't be read ({what}s): {e}")))?;
    let mut names = BTreeSet::new();
    let mut columns = Vec::new();
    for (i, spec) in specs.into_iter().enumerate() {
        let kind = match spec.kind.as_str() {
            "boolean" => ColumnType::Boolean,
            "integer" => ColumnType::Integer,
            "long" => ColumnType::Long,
            "float" => ColumnType::Float,
            "double" => ColumnType::Double,
            "string" => ColumnType::String,
            "datetime" if any => ColumnType::Datetime,
            "binary" if any => ColumnType::Binary,
            // A tensor has no columns: requests must name the model's own tensors.
            "tensor" => continue,
            other => {
                return Err(ControlError::invalid(format!(
                    "{what} {} has type `{other}`, which this version can't serve",
                    spec.name.unwrap_or_else(|| i.to_string())
                )));
            }
        };
        let name = spec.name.unwrap_or_else(|| format!("{what}_{i}"));
        if !names.insert(name.clone()) {
            return Err(ControlError::invalid(format!("the model's signature names {what} `{name}` twice")));
        }
        columns.push(Column { name, kind, required: spec.required.unwrap_or(true), range: None });
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MLMODEL: &str = r#"
artifact_path: model
flavors:
  onnx:
    data: model.onnx
    onnx_version: 1.18.0
  python_function:
    loader_module: mlflow.onnx
    python_version: 3.11.7
signature:
  inputs: '[{"type": "float", "name": "a", "required": true}, {"type": "long", "name": "b"}]'
  outputs: '[{"type": "float", "name": "probability", "required": true}]'
  params: null
"#;

    fn files() -> Vec<File> {
        ["MLmodel", "requirements.txt"]
            .map(|path| File { path: path.to_owned(), size: 1, sha256: Digest::of(b"x") })
            .into()
    }

    /// The same model without ONNX.
    fn python_only() -> String {
        MLMODEL
            .replace("  onnx:\n    data: model.onnx\n    onnx_version: 1.18.0\n", "")
            .replace("mlflow.onnx", "mlflow.sklearn")
    }

    fn flavor(text: &str) -> (String, String, Digest) {
        match describe(text, &files()).unwrap().1 {
            Runtime::Python { loader, python, flavor, .. } => (loader, python, flavor),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_mlmodel_file_gives_schema_and_runtime_and_onnx_is_preferred() {
        let (schema, runtime) = describe(MLMODEL, &files()).unwrap();
        assert_eq!(runtime, Runtime::Onnx { entry: "model.onnx".to_owned() });
        let names: Vec<&str> = schema.inputs.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(schema.inputs[1].kind, ColumnType::Long);
    }

    #[test]
    fn a_model_without_onnx_runs_in_python_and_is_another_one_where_it_is_called_otherwise() {
        let text = python_only();
        let (loader, python, first) = flavor(&text);
        assert_eq!((loader.as_str(), python.as_str()), ("mlflow.sklearn", "3.11.7"));
        let called = text.replace("    python_version", "    predict_fn: predict_proba\n    python_version");
        assert_ne!(flavor(&called).2, first);
        let with = |uri: &str| {
            let artifacts = format!("    artifacts: {{a: {{path: a, uri: {uri}}}}}\n    python_version");
            flavor(&text.replace("    python_version", &artifacts)).2
        };
        assert_eq!(with("/tmp/1"), with("/tmp/2"));
        assert_ne!(with("/tmp/1"), first);
    }

    #[test]
    fn python_takes_moments_and_bytes_and_onnx_does_not() {
        let moments = |text: &str| text.replace(r#""type": "long""#, r#""type": "datetime""#);
        let (schema, _) = describe(&moments(&python_only()), &files()).unwrap();
        assert_eq!(schema.inputs[1].kind, ColumnType::Datetime);
        assert!(describe(&moments(MLMODEL), &files()).unwrap_err().to_string().contains("`datetime`"));
    }

    #[test]
    fn what_can_not_be_served_is_said() {
        let error = describe("flavors:\n  sklearn: {}\n", &files()).unwrap_err();
        assert!(
            error.to_string().contains("neither an ONNX nor a Python flavour; it has sklearn"),
            "{error}"
        );
        for text in ["flavors: {onnx: {data: m.onnx}}\n", "flavors: {python_function: {loader_module: m}}\n"]
        {
            let error = describe(text, &files()).unwrap_err();
            assert!(error.to_string().contains("no signature"), "{error}");
            assert!(error.hint().unwrap().contains("infer_signature"));
        }
        let unsaid = python_only().replace(
            r#"'[{"type": "float", "name": "a", "required": true}, {"type": "long", "name": "b"}]'"#,
            "'[]'",
        );
        assert!(describe(&unsaid, &files()).unwrap_err().to_string().contains("no signature"));
        let error = describe(&python_only(), &files()[..1]).unwrap_err();
        assert!(error.to_string().contains("no requirements.txt"), "{error}");
        let old = python_only().replace("python_version: 3.11.7", "python_version: three");
        assert!(describe(&old, &files()).unwrap_err().to_string().contains("which Python"));
        let twice = MLMODEL.replace(r#""name": "b""#, r#""name": "a""#);
        assert!(describe(&twice, &files()).unwrap_err().to_string().contains("twice"));
        assert!(describe(": : :", &files()).is_err());
    }
}
