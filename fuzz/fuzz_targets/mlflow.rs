//! What MLflow's clients and OpenTelemetry's exporters send: bodies, filters, orders, spans. Nothing panics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lockgate_mlflow::fuzz::read_everything(bytes));
