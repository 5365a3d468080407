//! Ordered transactional key-value stores, each one Raft group.
//!
//! The leader executes, followers replay effects: a [`Procedure`] is planned under latches against
//! a consistent [`View`] and gives a [`Batch`], and the batch is what is replicated.
//!
//! **Invariant:** rows are bytes; this crate knows nothing of accounts or objects.
//!
//! In reading order: what callers write ([`Batch`], [`Procedure`], [`Query`]); how they exclude each other
//! (`latch`); the state of a shard (`memtable`, `tree`, `core`, [`View`]); the way of a batch into it
//! (`replica`); what the replicas of a device share (`host`, `budget`); where a shard is led, how it is
//! asked there and what becomes of a question without an answer (`table`, `search`, `call`, `peers`, `wire`,
//! [`Registry`]); how a shard is read as a whole (`export`). [`Offline`] reads shards without a server.

mod batch;
mod error;
mod procedure;

mod latch;

mod core;
mod memtable;
mod tree;
mod view;

mod replica;

mod budget;
mod host;
mod metrics;
mod offline;

mod call;
mod export;
mod peers;
mod search;
mod shard;
mod shards;
mod table;

mod registry;
mod remote;
mod wire;

#[cfg(feature = "canary")]
mod canary;
#[cfg(test)]
mod tests;

#[cfg(feature = "canary")]
pub use canary::Canary;

pub use batch::{Batch, KEY_BYTES_MAX};
pub use error::Error;
pub use export::{Export, Exported, Piece};
pub use offline::Offline;
pub use peers::Peers;
pub use procedure::{Execution, Latch, Procedure, Query, Wire};
pub use raft::ReplicaId;
pub use registry::Registry;
pub use shard::Shard;
pub use shards::{Config, Led, Shards};
pub use tree::{Row, whole_pages};
pub use view::{EachRow, Scan, View};
