//! The JSON schema accepts what the parser accepts, and refuses what it can.
//!
//! The validator below knows the keywords that the schema uses, and fails on any other: an editor's validator would ignore a
//! misspelt one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use serde_json::Value;
use std::path::{Path, PathBuf};

fn valid(schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else { panic!("a schema is an object: {schema}") };
    schema.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" => true,
        "type" => match rule {
            Value::Array(types) => types.iter().any(|t| is_type(t.as_str().unwrap(), value)),
            one => is_type(one.as_str().unwrap(), value),
        },
        "const" => rule == value,
        "enum" => rule.as_array().unwrap().contains(value),
        "anyOf" => rule.as_array().unwrap().iter().any(|s| valid(s, value)),
        "pattern" => value
            .as_str()
            .is_none_or(|text| regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
        "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|n| n > rule.as_f64().unwrap()),
        "exclusiveMaximum" => value.as_f64().is_none_or(|n| n < rule.as_f64().unwrap()),
        "minLength" => value.as_str().is_none_or(|t| t.chars().count() as u64 >= rule.as_u64().unwrap()),
        "minItems" => value.as_array().is_none_or(|a| a.len() as u64 >= rule.as_u64().unwrap()),
        "uniqueItems" => {
            value.as_array().is_none_or(|a| a.iter().enumerate().all(|(i, x)| !a[..i].contains(x)))
        }
        "items" => value.as_array().is_none_or(|a| a.iter().all(|item| valid(rule, item))),
        "required" => value
            .as_object()
            .is_none_or(|o| rule.as_array().unwrap().iter().all(|k| o.contains_key(k.as_str().unwrap()))),
        "properties" => {
            value.as_object().is_none_or(|o| o.iter().all(|(k, v)| rule.get(k).is_none_or(|s| valid(s, v))))
        }
        "propertyNames" => {
            value.as_object().is_none_or(|o| o.keys().all(|k| valid(rule, &Value::from(k.as_str()))))
        }
        "additionalProperties" => value.as_object().is_none_or(|o| {
            let known = schema.get("properties");
            o.iter().filter(|(k, _)| known.and_then(|p| p.get(k)).is_none()).all(|(_, v)| match rule {
                Value::Bool(allowed) => *allowed,
                schema => valid(schema, v),
            })
        }),
        other => panic!("the schema uses `{other}`, which this validator doesn't know"),
    })
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("unknown type {other}"),
    }
}

fn json(text: &str) -> Option<Value> {
    serde_json::to_value(text.parse::<toml::Table>().ok()?).ok()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect()
}

#[test]
fn the_schema_accepts_every_right_file() {
    let schema = lockgate_config::schema();
    let mut checked = 0;
    for file in files("tests/fixtures") {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(lockgate_config::parse(&text, "f").is_ok());
        assert!(valid(&schema, &json(&text).unwrap()), "{}", file.display());
        checked += 1;
    }
    assert!(checked >= 2);
}

/// What only the whole file tells is beyond a schema: those files say so with `schema: accepts` in their first line.
#[test]
fn the_schema_refuses_what_one_key_can_tell() {
    let schema = lockgate_config::schema();
    let (mut refused, mut accepted) = (0, 0);
    for file in files("tests/bad") {
        let text = std::fs::read_to_string(&file).unwrap();
        let Some(value) = json(&text) else { continue };
        let beyond = text.lines().next().is_some_and(|line| line.contains("schema: accepts"));
        assert_eq!(valid(&schema, &value), beyond, "{}", file.display());
        if beyond { accepted += 1 } else { refused += 1 }
    }
    assert!(refused >= 6 && accepted >= 4, "{refused} {accepted}");
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(schema: &Value, missing: &mut Vec<String>) {
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let tag = name == "kind" || name == "remove";
            if !tag && property.get("description").is_none() && property.get("anyOf").is_none() {
                missing.push(name.clone());
            }
            walk(property, missing);
        }
        for nested in ["items", "additionalProperties"] {
            schema.get(nested).into_iter().for_each(|s| walk(s, missing));
        }
        schema.get("anyOf").and_then(Value::as_array).into_iter().flatten().for_each(|s| walk(s, missing));
    }
    let mut missing = Vec::new();
    walk(&lockgate_config::schema(), &mut missing);
    assert!(missing.is_empty(), "{missing:?}");
}
