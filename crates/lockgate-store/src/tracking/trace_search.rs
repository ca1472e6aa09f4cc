//! Conditions about what belongs to traces: spans, assessments, links.

use super::search::{Clause, Comparator, Field, Operand};
use super::statement::{Statement, invalid};
use crate::error::StoreError;

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

    /// Attributes are looked for in the span's JSON, where each is written as `"name": "value"`.
    fn span_attribute(&mut self, name: &str, clause: &Clause) -> Result<(), StoreError> {
        let Operand::Text(pattern) = &clause.operand else { return Err(invalid("a pattern was expected")) };
        let pattern = Operand::Text(format!("%\"{name}\"{pattern}%"));
        self.compare("s.content", clause.comparator, &pattern)
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
