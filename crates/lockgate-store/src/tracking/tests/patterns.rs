//! Conditions on texts that each engine would understand in its own way.

use super::*;

both_engines! {
    async fn a_regular_expression_finds_the_same_on_both_engines(bench: Bench) {
        let store = bench.open().await;
        let values = ["", "a", "ab\nc", "Gpt-4.5 turbo", "größe_7", "x\\y{2}[z]", "***a", "abcabcabc", "日本 語", "\u{1f600}!"];
        store
            .write(move |tx| Box::pin(async move {
                for (i, value) in values.iter().enumerate() {
                    let id = i.to_string();
                    tx.put_trace(&new_trace(&id, NOON - i as i64, None)).await?;
                    tx.set_trace_tags(&id, &[pair("k", value)]).await?;
                }
                tx.put_trace(&new_trace("without", NOON, None)).await
            }))
            .await
            .unwrap();
        for pattern in [
            "", "^", "$", "^$", "a", "^a", "c$", "b$", "(?m)b$", "(?m)^c", "a.*c", "(?s)a.*c", r"\d", r"\D", r"\w+_\d", r"^\W", r"\bturbo\b",
            r"\Burbo", "(?i)gPT", "(?i)GRÖSSE|GRÖẞE", r"\.", r"\\", r"\{2\}\[z\]", r"\*{3}", "(abc){3}", "^(abc){4}", "(?:abc){1,2}?$", "[^a-z]", r"\p{Han}",
            "😀", "[😀-😂]!", "()*a", "(^)*a", "(a|)b", "(?P<n>b)?c", r"\s", "x|y|", r"[^\s\S]", r"\Aa\z", "ö.e", r"\w{3}",
        ] {
            let expected: String = values
                .iter()
                .enumerate()
                .filter(|(_, value)| crate::pattern::compiled(pattern).unwrap().is_match(value))
                .map(|(i, _)| i.to_string())
                .collect();
            let about = clause(Field::Tag("k".to_owned()), Comparator::Rlike, words(pattern));
            assert_eq!(found_traces(&store, vec![about], vec![]).await, expected, "{pattern}");
        }
        let bad = search(vec![clause(Field::Tag("k".to_owned()), Comparator::Rlike, words("("))], vec![]);
        let refused = store.read(move |conn| Box::pin(async move { conn.search_traces(&bad).await })).await;
        assert!(matches!(&refused, Err(StoreError::Invalid { why, .. }) if why.contains("unclosed group")), "{refused:?}");
    }
}

both_engines! {
    async fn a_spans_attribute_is_found_by_its_value(bench: Bench) {
        let store = three_traces(&bench).await;
        store
            .write(|tx| Box::pin(async move {
                for (trace, content) in [
                    ("b", r#"{"attributes": {"n": "7", "who": "\"Bo \\\"B\\\" 100%\"", "g": "\"größe\""}}"#),
                    ("c", r#"{"attributes": {"n": "\"7\"", "nested": "{\"who\": \"Ana 2\"}"}}"#),
                ] {
                    tx.put_span(&Span { content: content.to_owned(), ..new_span(trace, "1", None, "LLM") }).await?;
                }
                Ok::<_, StoreError>(())
            }))
            .await
            .unwrap();
        let list = |items: &[&str]| Operand::Texts(items.iter().map(|item| (*item).to_owned()).collect());
        for (name, comparator, operand, expected) in [
            ("n", Comparator::Eq, words("7"), "cb"),
            ("n", Comparator::Ne, words("7"), ""),
            ("n", Comparator::Ne, words("8"), "cb"),
            ("n", Comparator::In, list(&["6", "7"]), "cb"),
            ("n", Comparator::NotIn, list(&["6", "7"]), ""),
            ("who", Comparator::Eq, words("Bo \"B\" 100%"), "b"),
            ("who", Comparator::Eq, words("Bo"), ""),
            ("who", Comparator::Ne, words("Bo"), "ba"),
            ("who", Comparator::NotIn, list(&["Ana 1", "Ana 2"]), "b"),
            ("who", Comparator::Rlike, words("^Bo.*%$"), "b"),
            ("g", Comparator::Rlike, words("^gr..e$"), "b"),
            ("none", Comparator::Eq, words("7"), ""),
            ("none", Comparator::Ne, words("7"), ""),
        ] {
            let about = clause(Field::SpanAttribute(name.to_owned()), comparator, operand.clone());
            assert_eq!(found_traces(&store, vec![about], vec![]).await, expected, "{name} {comparator:?} {operand:?}");
        }
    }
}
