//! Attributes of other conventions than MLflow's, and which of MLflow's they stand for: a table. The conventions are asked in its
//! order, as MLflow's own server asks them.

/// A convention. Names may hold `#` for a number between dots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convention {
    /// What says of which type a span is.
    pub(super) kinds: &'static [&'static str],
    /// Its values, and MLflow's types.
    pub(super) types: &'static [(&'static str, &'static str)],
    /// Attributes whose being there tells the type; `*` stands at the end of a beginning.
    pub(super) signs: &'static [(&'static str, &'static str)],
    pub(super) inputs: &'static [&'static str],
    pub(super) outputs: &'static [&'static str],
    /// Tokens: of the input, of the output, in all, read from a cache, written into one.
    pub(super) tokens: [&'static [&'static str]; 5],
    pub(super) models: &'static [&'static str],
    pub(super) provider: &'static [&'static str],
    pub(super) tools: &'static [&'static str],
}

const NOTHING: Convention = Convention {
    kinds: &[],
    types: &[],
    signs: &[],
    inputs: &[],
    outputs: &[],
    tokens: [&[]; 5],
    models: &[],
    provider: &[],
    tools: &[],
};

const OPEN_INFERENCE: Convention = Convention {
    kinds: &["openinference.span.kind"],
    types: &[
        ("TOOL", "TOOL"),
        ("CHAIN", "CHAIN"),
        ("LLM", "LLM"),
        ("RETRIEVER", "RETRIEVER"),
        ("EMBEDDING", "EMBEDDING"),
        ("AGENT", "AGENT"),
        ("RERANKER", "RERANKER"),
        ("UNKNOWN", "UNKNOWN"),
        ("GUARDRAIL", "GUARDRAIL"),
        ("EVALUATOR", "EVALUATOR"),
    ],
    inputs: &["input.value"],
    outputs: &["output.value"],
    tokens: [
        &["llm.token_count.prompt"],
        &["llm.token_count.completion"],
        &["llm.token_count.total"],
        &["llm.token_count.prompt_details.cache_read"],
        &["llm.token_count.prompt_details.cache_write"],
    ],
    models: &["llm.response.model_name", "llm.model_name", "llm.request.model_name", "embedding.model_name"],
    provider: &["llm.provider"],
    ..NOTHING
};

/// OpenTelemetry's own.
const GEN_AI: Convention = Convention {
    kinds: &["gen_ai.operation.name"],
    types: &[
        ("chat", "CHAT_MODEL"),
        ("create_agent", "AGENT"),
        ("embeddings", "EMBEDDING"),
        ("execute_tool", "TOOL"),
        ("generate_content", "LLM"),
        ("invoke_agent", "AGENT"),
        ("text_completion", "LLM"),
        ("response", "LLM"),
    ],
    inputs: &["gen_ai.input.messages", "gen_ai.tool.call.arguments"],
    outputs: &["gen_ai.output.messages", "gen_ai.tool.call.result"],
    tokens: [
        &["gen_ai.usage.input_tokens"],
        &["gen_ai.usage.output_tokens"],
        &[],
        &["gen_ai.usage.cache_read.input_tokens"],
        &["gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens"],
    ],
    models: &["gen_ai.response.model", "gen_ai.request.model"],
    provider: &["gen_ai.provider.name"],
    tools: &["gen_ai.tool.definitions"],
    ..NOTHING
};

const TRACELOOP: Convention = Convention {
    kinds: &["traceloop.span.kind"],
    types: &[
        ("workflow", "WORKFLOW"),
        ("task", "TASK"),
        ("agent", "AGENT"),
        ("tool", "TOOL"),
        ("unknown", "UNKNOWN"),
    ],
    inputs: &[
        "traceloop.entity.input",
        "gen_ai.prompt.#.content",
        "gen_ai.completion.#.tool_calls.#.arguments",
    ],
    outputs: &["traceloop.entity.output", "gen_ai.completion.#.content"],
    tokens: [
        &["gen_ai.usage.prompt_tokens"],
        &["gen_ai.usage.completion_tokens"],
        &["llm.usage.total_tokens"],
        &[],
        &[],
    ],
    provider: &["gen_ai.system"],
    ..NOTHING
};

const GOOGLE_ADK: Convention = Convention {
    inputs: &["gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args"],
    outputs: &["gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_response"],
    ..NOTHING
};

const VERCEL: Convention = Convention {
    kinds: &["ai.operationId"],
    types: &[
        ("ai.generateText", "LLM"),
        ("ai.generateText.doGenerate", "LLM"),
        ("ai.toolCall", "TOOL"),
        ("ai.streamText", "LLM"),
        ("ai.streamText.doStream", "LLM"),
        ("ai.generateObject", "LLM"),
        ("ai.generateObject.doGenerate", "LLM"),
        ("ai.streamObject", "LLM"),
        ("ai.streamObject.doStream", "LLM"),
        ("ai.embed", "EMBEDDING"),
        ("ai.embed.doEmbed", "EMBEDDING"),
        ("ai.embedMany", "EMBEDDING"),
    ],
    inputs: &["ai.prompt", "ai.toolCall.args", "ai.value", "ai.values"],
    outputs: &[
        "ai.response.text",
        "ai.toolCall.result",
        "ai.response.object",
        "ai.embedding",
        "ai.embeddings",
    ],
    ..NOTHING
};

const VOLT_AGENT: Convention = Convention {
    // A child has its agent's `entity.type`.
    kinds: &["span.type", "entity.type"],
    types: &[("agent", "AGENT"), ("llm", "LLM"), ("tool", "TOOL"), ("memory", "MEMORY")],
    inputs: &["agent.messages", "llm.messages", "input"],
    outputs: &["output"],
    tokens: [
        &["usage.prompt_tokens", "llm.usage.prompt_tokens"],
        &["usage.completion_tokens", "llm.usage.completion_tokens"],
        &["usage.total_tokens", "llm.usage.total_tokens"],
        &[],
        &[],
    ],
    ..NOTHING
};

const LIVE_KIT: Convention = Convention {
    signs: &[
        ("gen_ai.request.model", "LLM"),
        ("lk.retry_count", "LLM"),
        ("lk.function_tool*", "TOOL"),
        ("lk.agent_name", "AGENT"),
        ("lk.instructions", "AGENT"),
        ("lk.generation_id", "AGENT"),
    ],
    inputs: &["lk.user_input", "lk.user_transcript", "lk.chat_ctx", "lk.input_text"],
    outputs: &["lk.response.text", "lk.response.function_calls"],
    ..NOTHING
};

const LAMINAR: Convention = Convention {
    kinds: &["lmnr.span.type"],
    types: &[
        ("LLM", "LLM"),
        ("TOOL", "TOOL"),
        ("DEFAULT", "CHAIN"),
        ("PIPELINE", "CHAIN"),
        ("EXECUTOR", "AGENT"),
        ("EVALUATOR", "EVALUATOR"),
        ("HUMAN_EVALUATOR", "EVALUATOR"),
        ("EVALUATION", "EVALUATOR"),
        ("CACHED", "LLM"),
    ],
    inputs: &["lmnr.span.input"],
    outputs: &["lmnr.span.output"],
    ..NOTHING
};

const LANGFUSE: Convention = Convention {
    kinds: &["langfuse.observation.type"],
    types: &[
        ("generation", "LLM"),
        ("embedding", "EMBEDDING"),
        ("tool", "TOOL"),
        ("retriever", "RETRIEVER"),
        ("agent", "AGENT"),
        ("chain", "CHAIN"),
        ("evaluator", "EVALUATOR"),
        ("guardrail", "GUARDRAIL"),
        ("span", "UNKNOWN"),
    ],
    inputs: &["langfuse.observation.input"],
    outputs: &["langfuse.observation.output"],
    ..NOTHING
};

/// All of them.
pub(super) const ALL: [Convention; 9] =
    [OPEN_INFERENCE, GEN_AI, TRACELOOP, GOOGLE_ADK, VERCEL, VOLT_AGENT, LIVE_KIT, LAMINAR, LANGFUSE];

/// Events that hold what went in: their name, and the role of the message.
pub(super) const ASKED: [(&str, &str); 3] = [
    ("gen_ai.system.message", "system"),
    ("gen_ai.user.message", "user"),
    ("gen_ai.assistant.message", "assistant"),
];
/// The event that holds what came out.
pub(super) const ANSWERED: &str = "gen_ai.choice";
/// Events that hold the whole of what went in and came out: their names, and the attribute in which.
pub(super) const WHOLE: [(&str, &str); 2] =
    [("gen_ai.content.prompt", "gen_ai.prompt"), ("gen_ai.content.completion", "gen_ai.completion")];
