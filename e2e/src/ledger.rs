//! What the server may hold, given what it was asked and what it answered.
//!
//! The ledger lives in the test's own process, outside of the system under test. For each path, an object's or a
//! container's, it keeps what was there when all was last verified and every write since. Writes
//! of many clients to one path overlap; so a path may hold more than one value, and [`History`] says
//! which: those that some order of the writes explains in which each takes effect between its
//! request and its answer. A write whose answer was lost may take effect at any later time, or never.

mod content;
mod history;

pub use content::{Content, etag};
use history::History;
pub use history::{Moment, Value};

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::Violation;

/// The histories of all paths. A path is `container` or `container/object`, not encoded.
pub struct Ledger {
    start: Instant,
    histories: Mutex<BTreeMap<String, History>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            histories: Mutex::default(),
        }
    }
}

impl Ledger {
    pub fn now(&self) -> Moment {
        Moment::after(self.start.elapsed())
    }

    /// Enters the intent to write `value` to `path`. Until [`Intent::end`] it may happen any time.
    pub fn intend(&self, path: &str, value: Value) -> Intent<'_> {
        let number = self
            .lock()
            .entry(path.to_owned())
            .or_default()
            .begin(value, self.now());
        Intent {
            ledger: self,
            path: path.to_owned(),
            number,
        }
    }

    /// Fails unless a read of `path` between these moments may have seen `value`.
    pub fn saw(&self, path: &str, value: Value, from: Moment, to: Moment) -> Result<(), Violation> {
        self.saw_what(path, &|have| have == value, from, to)
            .map_err(|history| {
                Violation(format!(
                    "{path} gave {value:?} at {from:?}..{to:?}: {history}"
                ))
            })
    }

    /// Fails unless a listing of `container` between these moments may have had these objects, each by name with
    /// its size.
    pub fn listed(
        &self,
        container: &str,
        sizes: &BTreeMap<String, usize>,
        from: Moment,
        to: Moment,
    ) -> Result<(), Violation> {
        for path in self.paths() {
            let Some((_, name)) = path.split_once('/').filter(|(of, _)| *of == container) else {
                continue;
            };
            let size = sizes.get(name).copied();
            self.saw_what(&path, &|have| have.bytes() == size, from, to)
                .map_err(|history| {
                    Violation(format!(
                        "{path} was listed with {size:?} bytes at {from:?}..{to:?}: {history}"
                    ))
                })?;
        }
        let unknown = sizes
            .keys()
            .find(|name| !self.lock().contains_key(&format!("{container}/{name}")));
        match unknown {
            Some(name) => Err(Violation(format!(
                "{container}/{name} is listed and was never written"
            ))),
            None => Ok(()),
        }
    }

    /// Gives the history if it forbids that.
    fn saw_what(
        &self,
        path: &str,
        matches: &dyn Fn(Value) -> bool,
        from: Moment,
        to: Moment,
    ) -> Result<(), String> {
        let never_written = History::default();
        let histories = self.lock();
        let history = histories.get(path).unwrap_or(&never_written);
        history
            .allows(matches, from, to)
            .then_some(())
            .ok_or_else(|| format!("{history:?}"))
    }

    /// What `path` holds, if that is certain: no answer was lost, and no two writes overlapped.
    pub fn certain(&self, path: &str) -> Option<Value> {
        self.lock()
            .get(path)
            .map_or(Some(Value::Absent), History::certain)
    }

    /// Takes what was found everywhere as the truth from now on.
    pub fn settle(&self, found: &BTreeMap<String, Value>) {
        let settled = found
            .iter()
            .map(|(path, value)| (path.clone(), History::holding(*value)));
        *self.lock() = settled.collect();
    }

    /// Every path that was ever written since the last verification or found by it.
    pub fn paths(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, History>> {
        self.histories
            .lock()
            .expect("no thread panics with the ledger in hand")
    }
}

/// A write that was begun. Dropped, it leaves open whether and when the write happens.
#[must_use]
pub struct Intent<'a> {
    ledger: &'a Ledger,
    path: String,
    number: usize,
}

impl Intent<'_> {
    /// Enters how the write ended: whether it was done, or refused and so never will be.
    pub fn end(self, done: bool) {
        let now = self.ledger.now();
        let mut histories = self.ledger.lock();
        let history = histories
            .get_mut(&self.path)
            .expect("entered when it began");
        history.end(self.number, done.then_some(now));
    }
}
