//! An answer on its way to its client: looked at piece by piece, and with a time by which it is over.
//!
//! A client that takes nothing lets nobody look at its body, so the time is kept beside it. What it ends is the connection to the
//! server and the count; the client's own connection ends when it is looked at again, or by [`stall`](crate::stall).

use crate::body::{Broken, Rest};
use bytes::Bytes;
use hyper::body::SizeHint;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, spawn_local};

/// Whoever looks at an answer's body as it passes.
pub(crate) trait Watch: std::fmt::Debug {
    /// Some of it.
    fn piece(&mut self, bytes: &Bytes);
    /// Its end; where the client goes away there is none.
    fn end(&mut self, outcome: Result<(), Broken>);
}

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Passing {
    state: Rc<RefCell<State>>,
    /// What ends it in time.
    clock: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    pieces: VecDeque<Bytes>,
    /// None once nothing more comes.
    rest: Option<Rest>,
    /// None once it has seen the end.
    watch: Option<Box<dyn Watch>>,
    /// Why it was broken off.
    broken: Option<Broken>,
    waits: Waits,
    waker: Option<Waker>,
}

/// Who an answer waited for: its server, or its client, which takes the next piece when it has room for it.
#[derive(Debug)]
struct Waits {
    begun: Instant,
    client: Duration,
    /// When the last piece was handed on, where no other was asked for since.
    handed: Option<Instant>,
}

impl Waits {
    fn new(now: Instant) -> Self {
        Self { begun: now, client: Duration::ZERO, handed: None }
    }

    /// The client asks for a piece.
    fn asked(&mut self, now: Instant) {
        if let Some(handed) = self.handed.take() {
            self.client += now.saturating_duration_since(handed);
        }
    }

    /// The client has got one.
    fn handed(&mut self, now: Instant) {
        self.handed = Some(now);
    }

    /// Whose fault it is that it is not over by now: whoever took more of the time.
    fn blame(&mut self, now: Instant) -> Broken {
        self.asked(now);
        let whole = now.saturating_duration_since(self.begun);
        if self.client > whole / 2 { Broken::Untaken } else { Broken::Late }
    }
}

impl State {
    /// The next piece.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        self.rest.as_mut().map_or(Poll::Ready(None), |rest| rest.poll(cx))
    }

    fn end(&mut self, outcome: Result<(), Broken>) {
        self.rest = None;
        self.pieces.clear();
        self.broken = outcome.err();
        if let Some(mut watch) = self.watch.take() {
            watch.end(outcome);
        }
    }
}

impl Passing {
    /// Begins to pass on what is here and what is to come, until it ends or `until`. Needs a thread's own tasks.
    pub(crate) fn new(
        pieces: VecDeque<Bytes>,
        rest: Option<Rest>,
        watch: Box<dyn Watch>,
        until: Instant,
    ) -> Self {
        let waits = Waits::new(Instant::now());
        let state = State { pieces, rest, watch: Some(watch), broken: None, waits, waker: None };
        let state = Rc::new(RefCell::new(state));
        let of = Rc::downgrade(&state);
        let clock = spawn_local(async move {
            tokio::time::sleep_until(until.into()).await;
            let Some(state) = of.upgrade() else { return };
            let mut state = state.borrow_mut();
            if state.watch.is_some() {
                let blame = state.waits.blame(Instant::now());
                state.end(Err(blame));
            }
            state.waker.take().iter().for_each(Waker::wake_by_ref);
        });
        Self { state, clock }
    }

    /// The next piece.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut state = self.state.borrow_mut();
        if let Some(broken) = state.broken {
            return Poll::Ready(Some(Err(broken)));
        }
        state.waits.asked(Instant::now());
        let next = state.next(cx);
        match &next {
            Poll::Pending => state.waker = Some(cx.waker().clone()),
            Poll::Ready(Some(Ok(piece))) => {
                if let Some(watch) = &mut state.watch {
                    watch.piece(piece);
                }
                state.waits.handed(Instant::now());
            }
            Poll::Ready(Some(Err(broken))) => state.end(Err(*broken)),
            Poll::Ready(None) => state.end(Ok(())),
        }
        next
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let here: u64 = state.pieces.iter().map(|p| p.len() as u64).sum();
        let mut hint = state.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Rest::size_hint);
        if let Some(upper) = hint.upper() {
            hint.set_upper(here + upper);
        }
        hint.set_lower(here + hint.lower());
        hint
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.clock.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order of waits, whoever took more of the time is to blame.
        #[test]
        fn the_slower_side_is_to_blame(
            spans in proptest::collection::vec((0_u64..1000, 0_u64..1000), 1..20),
            is_asking: bool,
            last in 0_u64..2000,
        ) {
            let begun = Instant::now();
            let mut waits = Waits::new(begun);
            let (mut now, mut server, mut client) = (begun, 0, 0);
            for (for_server, for_client) in spans {
                waits.asked(now);
                now += Duration::from_millis(for_server);
                waits.handed(now);
                now += Duration::from_millis(for_client);
                server += for_server;
                client += for_client;
            }
            if is_asking {
                waits.asked(now);
                server += last;
            } else {
                client += last;
            }
            now += Duration::from_millis(last);
            let wanted = if client > server { Broken::Untaken } else { Broken::Late };
            prop_assert_eq!(waits.blame(now), wanted);
        }
    }
}
