//! Spans of other conventions: what they say in their own attributes and events is added in MLflow's. The original stays.

use super::conventions::{ALL, ANSWERED, ASKED, Convention, WHOLE};
use super::spans::{INPUTS, KIND, MODEL, OUTPUTS, SpanEvent, TOKEN_USE, dumped};
use super::tree::Tree;

const PROVIDER: &str = "mlflow.llm.provider";
const TOOLS: &str = "mlflow.chat.tools";
/// MLflow's own: there is nothing to translate.
const OWN: &str = "mlflow.";
const UNKNOWN: &str = "UNKNOWN";
const COUNTS: [&str; 5] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
];
/// Vercel's spans of one call of a model, whose parts are in attributes of their own.
const CALLS: [&str; 2] = ["ai.generateText.doGenerate", "ai.streamText.doStream"];

/// A span's attributes, each with its value as JSON.
type Attributes = Vec<(String, String)>;
type Names = &'static [&'static str];

/// Adds what MLflow calls differently, where the span doesn't say it itself.
pub(super) fn translate(attributes: &mut Attributes, events: &[SpanEvent]) {
    if events.is_empty() && attributes.iter().all(|(key, _)| key.starts_with(OWN)) {
        return add(attributes, MODEL, model);
    }
    // A client of MLflow's that knows no type says so.
    let untyped = get(attributes, KIND)
        .is_none_or(|kind| Tree::parse(kind).is_some_and(|kind| kind.as_text() == Some(UNKNOWN)));
    if let Some(found) = kind(attributes).filter(|_| untyped) {
        attributes.retain(|(key, _)| key != KIND);
        attributes.push((KIND.to_owned(), Tree::Text(found.to_owned()).dump()));
    }
    let inputs = |found: &Attributes| call(found, "ai.prompt.").or_else(|| first(found, |c| c.inputs));
    let outputs = |found: &Attributes| call(found, "ai.response.").or_else(|| first(found, |c| c.outputs));
    add(attributes, INPUTS, |found| inputs(found).or_else(|| asked(events)));
    add(attributes, OUTPUTS, |found| outputs(found).or_else(|| answered(events)));
    add(attributes, TOKEN_USE, tokens);
    add(attributes, TOOLS, |found| first(found, |c| c.tools));
    add(attributes, MODEL, |found| first(found, |c| c.models).or_else(|| model(found)));
    add(attributes, PROVIDER, |found| first(found, |c| c.provider));
}

fn add(attributes: &mut Attributes, key: &str, value: impl Fn(&Attributes) -> Option<String>) {
    if get(attributes, key).is_none()
        && let Some(value) = value(attributes)
    {
        attributes.push((key.to_owned(), value));
    }
}

fn get<'a>(attributes: &'a Attributes, key: &str) -> Option<&'a str> {
    attributes.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

/// Whether a name is meant that may hold `#` for a number.
fn is_named(key: &str, name: &str) -> bool {
    if !name.contains('#') {
        return key == name;
    }
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = key.split('.');
    name.split('.')
        .all(|wanted| parts.next().is_some_and(|part| part == wanted || (wanted == "#" && number(part))))
        && parts.next().is_none()
}

/// Whether a value says anything.
fn says(json: &str) -> bool {
    !matches!(json, "null" | "false" | "0" | "0.0" | "\"\"" | "[]" | "{}" | "")
}

/// The first of these that says anything, of the first convention that has one.
fn first(attributes: &Attributes, names: impl Fn(&Convention) -> Names) -> Option<String> {
    let value = |name: &&str| {
        let mut found = attributes.iter().filter(|(key, _)| is_named(key, name)).map(|(_, value)| value);
        found.find(|value| says(value)).cloned()
    };
    ALL.iter().find_map(|convention| names(convention).iter().find_map(value))
}

fn kind(attributes: &Attributes) -> Option<&'static str> {
    let is_there = |sign: &str| {
        attributes.iter().any(|(key, _)| match sign.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => key == sign,
        })
    };
    let of = |convention: &Convention| {
        let signs = convention.signs.iter().find(|(sign, _)| is_there(sign)).map(|(_, kind)| *kind);
        signs.or_else(|| {
            convention.kinds.iter().find_map(|name| {
                let said = Tree::parse(get(attributes, name)?)?;
                let types = convention.types.iter();
                types.clone().find(|(theirs, _)| Some(*theirs) == said.as_text()).map(|(_, ours)| *ours)
            })
        })
    };
    ALL.iter().find_map(of)
}

/// A whole number, which may be written as a text.
fn count(json: &str) -> Option<i64> {
    match Tree::parse(json)? {
        Tree::Int(number) => Some(number),
        Tree::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The tokens that the first convention counts which counts any.
fn tokens(attributes: &Attributes) -> Option<String> {
    let of = |convention: &Convention| {
        let number = |names: &Names| names.iter().find_map(|name| get(attributes, name).and_then(count));
        let mut counts: Vec<Option<i64>> = convention.tokens.iter().map(number).collect();
        counts[2] = counts[2].or_else(|| counts[0]?.checked_add(counts[1]?));
        counts[..3].iter().any(Option::is_some).then_some(counts)
    };
    let counts = ALL.iter().find_map(of)?;
    let pairs =
        COUNTS.iter().zip(counts).filter_map(|(name, count)| Some(((*name).to_owned(), Tree::Int(count?))));
    Some(Tree::Map(pairs.collect()).dump())
}

/// The model that is named in what went in or came out.
fn model(attributes: &Attributes) -> Option<String> {
    let named = |key: &str| {
        let tree = get(attributes, key).and_then(Tree::parse)?;
        tree.get("model").and_then(Tree::as_text).map(|model| Tree::Text(model.to_owned()).dump())
    };
    named(INPUTS).or_else(|| named(OUTPUTS))
}

/// The JSON that a text is, which may be a text that is JSON again.
fn opened(value: &str) -> Tree {
    match Tree::parse(value) {
        Some(Tree::Text(text)) => Tree::parse(&text).unwrap_or(Tree::Text(text)),
        Some(tree) => tree,
        None => Tree::Text(value.to_owned()),
    }
}

/// The parts of one call of a model by Vercel's library.
fn call(attributes: &Attributes, beginning: &str) -> Option<String> {
    let operation = get(attributes, "ai.operationId").and_then(Tree::parse)?;
    operation.as_text().filter(|name| CALLS.contains(name))?;
    let part = |(key, value): &(String, String)| {
        let name = key.strip_prefix(beginning)?;
        let value = match opened(value) {
            Tree::List(tools) if name == "tools" => {
                let tool = |tool: Tree| tool.as_text().map(opened).unwrap_or(tool);
                Tree::List(tools.into_iter().map(tool).collect())
            }
            value => value,
        };
        Some((name.to_owned(), value))
    };
    let parts: Vec<(String, Tree)> = attributes.iter().filter_map(part).collect();
    (!parts.is_empty()).then(|| Tree::Map(parts).dump())
}

fn of_event<'a>(event: &'a SpanEvent, key: &str) -> Option<&'a Tree> {
    let value = event.attributes.iter().find(|(known, _)| known == key).map(|(_, value)| value)?;
    says(&value.dump()).then_some(value)
}

fn whole(events: &[SpanEvent], (name, key): (&str, &str)) -> Option<String> {
    events.iter().filter(|event| event.name == name).find_map(|event| of_event(event, key)).map(dumped)
}

fn messages(events: &[SpanEvent], role: impl Fn(&SpanEvent) -> Option<Tree>) -> Option<String> {
    let message = |event: &SpanEvent| {
        let role = role(event)?;
        let content = match of_event(event, "content")? {
            Tree::Text(text) => Tree::parse(text).unwrap_or_else(|| Tree::Text(text.clone())),
            other => other.clone(),
        };
        Some(Tree::Map(vec![("role".to_owned(), role), ("content".to_owned(), content)]))
    };
    let found: Vec<Tree> = events.iter().filter_map(message).collect();
    (!found.is_empty()).then(|| Tree::List(found).dump())
}

/// What went in, by the span's events.
fn asked(events: &[SpanEvent]) -> Option<String> {
    let role = |event: &SpanEvent| {
        let (_, role) = ASKED.iter().find(|(name, _)| event.name == *name)?;
        Some(Tree::Text((*role).to_owned()))
    };
    whole(events, WHOLE[0]).or_else(|| messages(events, role))
}

/// What came out, by the span's events.
fn answered(events: &[SpanEvent]) -> Option<String> {
    let role = |event: &SpanEvent| {
        let said = || of_event(event, "role").cloned();
        (event.name == ANSWERED).then(|| said().unwrap_or_else(|| Tree::Text("assistant".to_owned())))
    };
    whole(events, WHOLE[1]).or_else(|| messages(events, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(attributes: &[(&str, &str)], events: &[SpanEvent]) -> Vec<String> {
        let mut found: Attributes =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        translate(&mut found, events);
        for (key, value) in attributes.iter().filter(|(key, _)| *key != KIND) {
            assert_eq!(get(&found, key), Some(*value), "the original stays");
        }
        let new = found.iter().filter(|one| !attributes.contains(&(one.0.as_str(), one.1.as_str())));
        new.map(|(key, value)| format!("{}={value}", key.trim_start_matches(OWN))).collect()
    }

    #[test]
    fn other_conventions_are_understood() {
        for (given, added) in [
            (
                &[
                    ("openinference.span.kind", "\"LLM\""),
                    ("input.value", "{\"model\": \"m\"}"),
                    ("output.value", "\"Hi\""),
                ][..],
                &[
                    "spanType=\"LLM\"",
                    "spanInputs={\"model\": \"m\"}",
                    "spanOutputs=\"Hi\"",
                    "llm.model=\"m\"",
                ][..],
            ),
            (
                &[
                    ("llm.token_count.prompt", "3"),
                    ("llm.token_count.completion", "\"4\""),
                    ("llm.provider", "\"p\""),
                ],
                &[
                    "chat.tokenUsage={\"input_tokens\": 3, \"output_tokens\": 4, \"total_tokens\": 7}",
                    "llm.provider=\"p\"",
                ],
            ),
            (
                &[
                    ("gen_ai.operation.name", "\"chat\""),
                    ("gen_ai.request.model", "\"a\""),
                    ("gen_ai.response.model", "\"b\""),
                    ("gen_ai.usage.input_tokens", "1"),
                    ("gen_ai.usage.cache_creation.input_tokens", "2"),
                    ("gen_ai.tool.definitions", "[1]"),
                    ("gen_ai.input.messages", "[]"),
                    ("gen_ai.tool.call.arguments", "{\"x\": 1}"),
                ],
                &[
                    "spanType=\"CHAT_MODEL\"",
                    "spanInputs={\"x\": 1}",
                    "chat.tokenUsage={\"input_tokens\": 1, \"cache_creation_input_tokens\": 2}",
                    "chat.tools=[1]",
                    "llm.model=\"b\"",
                ],
            ),
            (
                &[
                    ("traceloop.span.kind", "\"task\""),
                    ("gen_ai.prompt.0.role", "\"user\""),
                    ("gen_ai.prompt.0.content", "\"q\""),
                    ("gen_ai.completion.x.content", "\"no\""),
                    ("gen_ai.completion.12.content", "\"a\""),
                    ("gen_ai.system", "\"openai\""),
                ],
                &["spanType=\"TASK\"", "spanInputs=\"q\"", "spanOutputs=\"a\"", "llm.provider=\"openai\""],
            ),
            (
                &[
                    ("ai.operationId", "\"ai.streamText.doStream\""),
                    ("ai.prompt.messages", "[{\"role\": \"user\"}]"),
                    ("ai.prompt.tools", "[\"{\\\"n\\\": 1}\"]"),
                    ("ai.response.text", "\"t\""),
                ],
                &[
                    "spanType=\"LLM\"",
                    "spanInputs={\"messages\": [{\"role\": \"user\"}], \"tools\": [{\"n\": 1}]}",
                    "spanOutputs={\"text\": \"t\"}",
                ],
            ),
            (
                &[
                    ("entity.type", "\"agent\""),
                    ("span.type", "\"llm\""),
                    ("input", "1"),
                    ("usage.total_tokens", "5"),
                ],
                &["spanType=\"LLM\"", "spanInputs=1", "chat.tokenUsage={\"total_tokens\": 5}"],
            ),
            (&[("gen_ai.request.model", "\"m\"")], &["spanType=\"LLM\"", "llm.model=\"m\""]),
            (&[("lk.function_tool.name", "\"f\"")], &["spanType=\"TOOL\""]),
            (
                &[("langfuse.observation.type", "\"generation\""), ("langfuse.observation.input", "\"\"")],
                &["spanType=\"LLM\""],
            ),
            (&[("openinference.span.kind", "\"NEW\"")], &[]),
        ] {
            assert_eq!(translated(given, &[]), added, "{given:?}");
        }
    }

    #[test]
    fn what_a_span_says_in_mlflows_words_stays() {
        let given =
            [(INPUTS, "1"), (KIND, "\"TOOL\""), ("input.value", "2"), ("openinference.span.kind", "\"LLM\"")];
        assert!(translated(&given, &[]).is_empty());
        let given = [(KIND, "\"UNKNOWN\""), ("openinference.span.kind", "\"LLM\"")];
        assert_eq!(translated(&given, &[]), ["spanType=\"LLM\""]);
    }

    #[test]
    fn messages_may_be_in_events() {
        let text = |text: &str| Tree::Text(text.to_owned());
        let event = |name: &str, key: &str, value: &str| SpanEvent {
            name: name.to_owned(),
            at_ns: 0,
            attributes: vec![(key.to_owned(), text(value))],
        };
        let events = [
            event("gen_ai.user.message", "content", "hä?"),
            event("gen_ai.system.message", "content", "[1]"),
            event("gen_ai.user.message", "other", "x"),
            event("gen_ai.choice", "content", "so"),
        ];
        let asked = r#"spanInputs=[{"role": "user", "content": "hä?"}, {"role": "system", "content": [1]}]"#;
        let answered = r#"spanOutputs=[{"role": "assistant", "content": "so"}]"#;
        assert_eq!(translated(&[], &events), [asked, answered]);
        let spring = [
            event("gen_ai.content.prompt", "gen_ai.prompt", "p"),
            event("gen_ai.content.completion", "gen_ai.completion", "c"),
        ];
        assert_eq!(translated(&[], &spring), ["spanInputs=\"p\"", "spanOutputs=\"c\""]);
    }
}
