//! Small values by name.

use crate::conn::{Conn, Tx, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;

statements! {
    GET = "SELECT value FROM settings WHERE key = $1";
    SET = "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    REMOVE = "DELETE FROM settings WHERE key = $1";
}

impl Conn {
    /// A setting's value.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn setting(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        no_nul("a setting's key", key)?;
        let row = self.fetch_optional(query(GET).bind(key.to_owned())).await?;
        row.map(|row| text(&row, "value")).transpose()
    }
}

impl Tx {
    /// Writes a setting.
    ///
    /// # Errors
    /// Where a text can't be stored.
    pub async fn set_setting(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        no_nul("a setting's key", key)?;
        no_nul("a setting's value", value)?;
        self.execute(query(SET).bind(key.to_owned()).bind(value.to_owned())).await.map(|_| ())
    }

    /// Removes a setting; says whether there was one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn remove_setting(&mut self, key: &str) -> Result<bool, StoreError> {
        no_nul("a setting's key", key)?;
        self.execute(query(REMOVE).bind(key.to_owned())).await.map(|rows| rows > 0)
    }
}
