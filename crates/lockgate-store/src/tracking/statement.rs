//! The statement of a search, put together: conditions, orders, a page.

use super::entity::{Attribute, Beside, Entity, INDEXED};
use super::search::{Clause, Comparator, Field, Operand, Order, Page, Search};
use crate::conn::{Query, query_dynamic};
use crate::error::{StoreError, no_nul};
use crate::pattern;

/// How many values a search may hold. SQLite takes 32,766, PostgreSQL 65,535.
const VALUES: usize = 30_000;

/// A statement under construction: text that this module wrote, and values.
pub(super) struct Statement {
    text: String,
    values: Vec<Operand>,
    /// SQLite's LIKE ignores case; there GLOB takes its place, and texts are sorted by their bytes already.
    like_ignores_case: bool,
}

impl Statement {
    pub(super) fn new(is_sqlite: bool) -> Self {
        Self { text: String::new(), values: Vec::new(), like_ignores_case: is_sqlite }
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn value(&mut self, value: Operand) {
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
            Comparator::Rlike => return self.expression(column, operand),
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

    /// SQLite gets a function of ours, PostgreSQL an expression in its own words.
    fn expression(&mut self, column: &str, operand: &Operand) -> Result<(), StoreError> {
        let Operand::Text(given) = operand else { return Err(invalid("a regular expression was expected")) };
        let translated = pattern::for_postgres(given).map_err(|why| unusable(given, &why))?;
        let (operator, words) =
            if self.is_sqlite() { ("REGEXP", given.as_str()) } else { ("~", translated.as_str()) };
        self.push(&format!("{column} {operator} "));
        self.words(words);
        Ok(())
    }

    pub(super) fn is_sqlite(&self) -> bool {
        self.like_ignores_case
    }

    /// `EXISTS (SELECT 1`. SQLite would make a join of it, and read the entity's row first; the sign keeps it from that.
    fn exists(&mut self) {
        self.push(if self.is_sqlite() { "+EXISTS (SELECT 1" } else { "EXISTS (SELECT 1" });
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
                if is_in_index(attribute, clause) {
                    self.push(&format!("length({}) <= {INDEXED} AND ", attribute.column));
                }
                self.compare(attribute.column, clause.comparator, &clause.operand)
            }
            Field::Metric(key) => {
                self.exists();
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
            Field::Tag(key) if clause.comparator == Comparator::Lacks => {
                self.pair(beside("tags", entity.lacking())?, key, clause)
            }
            Field::Tag(key) => self.pair(beside("tags", &entity.tags)?, key, clause),
            Field::Dataset(part) => {
                let column = match *part {
                    "name" => "d.name",
                    "digest" => "d.digest",
                    _ => "g.value",
                };
                let beside = beside("datasets", &entity.datasets)?;
                self.exists();
                self.push(&format!(" FROM {} WHERE {} AND ", beside.from, beside.belongs));
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
        if absent {
            self.push("NOT EXISTS (SELECT 1");
        } else {
            self.exists();
        }
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

    pub(super) fn direction(&mut self, ascending: bool, text: bool) {
        // SQLite sorts texts by their bytes; PostgreSQL is told to.
        if text && !self.like_ignores_case {
            self.push(" COLLATE \"C\"");
        }
        self.push(if ascending { " ASC, " } else { " DESC, " });
    }

    /// The rows that order number `i` goes by, joined: one for each key, or none.
    pub(super) fn join(&mut self, entity: &Entity, i: usize, order: &Order) -> Result<(), StoreError> {
        let Some((beside, key)) = joined(entity, order)? else { return Ok(()) };
        let alias = format!("o{i}");
        let table = beside.from.strip_suffix(" s").unwrap_or(beside.from);
        let belongs = beside.belongs.replace("s.", &format!("{alias}."));
        self.push(&format!(" LEFT JOIN {table} {alias} ON {belongs} AND {alias}.key = "));
        self.words(key);
        Ok(())
    }

    pub(super) fn order(
        &mut self,
        entity: &Entity,
        i: usize,
        order: &Order,
        search: &Search,
    ) -> Result<(), StoreError> {
        let metric = matches!(order.field, Field::Metric(_));
        if let Field::Attribute(name) = order.field {
            let attribute = attribute(entity, name)?;
            // What is always there is ordered by its index.
            if !attribute.always {
                self.push(&format!("CASE WHEN {} IS NULL THEN 1 ELSE 0 END, ", attribute.column));
            }
            self.push(attribute.column);
            self.direction(order.ascending, attribute.text);
        } else if joined(entity, order)?.is_some() {
            // Values, then NaN, then those that have none.
            let rank = if metric { format!("o{i}.is_nan") } else { "0".to_owned() };
            self.push(&format!("CASE WHEN o{i}.key IS NULL THEN 2 ELSE {rank} END, o{i}.value"));
            self.direction(order.ascending, !metric);
        } else {
            self.measured_order(entity, order, search)?;
        }
        Ok(())
    }

    /// An order by a metric that was measured on several datasets.
    fn measured_order(&mut self, entity: &Entity, order: &Order, search: &Search) -> Result<(), StoreError> {
        let Field::Metric(key) = &order.field else { return Err(invalid("datasets have no order")) };
        let beside = missing(entity, "metrics", &entity.metrics)?;
        for (column, head) in [("s.is_nan", "COALESCE((SELECT "), ("s.value", "(SELECT ")] {
            self.push(head);
            self.push(column);
            self.beside(beside, key);
            self.measured_on(&search.datasets);
            if let Some(dataset) = &order.dataset {
                for (column, value) in
                    [("s.dataset_name", &dataset.name), ("s.dataset_digest", &dataset.digest)]
                {
                    if let Some(value) = value {
                        self.push(&format!(" AND {column} = "));
                        self.words(value);
                    }
                }
            }
            self.push(" ORDER BY s.step DESC, s.logged_at DESC LIMIT 1)");
            if column == "s.is_nan" {
                self.push(", 2), ");
            } else {
                self.direction(order.ascending, false);
            }
        }
        Ok(())
    }

    /// Workspace and conditions.
    pub(super) fn filter(
        &mut self,
        entity: &Entity,
        search: &Search,
        workspace: &str,
    ) -> Result<(), StoreError> {
        self.push(" WHERE t.workspace = ");
        self.words(workspace);
        self.push(entity.shown());
        let of_span = |clause: &&Clause| matches!(clause.field, Field::Span(_) | Field::SpanAttribute(_));
        let (of_spans, others): (Vec<&Clause>, Vec<&Clause>) = search.clauses.iter().partition(of_span);
        if !of_spans.is_empty() {
            self.push(" AND ");
            self.spans(&of_spans)?;
        }
        for clause in others {
            self.push(" AND (");
            self.clause(entity, clause, search)?;
            self.push(")");
        }
        let on_metrics = search.clauses.iter().any(|clause| matches!(clause.field, Field::Metric(_)));
        if let (true, false, false, Some(metrics)) =
            (entity.metrics_by_dataset, search.datasets.is_empty(), on_metrics, &entity.metrics)
        {
            self.push(" AND ");
            self.exists();
            self.push(&format!(" FROM {} WHERE {}", metrics.from, metrics.belongs));
            self.measured_on(&search.datasets);
            self.push(")");
        }
        Ok(())
    }

    pub(super) fn finished(mut self, page: Page) -> Result<Query, StoreError> {
        self.push(" LIMIT ");
        self.value(Operand::Int(page.limit));
        self.push(" OFFSET ");
        self.value(Operand::Int(page.offset));
        if self.values.len() > VALUES {
            return Err(invalid(&format!(
                "it compares with {} values; use {VALUES} at the most",
                self.values.len()
            )));
        }
        self.values.into_iter().try_fold(query_dynamic(self.text), bound)
    }
}

/// The table and the key of an order that goes by rows of which there is one for each key.
fn joined<'e>(entity: &'e Entity, order: &'e Order) -> Result<Option<(&'e Beside, &'e str)>, StoreError> {
    Ok(match &order.field {
        Field::Metric(_) if entity.metrics_by_dataset => None,
        Field::Metric(key) => Some((missing(entity, "metrics", &entity.metrics)?, key)),
        Field::Param(key) => Some((missing(entity, "params", &entity.params)?, key)),
        Field::Tag(key) => Some((missing(entity, "tags", &entity.tags)?, key)),
        Field::Attribute(_) => None,
        Field::Dataset(_) => return Err(invalid("datasets have no order")),
        Field::Span(_) | Field::SpanAttribute(_) | Field::Assessment(..) | Field::Link(_) => {
            return Err(invalid("what belongs to traces has no order"));
        }
    })
}

pub(super) fn invalid(why: &str) -> StoreError {
    StoreError::Invalid { what: "a search", why: why.to_owned() }
}

/// A regular expression that can't be searched for.
pub(super) fn unusable(given: &str, why: &str) -> StoreError {
    invalid(&format!("'{given}' is no regular expression that can be searched for: {why}"))
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

/// Whether an index that holds short values only has all that meet a condition. The engines take it where the statement says
/// so, too.
fn is_in_index(attribute: &Attribute, clause: &Clause) -> bool {
    let short = |text: &String| text.chars().count() <= INDEXED;
    attribute.indexed
        && match (clause.comparator, &clause.operand) {
            (Comparator::Eq, Operand::Text(text)) => short(text),
            (Comparator::In, Operand::Texts(texts)) => texts.iter().all(short),
            _ => false,
        }
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

fn bound(statement: Query, value: Operand) -> Result<Query, StoreError> {
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
