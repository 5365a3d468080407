//! Bodies that are being read, so that the collector lets them be.
//!
//! A pin is taken right after the snapshot that showed the body; the garbage delay covers the moment
//! in between.

use std::collections::HashMap;
use std::sync::Arc;

use base::{ContainerId, Timestamp};
use parking_lot::Mutex;

/// A body: the container and when its upload began.
type Key = (ContainerId, Timestamp);

#[derive(Clone, Default)]
pub(crate) struct Pins {
    readers: Arc<Mutex<HashMap<Key, usize>>>,
}

/// Keeps a body from being collected until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    readers: Arc<Mutex<HashMap<Key, usize>>>,
    key: Key,
}

impl Pins {
    pub(crate) fn pin(&self, container: ContainerId, version: Timestamp) -> Pin {
        let key = (container, version);
        *self.readers.lock().entry(key).or_default() += 1;
        Pin {
            readers: self.readers.clone(),
            key,
        }
    }

    pub(crate) fn is_pinned(&self, container: ContainerId, version: Timestamp) -> bool {
        self.readers.lock().contains_key(&(container, version))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut readers = self.readers.lock();
        let count = readers.get_mut(&self.key).expect("it is pinned");
        *count -= 1;
        if *count == 0 {
            readers.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_pinned_until_its_last_reader_is_gone() {
        let pins = Pins::default();
        let (container, version) = (ContainerId(1), Timestamp::from_secs(2));
        let first = pins.pin(container, version);
        let second = pins.pin(container, version);
        drop(first);
        assert!(pins.is_pinned(container, version));
        drop(second);
        assert!(!pins.is_pinned(container, version));
        assert!(pins.readers.lock().is_empty());
    }
}
