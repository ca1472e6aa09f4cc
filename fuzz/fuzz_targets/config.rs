//! `lockgate.toml`: any text gives a project or diagnostics, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = lockgate_config::parse(text, "lockgate.toml");
});
