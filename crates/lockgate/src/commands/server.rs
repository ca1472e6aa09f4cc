//! `server`: the control plane alone.

use crate::cli;
use crate::courier::HttpCourier;
use crate::exit::Exit;
use crate::world;
use anyhow::{Context as _, bail};
use axum::Router;
use lockgate_api::browser::with_headers;
use lockgate_api::identity::{Identity, identify};
use lockgate_blob::{BlobPlace, BlobStore};
use lockgate_control::{Accounts, Control};
use lockgate_store::{Store, StoreOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often promotions are looked at without anything having happened: deadlines pass by themselves.
const RECONCILE_EVERY: Duration = Duration::from_secs(1);

/// How many webhooks are told something at a time: each slow one holds up itself only.
const DELIVERIES: usize = 64;

/// How often the outbox is looked at.
const DELIVER_EVERY: Duration = Duration::from_millis(500);
/// How often old uploads are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// `server`
pub(crate) async fn server(args: &cli::Server) -> anyhow::Result<Exit> {
    if args.trust_loopback && !args.listen.ip().is_loopback() {
        bail!(
            "--trust-loopback believes any name, so it is for loopback addresses only, not {}\n  hint: give accounts with --tokens instead",
            args.listen
        );
    }
    if !args.trust_loopback && args.tokens.is_none() {
        bail!(
            "nobody could sign in\n  hint: --trust-loopback serves this machine without accounts; --tokens FILE gives accounts; `lockgate up` serves a project"
        );
    }
    let accounts = match &args.tokens {
        None => Accounts::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
            Accounts::parse(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?
        }
    };
    // Bound before the database is opened, so that a second server on the same port does no harm.
    let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|e| {
        anyhow::anyhow!(
            "can't listen on {}: {e}\n  hint: is another server running there? use another port",
            args.listen
        )
    })?;
    let (clock, entropy) = world::system();
    let database =
        args.database.clone().unwrap_or_else(|| args.home.join("lockgate.db").to_string_lossy().into_owned());
    let store = Store::open(&database, StoreOptions::new(clock.clone())).await?;
    let own = args.home.join("blobs");
    let place = args.blobs.clone().unwrap_or_else(|| BlobPlace::Folder(own.clone()));
    let blobs = BlobStore::open_at(&place, &own).await?;
    lockgate_control::tracking::gc::claim(&store, &blobs, &*entropy).await?;
    let courier = Arc::new(HttpCourier::new(args.webhooks_allow_private)?);
    let control = Control::new(store.clone(), blobs, clock, entropy).with_courier(courier);
    let identity = Identity {
        accounts: Arc::new(accounts),
        trust_loopback: args.trust_loopback,
        listen: listener.local_addr()?,
    };
    let guarded = routes(&control, identity);
    let deliverer = tokio::spawn(deliver(control.clone()));
    let sweeper = tokio::spawn(sweep(control.clone()));
    let reconciler = tokio::spawn(reconcile(control.clone()));
    tracing::info!(listen = %args.listen, "the server is ready");
    let tied = args.tied;
    let told = async move {
        world::told_to_stop(tied).await;
        // Agents' questions may be open for half a minute.
        control.end_waiting();
    };
    axum::serve(listener, guarded).with_graceful_shutdown(told).await?;
    reconciler.abort();
    deliverer.abort();
    sweeper.abort();
    store.close().await;
    Ok(Exit::Done)
}

/// Everything that is served, behind the one door.
fn routes(control: &Control, identity: Identity) -> Router {
    Router::new()
        .merge(lockgate_api::router(control.clone()))
        .merge(lockgate_mlflow::router(control.tracking().clone()))
        .fallback(lockgate_api::no_such_route)
        .layer(axum::middleware::from_fn_with_state((control.clone(), identity), identify))
        .layer(axum::middleware::map_response(with_headers))
}

/// Deletes what is left of uploads that were never completed.
async fn sweep(control: Control) {
    loop {
        match control.tracking().sweep_uploads().await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, "deleted what was left of old uploads"),
            Err(error) => tracing::error!(%error, "old uploads can't be deleted; trying again"),
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

async fn reconcile(control: Control) {
    loop {
        if let Err(error) = control.reconcile().await {
            tracing::error!(%error, "promotions can't be moved on; trying again");
        }
        tokio::time::sleep(RECONCILE_EVERY).await;
    }
}

/// Sends what webhooks are to be told, for as long as the server runs.
async fn deliver(control: Control) {
    let mut under_way = JoinSet::new();
    loop {
        let due = control.tracking().take_deliveries().await.unwrap_or_else(|error| {
            tracing::error!(%error, "webhooks can't be told; trying again");
            Vec::new()
        });
        let idle = due.is_empty();
        for row in due {
            if under_way.len() >= DELIVERIES {
                under_way.join_next().await;
            }
            let tracking = control.tracking().clone();
            under_way.spawn(async move {
                if let Err(error) = tracking.deliver(row).await {
                    tracing::error!(%error, "a webhook can't be told; trying again");
                }
            });
        }
        while under_way.try_join_next().is_some() {}
        if idle {
            tokio::time::sleep(DELIVER_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests;
