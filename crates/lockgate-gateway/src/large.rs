//! Memory for messages that are held whole although they are large. All reactors share it; who finds none left is told so,
//! instead of filling the machine.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much there is at least, in bytes.
const LEAST: usize = 256 << 20;

/// What it is counted in.
const UNIT: usize = 4096;

/// The memory that is left.
#[derive(Debug)]
pub(crate) struct Large(Arc<Semaphore>);

/// Some of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _units: OwnedSemaphorePermit,
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Large {
    /// Room for at least four messages of the largest size.
    pub(crate) fn new(largest: usize) -> Self {
        let all = largest.saturating_mul(4).max(LEAST);
        Self(Arc::new(Semaphore::new((all / UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Room for so many bytes, where there is.
    pub(crate) fn take(&self, bytes: usize) -> Option<Room> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok().map(|units| Room { _units: units })
    }
}

impl Room {
    /// Bytes that give their room back when the last of them is gone.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_takes_room_until_all_of_it_is_gone() {
        let large = Large::new(0);
        let first = large.take(LEAST - UNIT).unwrap();
        assert!(large.take(UNIT + 1).is_none());
        let bytes = first.hold(Bytes::from_static(b"abc"));
        let part = bytes.slice(1..2);
        drop(bytes);
        assert!(large.take(UNIT + 1).is_none(), "a part of it is still there");
        drop(part);
        assert!(large.take(LEAST).is_some());
        assert!(Large::new(LEAST).take(4 * LEAST).is_some());
    }
}
