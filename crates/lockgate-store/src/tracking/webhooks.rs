//! Webhooks and the outbox of their deliveries.

use super::rows_of;
use super::types::{Delivery, DeliveryState, Webhook};
use crate::conn::{Conn, Row, Tx, count, int, opt_text, parsed, query, signed, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;

statements! {
    ONE = "SELECT id, name, url, description, secret, status, created, updated FROM webhooks \
           WHERE id = $1 AND workspace = $2";
    PAGE = "SELECT id, name, url, description, secret, status, created, updated FROM webhooks \
            WHERE workspace = $1 ORDER BY created DESC, id LIMIT $2 OFFSET $3";
    PUT = "INSERT INTO webhooks (id, workspace, name, url, description, secret, status, created, updated) \
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
           url = excluded.url, description = excluded.description, secret = excluded.secret, \
           status = excluded.status, updated = excluded.updated";
    ADD_EVENT = "INSERT INTO webhook_events (webhook_id, event) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    DROP_EVENTS = "DELETE FROM webhook_events WHERE webhook_id = $1";
    DELETE = "DELETE FROM webhooks WHERE id = $1";
    DELETE_DELIVERIES = "DELETE FROM deliveries WHERE webhook_id = $1";
    WANTING = "SELECT w.id FROM webhook_events e JOIN webhooks w ON w.id = e.webhook_id \
               WHERE e.event = $1 AND w.workspace = $2 AND w.status = 'ACTIVE' ORDER BY w.created, w.id";
    ENQUEUE = "INSERT INTO deliveries (seq, webhook_id, event, payload, state, attempts, created, due, claimed) \
               SELECT COALESCE(MAX(seq), 0) + 1, $1, $2, $3, 'pending', 0, $4, $4, 0 FROM deliveries";
    DUE = "SELECT d.seq, d.webhook_id, d.event, d.payload, d.state, d.attempts, d.created, d.due, d.outcome, w.url, \
           w.secret FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id \
           WHERE d.state = 'pending' AND d.due <= $1 AND w.status = 'ACTIVE' AND d.webhook_id NOT IN \
           (SELECT x.webhook_id FROM deliveries x WHERE x.claimed > $1) \
           ORDER BY d.due, d.seq LIMIT $2";
    CLAIM = "UPDATE deliveries SET claimed = $2 WHERE seq = $1 AND webhook_id = $3";
    SETTLE = "UPDATE deliveries SET state = $2, attempts = attempts + 1, due = $3, outcome = $4, claimed = 0 \
              WHERE seq = $1 AND attempts = $5 AND webhook_id = $6";
    DROP_PENDING = "DELETE FROM deliveries WHERE webhook_id = $1 AND state = 'pending' \
                    AND seq < (SELECT MAX(seq) FROM deliveries)";
    FORGET = "DELETE FROM deliveries WHERE state IN ('delivered', 'failed') AND due < $1 AND seq < (SELECT MAX(seq) FROM deliveries)";
    RECENT = "SELECT d.seq, d.webhook_id, d.event, d.payload, d.state, d.attempts, d.created, d.due, d.outcome, w.url, \
              w.secret FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE w.workspace = $1 \
              ORDER BY d.seq DESC LIMIT $2";
}

/// The status of a webhook that is told what it wants.
const ACTIVE: &str = "ACTIVE";

fn webhook(row: &Row) -> Result<Webhook, StoreError> {
    Ok(Webhook {
        id: text(row, "id")?,
        name: text(row, "name")?,
        url: text(row, "url")?,
        description: opt_text(row, "description")?,
        secret: opt_text(row, "secret")?,
        status: text(row, "status")?,
        created: int(row, "created")?,
        updated: int(row, "updated")?,
        events: Vec::new(),
    })
}

fn delivery(row: &Row) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        seq: int(row, "seq")?,
        webhook_id: text(row, "webhook_id")?,
        event: text(row, "event")?,
        payload: text(row, "payload")?,
        state: parsed::<DeliveryState>(row, "state", "state of a delivery")?,
        attempts: count(row, "attempts")?,
        created: int(row, "created")?,
        due: int(row, "due")?,
        outcome: opt_text(row, "outcome")?,
        url: text(row, "url")?,
        secret: opt_text(row, "secret")?,
    })
}

impl Conn {
    /// One webhook of the workspace.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn webhook(&mut self, id: &str) -> Result<Option<Webhook>, StoreError> {
        let statement = query(ONE).bind(id.to_owned()).bind(self.workspace().to_owned());
        let row = self.fetch_optional(statement).await?;
        let found = row.as_ref().map(webhook).transpose()?;
        Ok(self.with_events(found.into_iter().collect()).await?.pop())
    }

    /// The webhooks of the workspace, the newest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn webhooks(&mut self, page: super::Page) -> Result<Vec<Webhook>, StoreError> {
        let statement = query(PAGE).bind(self.workspace().to_owned()).bind(page.limit).bind(page.offset);
        let found = self.fetch_all(statement).await?.iter().map(webhook).collect::<Result<_, _>>()?;
        self.with_events(found).await
    }

    async fn with_events(&mut self, mut found: Vec<Webhook>) -> Result<Vec<Webhook>, StoreError> {
        let ids: Vec<String> = found.iter().map(|one| one.id.clone()).collect();
        let head = "SELECT webhook_id, event FROM webhook_events WHERE webhook_id IN";
        for row in rows_of(self, head, &ids).await? {
            let id = text(&row, "webhook_id")?;
            if let Some(one) = found.iter_mut().find(|one| one.id == id) {
                one.events.push(text(&row, "event")?);
            }
        }
        found.iter_mut().for_each(|one| one.events.sort());
        Ok(found)
    }

    /// What is to be delivered now, at most so many, the most overdue first; nothing of webhooks that somebody is at.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn due_deliveries(&mut self, now: Millis, most: i64) -> Result<Vec<Delivery>, StoreError> {
        self.fetch_all(query(DUE).bind(now).bind(most)).await?.iter().map(delivery).collect()
    }

    /// The newest deliveries of the workspace's webhooks, the newest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn recent_deliveries(&mut self, most: i64) -> Result<Vec<Delivery>, StoreError> {
        let statement = query(RECENT).bind(self.workspace().to_owned()).bind(most);
        self.fetch_all(statement).await?.iter().map(delivery).collect()
    }
}

impl Tx {
    /// Makes a webhook of the workspace, or changes it. One that is not active is told nothing, also not later.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn put_webhook(&mut self, new: &Webhook) -> Result<(), StoreError> {
        for part in [Some(&new.name), Some(&new.url), new.description.as_ref(), new.secret.as_ref()] {
            no_nul("a webhook", part.map(String::as_str).unwrap_or_default())?;
        }
        let statement = query(PUT).bind(new.id.clone()).bind(self.workspace().to_owned());
        let statement = statement.bind(new.name.clone()).bind(new.url.clone());
        let statement = statement.bind(new.description.clone()).bind(new.secret.clone());
        let statement = statement.bind(new.status.clone()).bind(new.created).bind(new.updated);
        self.execute(statement).await?;
        if new.status != ACTIVE {
            self.execute(query(DROP_PENDING).bind(new.id.clone())).await?;
        }
        self.execute(query(DROP_EVENTS).bind(new.id.clone())).await?;
        for event in &new.events {
            self.execute(query(ADD_EVENT).bind(new.id.clone()).bind(event.clone())).await?;
        }
        Ok(())
    }

    /// Removes a webhook with what was to be delivered to it.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_webhook(&mut self, id: &str) -> Result<(), StoreError> {
        for sql in [DELETE, DROP_EVENTS, DELETE_DELIVERIES] {
            self.execute(query(sql).bind(id.to_owned())).await?;
        }
        Ok(())
    }

    /// The active webhooks of the workspace that want an event.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn webhooks_wanting(&mut self, event: &str) -> Result<Vec<String>, StoreError> {
        let statement = query(WANTING).bind(event.to_owned()).bind(self.workspace().to_owned());
        self.fetch_all(statement).await?.iter().map(|row| text(row, "id")).collect()
    }

    /// Puts a delivery into the outbox, due at once.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn enqueue_delivery(
        &mut self,
        webhook: &str,
        event: &str,
        payload: &str,
        now: Millis,
    ) -> Result<(), StoreError> {
        let statement = query(ENQUEUE).bind(webhook.to_owned()).bind(event.to_owned());
        self.execute(statement.bind(payload.to_owned()).bind(now)).await.map(|_| ())
    }

    /// Takes what is to be delivered now: nobody else gets it, nor anything else of the same webhooks, before `until`.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn claim_deliveries(
        &mut self,
        now: Millis,
        until: Millis,
        most: i64,
    ) -> Result<Vec<Delivery>, StoreError> {
        let due = self.due_deliveries(now, most).await?;
        for one in &due {
            let claim = query(CLAIM).bind(one.seq).bind(until).bind(one.webhook_id.clone());
            self.execute(claim).await?;
        }
        Ok(due)
    }

    /// Gives what was taken and not tried back.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn release_delivery(&mut self, one: &Delivery) -> Result<(), StoreError> {
        let claim = query(CLAIM).bind(one.seq).bind(0_i64).bind(one.webhook_id.clone());
        self.execute(claim).await.map(|_| ())
    }

    /// Notes how the attempt after so many ended, and when the next one is due where there is to be one. Somebody else's attempt
    /// that ended meanwhile counts instead.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn settle_delivery(
        &mut self,
        one: &Delivery,
        state: DeliveryState,
        due: Millis,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let outcome = outcome.replace('\0', "");
        let statement = query(SETTLE).bind(one.seq).bind(state.as_str()).bind(due);
        let attempts = signed("a delivery's attempts", one.attempts)?;
        let statement = statement.bind(outcome).bind(attempts).bind(one.webhook_id.clone());
        self.execute(statement).await.map(|_| ())
    }

    /// Forgets deliveries that were settled before a time. The newest stays: numbers are not used again.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn forget_deliveries(&mut self, before: Millis) -> Result<u64, StoreError> {
        self.execute(query(FORGET).bind(before)).await
    }
}
