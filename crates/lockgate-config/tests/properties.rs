//! No input panics; a mistake that is put somewhere is found there.

use lockgate_config::{Override, Severity, overlay, parse};
use proptest::prelude::*;

const REGULATED: &str = include_str!("fixtures/regulated.toml");
const SMALL: &str = include_str!("fixtures/small-team.toml");

/// Bits of TOML and of our own words, so that random texts get past the parser.
fn fragment() -> impl Strategy<Value = String> {
    let words = vec![
        "project",
        "env",
        "gate",
        "guard",
        "model",
        "pipeline",
        "gates",
        "like",
        "after",
        "kind",
        "rollout",
        "remove",
        "vars",
        "data",
        "approve",
        "from",
        "versus",
        "\"x\"",
        "\"metric\"",
        "\"rate\"",
        "\"canary 5% for 15m\"",
        "\"100%\"",
        "\"dev\"",
        "dev",
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        " ",
        "1",
        "-1",
        "0.5",
        "true",
        "nan",
        "inf",
        "99999999999999999999",
        "1979-05-27",
        "[[",
        "]]",
        "\"",
        "'''",
        "#",
        "\u{0}",
        "é",
        "\u{feff}",
        "remove = true",
        "[env.dev]\n",
        "[env.dev.",
        "after = \"dev\"\n",
        "like = \"dev\"\n",
    ];
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in fragment()) {
        let _ = parse(&text, "f");
    }

    #[test]
    fn no_damage_to_a_right_file_panics(at in 0..REGULATED.len(), len in 0_usize..40, insert in fragment(), small in any::<bool>()) {
        let text = if small { SMALL } else { REGULATED };
        let start = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let end = (start + len..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        let damaged = format!("{}{insert}{}", &text[..start], &text[end.max(start)..]);
        if let Err(errors) = parse(&damaged, "f") {
            prop_assert!(errors.0.iter().any(|d| d.severity == Severity::Error), "an error without an error");
            let lines = u32::try_from(damaged.split('\n').count()).unwrap();
            for d in &errors.0 {
                prop_assert!(d.line <= lines, "{d}");
            }
        }
    }

    #[test]
    fn no_setting_panics(path in prop::collection::vec("[A-Za-z_\".]{0,8}", 0..6), value in fragment(), known in any::<bool>()) {
        let name = if known { format!("LOCKGATE__ENV__DEV__{}", path.join("__")) } else { format!("LOCKGATE__{}", path.join("__")) };
        let mut settings = Override::from_variables([(name, value.clone())]);
        settings.extend(Override::from_set(&format!("{}={value}", path.join("."))));
        let _ = overlay(REGULATED, "f", &settings);
    }

    /// An unknown key in any table of the file is reported at the very line and column where it stands.
    #[test]
    fn an_unknown_key_is_found_where_it_stands(pick in any::<prop::sample::Index>(), indent in 0_usize..6) {
        let headers: Vec<usize> = SMALL.lines().enumerate().filter(|(_, l)| l.starts_with('[')).map(|(i, _)| i).collect();
        let after = headers[pick.index(headers.len())];
        let mut lines: Vec<String> = SMALL.lines().map(str::to_owned).collect();
        lines.insert(after + 1, format!("{}qqqqqqqqqqqq = 1", " ".repeat(indent)));
        let errors = parse(&lines.join("\n"), "f").unwrap_err();
        let errors: Vec<_> = errors.0.iter().filter(|d| d.severity == Severity::Error).collect();
        prop_assert_eq!(errors.len(), 1, "{:?}", errors);
        prop_assert_eq!((errors[0].line as usize, errors[0].column as usize), (after + 2, indent + 1));
    }
}
