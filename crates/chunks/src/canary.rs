//! Planted bugs, for tests of whole servers alone: a harness that does not notice them proves nothing.

use std::sync::OnceLock;

/// What the devices of this process do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Writes are let in by whatever epoch.
    EpochUnchecked,
}

static PLANTED: OnceLock<Canary> = OnceLock::new();

impl Canary {
    /// To be called once, before any device is used.
    pub fn plant(self) {
        PLANTED.set(self).expect("one bug at a time");
    }

    pub(crate) fn is_planted(self) -> bool {
        PLANTED.get() == Some(&self)
    }
}
