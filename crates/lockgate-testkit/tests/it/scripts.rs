//! Every script tells the story that stands beside it. To take new stories over: `UPDATE_STORIES=1 cargo test -p lockgate-testkit`.

use crate::parts;
use lockgate_testkit::story::tell_all;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const SEED: u64 = 2026;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

fn stems(extension: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(scripts()).unwrap().map(|f| f.unwrap().path());
    let of = files.filter(|f| f.extension().is_some_and(|e| e == extension));
    of.map(|f| f.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// What is wrong with a script's story, if anything.
fn wrong(name: &str) -> Option<String> {
    let script = std::fs::read_to_string(scripts().join(format!("{name}.txt"))).unwrap();
    let (story, ended) = tell_all(&script, SEED, parts());
    let path = scripts().join(format!("{name}.out"));
    if std::env::var_os("UPDATE_STORIES").is_some() {
        std::fs::write(&path, &story).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    match ended {
        Err(why) => Some(format!("{name}: {why}\n{story}")),
        Ok(_) if known != story => Some(format!("{name}: it tells another story now:\n{story}")),
        Ok(_) => None,
    }
}

#[test]
fn every_script_tells_its_story() {
    let names = stems("txt");
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = names.iter().map(|name| scope.spawn(|| wrong(name))).collect();
        all.into_iter().filter_map(|one| one.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(names, stems("out"), "a story is left of a script that is gone");
}

#[test]
fn a_script_says_what_is_wrong_with_it() {
    for (script, expected) in [
        ("run 5s", "line 1: run 5s: begin with `environment`"),
        ("environment\nrnu 5s", "there is no command `rnu`"),
        ("environment\nrun 5", "`5` is no time"),
        ("environment\nexpect p1 confirmed", "found nothing"),
    ] {
        let why = tell_all(script, SEED, parts()).1.map(|_| ()).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
}
