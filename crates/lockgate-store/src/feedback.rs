//! Outcomes that come after the prediction, and which predictions of rollouts they are about.

use crate::conn::{Conn, Row, Tx, int, opt_text, query, signed, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    DRAW = "INSERT INTO drawn (id, promotion, weight, candidate, answered, unit, at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING";
    DRAWN = "SELECT id, promotion, weight, candidate, answered, unit, at FROM drawn WHERE id = $1";
    DRAWN_FOR = "SELECT id, promotion, weight, candidate, answered, unit, at FROM drawn WHERE promotion = $1 ORDER BY at, id";
    FORGET = "DELETE FROM drawn WHERE promotion = $1";
    PROMOTIONS = "SELECT DISTINCT promotion FROM drawn ORDER BY promotion";
    NEXT = "SELECT COALESCE(MAX(seq), -1) + 1 FROM feedback";
    SAY = "INSERT INTO feedback (prediction, name, number, words, at, seq) VALUES ($1, $2, $3, $4, $5, $6)";
    SAID = "SELECT prediction, name, number, words, at FROM feedback WHERE prediction = $1 AND name = $2";
    SAID_OF = "SELECT prediction, name, number, words, at FROM feedback WHERE prediction = $1 ORDER BY name";
    SAID_FOR = "SELECT f.prediction AS prediction, f.name AS name, f.number AS number, f.words AS words, f.at AS at FROM feedback f JOIN drawn d ON d.id = f.prediction WHERE d.promotion = $1 ORDER BY f.seq";
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
    /// Whether that side answered it well.
    pub answered: bool,
    /// A hash of its unit.
    pub unit: u64,
    /// When it was asked for.
    pub at: Millis,
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

    /// All predictions that a rollout drew, oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn drawn_for(&mut self, promotion: &str) -> Result<Vec<Drawn>, StoreError> {
        let rows = self.fetch_all(query(DRAWN_FOR).bind(promotion.to_owned())).await?;
        rows.iter().map(drawn).collect()
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

    /// All that was said of a rollout's predictions, in the order in which it came.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn feedback_for(&mut self, promotion: &str) -> Result<Vec<Feedback>, StoreError> {
        let rows = self.fetch_all(query(SAID_FOR).bind(promotion.to_owned())).await?;
        rows.iter().map(feedback).collect()
    }
}

impl Tx {
    /// Keeps a prediction that was drawn; once.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn draw(&mut self, one: &Drawn) -> Result<(), StoreError> {
        let query = query(DRAW)
            .bind(one.id.clone())
            .bind(one.promotion.clone())
            .bind(i64::from(one.weight))
            .bind(i64::from(one.candidate))
            .bind(i64::from(one.answered))
            .bind(one.unit.cast_signed())
            .bind(one.at);
        self.execute(query).await.map(|_| ())
    }

    /// Forgets the predictions that a rollout drew. What was said of them stays.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn forget_drawn(&mut self, promotion: &str) -> Result<(), StoreError> {
        self.execute(query(FORGET).bind(promotion.to_owned())).await.map(|_| ())
    }

    /// Writes down what was said of a prediction, unless something was said of it by this name before: the first stands.
    ///
    /// # Errors
    /// Where a text can't be stored, or the database can't be written.
    pub async fn say(&mut self, one: &Feedback) -> Result<Kept, StoreError> {
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
        let next = self.scalar(query(NEXT)).await?.unwrap_or(0);
        let query = query(SAY)
            .bind(one.prediction.clone())
            .bind(one.name.clone())
            .bind(number)
            .bind(words)
            .bind(one.at)
            .bind(signed("an outcome's number", next.cast_unsigned())?);
        self.execute(query).await?;
        Ok(Kept::New)
    }
}
