//! The page that says where each scenario is tested: every test that it names must be there, and every scenario on it once.

use super::Findings;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/scenarios.md";

/// Where tests lie.
const ROOTS: &[&str] = &["crates", "tests"];

/// How many scenarios there are.
const SCENARIOS: usize = 60;

pub(super) fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let path = root.join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut sources = Vec::new();
    for folder in ROOTS {
        collect(&root.join(folder), &mut sources)?;
    }
    let found = |name: &str| -> Vec<String> {
        let named = sources.iter().filter(|path| path.ends_with(name));
        named.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    };
    findings.problems.extend(wrong(&page, found));
    Ok(())
}

/// What is wrong with the page; `found` gives the texts of all files whose path ends so.
fn wrong(page: &str, found: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for (place, line) in page.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            let is_there = match word.split_once("::") {
                Some((file, test)) => found(file).iter().any(|text| defines(text, test)),
                None if word.ends_with(".txt") => !found(&format!("scripts/{word}")).is_empty(),
                None => true,
            };
            if !is_there {
                problems.push(format!("{PAGE}:{}: there is no test `{word}`", place + 1));
            }
        }
    }
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let numbers = page.lines().filter_map(|line| line.strip_prefix("| S")?.split_once(" | ")?.0.parse().ok());
    for number in numbers {
        *rows.entry(number).or_default() += 1;
    }
    let missing = (1..=SCENARIOS).filter(|number| rows.get(number) != Some(&1));
    problems.extend(missing.map(|number| format!("{PAGE}: S{number} must have exactly one row")));
    problems
}

/// Whether a text defines a function of this name, in Rust or Python.
fn defines(text: &str, test: &str) -> bool {
    ["fn ", "def "].iter().any(|word| text.contains(&format!("{word}{test}(")))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "rs" || e == "py" || e == "txt") {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_gone_and_a_scenario_without_a_row_are_found() {
        let rows: Vec<String> = (1..=SCENARIOS).map(|n| format!("| S{n} | text |")).collect();
        let found = |name: &str| match name {
            "it/a.rs" => vec!["#[test]\nfn it_holds() {}".to_owned()],
            "test_b.py" => vec!["def test_it(world):".to_owned()],
            "scripts/s01.txt" => vec![String::new()],
            _ => Vec::new(),
        };
        let page = |words: &str| format!("{}\n{words}", rows.join("\n"));
        let right = "`it/a.rs::it_holds`, `test_b.py::test_it`, `s01.txt`, `cargo xtask scenarios`";
        assert_eq!(wrong(&page(right), found), Vec::<String>::new());
        for gone in ["`it/a.rs::it_held`", "`it/c.rs::it_holds`", "`s02.txt`", "`test_b.py::test_i`"] {
            let problems = wrong(&page(gone), found);
            assert!(problems.len() == 1 && problems[0].contains("there is no test"), "{problems:?}");
        }
        let short = page("").replace("| S7 |", "| S8 |");
        let problems = wrong(&short, found);
        assert!(problems.iter().any(|p| p.contains("S7 ")) && problems.iter().any(|p| p.contains("S8 ")));
    }
}
