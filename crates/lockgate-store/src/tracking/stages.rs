//! MLflow's stages: where a version stands, and who moved it there.

use super::types::StageMove;
use crate::conn::{Conn, Row, Tx, int, query, text};
use crate::error::StoreError;
use crate::statements::statements;

statements! {
    IN_STAGE = "SELECT version FROM model_versions WHERE name = $1 AND stage = $2 ORDER BY version";
    EVERY_IN_STAGE = "SELECT name, version FROM model_versions WHERE workspace = 'default' AND stage = $1 \
                      ORDER BY name, version";
    MOVE = "UPDATE model_versions SET stage = $3, updated = $4 WHERE name = $1 AND version = $2";
    TOUCH = "UPDATE registered_models SET updated = $2 WHERE name = $1";
    NOTE = "INSERT INTO stage_history (seq, name, version, from_stage, to_stage, promotion, actor, at_ms) \
            SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, $4, $5, $6, $7 FROM stage_history";
    MOVES = "SELECT version, from_stage, to_stage, promotion, actor, at_ms FROM stage_history \
             WHERE name = $1 ORDER BY seq";
}

impl Conn {
    /// The versions of a model that are in a stage, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn versions_in_stage(&mut self, name: &str, stage: &str) -> Result<Vec<i64>, StoreError> {
        let rows = self.fetch_all(query(IN_STAGE).bind(self.key(name)).bind(stage.to_owned())).await?;
        rows.iter().map(|row| int(row, "version")).collect()
    }

    /// Every version of the default workspace that is in a stage: model and number.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn every_version_in_stage(&mut self, stage: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = self.fetch_all(query(EVERY_IN_STAGE).bind(stage.to_owned())).await?;
        rows.iter().map(|row| Ok((text(row, "name")?, int(row, "version")?))).collect()
    }

    /// Every move of a model's versions between stages, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn stage_history(&mut self, name: &str) -> Result<Vec<StageMove>, StoreError> {
        let rows = self.fetch_all(query(MOVES).bind(self.key(name))).await?;
        let one = |row: &Row| {
            Ok(StageMove {
                name: name.to_owned(),
                version: int(row, "version")?,
                from: text(row, "from_stage")?,
                to: text(row, "to_stage")?,
                promotion: text(row, "promotion")?,
                actor: text(row, "actor")?,
                at: int(row, "at_ms")?,
            })
        };
        rows.iter().map(one).collect()
    }
}

impl Tx {
    /// Moves a version to another stage, and notes the move. A version that stays where it is counts as changed, but
    /// not as moved.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn move_stage(&mut self, new: &StageMove) -> Result<(), StoreError> {
        let to = query(MOVE).bind(self.key(&new.name)).bind(new.version).bind(new.to.clone()).bind(new.at);
        self.execute(to).await?;
        let statement = query(TOUCH).bind(self.key(&new.name)).bind(new.at);
        self.execute(statement).await?;
        if new.from == new.to {
            return Ok(());
        }
        let note = query(NOTE).bind(self.key(&new.name)).bind(new.version).bind(new.from.clone());
        let note = note.bind(new.to.clone()).bind(new.promotion.clone()).bind(new.actor.clone());
        self.execute(note.bind(new.at)).await.map(|_| ())
    }
}
