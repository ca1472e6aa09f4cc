//! Searches: conditions and orders become one statement.

use super::entity::{Attribute, Beside, Entity};
use crate::conn::{Conn, Query, query, query_dynamic};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use sqlx::any::AnyRow;

statements! {
    LIKE_IGNORES_CASE = "SELECT CAST(CASE WHEN 'a' LIKE 'A' THEN 1 ELSE 0 END AS BIGINT)";
}

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

/// One key of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What it is about.
    pub field: Field,
    /// Whether the smallest comes first. Missing values come last either way.
    pub ascending: bool,
    /// For metrics: only those measured on this dataset.
    pub dataset: Option<(String, Option<String>)>,
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

/// A statement under construction: text that this module wrote, and values.
pub(super) struct Statement {
    text: String,
    values: Vec<Operand>,
    /// SQLite's LIKE ignores case; there GLOB takes its place, and texts are sorted by their bytes already.
    like_ignores_case: bool,
}

impl Statement {
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn value(&mut self, value: Operand) {
        self.values.push(value);
        self.text.push_str(&format!("${}", self.values.len()));
    }

    pub(super) fn words(&mut self, value: &str) {
        self.value(Operand::Text(value.to_owned()));
    }

    fn list(&mut self, values: Vec<Operand>) {
        self.push("(");
        for (i, value) in values.into_iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            self.value(value);
        }
        self.push(")");
    }

    /// `column comparator operand`.
    pub(super) fn compare(
        &mut self,
        column: &str,
        comparator: Comparator,
        operand: &Operand,
    ) -> Result<(), StoreError> {
        let symbol = match comparator {
            Comparator::Eq => "=",
            Comparator::Ne | Comparator::Lacks => "<>",
            Comparator::Lt => "<",
            Comparator::Le => "<=",
            Comparator::Gt => ">",
            Comparator::Ge => ">=",
            Comparator::IsNull | Comparator::IsNotNull => {
                let word = if comparator == Comparator::IsNull { "IS NULL" } else { "IS NOT NULL" };
                self.push(&format!("{column} {word}"));
                return Ok(());
            }
            Comparator::In | Comparator::NotIn => return self.member(column, comparator, operand),
            Comparator::Like | Comparator::Ilike => return self.pattern(column, comparator, operand),
        };
        self.push(&format!("{column} {symbol} "));
        self.value(operand.clone());
        Ok(())
    }

    fn member(&mut self, column: &str, comparator: Comparator, operand: &Operand) -> Result<(), StoreError> {
        let values: Vec<Operand> = match operand {
            Operand::Texts(list) => list.iter().cloned().map(Operand::Text).collect(),
            Operand::Ints(list) => list.iter().copied().map(Operand::Int).collect(),
            _ => return Err(invalid("a list was expected")),
        };
        let inside = comparator == Comparator::In;
        if values.is_empty() {
            self.push(if inside { "1 = 0" } else { "1 = 1" });
            return Ok(());
        }
        self.push(column);
        self.push(if inside { " IN " } else { " NOT IN " });
        self.list(values);
        Ok(())
    }

    fn pattern(&mut self, column: &str, comparator: Comparator, operand: &Operand) -> Result<(), StoreError> {
        let Operand::Text(pattern) = operand else { return Err(invalid("a pattern was expected")) };
        // A backslash means nothing special to MLflow, but it does to PostgreSQL unless another escape is named.
        let plain = pattern.replace('~', "~~");
        if comparator == Comparator::Ilike {
            self.push(&format!("lower({column}) LIKE lower("));
            self.words(&plain);
            self.push(") ESCAPE '~'");
        } else if self.like_ignores_case {
            self.push(&format!("{column} GLOB "));
            self.words(&glob(pattern));
        } else {
            self.push(&format!("{column} LIKE "));
            self.words(&plain);
            self.push(" ESCAPE '~'");
        }
        Ok(())
    }

    /// `FROM … WHERE` rows beside the entity with this key.
    fn beside(&mut self, beside: &Beside, key: &str) {
        self.push(&format!(" FROM {} WHERE {} AND s.key = ", beside.from, beside.belongs));
        self.words(key);
    }

    fn measured_on(&mut self, datasets: &[(String, Option<String>)]) {
        for (i, (name, digest)) in datasets.iter().enumerate() {
            self.push(if i == 0 { " AND (" } else { " OR " });
            self.push("(s.dataset_name = ");
            self.words(name);
            if let Some(digest) = digest {
                self.push(" AND s.dataset_digest = ");
                self.words(digest);
            }
            self.push(")");
        }
        if !datasets.is_empty() {
            self.push(")");
        }
    }

    fn clause(&mut self, entity: &Entity, clause: &Clause, search: &Search) -> Result<(), StoreError> {
        let beside = |found: &'static str, beside| missing(entity, found, beside);
        match &clause.field {
            Field::Attribute(name) => {
                let attribute = attribute(entity, name)?;
                self.compare(attribute.column, clause.comparator, &clause.operand)
            }
            Field::Metric(key) => {
                self.push("EXISTS (SELECT 1");
                self.beside(beside("metrics", &entity.metrics)?, key);
                if entity.metrics_by_dataset {
                    self.measured_on(&search.datasets);
                }
                // NaN differs from every number and is in no order with it.
                if clause.comparator == Comparator::Ne {
                    self.push(" AND (s.is_nan = 1 OR ");
                } else {
                    self.push(" AND (s.is_nan = 0 AND ");
                }
                self.compare("s.value", clause.comparator, &clause.operand)?;
                self.push("))");
                Ok(())
            }
            Field::Param(key) => self.pair(beside("params", &entity.params)?, key, clause),
            Field::Tag(key) => self.pair(beside("tags", &entity.tags)?, key, clause),
            Field::Dataset(part) => {
                let column = match *part {
                    "name" => "d.name",
                    "digest" => "d.digest",
                    _ => "g.value",
                };
                let beside = beside("datasets", &entity.datasets)?;
                self.push(&format!("EXISTS (SELECT 1 FROM {} WHERE {} AND ", beside.from, beside.belongs));
                self.compare(column, clause.comparator, &clause.operand)?;
                self.push(")");
                Ok(())
            }
            Field::Span(_) | Field::SpanAttribute(_) => self.spans(&[clause]),
            Field::Assessment(kind, name) => self.assessment(kind, name, clause),
            Field::Link(kind) => self.link(kind, clause),
        }
    }

    fn pair(&mut self, beside: &Beside, key: &str, clause: &Clause) -> Result<(), StoreError> {
        let absent = matches!(clause.comparator, Comparator::IsNull | Comparator::Lacks);
        self.push(if absent { "NOT EXISTS (SELECT 1" } else { "EXISTS (SELECT 1" });
        self.beside(beside, key);
        match clause.comparator {
            Comparator::IsNull | Comparator::IsNotNull => {}
            Comparator::Lacks => {
                self.push(" AND ");
                self.compare("s.value", Comparator::Eq, &clause.operand)?;
            }
            comparator => {
                self.push(" AND ");
                self.compare("s.value", comparator, &clause.operand)?;
            }
        }
        self.push(")");
        Ok(())
    }

    fn direction(&mut self, ascending: bool, text: bool) {
        // SQLite sorts texts by their bytes; PostgreSQL is told to.
        if text && !self.like_ignores_case {
            self.push(" COLLATE \"C\"");
        }
        self.push(if ascending { " ASC, " } else { " DESC, " });
    }

    fn order(&mut self, entity: &Entity, order: &Order, search: &Search) -> Result<(), StoreError> {
        let (kind, beside, key) = match &order.field {
            Field::Attribute(name) => {
                let attribute = attribute(entity, name)?;
                // What is always there is ordered by its index.
                if !attribute.always {
                    self.push(&format!("CASE WHEN {} IS NULL THEN 1 ELSE 0 END, ", attribute.column));
                }
                self.push(attribute.column);
                self.direction(order.ascending, attribute.text);
                return Ok(());
            }
            Field::Metric(key) => ("metrics", &entity.metrics, key),
            Field::Param(key) => ("params", &entity.params, key),
            Field::Tag(key) => ("tags", &entity.tags, key),
            Field::Dataset(_) => return Err(invalid("datasets have no order")),
            Field::Span(_) | Field::SpanAttribute(_) | Field::Assessment(..) | Field::Link(_) => {
                return Err(invalid("what belongs to traces has no order"));
            }
        };
        let beside = missing(entity, kind, beside)?;
        let metric = kind == "metrics";
        let datasets = order.dataset.clone().map_or_else(|| search.datasets.clone(), |one| vec![one]);
        for (column, head) in [("s.is_nan", "COALESCE((SELECT "), ("s.value", "(SELECT ")] {
            if !metric && column == "s.is_nan" {
                self.push("CASE WHEN EXISTS (SELECT 1");
                self.beside(beside, key);
                self.push(") THEN 0 ELSE 1 END, ");
                continue;
            }
            self.push(head);
            self.push(column);
            self.beside(beside, key);
            if metric && entity.metrics_by_dataset {
                self.measured_on(&datasets);
            }
            self.push(if metric { " ORDER BY s.step DESC, s.logged_at DESC LIMIT 1)" } else { ")" });
            if column == "s.is_nan" {
                self.push(", 2), ");
            } else {
                self.direction(order.ascending, !metric);
            }
        }
        Ok(())
    }
}

pub(super) fn invalid(why: &str) -> StoreError {
    StoreError::Invalid { what: "a search", why: why.to_owned() }
}

fn missing<'e>(
    entity: &Entity,
    kind: &'static str,
    beside: &'e Option<Beside>,
) -> Result<&'e Beside, StoreError> {
    beside.as_ref().ok_or_else(|| invalid(&format!("{} have no {kind}", entity.name)))
}

fn attribute<'e>(entity: &'e Entity, name: &str) -> Result<&'e Attribute, StoreError> {
    let found = entity.attributes.iter().find(|attribute| attribute.name == name);
    found.ok_or_else(|| invalid(&format!("{} have no attribute `{name}`", entity.name)))
}

/// A LIKE pattern as a GLOB pattern.
fn glob(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '%' => text.push('*'),
            '_' => text.push('?'),
            '*' | '?' | '[' => text.extend(['[', c, ']']),
            c => text.push(c),
        }
    }
    text
}

fn bound(statement: Query<'static>, value: Operand) -> Result<Query<'static>, StoreError> {
    Ok(match value {
        Operand::Text(text) => {
            no_nul("a search's value", &text)?;
            statement.bind(text)
        }
        Operand::Int(number) => statement.bind(number),
        Operand::Real(number) => statement.bind(number),
        Operand::None | Operand::Texts(_) | Operand::Ints(_) => {
            return Err(invalid("one value was expected"));
        }
    })
}

impl Conn {
    /// Runs a search.
    pub(crate) async fn search(
        &mut self,
        entity: &Entity,
        search: &Search,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let like_ignores_case = self.scalar(query(LIKE_IGNORES_CASE)).await? == Some(1);
        let mut statement =
            Statement { text: entity.select.to_owned(), values: Vec::new(), like_ignores_case };
        let mut word = " WHERE ";
        let of_span = |clause: &&Clause| matches!(clause.field, Field::Span(_) | Field::SpanAttribute(_));
        let (of_spans, others): (Vec<&Clause>, Vec<&Clause>) = search.clauses.iter().partition(of_span);
        for clause in others {
            statement.push(std::mem::replace(&mut word, " AND "));
            statement.push("(");
            statement.clause(entity, clause, search)?;
            statement.push(")");
        }
        if !of_spans.is_empty() {
            statement.push(std::mem::replace(&mut word, " AND "));
            statement.spans(&of_spans)?;
        }
        let on_metrics = search.clauses.iter().any(|clause| matches!(clause.field, Field::Metric(_)));
        if let (true, false, false, Some(metrics)) =
            (entity.metrics_by_dataset, search.datasets.is_empty(), on_metrics, &entity.metrics)
        {
            statement.push(word);
            statement.push(&format!("EXISTS (SELECT 1 FROM {} WHERE {}", metrics.from, metrics.belongs));
            statement.measured_on(&search.datasets);
            statement.push(")");
        }
        statement.push(" ORDER BY ");
        for order in &search.order {
            statement.order(entity, order, search)?;
        }
        statement.push(if search.order.is_empty() { entity.order } else { entity.ties });
        statement.push(" LIMIT ");
        statement.value(Operand::Int(search.page.limit));
        statement.push(" OFFSET ");
        statement.value(Operand::Int(search.page.offset));
        let Statement { text, values, .. } = statement;
        let finished = values.into_iter().try_fold(query_dynamic(text), bound)?;
        self.fetch_all(finished).await
    }
}

/// A search as it is put together, for the test that prepares every statement on both engines.
#[cfg(test)]
pub(crate) mod example {
    use crate::statements::statements;

    statements! {
        EXAMPLE = "SELECT t.run_id FROM runs t WHERE (t.experiment_id = $1) AND (lower(t.name) LIKE lower($2) ESCAPE '~') \
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
