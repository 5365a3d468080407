//! Bodies that are being read, so that the collector lets them be.
//!
//! A pin is taken right after the snapshot that showed the body; the garbage delay covers the moment
//! in between. What several nodes do about it is in `renew`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{ContainerId, Version};
use parking_lot::Mutex;

use crate::key::BodyId;

/// A body: the container and its version.
type Key = (ContainerId, Version);

#[derive(Clone, Default)]
pub(crate) struct Pins {
    readers: Arc<Mutex<HashMap<Key, Readers>>>,
}

/// Who reads a body.
#[derive(Debug)]
struct Readers {
    count: usize,
    name: String,
    /// When the first of them began, by the monotonic clock.
    since: Duration,
}

/// Keeps a body from being collected until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    readers: Arc<Mutex<HashMap<Key, Readers>>>,
    key: Key,
}

impl Pins {
    pub(crate) fn pin(
        &self,
        container: ContainerId,
        version: Version,
        name: &str,
        now: Duration,
    ) -> Pin {
        let key = (container, version);
        let new = || Readers {
            count: 0,
            name: name.to_owned(),
            since: now,
        };
        self.readers.lock().entry(key).or_insert_with(new).count += 1;
        Pin {
            readers: self.readers.clone(),
            key,
        }
    }

    pub(crate) fn is_pinned(&self, container: ContainerId, version: Version) -> bool {
        self.readers.lock().contains_key(&(container, version))
    }

    /// Bodies that have been read since `then` or longer.
    pub(crate) fn since(&self, then: Duration) -> Vec<BodyId<'static>> {
        let readers = self.readers.lock();
        let old = readers.iter().filter(|(_, readers)| readers.since <= then);
        let ids = old.map(|((container, version), readers)| BodyId {
            container: *container,
            name: readers.name.clone().into(),
            version: *version,
        });
        ids.collect()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut readers = self.readers.lock();
        let of_body = readers.get_mut(&self.key).expect("it is pinned");
        of_body.count -= 1;
        if of_body.count == 0 {
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
        let (container, version) = (ContainerId(1), Version(2));
        let pin = |secs| pins.pin(container, version, "o", Duration::from_secs(secs));
        let (first, second) = (pin(3), pin(5));
        drop(first);
        assert_eq!(pins.since(Duration::from_secs(2)), []);
        assert_eq!(pins.since(Duration::from_secs(3)).len(), 1);
        assert!(pins.is_pinned(container, version));
        drop(second);
        assert!(!pins.is_pinned(container, version));
        assert!(pins.readers.lock().is_empty());
    }
}
