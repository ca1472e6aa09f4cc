//! The real clock, the real randomness, and signals: what the libraries are handed.

use lockgate_core::clock::{Clock, Entropy, Millis};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the wall clock is read")]
    fn now_ms(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }
}

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where the system is asked for randomness"
    )]
    fn fill(&self, buf: &mut [u8]) {
        // The kernel's generator fails only where the kernel has none; going on with zeros would make keys that anybody
        // knows, so wait until it answers.
        while getrandom::fill(buf).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The system's clock and randomness.
pub(crate) fn system() -> (Arc<dyn Clock>, Arc<dyn Entropy>) {
    (Arc::new(SystemClock), Arc::new(SystemEntropy))
}

/// A new bearer token: `lg_` and 256 random bits.
pub(crate) fn new_token() -> String {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    format!("lg_{}", hex::encode(bytes))
}

/// Waits until the process is told to stop: by a signal, or, where it is tied, by the end of standard input.
pub(crate) async fn told_to_stop(tied: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    let orphaned = async {
        if tied {
            // Nothing is ever written there; the end is all that matters.
            let mut sink = tokio::io::sink();
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut sink).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
        () = orphaned => {}
    }
}

/// Says with which cryptography TLS is spoken; every client needs to know before it is made.
pub(crate) fn tls() {
    // Whoever said it before said the same.
    let _known = rustls::crypto::ring::default_provider().install_default();
}
