//! MLflow's routes alone over a folder, for driving them with the real client:
//! `cargo run --package lockgate-mlflow --example serve -- FOLDER`. Prints its address, and ends with its input.

use axum::Extension;
use lockgate_blob::BlobStore;
use lockgate_control::tracking::Tracking;
use lockgate_core::actor::{Actor, ActorKind, Via};
use lockgate_core::clock::{Clock, Entropy, Millis};
use lockgate_core::id::PrincipalId;
use lockgate_store::{Store, StoreOptions};
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt as _;

struct System;

impl Clock for System {
    #[expect(
        clippy::disallowed_methods,
        reason = "a program of its own has no clock that it could be handed"
    )]
    fn now_ms(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }
}

impl Entropy for System {
    fn fill(&self, buf: &mut [u8]) {
        use std::hash::{BuildHasher as _, RandomState};
        // Good enough for ids in a test: every state is seeded anew.
        for chunk in buf.chunks_mut(8) {
            let bytes = RandomState::new().hash_one(chunk.len()).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("give a folder")?);
    let clock: Arc<dyn Clock> = Arc::new(System);
    let store =
        Store::open(&folder.join("lockgate.db").to_string_lossy(), StoreOptions::new(clock.clone())).await?;
    let blobs = BlobStore::open(folder.join("blobs")).await?;
    let tracking = Tracking::new(store.clone(), blobs, clock, Arc::new(System));
    let actor =
        Actor { kind: ActorKind::User, id: PrincipalId::new("u_test")?, via: Via::Loopback, sealed: None };
    let app = lockgate_mlflow::router(tracking).layer(Extension(actor));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let ended = async {
        let mut sink = [0; 64];
        // Whoever started this has gone where its input ends.
        while tokio::io::stdin().read(&mut sink).await.is_ok_and(|read| read > 0) {}
    };
    axum::serve(listener, app).with_graceful_shutdown(ended).await?;
    store.close().await;
    Ok(())
}
