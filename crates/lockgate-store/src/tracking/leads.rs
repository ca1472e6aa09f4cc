//! Searches that begin with an index of what is beside a thing, rather than with the thing itself.

use super::entity::{Entity, INDEXED, Led};
use super::search::{Clause, Comparator, Field, Operand, Page, Search};
use super::statement::Statement;
use crate::conn::{Conn, Query};
use crate::error::StoreError;

/// Up to so many are few: all of them are looked at, which takes some milliseconds.
const FEW: i64 = 1_000;

/// The one experiment that a search is about.
fn experiment(search: &Search) -> Option<i64> {
    let mut about = search.clauses.iter().filter(|clause| clause.field == Field::Attribute("experiment_id"));
    let (Some(clause), None) = (about.next(), about.next()) else { return None };
    match (clause.comparator, &clause.operand) {
        (Comparator::Eq, Operand::Int(id)) => Some(*id),
        (Comparator::In, Operand::Ints(ids)) => ids.first().copied().filter(|_| ids.len() == 1),
        _ => None,
    }
}

/// Whether the index of metrics' values has what meets a condition in one stretch.
fn is_stretch(clause: &Clause) -> bool {
    matches!(clause.operand, Operand::Int(_) | Operand::Real(_)) && clause.comparator != Comparator::Ne
}

/// What a search begins with: the rows of a table, with alias `o`, that an index has in one stretch.
struct Lead<'s> {
    table: &'static str,
    /// Texts in the index are short.
    short: bool,
    experiment: Option<i64>,
    key: &'s str,
    clauses: Vec<&'s Clause>,
}

impl<'s> Lead<'s> {
    /// What a condition leads to, where there is an index for it.
    fn by(led: &Led, clause: &'s Clause, search: &Search) -> Option<Self> {
        let pair = |table, key: &'s String| {
            let Operand::Text(text) = &clause.operand else { return None };
            let indexed = clause.comparator == Comparator::Eq && text.chars().count() <= INDEXED;
            let clauses = vec![clause];
            indexed.then_some(Lead { table, short: true, experiment: None, key, clauses })
        };
        match &clause.field {
            Field::Param(key) => pair(led.params, key),
            Field::Tag(key) => pair(led.tags, key),
            Field::Metric(key) if is_stretch(clause) => Lead::ranks(led, key, search, vec![clause]),
            _ => None,
        }
    }

    fn ranks(led: &Led, key: &'s str, search: &Search, clauses: Vec<&'s Clause>) -> Option<Self> {
        let experiment = Some(experiment(search)?);
        Some(Lead { table: led.metrics, short: false, experiment, key, clauses })
    }

    fn condition(&self, statement: &mut Statement) -> Result<(), StoreError> {
        statement.push("o.key = ");
        statement.words(self.key);
        if let Some(experiment) = self.experiment {
            statement.push(" AND o.is_nan = 0 AND o.experiment_id = ");
            statement.value(Operand::Int(experiment));
        }
        if self.short {
            statement.push(&format!(" AND length(o.value) <= {INDEXED}"));
        }
        for clause in &self.clauses {
            statement.push(" AND ");
            statement.compare("o.value", clause.comparator, &clause.operand)?;
        }
        Ok(())
    }
}

impl Conn {
    /// A search one of whose conditions few things meet, as a statement that looks at these.
    pub(super) async fn narrow(
        &mut self,
        entity: &Entity,
        search: &Search,
    ) -> Result<Option<Query>, StoreError> {
        let Some(led) = entity.led else { return Ok(None) };
        for clause in &search.clauses {
            let Some(lead) = Lead::by(led, clause, search) else { continue };
            let mut more = self.statement();
            more.push(&format!("SELECT 1 AS more FROM {} o WHERE ", lead.table));
            lead.condition(&mut more)?;
            if self.fetch_all(more.finished(Page { limit: 1, offset: FEW })?).await?.is_empty() {
                return self.led(led, &lead, search, None).map(Some);
            }
        }
        Ok(None)
    }

    /// A search in the order of a metric within one experiment, as a statement that goes through its values: the first ones are
    /// found, however many there are. It finds only those whose metric is a number.
    pub(super) fn ranked(&self, entity: &Entity, search: &Search) -> Result<Option<Query>, StoreError> {
        let (Some(led), Some(order)) = (entity.led, search.order.first()) else { return Ok(None) };
        let Field::Metric(key) = &order.field else { return Ok(None) };
        let of_rank = |clause: &&Clause| clause.field == order.field && is_stretch(clause);
        let clauses = search.clauses.iter().filter(of_rank).collect();
        let Some(lead) = Lead::ranks(led, key, search, clauses) else { return Ok(None) };
        self.led(led, &lead, search, Some(order.ascending)).map(Some)
    }

    /// A search that goes through what leads it; where a direction is given, in the order of its values.
    fn led(
        &self,
        led: &Led,
        lead: &Lead<'_>,
        search: &Search,
        ascending: Option<bool>,
    ) -> Result<Query, StoreError> {
        let entity = &led.entity;
        let orders = || search.order.iter().enumerate().skip(usize::from(ascending.is_some()));
        let mut statement = self.statement();
        // SQLite goes through the tables of a cross join in their order.
        let (columns, lead_table, table) = (entity.columns, lead.table, entity.table);
        statement.push(&format!("SELECT {columns} FROM {lead_table} o CROSS JOIN {table} t"));
        for (i, order) in orders() {
            statement.join(entity, i, order)?;
        }
        let others = search.clauses.iter().filter(|clause| !lead.clauses.contains(clause)).cloned().collect();
        let others = Search { clauses: others, ..search.clone() };
        statement.filter(entity, &others, self.workspace())?;
        statement.push(&format!(" AND {} AND ", led.belongs));
        lead.condition(&mut statement)?;
        statement.push(" ORDER BY ");
        if let Some(ascending) = ascending {
            statement.push("o.value");
            statement.direction(ascending, false);
        }
        for (i, order) in orders() {
            statement.order(entity, i, order, search)?;
        }
        statement.push(if search.order.is_empty() { entity.order } else { entity.ties });
        statement.finished(search.page)
    }
}
