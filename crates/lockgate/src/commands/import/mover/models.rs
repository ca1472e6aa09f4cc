//! Logged models.

use super::{Mover, artifacts};
use crate::commands::import::report::Kind;
use crate::commands::import::sources::Cursor;
use lockgate_control::tracking::Experiment;
use lockgate_control::tracking::exchange::{Fate, LoggedModelRecord, Record};

impl Mover {
    pub(super) async fn logged_models(&mut self, of: &Experiment, number: i64) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.logged_models(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            let records: Vec<Record> = page
                .iter()
                .map(|model| {
                    let artifact_uri = self.stays_at(&model.artifact_uri);
                    Record::LoggedModel(Box::new(LoggedModelRecord {
                        experiment_id: number,
                        artifact_uri,
                        ..LoggedModelRecord::of(model)
                    }))
                })
                .collect();
            let outcomes = match self.dry {
                true => self.tried(of, records.clone()).await?,
                false => self.target.take(&records, false).await?,
            };
            for (record, outcome) in records.iter().zip(&outcomes) {
                self.count(Kind::LoggedModels, &super::name(record), outcome);
            }
            self.read_back(Kind::LoggedModels, &records, &outcomes).await?;
            for (model, outcome) in page.iter().zip(&outcomes) {
                if outcome.fate == Fate::Conflict {
                    self.incomplete.insert(model.model_id.clone());
                    continue;
                }
                let to = artifacts::Place::of_model(number, &model.model_id);
                let stays = self.stays_at(&model.artifact_uri).is_some();
                self.artifacts(&model.artifact_uri, stays, &to).await?;
            }
            self.progress(&format!("models of `{}`", of.name));
        }
    }
}
