//! What is wrong with a request, and how each protocol says it.

use crate::json::write;

/// A request (or an answer) that can't be read or doesn't fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct WireError {
    /// The HTTP status that tells it: 400, 413 or 415; 500 where an answer can't be written.
    pub status: u16,
    /// What was wrong and what was expected.
    pub message: String,
    /// Which part of the body: `inputs[0].data`, a column's name.
    pub field: Option<String>,
}

impl WireError {
    /// Something in the body is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), field: None }
    }

    /// The body is larger than allowed.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { status: 413, message: message.into(), field: None }
    }

    /// The body is of a kind that isn't understood.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { status: 415, message: message.into(), field: None }
    }

    /// The model's answer has no form in this protocol.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, message: message.into(), field: None }
    }

    /// Names the field; an inner name is appended to it (`inputs[0]` around `data` gives `inputs[0].data`).
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(match self.field {
            None => field.to_owned(),
            Some(inner) if inner.starts_with('[') => format!("{field}{inner}"),
            Some(inner) => format!("{field}.{inner}"),
        });
        self
    }

    /// The sentence: the field, then what is wrong with it.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.field {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// The body that the Open Inference Protocol gives an error: `{"error": ...}`.
    #[must_use]
    pub fn oip_body(&self) -> Vec<u8> {
        oip_error(&self.text())
    }

    /// The body that MLflow's scoring server gives an error.
    #[must_use]
    pub fn mlflow_body(&self) -> Vec<u8> {
        let code = if self.status < 500 { "BAD_REQUEST" } else { "INTERNAL_ERROR" };
        mlflow_error(code, &self.text())
    }
}

/// `{"error": message}`.
#[must_use]
pub fn oip_error(message: &str) -> Vec<u8> {
    let mut body = b"{\"error\":".to_vec();
    write::string(&mut body, message);
    body.push(b'}');
    body
}

/// MLflow's error body: `{"error_code": code, "message": message}`.
#[must_use]
pub fn mlflow_error(code: &str, message: &str) -> Vec<u8> {
    let mut body = b"{\"error_code\":".to_vec();
    write::string(&mut body, code);
    body.extend_from_slice(b",\"message\":");
    write::string(&mut body, message);
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_and_name_the_field() {
        let error = WireError::bad("a \"string\" where FP32 was expected").at("data").at("inputs[0]");
        let body: serde_json::Value = serde_json::from_slice(&error.oip_body()).unwrap();
        assert_eq!(body["error"], "inputs[0].data: a \"string\" where FP32 was expected");
        let body: serde_json::Value = serde_json::from_slice(&error.mlflow_body()).unwrap();
        assert_eq!(body["error_code"], "BAD_REQUEST");
    }
}
