//! Conditions about what belongs to traces: spans, assessments, links.

use super::search::{Clause, Comparator, Field, Operand};
use super::statement::{Statement, invalid, unusable};
use crate::error::StoreError;
use crate::pattern;

impl Statement {
    /// One span to which all the conditions apply.
    pub(super) fn spans(&mut self, clauses: &[&Clause]) -> Result<(), StoreError> {
        self.push("EXISTS (SELECT 1 FROM spans s WHERE s.trace_id = t.trace_id");
        for clause in clauses {
            self.push(" AND (");
            match &clause.field {
                Field::Span(part) => {
                    let column = match *part {
                        "name" => "s.name",
                        "kind" => "s.kind",
                        "status" => "s.status",
                        _ => "s.content",
                    };
                    self.compare(column, clause.comparator, &clause.operand)?;
                }
                Field::SpanAttribute(name) => self.span_attribute(name, clause)?,
                _ => return Err(invalid("a condition about spans was expected")),
            }
            self.push(")");
        }
        self.push(")");
        Ok(())
    }

    /// Attributes are looked for in the span's JSON, where each is written as `"name": "value"`. A value is JSON itself: a
    /// text has quotes within the quotes.
    fn span_attribute(&mut self, name: &str, clause: &Clause) -> Result<(), StoreError> {
        let values = match (clause.comparator, &clause.operand) {
            (Comparator::Rlike, Operand::Text(given)) => {
                let wanted = Operand::Text(attribute_expression(name, given)?);
                return self.compare("s.content", Comparator::Rlike, &wanted);
            }
            (Comparator::Like | Comparator::Ilike, Operand::Text(pattern)) => {
                let pattern = Operand::Text(format!("%\"{name}\"{pattern}%"));
                return self.compare("s.content", clause.comparator, &pattern);
            }
            (Comparator::Eq | Comparator::Ne, Operand::Text(value)) => std::slice::from_ref(value),
            (Comparator::In | Comparator::NotIn, Operand::Texts(values)) => values.as_slice(),
            _ => return Err(invalid("a text or a pattern was expected")),
        };
        if matches!(clause.comparator, Comparator::Ne | Comparator::NotIn) {
            self.holds(&format!("{}: ", json(name)));
            self.push(" AND NOT (");
        } else {
            self.push("(");
        }
        for (i, value) in values.iter().enumerate() {
            self.push(if i > 0 { " OR " } else { "" });
            self.holds(&format!("{}: {}", json(name), json(value)));
            self.push(" OR ");
            self.holds(&format!("{}: {}", json(name), json(&json(value))));
        }
        self.push(")");
        Ok(())
    }

    /// A text that stands somewhere in the span.
    fn holds(&mut self, text: &str) {
        self.push(if self.is_sqlite() { "instr(s.content, " } else { "strpos(s.content, " });
        self.words(text);
        self.push(") > 0");
    }

    /// What was said about a trace, or about the conversation that it is a part of.
    pub(super) fn assessment(&mut self, kind: &str, name: &str, clause: &Clause) -> Result<(), StoreError> {
        if clause.comparator == Comparator::IsNull {
            self.push("NOT (");
        }
        self.push("t.trace_id IN (SELECT s.trace_id FROM assessments s WHERE ");
        self.said(kind, name, clause)?;
        self.push(
            ") OR (t.experiment_id, t.session_id) IN (SELECT o.experiment_id, o.session_id FROM assessments s \
             JOIN traces o ON o.trace_id = s.trace_id WHERE o.session_id IS NOT NULL AND s.of_session = 1 AND ",
        );
        self.said(kind, name, clause)?;
        self.push(")");
        if clause.comparator == Comparator::IsNull {
            // A comparison with no session is neither true nor false.
            self.push(" AND t.session_id IS NOT NULL)");
        }
        Ok(())
    }

    fn said(&mut self, kind: &str, name: &str, clause: &Clause) -> Result<(), StoreError> {
        self.push("s.valid = 1 AND s.kind = ");
        self.words(kind);
        self.push(" AND s.name = ");
        self.words(name);
        match (clause.comparator, &clause.operand) {
            (Comparator::IsNull | Comparator::IsNotNull, _) => {}
            (Comparator::Eq | Comparator::Ne, Operand::Texts(forms)) => {
                let member =
                    if clause.comparator == Comparator::Eq { Comparator::In } else { Comparator::NotIn };
                self.push(" AND ");
                self.compare("s.value", member, &Operand::Texts(forms.clone()))?;
            }
            (comparator, operand @ (Operand::Int(_) | Operand::Real(_))) => {
                self.push(" AND ");
                self.compare("s.amount", comparator, operand)?;
            }
            (comparator, operand) => {
                self.push(" AND ");
                self.compare("s.value", comparator, operand)?;
            }
        }
        Ok(())
    }

    /// A run or a prompt's version that a trace is linked to, or an issue that it shows.
    pub(super) fn link(&mut self, kind: &str, clause: &Clause) -> Result<(), StoreError> {
        if clause.comparator != Comparator::Eq {
            return Err(invalid("only = says what a trace is linked to"));
        }
        if kind == "issue" {
            self.push("t.trace_id IN (SELECT s.trace_id FROM assessments s WHERE s.kind = 'issue' AND ");
            self.compare("s.name", Comparator::Eq, &clause.operand)?;
        } else {
            self.push("t.trace_id IN (SELECT s.trace_id FROM trace_links s WHERE s.kind = ");
            self.words(kind);
            self.push(" AND ");
            self.compare("s.target", Comparator::Eq, &clause.operand)?;
        }
        self.push(")");
        Ok(())
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What finds an attribute that is a text by a part of it. As in MLflow, only `^` and `$` tie it to the ends of the value:
/// without them what follows in the span is looked through, too.
fn attribute_expression(name: &str, given: &str) -> Result<String, StoreError> {
    pattern::for_postgres(given).map_err(|why| unusable(given, &why))?;
    let (start, rest) = match given.strip_prefix('^') {
        Some(rest) => ("", rest),
        None => (".*", given),
    };
    let escaped = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
    let (rest, end) = match rest.strip_suffix('$').filter(|rest| !escaped(rest)) {
        Some(rest) => (rest, r#"\\""#),
        None => (rest, ""),
    };
    Ok(format!(r#"{}: "\\"{start}(?:{rest}){end}"#, regex::escape(&json(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_looked_for_in_the_attribute() {
        let span = r#"{"attributes": {"a.b": "\"gpt-4\"", "n": "4", "c": "\"x$\""}}"#;
        for (name, given, found) in [
            ("a.b", "^gpt", true),
            ("a.b", "^(gpt|x)", true),
            ("a.b", "4$", true),
            ("a.b", "^gpt-4$", true),
            ("a.b", "^4", false),
            ("a.b", "gpt$", false),
            ("a_b", "gpt", false),
            ("n", "4", false),
            ("c", r"^x\$", true),
            ("c", "^x$", false),
        ] {
            let expression = pattern::compiled(&attribute_expression(name, given).unwrap()).unwrap();
            assert_eq!(expression.is_match(span), found, "{name} {given}");
        }
        assert!(attribute_expression("a", "a)|(b").is_err());
    }
}
