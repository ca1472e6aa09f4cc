//! Sending what is in the outbox.

use super::events::{self, STOCK};
use super::{OWN_EVENTS, WebhookTest};
use crate::tracking::{Delivery, DeliveryState, Tracking, TrackingError, may_track};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit as _, Mac as _};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

const SECOND: Millis = 1000;
const DAY: Millis = 24 * 3600 * SECOND;
/// For how long nobody else tries what somebody has taken: longer than [`BUDGET`] and one attempt together.
const LEASE: Millis = 60 * SECOND;
/// How long one webhook's messages are sent before the rest of them is left for later.
const BUDGET: Millis = 30 * SECOND;
/// The longest pause between two attempts.
const LONGEST: Millis = 3600 * SECOND;
/// How long what was settled is kept to be looked at.
const KEPT: Millis = 30 * DAY;
/// How many are taken at a time.
const AT_ONCE: i64 = 16;

/// A message on its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Where it goes.
    pub url: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// The message, JSON.
    pub body: String,
}

/// What the receiver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
    /// For how many seconds it asks to be left alone.
    pub retry_after: Option<u64>,
}

/// Somebody who brings messages to other servers, and to none where they must not go.
pub trait Courier: Send + Sync {
    /// Whether a URL leads to where messages may go; if not, why.
    fn check<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Sends a message; checks once more where it goes.
    fn post<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Answer, String>>;
}

/// The signature of Standard Webhooks (<https://www.standardwebhooks.com>), as MLflow writes it: HMAC-SHA256 over
/// `id.timestamp.payload`.
fn signature(secret: &str, id: &str, timestamp: &str, payload: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.{payload}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// The id of a delivery, the same each time it is tried: a UUID as MLflow's is, of the kind that may be made of anything (version
/// 8, RFC 9562).
fn delivery_id(webhook: &str, seq: i64) -> String {
    let digest = Sha256::digest(format!("{webhook}-{seq}"));
    let mut bytes: [u8; 16] = std::array::from_fn(|i| digest[i]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn parcel(url: &str, secret: Option<&str>, id: &str, payload: &str, now: Millis) -> Parcel {
    let timestamp = (now / SECOND).to_string();
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-mlflow-delivery-id", id.to_owned()),
        ("x-mlflow-timestamp", timestamp.clone()),
    ];
    if let Some(secret) = secret {
        headers.push(("x-mlflow-signature", signature(secret, id, &timestamp, payload)));
    }
    Parcel { url: url.to_owned(), headers, body: payload.to_owned() }
}

/// What becomes of a delivery after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    state: DeliveryState,
    due: Millis,
    words: String,
}

/// `noise` is a random byte: receivers that were down don't get everything at the same moment.
fn outcome(one: &Delivery, said: Result<Answer, String>, now: Millis, noise: u8) -> Outcome {
    let (words, retry_after, final_word) = match said {
        Ok(answer) if (200..300).contains(&answer.status) => {
            let words = format!("HTTP {}", answer.status);
            return Outcome { state: DeliveryState::Delivered, due: now, words };
        }
        Ok(answer) => {
            let again = answer.status >= 500 || matches!(answer.status, 408 | 429);
            (format!("HTTP {}", answer.status), answer.retry_after, !again)
        }
        Err(why) => (why, None, false),
    };
    let doublings = u32::try_from(one.attempts).unwrap_or(u32::MAX).min(20);
    let pause = (SECOND << doublings).min(LONGEST);
    let pause = pause + pause * Millis::from(noise) / 1024;
    let asked = retry_after.map_or(0, |s| Millis::try_from(s).unwrap_or(LONGEST).saturating_mul(SECOND));
    let due = now + pause.max(asked.min(DAY));
    if final_word || due > one.created + DAY {
        return Outcome { state: DeliveryState::Failed, due: now, words };
    }
    Outcome { state: DeliveryState::Pending, due, words }
}

impl Tracking {
    pub(super) fn courier(&self) -> Result<&Arc<dyn Courier>, TrackingError> {
        let nobody = || TrackingError::State("This server delivers no webhooks".to_owned());
        self.courier.as_ref().ok_or_else(nobody)
    }

    /// Takes what is due, a list for each webhook: nobody else gets it, nor anything else of these webhooks, until it is sent or
    /// a minute has passed. Called over and over, by every server over the database.
    ///
    /// # Errors
    /// Where the database fails; what was taken is due again later.
    pub async fn take_deliveries(&self) -> Result<Vec<Vec<Delivery>>, TrackingError> {
        let now = self.clock.now_ms();
        let any = self.read(move |conn| Box::pin(async move { Ok(conn.due_deliveries(now, 1).await?) }));
        if any.await?.is_empty() {
            return Ok(Vec::new());
        }
        let due = self
            .write(move |tx| {
                Box::pin(async move {
                    tx.forget_deliveries(now - KEPT).await?;
                    Ok(tx.claim_deliveries(now, now + LEASE, AT_ONCE).await?)
                })
            })
            .await?;
        let mut by_webhook: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
        for one in due {
            by_webhook.entry(one.webhook_id.clone()).or_default().push(one);
        }
        Ok(by_webhook.into_values().collect())
    }

    /// Sends one webhook's messages, one after the other, so that they arrive in their order.
    ///
    /// # Errors
    /// Where the database fails; what was not settled is due again when its minute has passed.
    pub async fn deliver(&self, row: Vec<Delivery>) -> Result<(), TrackingError> {
        let (courier, begun) = (self.courier()?, self.clock.now_ms());
        for one in row {
            let (id, at) = (delivery_id(&one.webhook_id, one.seq), self.clock.now_ms());
            if at - begun > BUDGET {
                self.write(move |tx| Box::pin(async move { Ok(tx.release_delivery(&one).await?) })).await?;
                continue;
            }
            let parcel = parcel(&one.url, one.secret.as_deref(), &id, &one.payload, at);
            let said = courier.post(&parcel).await;
            let mut noise = [0];
            self.entropy.fill(&mut noise);
            let Outcome { state, due, words } = outcome(&one, said, self.clock.now_ms(), noise[0]);
            if state != DeliveryState::Delivered {
                tracing::warn!(webhook = %one.webhook_id, event = %one.event, attempt = one.attempts + 1, %words, ?state, "a webhook did not take its message");
            }
            self.write(move |tx| {
                Box::pin(async move { Ok(tx.settle_delivery(&one, state, due, &words).await?) })
            })
            .await?;
        }
        Ok(())
    }

    /// Sends an example of an event to a webhook, at once and once; of the first event that it wants where none is named.
    ///
    /// # Errors
    /// Where there is no such webhook or event.
    pub async fn test_webhook(
        &self,
        actor: &Actor,
        id: &str,
        event: Option<&str>,
    ) -> Result<WebhookTest, TrackingError> {
        may_track(actor)?;
        let webhook = self.webhook(actor, id).await?;
        let wanted = event.or(webhook.events.first().map(String::as_str)).unwrap_or_default();
        let name = STOCK
            .into_iter()
            .chain(OWN_EVENTS)
            .find(|known| *known == wanted)
            .ok_or_else(|| TrackingError::invalid(format!("There is no event '{wanted}'")))?;
        let now = self.clock.now_ms();
        let payload = events::example(name).payload(&self.workspace, now);
        let delivery = delivery_id(&self.new_id(), 0);
        let parcel = parcel(&webhook.url, webhook.secret.as_deref(), &delivery, &payload, now);
        Ok(match self.courier()?.post(&parcel).await {
            Ok(answer) => WebhookTest {
                success: (200..300).contains(&answer.status),
                status: Some(answer.status),
                body: Some(answer.body),
                error: None,
            },
            Err(why) => {
                let error = Some(format!("Failed to test webhook: {why}"));
                WebhookTest { success: false, status: None, body: None, error }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(attempts: u64) -> Delivery {
        Delivery {
            seq: 1,
            webhook_id: "w".to_owned(),
            event: "model_version.created".to_owned(),
            payload: "{}".to_owned(),
            state: DeliveryState::Pending,
            attempts,
            created: 0,
            due: 0,
            outcome: None,
            url: "https://example.org".to_owned(),
            secret: None,
        }
    }

    fn said(status: u16, retry_after: Option<u64>) -> Result<Answer, String> {
        Ok(Answer { status, body: String::new(), retry_after })
    }

    /// Computed by Python: base64(hmac.new(b"s3cret", b"id-1.1700000000.{}", sha256).digest()).
    #[test]
    fn the_signature_is_mlflows() {
        let expected = "v1,laOlY93PgfvXnu0y/Q4W5nm7RnNEJSPyvnczNJlQhiM=";
        assert_eq!(signature("s3cret", "id-1", "1700000000", "{}"), expected);
    }

    #[test]
    fn ids_of_deliveries_are_uuids_that_stay() {
        let id = delivery_id("w", 1);
        assert_eq!(id.len(), 36);
        assert_eq!((&id[14..15], id.matches('-').count()), ("8", 4), "{id}");
        assert_eq!(id, delivery_id("w", 1));
        assert_ne!(id, delivery_id("w", 2));
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_after_a_day_it_is_over() {
        let first = outcome(&delivery(0), Err("refused".to_owned()), 10, 0);
        assert_eq!((first.state, first.due), (DeliveryState::Pending, 10 + SECOND));
        assert_eq!(outcome(&delivery(3), said(503, None), 0, 0).due, 8 * SECOND);
        assert_eq!(outcome(&delivery(60), said(500, None), 0, 0).due, LONGEST);
        assert!(outcome(&delivery(60), said(500, None), 0, 255).due < LONGEST * 5 / 4);
        assert_eq!(outcome(&delivery(0), said(429, Some(90)), 0, 0).due, 90 * SECOND);
        assert_eq!(outcome(&delivery(30), said(500, None), DAY, 0).state, DeliveryState::Failed);
        assert_eq!(outcome(&delivery(0), said(429, Some(u64::MAX)), SECOND, 0).state, DeliveryState::Failed);
    }

    #[test]
    fn what_the_receiver_will_never_take_is_given_up_at_once() {
        for status in [301, 400, 404, 410] {
            assert_eq!(
                outcome(&delivery(0), said(status, None), 0, 0).state,
                DeliveryState::Failed,
                "{status}"
            );
        }
        for status in [408, 429, 500, 503] {
            assert_eq!(
                outcome(&delivery(0), said(status, None), 0, 0).state,
                DeliveryState::Pending,
                "{status}"
            );
        }
        assert_eq!(outcome(&delivery(5), said(204, None), 7, 0).state, DeliveryState::Delivered);
    }
}
