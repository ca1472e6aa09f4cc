//! The crate beside reference values (`tests/fixtures`, see the README of the fixtures' source), and its laws.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod betting;
mod crossing;
mod decision;
mod hostile;
mod laws;
mod many;
mod planning;
mod reference;

use serde::de::DeserializeOwned;

/// Reads one of the reference files.
fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Equal to 1e-8, relative (absolute below 1).
#[track_caller]
fn assert_close(ours: f64, reference: f64, what: &str) {
    assert_within(ours, reference, 1e-8, what);
}

#[track_caller]
fn assert_within(ours: f64, reference: f64, tolerance: f64, what: &str) {
    let scale = reference.abs().max(1.0);
    assert!((ours - reference).abs() <= tolerance * scale, "{what}: {ours} and not {reference}");
}
