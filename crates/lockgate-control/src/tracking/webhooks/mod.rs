//! Webhooks: who is told what, by messages that outlive restarts.
//!
//! A change puts its messages into an outbox in its own transaction. [`Tracking::take_deliveries`] takes those that are due,
//! [`Tracking::deliver`] sends each, and tries again later where that fails: after 1 s, 2 s, 4 s and so on up to an hour, for a day. A message keeps its id,
//! so that its receiver can tell a repetition. Messages go out in the order of the changes, but one that has to be tried
//! again doesn't hold back those after it.
//!
//! | module | subject |
//! |---|---|
//! | `events` | what is told |
//! | `deliver` | sending, signing, trying again |

mod deliver;
mod events;

pub use deliver::{Answer, Courier, Parcel};
pub(crate) use events::{Event, notify};
pub use events::{OWN as OWN_EVENTS, STOCK as STOCK_EVENTS};

use super::{Delivery, Page, Tracking, TrackingError, Webhook, may_read, may_track};
use lockgate_core::actor::Actor;
use lockgate_store::Conn;
use std::sync::Arc;

/// What a webhook is made of. Nothing in a field leaves it as it is; a new one needs a name, a URL and events.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WebhookChange {
    /// Its name.
    pub name: Option<String>,
    /// Where deliveries go.
    pub url: Option<String>,
    /// What it is for; an empty text takes it away.
    pub description: Option<String>,
    /// What deliveries are signed with; an empty text takes it away.
    pub secret: Option<String>,
    /// Whether it is told anything.
    pub active: Option<bool>,
    /// MLflow's events.
    pub events: Option<Vec<String>>,
    /// Those that MLflow lacks.
    pub own_events: Option<Vec<String>>,
}

/// How a test of a webhook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTest {
    /// Whether it was taken.
    pub success: bool,
    /// The receiver's status, where it answered.
    pub status: Option<u16>,
    /// The receiver's answer, where it answered.
    pub body: Option<String>,
    /// What went wrong, where it didn't.
    pub error: Option<String>,
}

const ACTIVE: &str = "ACTIVE";
const DISABLED: &str = "DISABLED";

fn check_name(name: &str) -> Result<(), TrackingError> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if inner && ends(name.chars().next()) && ends(name.chars().last()) && name.len() <= 63 {
        return Ok(());
    }
    Err(TrackingError::invalid(format!(
        "Webhook name '{name}' is invalid. It must start and end with a letter or digit, be less than 63 characters long, \
         and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
    )))
}

fn check_events(events: &[String]) -> Result<(), TrackingError> {
    if events.is_empty() {
        return Err(TrackingError::invalid(
            "Webhook events must be a non-empty list of WebhookEvent objects: [].",
        ));
    }
    match events
        .iter()
        .find(|event| !STOCK_EVENTS.contains(&event.as_str()) && !OWN_EVENTS.contains(&event.as_str()))
    {
        None => Ok(()),
        Some(unknown) => Err(TrackingError::invalid(format!(
            "There is no event '{unknown}'. There are {}, and as lockgate_events {}",
            STOCK_EVENTS.join(", "),
            OWN_EVENTS.join(", ")
        ))),
    }
}

async fn found(conn: &mut Conn, id: &str) -> Result<Webhook, TrackingError> {
    let found = conn.webhook(id).await?;
    found.ok_or_else(|| TrackingError::missing(format!("Webhook with ID {id} not found.")))
}

fn changed(mut webhook: Webhook, change: WebhookChange) -> Webhook {
    let set = |new: Option<String>, old: Option<String>| match new {
        None => old,
        Some(text) => Some(text).filter(|text| !text.is_empty()),
    };
    webhook.name = change.name.unwrap_or(webhook.name);
    webhook.url = change.url.unwrap_or(webhook.url);
    webhook.description = set(change.description, webhook.description);
    webhook.secret = set(change.secret, webhook.secret);
    if let Some(active) = change.active {
        webhook.status = if active { ACTIVE } else { DISABLED }.to_owned();
    }
    let (own, stock): (Vec<String>, Vec<String>) =
        webhook.events.into_iter().partition(|event| OWN_EVENTS.contains(&event.as_str()));
    webhook.events = change.events.unwrap_or(stock);
    webhook.events.extend(change.own_events.unwrap_or(own));
    webhook.events.sort();
    webhook.events.dedup();
    webhook
}

impl Tracking {
    /// The same with somebody who delivers.
    #[must_use]
    pub fn with_courier(&self, courier: Arc<dyn Courier>) -> Self {
        Self { courier: Some(courier), ..self.clone() }
    }

    /// Makes a webhook.
    ///
    /// # Errors
    /// Where something is not allowed, or its URL leads where this server doesn't deliver.
    pub async fn create_webhook(
        &self,
        actor: &Actor,
        change: WebhookChange,
    ) -> Result<Webhook, TrackingError> {
        may_track(actor)?;
        let now = self.clock.now_ms();
        let blank = Webhook {
            id: self.new_id(),
            name: String::new(),
            url: String::new(),
            description: None,
            secret: None,
            status: ACTIVE.to_owned(),
            created: now,
            updated: now,
            events: Vec::new(),
        };
        let webhook = changed(blank, change);
        self.check_webhook(&webhook).await?;
        self.write(move |tx| {
            Box::pin(async move {
                tx.put_webhook(&webhook).await?;
                Ok(webhook)
            })
        })
        .await
    }

    async fn check_webhook(&self, webhook: &Webhook) -> Result<(), TrackingError> {
        check_name(&webhook.name)?;
        self.courier()?.check(&webhook.url).await.map_err(TrackingError::Invalid)?;
        check_events(&webhook.events)
    }

    /// The webhooks of the workspace, the newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn webhooks(&self, actor: &Actor, page: Page) -> Result<Vec<Webhook>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| Box::pin(async move { Ok(conn.webhooks(page).await?) })).await
    }

    /// One webhook.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn webhook(&self, actor: &Actor, id: &str) -> Result<Webhook, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| Box::pin(async move { found(conn, &id).await })).await
    }

    /// Changes a webhook; gives it as it is then.
    ///
    /// # Errors
    /// Where there is none, or something is not allowed.
    pub async fn update_webhook(
        &self,
        actor: &Actor,
        id: &str,
        change: WebhookChange,
    ) -> Result<Webhook, TrackingError> {
        may_track(actor)?;
        let before = self.webhook(actor, id).await?;
        self.check_webhook(&changed(before, change.clone())).await?;
        let (id, updated) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                // Looked up again: it may have been changed or deleted while its URL was checked.
                let webhook = Webhook { updated, ..changed(found(tx, &id).await?, change) };
                tx.put_webhook(&webhook).await?;
                Ok(webhook)
            })
        })
        .await
    }

    /// Removes a webhook with what was to be delivered to it.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_webhook(&self, actor: &Actor, id: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        let id = id.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                Ok(tx.delete_webhook(&id).await?)
            })
        })
        .await
    }

    /// The newest deliveries of the workspace, the newest first, each with its webhook's name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn deliveries(&self, actor: &Actor, most: i64) -> Result<Vec<Delivery>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| Box::pin(async move { Ok(conn.recent_deliveries(most).await?) })).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_events_are_those_that_mlflow_takes() {
        for good in ["a", "my-hook_1.x", "a".repeat(63).as_str()] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "ü", "a".repeat(64).as_str()] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(
            check_events(&["model_version.created".to_owned(), "model_version.deleted".to_owned()]).is_ok()
        );
        assert!(check_events(&[]).is_err() && check_events(&["model_version.eaten".to_owned()]).is_err());
    }
}
