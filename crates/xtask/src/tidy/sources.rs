//! How long files are, and words that sources must not contain.

use super::Findings;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A Rust file this long should be split soon, and one this long must be.
const LONG: usize = 500;
const TOO_LONG: usize = 800;

/// Files that may be longer, each with the reason.
const MAY_BE_LONG: &[(&str, &str)] = &[];

/// Folders that hold sources.
const ROOTS: &[&str] = &["crates", "tests", "benches", "examples", "python", ".ci"];
/// Folders, anywhere, that hold what was made or fetched.
const SKIPPED: &[&str] = &[
    "target",
    "dist",
    "data",
    "models",
    "mlruns",
    "node_modules",
    "__pycache__",
    ".venv",
    ".lockgate",
    ".git",
];
/// What is text of ours, by extension.
const EXTENSIONS: &[&str] =
    &["rs", "toml", "sql", "py", "sh", "js", "css", "html", "yml", "yaml", "json", "snap", "txt", "md"];

/// Notes to self, which belong in an issue. In two parts, so that this file doesn't contain them.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// The example's subject. Nothing in `crates/` knows it but the command that shows it.
const SUBJECT: &str = concat!("fli", "ght");
/// Where the example may be named: the demo's own files, and the build script that packs the example for it.
const DEMO: &[&str] = &["crates/lockgate/src/commands/demo", "crates/lockgate/build.rs"];

/// What pure crates must not reach for outside their tests, and crates that are pure.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::thread",
];
const PURE: &[&str] = &["crates/lockgate-core/src", "crates/lockgate-stats/src", "crates/lockgate-wire/src"];

pub(super) fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    for folder in ROOTS.iter().map(|name| root.join(name)).filter(|folder| folder.is_dir()) {
        for path in files(&folder)? {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // Not text: a fixture of bytes.
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            check_file(&name, &text, findings);
        }
    }
    Ok(())
}

/// All text files below a folder, in a fixed order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                open.push(path);
            } else if kind.is_file()
                && path.extension().is_none_or(|e| EXTENSIONS.iter().any(|known| e == *known))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn check_file(name: &str, text: &str, findings: &mut Findings) {
    if name.ends_with(".rs") {
        check_length(name, text.lines().count(), findings);
    }
    let pure = name.ends_with(".rs") && PURE.iter().any(|folder| name.starts_with(folder));
    let names_subject = name.starts_with("crates/") && !DEMO.iter().any(|own| name.starts_with(own));
    let mut in_tests = name.contains("/tests/") || name.ends_with("/tests.rs");
    for (number, line) in text.lines().enumerate() {
        let mut problem = |text: String| findings.problems.push(format!("{name}:{}: {text}", number + 1));
        if let Some(note) = words(line).find(|word| NOTES.contains(word)) {
            problem(format!("{note} belongs in an issue"));
        }
        if names_subject && is_about_subject(line) {
            problem(format!("names the example ({SUBJECT}); only the demo may ({})", DEMO.join(", ")));
        }
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        if let Some(found) = IMPURE.iter().find(|found| pure && !in_tests && is_code_with(line, found)) {
            problem(format!("{found} in a pure crate; take what it gives as an argument"));
        }
    }
}

fn check_length(name: &str, lines: usize, findings: &mut Findings) {
    if lines <= LONG || MAY_BE_LONG.iter().any(|(path, _)| *path == name) {
        return;
    }
    let text = format!("{name} has {lines} lines; split it by subject");
    if lines > TOO_LONG {
        findings.problems.push(format!("{text} ({TOO_LONG} is the most)"));
    } else {
        findings.warnings.push(text);
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// Whether a line speaks of the example; requests *in flight* don't.
fn is_about_subject(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let mut before = "";
    words(&lower).any(|word| {
        let about =
            (word.starts_with(SUBJECT) && before != "in") || word.contains(concat!("nyc", "fli", "ghts"));
        before = word;
        about
    })
}

fn is_code_with(line: &str, path: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(path).any(|(at, _)| {
        let next = code.get(at + path.len()..).and_then(|rest| rest.chars().next());
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check_file(name, text, &mut findings);
        findings.problems
    }

    #[test]
    fn finds_notes_to_self() {
        for note in NOTES {
            assert_eq!(problems("python/x.py", &format!("ok\n# {note}: later")).len(), 1);
            assert!(
                problems("tests/x.py", &format!("# {note}S and a{note}b")).is_empty(),
                "whole words only"
            );
        }
        assert_eq!(
            problems("crates/a/b.rs", &format!("\n{}", NOTES[0]))[0].split(": ").next(),
            Some("crates/a/b.rs:2")
        );
    }

    #[test]
    fn finds_the_examples_name() {
        let capital = format!("F{}", &SUBJECT[1..]);
        for text in [
            SUBJECT.to_owned(),
            format!("{SUBJECT}s"),
            format!("{SUBJECT}_id"),
            format!("{SUBJECT}-delays"),
            capital,
        ] {
            assert_eq!(problems("crates/lockgate-core/src/a.rs", &text).len(), 1, "{text}");
            assert!(problems("crates/lockgate/src/commands/demo.rs", &text).is_empty());
            assert!(problems("crates/lockgate/src/commands/demo/story.rs", &text).is_empty());
            assert!(problems("examples/a/b.py", &text).is_empty());
        }
        assert_eq!(problems("crates/a.rs", concat!("import nyc", "fli", "ghts13")).len(), 1);
        for text in ["in {}", "in-{}", "in_{}", "In{}", "in{}_requests"] {
            assert!(
                problems("crates/lockgate-core/src/a.rs", &text.replace("{}", SUBJECT)).is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn finds_impurity_outside_tests_only() {
        let line = "let text = std::fs::read(path);";
        assert_eq!(problems("crates/lockgate-core/src/a.rs", line).len(), 1);
        assert_eq!(problems("crates/lockgate-wire/src/a.rs", "use std::time::Instant;").len(), 1);
        assert!(
            problems("crates/lockgate-core/src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {line} }}"))
                .is_empty()
        );
        assert!(problems("crates/lockgate-core/src/a.rs", "/// not std::fs, ever").is_empty());
        assert!(problems("crates/lockgate-core/tests/a.rs", line).is_empty());
        assert!(problems("crates/lockgate-store/src/a.rs", line).is_empty());
    }

    #[test]
    fn measures_rust_files() {
        let check = |name: &str, lines: usize| {
            let mut findings = Findings::default();
            check_file(name, &"\n".repeat(lines), &mut findings);
            (findings.warnings.len(), findings.problems.len())
        };
        assert_eq!(check("crates/a.rs", LONG), (0, 0));
        assert_eq!(check("crates/a.rs", LONG + 1), (1, 0));
        assert_eq!(check("crates/a.rs", TOO_LONG), (1, 0));
        assert_eq!(check("crates/a.rs", TOO_LONG + 1), (0, 1));
        assert_eq!(check("crates/a.json", TOO_LONG + 1), (0, 0));
    }

    #[test]
    fn skips_what_was_made_and_reads_the_rest() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = files(own).unwrap();
        assert!(found.contains(&own.join("Cargo.toml")) && found.contains(&own.join("src/main.rs")));
        assert!(files(&own.join("no such folder")).is_err());
    }
}
