//! What a log consists of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Membership;

/// One life of one replica. Drawn at random when the replica is made, and never used again: a replica that
/// lost its memory is another one, which has promised nothing yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:x}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The place of an entry. Ordered by how much a log that ends with it knows.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Of the leader that made the entry.
    pub term: u64,
    /// Counted from 1; 0 is before the first entry.
    pub index: u64,
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What travels in entries. Cheap to clone.
pub trait Data: Clone {
    /// How much it weighs in a message, roughly.
    fn bytes(&self) -> usize;
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<D> {
    pub id: LogId,
    pub payload: Payload<D>,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<D> {
    /// The first of each leader: with it, all before it are committed.
    Blank,
    Data(D),
    /// In force from the moment that it is in a replica's log.
    Membership(Membership),
}

impl<D: Data> Entry<D> {
    pub(crate) fn bytes(&self) -> usize {
        /// Its place and kind; members are few.
        const HEAD_BYTES: usize = 32;
        HEAD_BYTES
            + match &self.payload {
                Payload::Blank => 0,
                Payload::Data(data) => data.bytes(),
                Payload::Membership(membership) => 24 * membership.members().count(),
            }
    }
}

/// What a replica has promised, and must remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    /// The newest term that it has heard of.
    pub term: u64,
    /// Whom it gave its vote in that term.
    pub voted: Option<ReplicaId>,
}
