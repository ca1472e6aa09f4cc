//! The grammar, with examples from MLflow's documentation.

use super::*;
use lockgate_control::tracking::{Comparator as C, Field, Operand};
use proptest::prelude::*;

fn one(noun: Noun, text: &str) -> (Field, C, Operand) {
    let mut found = clauses(noun, text).unwrap();
    assert_eq!(found.len(), 1, "{text}");
    let clause = found.remove(0);
    (clause.field, clause.comparator, clause.operand)
}

fn words(text: &str) -> Operand {
    Operand::Text(text.to_owned())
}

fn error(noun: Noun, text: &str) -> String {
    clauses(noun, text).expect_err(text).to_string()
}

#[test]
fn conditions_about_runs() {
    let run = |text| one(Noun::Run, text);
    assert_eq!(run("metrics.auc >= 0.9"), (Field::Metric("auc".into()), C::Ge, Operand::Real(0.9)));
    assert_eq!(run("metric.`a b`<-1e3"), (Field::Metric("a b".into()), C::Lt, Operand::Real(-1000.0)));
    assert_eq!(run("params.\"x.y\" like '%a'"), (Field::Param("x.y".into()), C::Like, words("%a")));
    assert_eq!(run("tags.`mlflow.user` = \"ana\""), (Field::Tag("mlflow.user".into()), C::Eq, words("ana")));
    assert_eq!(run("tags.mlflow.user != 'it is'"), (Field::Tag("mlflow.user".into()), C::Ne, words("it is")));
    assert_eq!(run("tags.x IS NOT NULL"), (Field::Tag("x".into()), C::IsNotNull, Operand::None));
    assert_eq!(run("status = 'FINISHED'"), (Field::Attribute("status"), C::Eq, words("FINISHED")));
    assert_eq!(run("attributes.Created > 5"), (Field::Attribute("start_time"), C::Gt, Operand::Int(5)));
    assert_eq!(run("`Run Name` = 'x'"), (Field::Attribute("run_name"), C::Eq, words("x")));
    assert_eq!(
        run("run_id NOT IN ('a', 'b',)"),
        (Field::Attribute("run_id"), C::NotIn, Operand::Texts(vec!["a".into(), "b".into()]))
    );
    assert_eq!(run("dataset.name ILIKE 'd%'"), (Field::Dataset("name"), C::Ilike, words("d%")));
    assert_eq!(clauses(Noun::Run, "metrics.a > 1 and params.b = 'AND' AND tags.c = ''").unwrap().len(), 3);
    assert_eq!(clauses(Noun::Run, "  ").unwrap(), []);
}

#[test]
fn conditions_about_the_registry_and_experiments() {
    assert_eq!(one(Noun::ModelVersion, "name='m'"), (Field::Attribute("name"), C::Eq, words("m")));
    assert_eq!(
        one(Noun::ModelVersion, "version_number >= 2"),
        (Field::Attribute("version_number"), C::Ge, Operand::Int(2))
    );
    let prompt = Field::Tag("mlflow.prompt.is_prompt".into());
    assert_eq!(
        one(Noun::RegisteredModel, "tag.`mlflow.prompt.is_prompt` != 'true'"),
        (prompt.clone(), C::Lacks, words("true"))
    );
    assert_eq!(
        one(Noun::RegisteredModel, "tags.`mlflow.prompt.is_prompt` = 'false'"),
        (prompt, C::Lacks, words("true"))
    );
    assert_eq!(
        one(Noun::Experiment, "experiment_id IN ('1', '2')"),
        (Field::Attribute("experiment_id"), C::In, Operand::Ints(vec![1, 2]))
    );
    assert_eq!(
        one(Noun::LoggedModel, "creation_timestamp_ms < 9"),
        (Field::Attribute("creation_timestamp"), C::Lt, Operand::Int(9))
    );
}

#[test]
fn what_breaks_the_grammar_is_said() {
    let runs = |text| error(Noun::Run, text);
    assert!(runs("metrics.a > 1 OR metrics.b > 2").contains("Invalid clause(s) in filter string: 'OR'"));
    assert!(runs("metrics.a > 1; DROP").contains("contained multiple expression"));
    assert!(runs("metrics.a > '1'").contains("Expected numeric value type for metric. Found '1'"));
    assert!(runs("params.a = 1").contains("not quoted"));
    assert!(runs("metrics.`a = 1 AND metrics.`a = 1").contains("Invalid clause(s)"));
    assert!(runs("weird.a = '1'").contains("Invalid entity type 'weird'"));
    assert!(runs("attribute.nothing = '1'").contains("Invalid attribute key 'nothing'"));
    assert!(runs("params.a = 'x").contains("not closed"));
    for bad in [
        "metrics.a",
        "metrics.a >",
        "> 1",
        "(metrics.a > 1)",
        "metrics.a > 1 AND",
        "metrics.a IN (1)",
        "run_id IN ()",
        "run_id IN 'a'",
        "params.a > '1'",
        "metrics.a > inf",
        "metrics.a > nan",
        "status IN ('x')",
        "tags.a IS",
        "tags.a NOT 'x'",
        "metrics.a > 1 metrics.b > 2",
        "=",
        "`",
        "'",
        "run_id IN ('a' 'b')",
    ] {
        assert!(clauses(Noun::Run, bad).is_err(), "{bad}");
    }
    assert!(error(Noun::ModelVersion, "version_number > 1.5").contains("numeric attribute 'version_number'"));
    assert!(clauses(Noun::RegisteredModel, "tags.a IS NULL").is_err());
    assert!(clauses(Noun::LoggedModel, "metric.a > 1").is_err());
    assert!(clauses(Noun::Experiment, "metrics.a > 1").is_err());
}

#[test]
fn orders() {
    let one = |noun, text: &str| super::orders(noun, &[text.to_owned()]).map(|mut found| found.remove(0));
    let order = one(Noun::Run, "metrics.`a b` desc").unwrap();
    assert_eq!((order.field, order.ascending), (Field::Metric("a b".into()), false));
    assert_eq!(one(Noun::Run, "start_time").unwrap().field, Field::Attribute("start_time"));
    assert_eq!(one(Noun::Run, "Run Name DESC").unwrap().field, Field::Attribute("run_name"));
    assert_eq!(
        one(Noun::RegisteredModel, "timestamp ASC").unwrap().field,
        Field::Attribute("last_updated_timestamp")
    );
    for bad in ["", "metrics.a b c", "nothing", "start_time DOWN", "dataset.name", "'"] {
        assert!(one(Noun::Run, bad).is_err(), "{bad}");
    }
    assert!(one(Noun::Experiment, "tags.a").is_err());
    let twice = super::orders(Noun::Run, &["run_id".to_owned(), "attribute.run_id DESC".to_owned()]);
    assert!(twice.unwrap_err().to_string().contains("duplicate fields"));
}

const NOUNS: [Noun; 5] =
    [Noun::Experiment, Noun::Run, Noun::LoggedModel, Noun::RegisteredModel, Noun::ModelVersion];

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        for noun in NOUNS {
            let _either = clauses(noun, &text);
            let _either = super::orders(noun, std::slice::from_ref(&text));
        }
    }

    #[test]
    fn no_mixture_of_its_words_makes_the_parser_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "metrics.a", "tags.`b", "'", "\"x\"", "IN", "NOT", "IS", "NULL", "(", ")", ",", "=", "!=", "<", "1", "-1e9",
            "AND", "LIKE", "run_id", ".", "`", "ü", ";", "dataset.name", "version_number", "experiment_id",
        ]), 0..12),
        blank in prop::sample::select(vec!["", " ", "\n"]),
    ) {
        for noun in NOUNS {
            let _either = clauses(noun, &words.join(blank));
        }
    }

    #[test]
    fn a_quoted_value_is_kept_as_it_is(value in "[^'\u{0}]{0,40}") {
        prop_assert_eq!(one(Noun::Run, &format!("params.k = '{value}'")).2, words(&value));
    }
}
