//! The JSON schema of `lockgate.toml`, from the same declarations that the check walks.
//!
//! It says what one key can say by itself. What only the whole file can tell (references, cycles, steps that grow) is the
//! business of [`crate::parse`].

use crate::format::Format;
use crate::keys::ROOT;
use crate::shape::{Bounds, Key, Kind, Later, Length, Names, Shape, Tagged};
use serde_json::{Map, Value, json};

/// The schema, in JSON Schema's draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut root = table(ROOT, &[]);
    if let Value::Object(map) = &mut root {
        map.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".to_owned(), json!("lockgate.toml"));
    }
    root
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Text(format) => text(*format),
        Shape::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Number(Bounds { min, max, open: true }) => {
            json!({"type": "number", "exclusiveMinimum": min, "exclusiveMaximum": max})
        }
        Shape::Number(Bounds { min, max, open: false }) => {
            json!({"type": "number", "minimum": min, "maximum": max})
        }
        Shape::Flag => json!({"type": "boolean"}),
        Shape::True => json!({"const": true}),
        Shape::Scalar => json!({"type": ["string", "number", "boolean"]}),
        Shape::List(item, length) => {
            let mut list = json!({"type": "array", "items": of(item)});
            if *length == Length::AtLeastOne {
                list["minItems"] = json!(1);
            }
            if !matches!(item, Shape::Text(Format::Step)) {
                list["uniqueItems"] = json!(true);
            }
            list
        }
        Shape::Table(keys) => table(keys, &[]),
        Shape::Map(names) => map(names),
        Shape::Tagged(tagged) => kinds(tagged, true),
        Shape::Overrides(tagged) => overrides(tagged),
        Shape::Either(shapes) => json!({"anyOf": shapes.iter().map(of).collect::<Vec<_>>()}),
    }
}

fn text(format: Format) -> Value {
    let mut schema = json!({"type": "string"});
    if let Some(words) = format.words() {
        schema["enum"] = json!(words);
    }
    if let Some(pattern) = format.pattern() {
        schema["pattern"] = json!(pattern);
    }
    schema
}

/// `{ remove = true }`, which can stand for an entry that is inherited.
fn or_removed(schema: Value) -> Value {
    let remove = json!({
        "type": "object", "properties": {"remove": {"const": true}}, "required": ["remove"], "additionalProperties": false
    });
    json!({"anyOf": [schema, remove]})
}

/// A table with declared keys and some more properties.
fn table(keys: &[Key], more: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        properties.insert(key.name.to_owned(), described(of(&key.shape), key));
    }
    for (name, schema) in more {
        properties.insert((*name).to_owned(), schema.clone());
    }
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn described(mut schema: Value, key: &Key) -> Value {
    let later = if key.later == Later::Now { "" } else { " (not yet supported)" };
    schema["description"] = json!(format!("{}{later}", key.doc));
    schema
}

fn map(names: &Names) -> Value {
    let mut named = text(names.form);
    named["minLength"] = json!(1);
    // What is in an environment can be inherited, and so removed.
    let value = match (&names.shape, names.noun) {
        (Shape::Table(keys), "environment") => environment(keys),
        (Shape::Tagged(_) | Shape::Overrides(_), _) => or_removed(of(&names.shape)),
        (shape, _) if names.open => or_removed(of(shape)),
        (shape, _) => of(shape),
    };
    let mut schema = json!({"type": "object", "propertyNames": named, "additionalProperties": value});
    if let Shape::Tagged(tagged) = &names.shape {
        for name in names.built_in {
            schema["properties"][*name] = or_removed(kinds(tagged, false));
        }
    }
    schema
}

fn environment(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        properties.insert(key.name.to_owned(), described(or_removed(of(&key.shape)), key));
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn kinds(tagged: &Tagged, with_kind: bool) -> Value {
    let one = |kind: &Kind| {
        let mut schema = table(kind.keys, &[("kind", json!({"const": kind.name}))]);
        if with_kind {
            let mut required = vec![json!("kind")];
            required.extend(schema["required"].as_array().cloned().unwrap_or_default());
            schema["required"] = json!(required);
        }
        schema["description"] = json!(kind.doc);
        schema
    };
    json!({"anyOf": tagged.kinds.iter().map(one).collect::<Vec<_>>()})
}

/// Any of the keys of any kind, each by any of its declarations.
fn overrides(tagged: &Tagged) -> Value {
    let mut properties = Map::new();
    for name in tagged.key_names() {
        let mut shapes: Vec<Value> = Vec::new();
        for key in tagged.kinds.iter().flat_map(|kind| kind.keys).filter(|key| key.name == name) {
            let shape = of(&key.shape);
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        properties.insert(name.to_owned(), or_removed(json!({"anyOf": shapes})));
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}
