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
    assert_eq!(run("dataset.context IN ('train')").2, Operand::Texts(vec!["train".into()]));
    // A quote that is said twice is part of the text, as it is written.
    assert_eq!(run("params.a = 'it''s'").2, words("it''s"));
    for nothing in ["", "AND"] {
        assert_eq!(clauses(Noun::Run, nothing).unwrap(), []);
    }
    assert_eq!(clauses(Noun::Run, "and params.a = '1' AND AND params.b = '2' and").unwrap().len(), 2);
}

#[test]
fn conditions_about_the_registry_and_experiments() {
    assert_eq!(one(Noun::ModelVersion, "name='m'"), (Field::Attribute("name"), C::Eq, words("m")));
    assert_eq!(
        one(Noun::ModelVersion, "version_number >= 2"),
        (Field::Attribute("version_number"), C::Ge, Operand::Int(2))
    );
    assert_eq!(one(Noun::ModelVersion, "version_number = '2'").2, Operand::Int(2));
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
}

#[test]
fn conditions_about_logged_models() {
    let model = |text: &str| one(Noun::LoggedModel, text);
    let texts = |all: &[&str]| Operand::Texts(all.iter().map(|text| (*text).to_owned()).collect());
    for created in ["creation_timestamp_ms", "creation_timestamp", "attributes.creation_time"] {
        assert_eq!(
            model(&format!("{created} < 9")),
            (Field::Attribute("creation_timestamp"), C::Lt, Operand::Int(9))
        );
    }
    assert_eq!(model("params.lr = 0.01"), (Field::Param("lr".into()), C::Eq, words("0.01")));
    assert_eq!(
        model("params.x NOT IN ('a', b, 1)"),
        (Field::Param("x".into()), C::NotIn, texts(&["a", "b", "1"]))
    );
    assert_eq!(model("tags.`a b` in ()"), (Field::Tag("a b".into()), C::In, texts(&[])));
    assert_eq!(model("status = 'READY'").2, words("LOGGED_MODEL_READY"));
    assert_eq!(model("status IN ('FAILED')").2, texts(&["LOGGED_MODEL_UPLOAD_FAILED"]));
    assert_eq!(model("experiment_id IN ('1', 2)").2, Operand::Ints(vec![1, 2]));
    assert_eq!(model("artifact_location LIKE 's3:%'").0, Field::Attribute("artifact_location"));
    assert_eq!(model("lifecycle_stage = 'active'").0, Field::Attribute("lifecycle_stage"));
    for (text, said) in [
        ("Foo", "Invalid filter string: 'Foo'"),
        ("name = 'foo' OR name = 'bar'", "Invalid filter string: "),
        ("name = 'a'; DROP", "Invalid filter string: "),
        ("name > 'foo'", "Invalid comparison operator for attributes.name: '>'. Expected one of ('=', "),
        ("metrics.foo LIKE 0", "Invalid comparison operator for metrics.foo: 'LIKE'. Expected one of ('<', "),
        ("params.x IS NULL", "Expected a comparison with 3 tokens"),
        ("params.x ~ 'a'", "Invalid comparison operator for params.x: '~'"),
        ("metric.a > 1", "Invalid entity type: 'metric'"),
        ("metrics.a > 'x'", "Expected numeric value"),
        ("status = 'LOGGED_MODEL_READY'", "Unknown model status in filter"),
        ("status LIKE 'R%'", "Invalid comparison operator for status: LIKE"),
        ("nothing = 'x'", "Invalid attribute key 'nothing'"),
        ("name IN (,)", "ill-formed list"),
    ] {
        assert!(error(Noun::LoggedModel, text).contains(said), "{text}: {}", error(Noun::LoggedModel, text));
    }
    assert_eq!(order_field("metrics.a.b").unwrap(), Field::Metric("a.b".into()));
    assert_eq!(order_field("artifact_location").unwrap(), Field::Attribute("artifact_location"));
    for wrong in ["params.x", "nothing"] {
        let said = order_field(wrong).unwrap_err().to_string();
        assert!(said.contains(&format!("Invalid order by field name: {wrong}")), "{said}");
    }
}

/// What is wrong about anything, about runs, about experiments, and about the registry.
#[test]
fn what_breaks_the_grammar_is_said() {
    const CLAUSE: &str = "Invalid clause(s) in filter string";
    for noun in [Noun::Run, Noun::Experiment, Noun::RegisteredModel, Noun::ModelVersion, Noun::Trace] {
        for (text, said) in [
            ("tags.a = '1' OR tags.b = '2'", CLAUSE),
            ("tags.a = '1' tags.b = '2'", CLAUSE),
            ("tags.a = '1'; DROP", "contained multiple expression"),
            ("  ", "Invalid filter '  '"),
            ("`tag.a = 'x'", CLAUSE),
            ("tag`.a = 'x'", CLAUSE),
            ("tags.'a = x", CLAUSE),
            ("tags.a = 'x", CLAUSE),
            ("tags.a = x'", CLAUSE),
            ("tags.a = \"x'", CLAUSE),
            ("tags.a = = 'x'", CLAUSE),
            ("tags.a", CLAUSE),
            ("tags.a =", CLAUSE),
            ("tags.a IS", CLAUSE),
            ("tags.a IS 'x'", CLAUSE),
            ("tags.a NOT 'x'", CLAUSE),
            ("tags.a x !=", CLAUSE),
            ("= 'x'", CLAUSE),
            ("(tags.a = 'x')", CLAUSE),
            ("tags.a = true", CLAUSE),
            ("tags.a IN", CLAUSE),
            ("tags.a IN (", CLAUSE),
            ("tags.a IN 'x'", CLAUSE),
            ("'tags' = 'x'", "Expected 'Identifier' found ''tags''"),
            ("1.0 > tags.a", "Expected 'Identifier' found '1.0'"),
            ("1==2", "Expected 'Identifier' found '1'"),
            ("tags.a = 5", "Expected a quoted string value for tag"),
            ("tags.a = x", "value is either not quoted or unidentified quote types"),
            ("tags.a = `x`", "value is either not quoted or unidentified quote types"),
            ("tags.a ~ 'x'", "Invalid comparator"),
            ("tags.a ~= 'x'", "Invalid comparator"),
            ("tags.a == 'x'", "Invalid comparator"),
            ("tags.a <> 'x'", "Invalid comparator"),
            ("tags.a > 'x'", "Invalid comparator"),
            ("tags.a NOT LIKE 'x'", "Invalid comparator"),
            ("weird.a = '1'", "Invalid entity type 'weird'"),
            ("`tags.a` = '1'", "Invalid entity type '`tags'"),
            ("nothing != 1.0", "Invalid attribute key 'nothing'"),
        ] {
            assert!(error(noun, text).contains(said), "{noun:?} {text}: {}", error(noun, text));
        }
    }
}

#[test]
fn what_cannot_be_said_about_a_thing_is_said() {
    use Noun::{Experiment, ModelVersion, RegisteredModel, Run};
    const LIST: &str = "While parsing a list in the query, expected";
    for (noun, text, said) in [
        (Run, "metrics.a > '1'", "Expected numeric value type for metric. Found '1'"),
        (Run, "metrics.a > nan", "Expected numeric value type for metric. Found nan"),
        (Run, "metrics.a IN (1)", "Expected numeric value type for metric. Found (1)"),
        (Run, "metrics.a ~ 1.0", "Invalid comparator '~' not one of '{'<', "),
        (Run, "metrics.a IS NULL", "only supported for tags and params, not for 'metric' 'a'"),
        (Run, "params.a = 1", "Expected a quoted string value for param"),
        (Run, "params.a > '1'", "Invalid comparator '>' not one of"),
        (Run, "params.a RLIKE '1'", "Invalid comparator 'RLIKE' not one of"),
        (Run, "status = 1", "Expected a quoted string value for attributes"),
        (Run, "status IN ('x')", "Only ['run_id'] attributes support"),
        (Run, "status < 'x'", "Invalid comparator '<' not one of"),
        (Run, "start_time LIKE 12", "Invalid comparator 'LIKE' not one of"),
        (Run, "start_time = 'x'", "numeric attribute: start_time"),
        (Run, "dataset.status = 'x'", "Invalid dataset key 'status'"),
        (Run, "datasets.name ~ 'x'", "Invalid comparator '~'"),
        (Run, "run_id IN ()", "a non-empty list of string values, but got empty list"),
        (Run, "run_id IN (1, 'b')", "got different type in list: (1, 'b')"),
        (Run, "run_id IN ('a' 'b')", LIST),
        (Run, "run_id IN (('a'))", LIST),
        (Experiment, "`tags`.a = 'x'", "Invalid entity type '`tags`'"),
        (Experiment, "attr.name = 'x'", "Invalid entity type 'attr'"),
        (Experiment, "name IS NULL", "only supported for tags, not for attribute 'name'"),
        (Experiment, "name = 1", "Expected a quoted string value for attributes"),
        (Experiment, "name > 'x'", "Invalid comparator '>' not one of"),
        (Experiment, "name IN ('x')", "Only ['experiment_id'] attributes"),
        (Experiment, "tags.a > 'x'", "Invalid comparator for tag: >"),
        (Experiment, "experiment_id LIKE '1'", "Invalid comparator for experiment_id: LIKE"),
        (
            Experiment,
            "creation_time = '1'",
            "Expected numeric value type for numeric attribute: creation_time",
        ),
        (Experiment, "creation_time > 1.5", "Invalid value for numeric attribute 'creation_time': 1.5"),
        (
            RegisteredModel,
            "run_id = 'x'",
            "Invalid attribute key 'run_id' specified. Valid keys are '{'name'}'",
        ),
        (RegisteredModel, "`name` = 'x'", "Invalid attribute key '`name`'"),
        (RegisteredModel, "attributes.name = 'x'", "Invalid entity type 'attributes'"),
        (RegisteredModel, "name > 'x'", "Invalid comparator for attribute: >"),
        (RegisteredModel, "tags.a IS NULL", "not supported for registered model search"),
        (RegisteredModel, "name = 1", "a list of quoted string values for attributes. Got value 1"),
        (ModelVersion, "run_id IN (1,2,3)", "got different type in list: (1, 2, 3)"),
        (ModelVersion, "run_id IN (,)", "but got ill-formed list"),
        (ModelVersion, "run_id IN ('a',,'b')", "but got ill-formed list"),
        (ModelVersion, "source_path IN ('a')", "Only ['name', 'run_id'] attributes"),
        (ModelVersion, "version_number IN (1)", "Only ['name', 'run_id'] attributes"),
        (ModelVersion, "version_number = 'x'", "Invalid value for numeric attribute 'version_number': 'x'"),
        (ModelVersion, "version_number > 1.5", "Invalid value for numeric attribute 'version_number': 1.5"),
        (ModelVersion, "version_number LIKE 1", "Invalid comparator for attribute version_number: LIKE"),
        (ModelVersion, "run_id = 1", "support comparison with numeric values"),
        (Noun::Trace, "trace.status < 'OK'", "Invalid comparator '<' not one of"),
        (Noun::Trace, "name IN ('a')", "Invalid comparator 'IN' not one of"),
        (Noun::Trace, "span.content = 'x'", "span.content comparator '=' not one of '{'ILIKE', 'LIKE'}'"),
        (Noun::Trace, "trace.text = 'x'", "span.content comparator '=' not one of"),
        (Noun::Trace, "span.name > 'x'", "span.name comparator '>' not one of"),
        (
            Noun::Trace,
            "prompt LIKE 'x'",
            "Invalid comparator 'LIKE' for prompts filter. Only '=' is supported",
        ),
        (Noun::Trace, "prompt ~ 'x'", "Invalid comparator '~' for prompts filter"),
        (Noun::Trace, "feedback.a ~ 'x'", "Invalid comparator '~'"),
        (Noun::Trace, "issue.id != 'x'", "issue.id comparator '!=' not one of"),
        (Noun::Trace, "status = 1", "attributes support comparison with numeric values"),
    ] {
        assert!(error(noun, text).contains(said), "{noun:?} {text}: {}", error(noun, text));
    }
}

#[test]
fn orders() {
    let one = |noun, text: &str| super::orders(noun, &[text.to_owned()]).map(|mut found| found.remove(0));
    let order = one(Noun::Run, "metrics.`a b` desc").unwrap();
    assert_eq!((order.field, order.ascending), (Field::Metric("a b".into()), false));
    assert_eq!(one(Noun::Run, "start_time").unwrap().field, Field::Attribute("start_time"));
    assert_eq!(one(Noun::Run, "\"run_name\" DESC").unwrap().field, Field::Attribute("run_name"));
    for text in ["timestamp ASC", "timestamp", "timestamp  asc", "last_updated_timestamp"] {
        let order = one(Noun::RegisteredModel, text).unwrap();
        assert_eq!(order.field, Field::Attribute("last_updated_timestamp"));
    }
    const CLAUSE: &str = "Invalid order_by clause";
    const ORDERING: &str = "Invalid ordering key";
    for (noun, text, said) in [
        (Noun::Run, "", CLAUSE),
        (Noun::Run, "'", CLAUSE),
        (Noun::Run, "'run_name' DESC", CLAUSE),
        (Noun::Run, "`metrics.a", CLAUSE),
        (Noun::Run, "metrics.a != 1", CLAUSE),
        (Noun::Run, "metrics.a b c", CLAUSE),
        (Noun::Run, "params.my_param ", CLAUSE),
        (Noun::Run, " params.my_param", CLAUSE),
        (Noun::Run, "Run Name DESC", CLAUSE),
        (Noun::Run, "Run Name", ORDERING),
        (Noun::Run, "attribute.run_id decs", ORDERING),
        (Noun::Run, "acc", "Invalid attribute key 'acc'"),
        (Noun::Run, "`Run Name`", "Invalid attribute key 'Run Name'"),
        (Noun::Run, "attribute.experiment_id", "Invalid attribute key"),
        (Noun::Run, "`metrics.A`", "Invalid entity type"),
        (Noun::Run, "dataset.name", "Invalid identifier type 'dataset'"),
        (Noun::Experiment, "tags.a", "Invalid order_by entity: tag"),
        (Noun::Experiment, "nothing", "Invalid attribute key 'nothing'"),
        (Noun::RegisteredModel, "timestamp decs", CLAUSE),
        (Noun::RegisteredModel, "timestamp somerandomstuff ASC", CLAUSE),
        (Noun::RegisteredModel, "last_updated_timestamp DESC blah", CLAUSE),
        (Noun::RegisteredModel, "name aCs", ORDERING),
        (Noun::RegisteredModel, "creation_timestamp DESC", "Invalid order by key 'creation_timestamp'"),
        (Noun::RegisteredModel, "attribute.name", "Invalid order by key 'attribute.name'"),
        (Noun::ModelVersion, "run_id DESC", "Invalid attribute key 'run_id' specified"),
    ] {
        let error = one(noun, text).expect_err(text).to_string();
        assert!(error.contains(said), "{noun:?} {text}: {error}");
    }
    let twice = super::orders(Noun::Run, &["run_id".to_owned(), "attribute.run_id DESC".to_owned()]);
    assert!(twice.unwrap_err().to_string().contains("duplicate fields"));
    let twice = super::orders(Noun::Experiment, &["name DESC".to_owned(), "name".to_owned()]).unwrap();
    assert!(twice.len() == 1 && !twice[0].ascending);
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
