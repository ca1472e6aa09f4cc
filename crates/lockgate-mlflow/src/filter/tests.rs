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

#[test]
fn conditions_about_traces() {
    let trace = |text| one(Noun::Trace, text);
    let number = |name, comparator, value| (Field::Attribute(name), comparator, Operand::Int(value));
    assert_eq!(trace("trace.status = 'OK'"), (Field::Attribute("status"), C::Eq, words("OK")));
    assert_eq!(trace("timestamp > 5"), number("timestamp_ms", C::Gt, 5));
    assert_eq!(trace("trace.execution_time_ms <= 7"), number("execution_time_ms", C::Le, 7));
    assert_eq!(trace("attributes.end_time >= 9"), number("end_time_ms", C::Ge, 9));
    assert_eq!(trace("name LIKE 'a%'"), (Field::Tag("mlflow.traceName".into()), C::Like, words("a%")));
    assert_eq!(trace("run_id = 'r'"), (Field::Link("run"), C::Eq, words("r")));
    assert_eq!(trace("run_id != 'r'"), (Field::Param("mlflow.sourceRun".into()), C::Ne, words("r")));
    assert_eq!(trace("metadata.`mlflow.sourceRun` = 'r'"), (Field::Link("run"), C::Eq, words("r")));
    assert_eq!(
        trace("metadata.`mlflow.trace.session` = 's'"),
        (Field::Attribute("session_id"), C::Eq, words("s"))
    );
    assert_eq!(trace("prompt = 'p/1'"), (Field::Link("prompt"), C::Eq, words("p/1")));
    assert_eq!(trace("issue.id = 'iss-1'"), (Field::Link("issue"), C::Eq, words("iss-1")));
    assert_eq!(trace("request_metadata.k IS NULL"), (Field::Param("k".into()), C::IsNull, Operand::None));
    assert_eq!(trace("tag.`a b` != 'x'"), (Field::Tag("a b".into()), C::Ne, words("x")));
    assert_eq!(trace("span.type = 'LLM'"), (Field::Span("kind"), C::Eq, words("LLM")));
    assert_eq!(
        trace("span.attributes.city ILIKE '%Bern%'"),
        (Field::SpanAttribute("city".into()), C::Ilike, words("%Bern%"))
    );
    let attribute = || Field::SpanAttribute("city".into());
    assert_eq!(trace("span.attributes.city = 'Bern'"), (attribute(), C::Eq, words("Bern")));
    let list = Operand::Texts(vec!["a".into(), "b".into()]);
    assert_eq!(trace("span.attributes.`city` NOT IN ('a', 'b')"), (attribute(), C::NotIn, list));
    for (text, field) in [
        ("name", Field::Tag("mlflow.traceName".into())),
        ("tags.t", Field::Tag("t".into())),
        ("metadata.m", Field::Param("m".into())),
        ("client_request_id", Field::Attribute("client_request_id")),
        ("span.type", Field::Span("kind")),
        ("span.attributes.city", attribute()),
        ("feedback.f", Field::Assessment("feedback", "f".into())),
    ] {
        let filter = format!("{text} RLIKE '^a|b$'");
        assert_eq!(one(Noun::Trace, &filter), (field, C::Rlike, words("^a|b$")), "{text}");
    }
    assert!(clauses(Noun::Run, "tags.t RLIKE 'a'").is_err());
    assert_eq!(trace("trace.text LIKE '%x%'"), (Field::Span("content"), C::Like, words("%x%")));
    let feedback = |name: &str| Field::Assessment("feedback", name.into());
    let either = Operand::Texts(vec!["yes".into(), "\"yes\"".into()]);
    assert_eq!(trace("feedback.ok = 'yes'"), (feedback("ok"), C::Eq, either));
    assert_eq!(trace("feedback.score >= 0.8"), (feedback("score"), C::Ge, Operand::Real(0.8)));
    assert_eq!(
        trace("expectation.e IS NOT NULL"),
        (Field::Assessment("expectation", "e".into()), C::IsNotNull, Operand::None)
    );
    for bad in [
        "status IS NULL",
        "status > 'OK'",
        "timestamp_ms = 'x'",
        "name IN ('a')",
        "prompt = 'p'",
        "prompt != 'p/1'",
        "prompt = 'a/b/c'",
        "span.nothing = 'x'",
        "span.attributes. = 'x'",
        "trace.text = 'x'",
        "feedback.x > 'a'",
        "feedback.x = 1",
        "feedback.x IN ('a')",
        "issue.name = 'x'",
        "metadata.k IN ('a')",
        "metrics.m > 1",
        "nothing = 'x'",
        "timestamp_ms RLIKE '1'",
        "trace.text RLIKE 'x'",
        "prompt RLIKE 'x'",
    ] {
        assert!(clauses(Noun::Trace, bad).is_err(), "{bad}");
    }
    let order =
        |text: &str| super::orders(Noun::Trace, &[text.to_owned()]).map(|mut found| found.remove(0).field);
    assert_eq!(order("timestamp DESC").unwrap(), Field::Attribute("timestamp_ms"));
    assert_eq!(order("tags.k").unwrap(), Field::Tag("k".into()));
    assert_eq!(order("metadata.k ASC").unwrap(), Field::Param("k".into()));
    assert!(order("client_request_id").is_err() && order("feedback.x").is_err());
}

const NOUNS: [Noun; 6] =
    [Noun::Experiment, Noun::Run, Noun::LoggedModel, Noun::RegisteredModel, Noun::ModelVersion, Noun::Trace];

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
