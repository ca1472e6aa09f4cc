//! Which tables and columns a database has, and statements over those.

use super::{Bind, Foreign};
use crate::conn::{Row, int, text};
use crate::error::StoreError;
use std::collections::{HashMap, HashSet};

/// What is kept by newer releases of MLflow and has no place here, with its name for people.
const OTHERS: [(&str, &str); 7] = [
    ("evaluation datasets", "evaluation_datasets"),
    ("scorers", "scorers"),
    ("webhooks", "webhooks"),
    ("issues", "issues"),
    ("gateway endpoints", "endpoints"),
    ("review queues", "review_queues"),
    ("jobs", "jobs"),
];

/// What is read, and what says nothing by itself.
const KNOWN: [&str; 21] = [
    "alembic_version",
    "datasets",
    "entity_associations",
    "experiment_tags",
    "experiments",
    "input_tags",
    "inputs",
    "job_locks",
    "latest_metrics",
    "logged_model_metrics",
    "logged_model_params",
    "logged_model_tags",
    "logged_models",
    "metrics",
    "params",
    "registered_models",
    "runs",
    "scheduler_leases",
    "tags",
    "workspaces",
    "model_versions",
];

/// The beginnings of names of tables whose rows belong to something that is read, or counted by its own table.
const PARTS: [&str; 12] = [
    "sqlite_",
    "trace_",
    "span",
    "sql_",
    "evaluation_dataset_",
    "scorer_",
    "webhook_",
    "endpoint_",
    "review_queue_",
    "registered_model_",
    "model_version_",
    "assessment",
];

/// How a column is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Real,
}

impl Foreign {
    pub(super) async fn look_up(&mut self) -> Result<HashMap<String, HashSet<String>>, StoreError> {
        let sql = "SELECT CAST(m.name AS TEXT) AS owner, CAST(c.name AS TEXT) AS name \
                   FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'";
        let mut found: HashMap<String, HashSet<String>> = HashMap::new();
        for row in self.rows(sql.to_owned(), &[]).await? {
            found.entry(text(&row, "owner")?).or_default().insert(text(&row, "name")?);
        }
        Ok(found)
    }

    /// Whether there is this table.
    pub(super) fn has(&self, table: &str) -> bool {
        self.columns.contains_key(table)
    }

    pub(super) fn has_column(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).is_some_and(|columns| columns.contains(column))
    }

    /// The selection of a table's columns, each under its own name; those that are not there are NULL.
    pub(super) fn select(&self, table: &str, columns: &[(&str, Kind)]) -> String {
        let one = |(name, kind): &(&str, Kind)| {
            let kind = match kind {
                Kind::Text => "TEXT",
                Kind::Int => "INTEGER",
                Kind::Real => "REAL",
            };
            match self.has_column(table, name) {
                true => format!("CAST({table}.{name} AS {kind}) AS {name}"),
                false => format!("CAST(NULL AS {kind}) AS {name}"),
            }
        };
        let list: Vec<String> = columns.iter().map(one).collect();
        format!("SELECT {} FROM {table}", list.join(", "))
    }

    /// The rows of a table; none where there is no such table. `rest` begins with WHERE or ORDER BY.
    pub(super) async fn of(
        &mut self,
        table: &str,
        columns: &[(&str, Kind)],
        rest: &str,
        binds: &[Bind<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        if !self.has(table) {
            return Ok(Vec::new());
        }
        let sql = format!("{} {rest}", self.select(table, columns));
        self.rows(sql, binds).await
    }

    /// The condition that keeps to MLflow's usual workspace, where a release knows several.
    pub(super) fn usual(&self, table: &str) -> &'static str {
        if self.has_column(table, "workspace") {
            "COALESCE(workspace, 'default') = 'default'"
        } else {
            "1 = 1"
        }
    }

    async fn count(&mut self, sql: String) -> Result<u64, StoreError> {
        let rows = self.rows(sql, &[]).await?;
        let found = rows.first().map(|row| int(row, "n")).transpose()?.unwrap_or_default();
        Ok(u64::try_from(found).unwrap_or_default())
    }

    /// What is in the database and is not read here: names for people, with counts.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn others(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found = Vec::new();
        for (name, table) in OTHERS {
            if self.has(table) {
                found
                    .push((name.to_owned(), self.count(format!("SELECT COUNT(*) AS n FROM {table}")).await?));
            }
        }
        // Whatever a newer release keeps beside.
        let counted = |table: &str| OTHERS.iter().any(|(_, known)| *known == table);
        let part = |table: &str| PARTS.iter().any(|part| table.starts_with(part));
        let known = |table: &str| KNOWN.contains(&table) || counted(table) || part(table);
        let mut unknown: Vec<String> = self.columns.keys().filter(|table| !known(table)).cloned().collect();
        unknown.sort();
        for table in unknown {
            let sql = format!("SELECT COUNT(*) AS n FROM \"{}\"", table.replace('"', "\"\""));
            found.push((format!("rows of table `{table}`"), self.count(sql).await?));
        }
        for table in ["experiments", "registered_models"] {
            if self.has_column(table, "workspace") {
                let sql = format!("SELECT COUNT(*) AS n FROM {table} WHERE NOT ({})", self.usual(table));
                let name = format!("{} of other workspaces", table.replace('_', " "));
                found.push((name, self.count(sql).await?));
            }
        }
        if self.has_column("entity_associations", "destination_type") {
            // Those of traces are read; those of evaluation datasets go with these.
            let sql = "SELECT COUNT(*) AS n FROM entity_associations WHERE source_type <> 'evaluation_dataset' \
                       AND destination_type <> 'evaluation_dataset' AND NOT (source_type = 'trace' \
                       AND destination_type IN ('run', 'prompt_version'))";
            found.push(("links between other things".to_owned(), self.count(sql.to_owned()).await?));
        }
        if self.has_column("logged_models", "lifecycle_stage") {
            let sql = "SELECT COUNT(*) AS n FROM logged_models WHERE lifecycle_stage = 'deleted'";
            found.push(("deleted logged models".to_owned(), self.count(sql.to_owned()).await?));
        }
        found.retain(|(_, count)| *count > 0);
        Ok(found)
    }
}
