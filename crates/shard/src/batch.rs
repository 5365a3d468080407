//! The effects of a procedure, as Raft replicates them.

use bytes::Bytes;

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Put(Bytes, Bytes),
    Delete(Bytes),
    /// Counters commute: two batches may add to one without a latch on it.
    Add(Bytes, i64),
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) effects: Vec<Effect>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.effects.push(Effect::Put(key.into(), value.into()));
    }

    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.effects.push(Effect::Delete(key.into()));
    }

    /// Adds to a counter. Keys of counters are used for nothing else.
    pub fn add(&mut self, key: impl Into<Bytes>, by: i64) {
        self.effects.push(Effect::Add(key.into(), by));
    }

    /// A batch without effects commits nothing and waits for nothing.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
