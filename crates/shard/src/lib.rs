//! Ordered transactional key-value stores, each one Raft group.
//!
//! The leader executes, followers replay effects: a [`Procedure`] is planned under latches against
//! a consistent [`View`] and gives a [`Batch`], and the batch is what is replicated.
//!
//! **Invariant:** rows are bytes; this crate knows nothing of accounts or objects.

mod batch;
mod error;
mod latch;
mod memtable;
mod procedure;
mod shard;
mod view;

pub use batch::Batch;
pub use error::Error;
pub use procedure::{Execution, Latch, Procedure};
pub use shard::{Shard, Shards};
pub use view::{Scan, View};
