//! What this process remembers of rows that it would otherwise read for every request.
//!
//! A reader that finds nothing takes the [`Epoch`], reads the row and remembers it unless something
//! was forgotten since; a writer commits, then forgets. So a value that was read before a commit is
//! never remembered after it, and who has seen a change acknowledged never reads the old value.

use std::collections::HashMap;

use parking_lot::RwLock;

/// Then everything is forgotten: some megabytes.
const ENTRIES_MAX: usize = 10_000;

/// A bounded map from names to values.
pub(crate) struct Cache<V> {
    state: RwLock<State<V>>,
}

struct State<V> {
    epoch: Epoch,
    entries: HashMap<String, V>,
}

/// Between two changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                epoch: Epoch::default(),
                entries: HashMap::new(),
            }),
        }
    }
}

impl<V: Clone> Cache<V> {
    /// What is remembered; else the epoch in which to read it.
    pub(crate) fn get(&self, name: &str) -> Result<V, Epoch> {
        let state = self.state.read();
        state.entries.get(name).cloned().ok_or(state.epoch)
    }

    /// Remembers what was read in `epoch`.
    pub(crate) fn insert(&self, epoch: Epoch, name: &str, value: V) {
        let mut state = self.state.write();
        if state.epoch != epoch {
            return;
        }
        if state.entries.len() >= ENTRIES_MAX {
            state.entries.clear();
        }
        state.entries.insert(name.to_owned(), value);
    }

    /// To be called after each commit of a change, before it is acknowledged.
    pub(crate) fn forget(&self, name: &str) {
        let mut state = self.state.write();
        state.epoch.0 += 1;
        state.entries.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let cache = Cache::default();
        let before = cache.get("a").unwrap_err();
        cache.forget("a");
        cache.insert(before, "a", 1);
        let after = cache.get("a").unwrap_err();
        cache.insert(after, "a", 2);
        assert_eq!(cache.get("a"), Ok(2));
        cache.forget("a");
        assert!(cache.get("a").is_err());
    }

    #[test]
    fn it_is_bounded() {
        let cache = Cache::default();
        for number in 0..3 * ENTRIES_MAX {
            let epoch = cache.get("none").unwrap_err();
            cache.insert(epoch, &number.to_string(), number);
        }
        assert!(cache.state.read().entries.len() <= ENTRIES_MAX);
    }
}
