//! Consensus: how the replicas of a log agree on it (Raft), as a state machine without I/O.
//!
//! A [`Raft`] is one replica. It is told what happened (a message came, something is durable, time has
//! passed, somebody proposes) and says in a [`Ready`] what is to be done: what to write, what to send,
//! how far entries are committed. It knows no clock, no disk, no network and no randomness, so a whole
//! group with all its faults runs in one thread, thousands of times a second (`tests/`).
//!
//! The algorithm is that of Diego Ongaro's thesis, "Consensus: Bridging Theory and Practice" (2014):
//! pre-vote (9.6), leadership transfer (3.10), read index (6.4), joint consensus (4.3), learners (4.2.1)
//! and a leader that steps down when it no longer hears a majority (6.2).
//!
//! **Invariant:** what a replica promises to others (a vote, an acknowledgement) leaves it only when
//! what the promise rests on is durable.
//! **Invariant:** no lease: whether a replica still leads is asked of a majority, each time.
//!
//! Sketch: a commit is one round to a majority, in parallel with the leader's own write. Appends are
//! pipelined; a read costs no round of its own while another's has not begun.
//!
//! In reading order: the values (`types`, `membership`, `message`); the entries at hand (`log`); what a
//! leader knows of the others (`progress`); the replica (`raft`): elections, replication, reads, changes
//! of the membership.

mod log;
mod membership;
mod message;
mod progress;
mod raft;
mod types;

#[cfg(any(test, feature = "canary"))]
mod bug;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "canary"))]
pub use bug::Bug;
pub use membership::Membership;
pub use message::{Appended, Body, Message};
pub use raft::{Config, Persist, Raft, Ready, Refused, Role, Start};
pub use types::{Ballot, Data, Entry, LogId, Payload, ReplicaId};
