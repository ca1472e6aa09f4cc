//! Numbers in JSON, also those that JSON has no form for.

use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    match value {
        v if v.is_nan() => to.serialize_str("NaN"),
        v if v.is_infinite() => to.serialize_str(if *v > 0.0 { "Infinity" } else { "-Infinity" }),
        v => to.serialize_f64(*v),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(f64),
        Text(String),
    }
    match Either::deserialize(from)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => {
            text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is no number")))
        }
    }
}
