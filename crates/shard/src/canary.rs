//! Planted bugs, for tests of whole servers alone: a harness that does not notice them proves nothing.

use std::sync::OnceLock;

/// What all shards of this process do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// A leader acknowledges what it has written itself, whoever else has it.
    AcknowledgedBeforeQuorum,
    /// A replica that follows answers reads by what it has, whatever its leader has decided since.
    ListFromFollower,
    /// A leader executes a call again whose first try was done.
    RepeatExecuted,
}

static PLANTED: OnceLock<Canary> = OnceLock::new();

impl Canary {
    /// To be called once, before any shard is opened.
    pub fn plant(self) {
        PLANTED.set(self).expect("one bug at a time");
    }

    pub(crate) fn planted() -> Option<Self> {
        PLANTED.get().copied()
    }
}
