//! What this process remembers of rows that it would otherwise read for every request.
//!
//! A reader that finds nothing takes the [`Epoch`], reads the row and remembers it unless something
//! was forgotten since; a writer commits, then forgets. So a value that was read before a commit is
//! never remembered after it, and who has seen a change acknowledged never reads the old value.
//!
//! That is so for changes through this node. Where other nodes change the rows as well, what is remembered
//! has a [`Life`]: an old value is read for [`LIFE`] after the change was acknowledged, and no longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::env::Clock;
use parking_lot::RwLock;

/// Then everything is forgotten: some megabytes.
const ENTRIES_MAX: usize = 10_000;

/// How long a value may be used that another node may have changed. As long as a person does not notice;
/// a thousand requests a second still read a row only once.
pub(crate) const LIFE: Duration = Duration::from_secs(1);

/// How long what is remembered is good.
#[derive(Clone)]
pub(crate) enum Life {
    /// Until this node changes it: no other does.
    Endless,
    /// For [`LIFE`] from when its reading began, by this clock.
    Short(Arc<dyn Clock>),
}

impl Life {
    /// The monotonic time, if it matters.
    fn now(&self) -> Duration {
        match self {
            Self::Endless => Duration::ZERO,
            Self::Short(clock) => clock.monotonic(),
        }
    }
}

/// A bounded map from names to values.
pub(crate) struct Cache<V> {
    life: Life,
    state: RwLock<State<V>>,
}

struct State<V> {
    changes: u64,
    entries: HashMap<String, Entry<V>>,
}

struct Entry<V> {
    value: V,
    read: Duration,
}

/// When a reading began: between which changes, and at what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    changes: u64,
    at: Duration,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(life: Life) -> Self {
        Self {
            life,
            state: RwLock::new(State {
                changes: 0,
                entries: HashMap::new(),
            }),
        }
    }

    /// What is remembered; else the epoch in which to read it.
    pub(crate) fn get(&self, name: &str) -> Result<V, Epoch> {
        let at = self.life.now();
        let state = self.state.read();
        match state.entries.get(name) {
            Some(entry) if at.saturating_sub(entry.read) < LIFE => Ok(entry.value.clone()),
            Some(_) | None => Err(Epoch {
                changes: state.changes,
                at,
            }),
        }
    }

    /// Remembers what was read in `epoch`.
    pub(crate) fn insert(&self, epoch: Epoch, name: &str, value: V) {
        let mut state = self.state.write();
        if state.changes != epoch.changes {
            return;
        }
        if state.entries.len() >= ENTRIES_MAX {
            state.entries.clear();
        }
        let read = epoch.at;
        state.entries.insert(name.to_owned(), Entry { value, read });
    }

    /// To be called after each commit of a change, before it is acknowledged.
    pub(crate) fn forget(&self, name: &str) {
        let mut state = self.state.write();
        state.changes += 1;
        state.entries.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let cache = Cache::new(Life::Endless);
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
    fn what_others_may_change_is_read_again_after_a_second() {
        let (env, _, clock) = testkit::env(1, 1 << 20);
        let cache = Cache::new(Life::Short(env.clock));
        let epoch = cache.get("a").unwrap_err();
        // It counts from when the reading began, which is when the value was certainly right.
        clock.advance(LIFE / 2);
        cache.insert(epoch, "a", 1);
        assert_eq!(cache.get("a"), Ok(1));
        clock.advance(LIFE / 2);
        let again = cache.get("a").unwrap_err();
        cache.insert(again, "a", 2);
        assert_eq!(cache.get("a"), Ok(2));
    }

    #[test]
    fn it_is_bounded() {
        let cache = Cache::new(Life::Endless);
        for number in 0..3 * ENTRIES_MAX {
            let epoch = cache.get("none").unwrap_err();
            cache.insert(epoch, &number.to_string(), number);
        }
        assert!(cache.state.read().entries.len() <= ENTRIES_MAX);
    }
}
