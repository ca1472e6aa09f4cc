//! The beginning of a request or an answer, to be shown in lists.

use super::tree::Tree;

/// How long it is at the most.
const LENGTH: usize = 1000;
const CUT: &str = "...";

/// What is shown of JSON: of a chat the last message of this role, else the text itself.
pub(super) fn preview(json: &str, role: &str) -> String {
    let tree = Tree::parse(json);
    let message = tree.as_ref().and_then(messages).and_then(|found| last(&found, role).cloned());
    let content = message.as_ref().and_then(content).filter(|text| !text.is_empty());
    shortened(content.unwrap_or(json))
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LENGTH {
        return text.to_owned();
    }
    text.chars().take(LENGTH - CUT.len()).chain(CUT.chars()).collect()
}

fn is_message(tree: &&Tree) -> bool {
    tree.get("role").is_some() && tree.get("content").is_some()
}

/// The messages in one of the forms that chat models use.
fn messages(tree: &Tree) -> Option<Vec<&Tree>> {
    let list = |key: &str| tree.get(key)?.as_list().filter(|list| !list.is_empty());
    if let Some(found) = list("messages") {
        return Some(found.iter().filter(is_message).collect());
    }
    if let Some(message) = list("choices").and_then(|c| c[0].get("message")).filter(is_message) {
        return Some(vec![message]);
    }
    match list("input").or_else(|| list("output")) {
        Some(found) => Some(found.iter().filter(is_message).collect()),
        None => tree.get("request").and_then(messages),
    }
}

fn last<'a>(messages: &[&'a Tree], role: &str) -> Option<&'a Tree> {
    let of_role = |tree: &&&Tree| tree.get("role").and_then(Tree::as_text) == Some(role);
    messages.iter().rev().find(of_role).or_else(|| messages.last()).copied()
}

fn content(message: &Tree) -> Option<&str> {
    match message.get("content")? {
        Tree::Text(text) => Some(text),
        Tree::List(parts) => parts.iter().find_map(|part| match part {
            Tree::Text(text) => Some(text.as_str()),
            part => {
                let kind = part.get("type").and_then(Tree::as_text);
                part.get("text")
                    .and_then(Tree::as_text)
                    .filter(|_| matches!(kind, Some("text" | "output_text")))
            }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_chat_the_last_message_is_shown() {
        let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"},
                       {"role": "tool", "content": "c"}]}"#;
        assert_eq!((preview(chat, "user"), preview(chat, "assistant")), ("b".to_owned(), "c".to_owned()));
        let answer = r#"{"choices": [{"message": {"role": "assistant", "content": [{"type": "text", "text": "t"}]}}]}"#;
        assert_eq!(preview(answer, "assistant"), "t");
        assert_eq!(preview(r#"{"request": {"input": [{"role": "user", "content": "in"}]}}"#, "user"), "in");
        assert_eq!(preview(r#"{"messages": []}"#, "user"), r#"{"messages": []}"#);
        assert_eq!(preview("\"text\"", "user"), "\"text\"");
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "ü".repeat(LENGTH + 1);
        let shown = preview(&long, "user");
        assert_eq!(shown.chars().count(), LENGTH);
        assert!(shown.ends_with("ü..."));
    }
}
