//! How a gateway is set up.

use crate::GatewayError;
use lockgate_core::bearer::Tokens;
use lockgate_core::preview::PreviewKey;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest number of units that the breaker looks back at.
pub const BREAKER_UNITS_MAX: usize = 1000;

/// Settings of one gateway. Start from [`GatewayOptions::new`].
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Reactor threads; 0 is one for each core.
    pub threads: usize,
    /// The environment's name, for metrics.
    pub environment: String,
    /// The largest request body in bytes. Larger ones are answered 413.
    pub max_body: usize,
    /// Bodies up to this size are held in memory, so that a request can be tried again and be logged. Larger ones stream.
    pub replay_limit: usize,
    /// Bodies up to this size are logged; larger ones are logged as absent.
    pub log_body_limit: usize,
    /// How long a client may take to send a request's head, and how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub send_timeout: Duration,
    /// How long a connection to a worker may take.
    pub connect_timeout: Duration,
    /// How long a worker that can't be reached is passed over while others can serve.
    pub evict: Duration,
    /// How long a request waits for a worker to come back where none of its variants can be reached.
    pub hold: Duration,
    /// How many connections there may be; more are closed at once.
    pub max_connections: usize,
    /// For how long after the candidate's first request no latency counts as an event (of either arm, so that the comparison
    /// stays fair).
    pub warmup: Duration,
    /// How many mirrored requests each reactor works on at a time; more are dropped.
    pub shadow_inflight: usize,
    /// When the gateway takes a candidate's traffic away by itself.
    pub breaker: BreakerOptions,
    /// What preview tokens are made and checked with; without it none is good.
    pub preview_key: Option<PreviewKey>,
    /// What `/feedback` asks for; without it whoever reaches it may say what came of a prediction.
    pub feedback_tokens: Option<Tokens>,
}

/// The local breaker: the last line of defence, coarse and quick. The guards are the judges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerOptions {
    /// How many of the latest different units are looked at; it never opens before there were as many.
    pub units: usize,
    /// The share of them, 0 to 1, that must have met a hard error (connection, time-out, 5xx, NaN) to open it. It must be
    /// exceeded by the candidate and not by the baseline.
    pub limit: f64,
}

impl GatewayOptions {
    /// The defaults, for an address and an environment.
    #[must_use]
    pub fn new(listen: SocketAddr, environment: impl Into<String>) -> Self {
        Self {
            listen,
            threads: 0,
            environment: environment.into(),
            max_body: 64 << 20,
            replay_limit: 1 << 20,
            log_body_limit: 64 << 10,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(1),
            evict: Duration::from_millis(100),
            hold: Duration::from_secs(1),
            max_connections: 16_384,
            warmup: Duration::from_secs(2),
            shadow_inflight: 4,
            breaker: BreakerOptions { units: 20, limit: 0.5 },
            preview_key: None,
            feedback_tokens: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), GatewayError> {
        let wrong = |field: &'static str, reason: String| Err(GatewayError::Option { field, reason });
        if self.max_body == 0 {
            return wrong("max_body", "it must be at least 1 byte".to_owned());
        }
        if self.max_connections == 0 {
            return wrong("max_connections", "it must be at least 1".to_owned());
        }
        for (field, value) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("send_timeout", self.send_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if value.is_zero() {
                return wrong(field, "it must be longer than zero".to_owned());
            }
        }
        if !(1..=BREAKER_UNITS_MAX).contains(&self.breaker.units) {
            return wrong("breaker.units", format!("it must lie between 1 and {BREAKER_UNITS_MAX}"));
        }
        if !(0.0..1.0).contains(&self.breaker.limit) {
            return wrong("breaker.limit", "it must be a share of at least 0 and below 1".to_owned());
        }
        Ok(())
    }
}
