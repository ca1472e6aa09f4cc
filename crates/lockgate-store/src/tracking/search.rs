//! Searches: conditions and orders become one statement.

use super::entity::Entity;
use super::statement::Statement;
use crate::conn::{Conn, Query, Row};
use crate::error::StoreError;

/// What a condition or an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// An attribute of the thing itself.
    Attribute(&'static str),
    /// A metric.
    Metric(String),
    /// A param.
    Param(String),
    /// A tag.
    Tag(String),
    /// A dataset's `name`, `digest` or `context`.
    Dataset(&'static str),
    /// A span's `name`, `kind`, `status` or `content`. All that a search says about spans is about the same one.
    Span(&'static str),
    /// An attribute of a span.
    SpanAttribute(String),
    /// What was said about a trace: the kind and the name of the assessment.
    Assessment(&'static str, String),
    /// What a trace is linked to: a `run`, a `prompt` or an `issue`.
    Link(&'static str),
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparator {
    /// Equal.
    Eq,
    /// Present and not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Like a pattern with `%` and `_`.
    Like,
    /// The same without regard to case.
    Ilike,
    /// A regular expression is found in it.
    Rlike,
    /// One of a list.
    In,
    /// None of a list.
    NotIn,
    /// Absent.
    IsNull,
    /// Present.
    IsNotNull,
    /// Absent, or not equal.
    Lacks,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// Nothing.
    None,
    /// A text, or a pattern.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Real(f64),
    /// Texts.
    Texts(Vec<String>),
    /// Whole numbers.
    Ints(Vec<i64>),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    /// What it is about.
    pub field: Field,
    /// How it is compared.
    pub comparator: Comparator,
    /// With what.
    pub operand: Operand,
}

/// The dataset that a metric was measured on: its name, its digest, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredOn {
    /// Its name, where only one name counts.
    pub name: Option<String>,
    /// Its digest, where only one digest counts.
    pub digest: Option<String>,
}

/// One key of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What it is about.
    pub field: Field,
    /// Whether the smallest comes first. Missing values come last either way.
    pub ascending: bool,
    /// For metrics: only those measured on this dataset.
    pub dataset: Option<MeasuredOn>,
}

/// Which part of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How many at the most.
    pub limit: i64,
    /// How many to skip.
    pub offset: i64,
}

/// A search: all conditions hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// The conditions.
    pub clauses: Vec<Clause>,
    /// The order.
    pub order: Vec<Order>,
    /// Metrics count only where they were measured on one of these datasets (name and, where given, digest).
    pub datasets: Vec<(String, Option<String>)>,
    /// The part.
    pub page: Page,
}

impl Conn {
    /// Runs a search.
    pub(crate) async fn search(&mut self, entity: &Entity, search: &Search) -> Result<Vec<Row>, StoreError> {
        if let Some(narrow) = self.narrow(entity, search).await? {
            return self.fetch_all(narrow).await;
        }
        if let Some(ranked) = self.ranked(entity, search)? {
            let rows = self.fetch_all(ranked).await?;
            // A page that is not full goes on with those whose metric is NaN, or that have none.
            if rows.len() as i64 == search.page.limit {
                return Ok(rows);
            }
        }
        let general = self.general(entity, search)?;
        self.fetch_all(general).await
    }

    /// A search as one statement.
    pub(super) fn general(&self, entity: &Entity, search: &Search) -> Result<Query, StoreError> {
        let mut statement = self.statement();
        statement.push(&format!("SELECT {} FROM {} t", entity.columns, entity.table));
        for (i, order) in search.order.iter().enumerate() {
            statement.join(entity, i, order)?;
        }
        statement.filter(entity, search, self.workspace())?;
        statement.push(" ORDER BY ");
        // What ties begin with is said once: said twice it keeps SQLite from the index.
        if !matches!(search.order.as_slice(), [one] if entity.ties_begin_with(one)) {
            for (i, order) in search.order.iter().enumerate() {
                statement.order(entity, i, order, search)?;
            }
        }
        statement.push(if search.order.is_empty() { entity.order } else { entity.ties });
        statement.finished(search.page)
    }

    pub(super) fn statement(&self) -> Statement {
        Statement::new(self.is_sqlite())
    }
}

/// A search as it is put together, for the test that prepares every statement on both engines.
#[cfg(test)]
pub(crate) mod example {
    use crate::statements::statements;

    statements! {
        EXAMPLE = "SELECT t.run_id FROM runs t WHERE t.workspace = 'default' AND (t.experiment_id = $1) AND (lower(t.name) LIKE lower($2) ESCAPE '~') \
                   AND EXISTS (SELECT 1 FROM latest_metrics s WHERE s.run_id = t.run_id AND s.key = $3 AND s.is_nan = 0 \
                   AND s.value > $4) ORDER BY COALESCE((SELECT MAX(s.is_nan) FROM latest_metrics s WHERE \
                   s.run_id = t.run_id AND s.key = $5), 2), (SELECT s.value FROM latest_metrics s WHERE \
                   s.run_id = t.run_id AND s.key = $5 ORDER BY s.step DESC, s.logged_at DESC LIMIT 1) DESC, \
                   t.run_id ASC LIMIT $6 OFFSET $7";
        TRACES = "SELECT t.trace_id FROM traces t WHERE (t.experiment_id IN ($1)) AND (t.trace_id IN \
                  (SELECT s.trace_id FROM assessments s WHERE s.valid = 1 AND s.kind = $2 AND s.name = $3 AND \
                  s.amount > $4) OR (t.experiment_id, t.session_id) IN (SELECT o.experiment_id, o.session_id FROM \
                  assessments s JOIN traces o ON o.trace_id = s.trace_id WHERE o.session_id IS NOT NULL AND \
                  s.of_session = 1)) AND (t.trace_id IN (SELECT s.trace_id FROM trace_links s WHERE s.kind = $5 AND \
                  s.target = $6)) AND EXISTS (SELECT 1 FROM spans s WHERE s.trace_id = t.trace_id AND \
                  (s.content LIKE $7 ESCAPE '~')) ORDER BY t.started DESC, t.trace_id ASC LIMIT $8 OFFSET $9";
    }
}
