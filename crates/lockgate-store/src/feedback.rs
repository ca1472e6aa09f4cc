//! Outcomes that come after the prediction, and which predictions of rollouts they are about.

use crate::conn::{Conn, Row, Tx, int, opt_text, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;
use std::ops::Range;

/// How many things may be said of one prediction in all.
pub const NAMES: i64 = 32;

statements! {
    DRAW = "INSERT INTO drawn (id, promotion, weight, candidate, answered, unit, at, noted, kept, seq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING";
    DRAWN = "SELECT id, promotion, weight, candidate, answered, unit, at, noted, kept, seq FROM drawn WHERE id = $1";
    DRAWN_AFTER = "SELECT id, promotion, weight, candidate, answered, unit, at, noted, kept, seq FROM drawn WHERE promotion = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    FORGET = "DELETE FROM drawn WHERE id IN (SELECT id FROM drawn WHERE promotion = $1 LIMIT $2)";
    FORGET_PASSED = "DELETE FROM drawn WHERE id IN (SELECT d.id FROM drawn d WHERE d.promotion = $1 AND d.kept = 0 AND d.at >= $2 AND d.at < $3 AND NOT EXISTS (SELECT 1 FROM feedback f WHERE f.prediction = d.id) LIMIT $4)";
    PROMOTIONS = "SELECT DISTINCT promotion FROM drawn ORDER BY promotion";
    LAST_SAID = "SELECT COALESCE(MAX(seq), -1) FROM feedback";
    LAST_DRAWN = "SELECT COALESCE(MAX(seq), -1) FROM drawn";
    SAY = "INSERT INTO feedback (prediction, name, number, words, at, seq) VALUES ($1, $2, $3, $4, $5, $6)";
    SAID = "SELECT prediction, name, number, words, at FROM feedback WHERE prediction = $1 AND name = $2";
    SAID_OF = "SELECT prediction, name, number, words, at FROM feedback WHERE prediction = $1 ORDER BY name";
    NAMES_OF = "SELECT COUNT(*) FROM feedback WHERE prediction = $1";
    // Feedback is kept for good, a rollout's predictions are not: its order leads, so that a page reads no more than itself.
    SAID_AFTER = "SELECT f.prediction AS prediction, f.name AS name, f.number AS number, f.words AS words, f.at AS said, f.seq AS seq, d.id AS id, d.promotion AS promotion, d.weight AS weight, d.candidate AS candidate, d.answered AS answered, d.unit AS unit, d.at AS at, d.noted AS noted, d.kept AS kept FROM feedback f CROSS JOIN drawn d WHERE d.id = f.prediction AND d.promotion = $1 AND f.seq > $2 ORDER BY f.seq LIMIT $3";
}

/// A prediction that was drawn into a side of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Its id.
    pub id: String,
    /// The promotion whose rollout drew it.
    pub promotion: String,
    /// The candidate's share at that moment, in parts of 10,000.
    pub weight: u32,
    /// Whether it was drawn into the candidate's side.
    pub candidate: bool,
    /// Whether it got a good answer.
    pub answered: bool,
    /// A hash of its unit.
    pub unit: u64,
    /// When it was asked for.
    pub at: Millis,
    /// When it became known.
    pub noted: Millis,
    /// Whether it is needed for as long as its rollout is followed.
    pub kept: bool,
}

/// What can be said of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A number.
    Number(f64),
    /// A text, such as the true class.
    Text(String),
}

/// One thing that was said of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    /// The prediction's id.
    pub prediction: String,
    /// What it is about.
    pub name: String,
    /// What was said.
    pub value: Said,
    /// When it came.
    pub at: Millis,
}

/// What became of something that was said.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// It is written down now.
    New,
    /// The very same was said before.
    Known(Feedback),
    /// Something else was said before, and stands.
    Other(Feedback),
    /// As many things as may be ([`NAMES`]) were said of this prediction before.
    Full,
}

fn drawn(row: &Row) -> Result<Drawn, StoreError> {
    let wrong = |column: &str, found: i64| StoreError::Value {
        column: column.to_owned(),
        found: found.to_string(),
        expected: "share of the traffic",
    };
    let weight = int(row, "weight")?;
    Ok(Drawn {
        id: text(row, "id")?,
        promotion: text(row, "promotion")?,
        weight: u32::try_from(weight).map_err(|_| wrong("weight", weight))?,
        candidate: int(row, "candidate")? == 1,
        answered: int(row, "answered")? == 1,
        unit: int(row, "unit")?.cast_unsigned(),
        at: int(row, "at")?,
        noted: int(row, "noted")?,
        kept: int(row, "kept")? == 1,
    })
}

fn feedback(row: &Row) -> Result<Feedback, StoreError> {
    let value = match opt_text(row, "words")? {
        Some(words) => Said::Text(words),
        None => Said::Number(crate::conn::real(row, "number")?),
    };
    Ok(Feedback {
        prediction: text(row, "prediction")?,
        name: text(row, "name")?,
        value,
        at: int(row, "at")?,
    })
}

/// Something said, its number, and the prediction it is about: what both have a column for is the prediction's.
fn said_of(row: &Row) -> Result<(i64, (Feedback, Drawn)), StoreError> {
    let said = Feedback { at: int(row, "said")?, ..feedback(row)? };
    Ok((int(row, "seq")?, (said, drawn(row)?)))
}

impl Conn {
    /// A prediction that was drawn, by its id.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn drawn(&mut self, id: &str) -> Result<Option<Drawn>, StoreError> {
        no_nul("a prediction's id", id)?;
        let row = self.fetch_optional(query(DRAWN).bind(id.to_owned())).await?;
        row.as_ref().map(drawn).transpose()
    }

    /// The next predictions that a rollout drew, in the order of their numbers: those above `after`, and at most `most`.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn drawn_after(
        &mut self,
        promotion: &str,
        after: i64,
        most: i64,
    ) -> Result<Vec<(i64, Drawn)>, StoreError> {
        let of = query(DRAWN_AFTER).bind(promotion.to_owned()).bind(after).bind(most);
        let rows = self.fetch_all(of).await?;
        rows.iter().map(|row| Ok((int(row, "seq")?, drawn(row)?))).collect()
    }

    /// The promotions of which predictions are kept.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn drawn_promotions(&mut self) -> Result<Vec<String>, StoreError> {
        let rows = self.fetch_all(query(PROMOTIONS)).await?;
        rows.iter().map(|row| text(row, "promotion")).collect()
    }

    /// All that was said of a prediction, by name.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn feedback_of(&mut self, prediction: &str) -> Result<Vec<Feedback>, StoreError> {
        no_nul("a prediction's id", prediction)?;
        let rows = self.fetch_all(query(SAID_OF).bind(prediction.to_owned())).await?;
        rows.iter().map(feedback).collect()
    }

    /// What was said next of a rollout's predictions, and of which, in the order in which it came: what has a number above `after`,
    /// and at most `most`.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn feedback_after(
        &mut self,
        promotion: &str,
        after: i64,
        most: i64,
    ) -> Result<Vec<(i64, (Feedback, Drawn))>, StoreError> {
        let of = query(SAID_AFTER).bind(promotion.to_owned()).bind(after).bind(most);
        let rows = self.fetch_all(of).await?;
        rows.iter().map(said_of).collect()
    }

    /// The first number that neither a prediction nor anything said has.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn next_event(&mut self) -> Result<i64, StoreError> {
        let (said, drawn) = (self.scalar(query(LAST_SAID)).await?, self.scalar(query(LAST_DRAWN)).await?);
        // Those from before both had one order have numbers below 0.
        Ok(said.max(drawn).map_or(0, |last| last.saturating_add(1).max(0)))
    }
}

impl Tx {
    /// Keeps a prediction that was drawn, under its number; once.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn draw(&mut self, one: &Drawn, seq: i64) -> Result<(), StoreError> {
        let query = query(DRAW)
            .bind(one.id.clone())
            .bind(one.promotion.clone())
            .bind(i64::from(one.weight))
            .bind(i64::from(one.candidate))
            .bind(i64::from(one.answered))
            .bind(one.unit.cast_signed())
            .bind(one.at)
            .bind(one.noted)
            .bind(i64::from(one.kept))
            .bind(seq);
        self.execute(query).await.map(|_| ())
    }

    /// Forgets at most so many of the predictions that a rollout drew; says how many. What was said of them stays.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn forget_drawn(&mut self, promotion: &str, most: i64) -> Result<u64, StoreError> {
        self.execute(query(FORGET).bind(promotion.to_owned()).bind(most)).await
    }

    /// Forgets at most so many of the predictions that a rollout drew in this time, of which nothing was said and that are not
    /// needed for longer; says how many.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn forget_passed(
        &mut self,
        promotion: &str,
        during: Range<Millis>,
        most: i64,
    ) -> Result<u64, StoreError> {
        let passed =
            query(FORGET_PASSED).bind(promotion.to_owned()).bind(during.start).bind(during.end).bind(most);
        self.execute(passed).await
    }

    /// Writes down what was said of a prediction, under its number, unless something was said of it by this name before
    /// (the first stands) or enough by other names.
    ///
    /// # Errors
    /// Where a text can't be stored, or the database can't be written.
    pub async fn say(&mut self, one: &Feedback, seq: i64) -> Result<Kept, StoreError> {
        no_nul("a prediction's id", &one.prediction)?;
        no_nul("an outcome's name", &one.name)?;
        let (number, words) = match &one.value {
            Said::Number(number) => (Some(*number), None),
            Said::Text(words) => (None, Some(words.clone())),
        };
        if let Some(words) = &words {
            no_nul("an outcome", words)?;
        }
        let known = query(SAID).bind(one.prediction.clone()).bind(one.name.clone());
        if let Some(row) = self.fetch_optional(known).await? {
            let before = feedback(&row)?;
            let same = before.value == one.value;
            return Ok(if same { Kept::Known(before) } else { Kept::Other(before) });
        }
        let names = self.scalar(query(NAMES_OF).bind(one.prediction.clone())).await?.unwrap_or(0);
        if names >= NAMES {
            return Ok(Kept::Full);
        }
        let query = query(SAY)
            .bind(one.prediction.clone())
            .bind(one.name.clone())
            .bind(number)
            .bind(words)
            .bind(one.at)
            .bind(seq);
        self.execute(query).await?;
        Ok(Kept::New)
    }
}
