//! A corpus of wrong files: every mistake is told, at its place, with what to do.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use lockgate_config::{Diagnostics, parse};
use std::path::{Path, PathBuf};

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 15, "the corpus is there");
    files
}

fn errors(text: &str) -> Diagnostics {
    parse(text, "lockgate.toml").unwrap_err()
}

#[test]
fn every_file_of_the_corpus_gets_the_diagnostics_that_are_checked_in() {
    for file in corpus() {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_snapshot!(name, errors(&text).to_string(), &text);
    }
}

/// In the corpus `#!` in a comment marks a line that must have an error: no marked line is silent, no other line speaks.
#[test]
fn errors_stand_on_the_lines_that_are_wrong_and_on_no_other() {
    for file in corpus() {
        let text = std::fs::read_to_string(&file).unwrap();
        let marked: Vec<u32> =
            text.lines().zip(1..).filter(|(line, _)| line.contains("#!")).map(|(_, number)| number).collect();
        let mut told: Vec<u32> = errors(&text)
            .0
            .iter()
            .filter(|d| d.severity == lockgate_config::Severity::Error)
            .map(|d| d.line)
            .collect();
        told.dedup();
        assert_eq!(told, marked, "{}\n{}", file.display(), errors(&text));
    }
}

#[test]
fn an_error_reads_as_the_design_says() {
    let text = "project = \"p\"\n\n[env.testing]\n  gatez = []\n";
    let shown = errors(text).to_string();
    assert_eq!(
        shown,
        "lockgate.toml:4:3: unknown key `gatez` in [env.testing]\n  help: did you mean `gates`?"
    );
}

#[test]
fn hostile_input_is_refused_and_never_panics() {
    let deep_keys = format!("project = \"p\"\n{}x = 1\n", "a.".repeat(100_000));
    let deep_header = format!("[{}a]\nx = 1\n", "a.".repeat(100_000));
    let quoted = format!("project = \"p\"\n{}x = 1 # \"\n", "a.".repeat(100_000));
    let key = vec!["a"; 79].join(".");
    let deep_tables = format!("{}x = 1{}", format!("{key} = {{").repeat(79), "}".repeat(79));
    let deep_in_texts =
        format!("project = \"p\" # {}\nx = {}1", "[".repeat(50), "{a = \"[[\", b = ".repeat(30));
    let deep_lists = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let large = format!("project = \"p\"\n# {}", "x".repeat(2 << 20));
    let binary = "project = \"p\0\u{1}\"\n[env.\"\u{202e}\"]\n".to_owned();
    for text in [
        deep_keys,
        deep_header,
        quoted,
        deep_tables,
        deep_in_texts,
        deep_lists,
        large,
        binary,
        String::new(),
        "\u{feff}".to_owned(),
    ] {
        let shown = errors(&text).to_string();
        assert!(shown.len() < 100_000, "{} characters", shown.len());
        assert!(shown.starts_with("lockgate.toml:"), "{shown}");
    }
}

#[test]
fn a_secret_in_a_variable_is_not_repeated_in_a_message() {
    let text = "project = \"p\"\n[env.dev.vars]\nPASSWORD = [\"hunter2\"]\nKEY = { value = \"hunter2\" }\n";
    assert!(!errors(text).to_string().contains("hunter2"));
}
