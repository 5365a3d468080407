//! The newest map that this node knows.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::Map;

/// The newest map that this node knows. Clones are the same one; reading takes no lock.
#[derive(Clone, Debug, Default)]
pub struct Current(Arc<ArcSwap<Map>>);

impl Current {
    pub fn new(map: Map) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(map)))
    }

    /// For a moment: do not keep it across an `await`.
    pub fn load(&self) -> Guard<Arc<Map>> {
        self.0.load()
    }

    /// To keep.
    pub fn get(&self) -> Arc<Map> {
        self.0.load_full()
    }

    /// Makes `map` the current one, unless the one that is there is as new. Says whether it did.
    pub fn advance(&self, map: Map) -> bool {
        let map = Arc::new(map);
        let before = self.0.rcu(|now| match now.epoch < map.epoch {
            true => map.clone(),
            false => now.clone(),
        });
        before.epoch < map.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn map(epoch: u64) -> Map {
        Map {
            epoch: Epoch(epoch),
            ..Map::default()
        }
    }

    #[test]
    fn only_a_newer_map_is_taken() {
        let current = Current::new(map(3));
        let clone = current.clone();
        assert!(!current.advance(map(2)) && !current.advance(map(3)));
        assert!(current.advance(map(5)) && !current.advance(map(4)));
        assert_eq!(
            (clone.load().epoch, clone.get().epoch),
            (Epoch(5), Epoch(5))
        );
    }
}
