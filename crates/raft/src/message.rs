//! What replicas say to each other.

use crate::{Entry, LogId, ReplicaId};

/// From one replica to another. May be lost, late, doubled or out of order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<D> {
    pub from: ReplicaId,
    pub to: ReplicaId,
    /// Of the sender; of a canvass, the one that it would have.
    pub term: u64,
    pub body: Body<D>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<D> {
    /// Would you vote for me? Asked before an election, so that nobody is disturbed by one that
    /// cannot be won.
    Canvass {
        last: LogId,
    },
    CanvassReply {
        granted: bool,
    },
    Vote {
        last: LogId,
        /// The leader has asked for this election.
        is_transfer: bool,
    },
    VoteReply {
        granted: bool,
    },
    /// The entries after `prev`; none is a heartbeat.
    Append {
        prev: LogId,
        entries: Vec<Entry<D>>,
        commit: u64,
        /// Nobody needs the entries before this one any more, as far as the leader knows.
        keep: u64,
        /// Counts the leader's questions whether it still leads; the reply repeats it.
        round: u64,
    },
    AppendReply {
        round: u64,
        outcome: Appended,
    },
    /// The sender, who leads, wants the receiver to take over.
    TakeOver,
    /// What must have been done where reads are answered that came before this was sent?
    ReadIndex {
        number: u64,
    },
    /// All up to `index`.
    ReadIndexReply {
        number: u64,
        index: u64,
    },
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All up to here is durable and as the leader has it.
    Matched(u64),
    /// There is no such entry as `prev`. The log ends with `last`, or this is the last entry in which it
    /// could agree.
    Rejected { prev: u64, last: u64 },
    /// Nothing was to be appended: a sign of life for one that waits for a snapshot.
    Alive,
}

impl<D> Message<D> {
    /// Whether it says what its receiver has asked for.
    pub fn is_answer(&self) -> bool {
        match self.body {
            Body::CanvassReply { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::ReadIndexReply { .. } => true,
            Body::Canvass { .. }
            | Body::Vote { .. }
            | Body::Append { .. }
            | Body::TakeOver
            | Body::ReadIndex { .. } => false,
        }
    }

    /// Whether its parts fit together. What does not was made by no replica.
    pub(crate) fn is_sound(&self) -> bool {
        let Body::Append { prev, entries, .. } = &self.body else {
            return true;
        };
        let mut before = *prev;
        entries.iter().all(|entry| {
            let follows = before.index.checked_add(1) == Some(entry.id.index)
                && entry.id.term >= before.term
                && entry.id.term <= self.term;
            before = entry.id;
            follows
        })
    }
}
