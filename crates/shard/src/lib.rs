//! Ordered transactional key-value stores, each one Raft group.

mod batch;
mod procedure;

pub use batch::Batch;
pub use procedure::{Execution, Latch, Procedure};

use std::ops::Bound;
use std::time::Duration;

use base::ShardId;
use bytes::Bytes;

/// All shards of this node.
pub struct Shards {}

impl Shards {
    /// How many shards the cluster has; fixed when it was made.
    pub fn count(&self) -> u16 {
        todo!()
    }

    /// The shard, which must be below [`Shards::count`].
    pub fn get(&self, _id: ShardId) -> &Shard {
        todo!()
    }
}

/// One shard. Cheap to clone.
#[derive(Clone)]
pub struct Shard {}

impl Shard {
    /// Plans `procedure` under latches on its keys, commits what it planned and returns its output.
    /// On `Ok` the effects survive power loss and every later [`Shard::view`] sees them.
    ///
    /// # Cancel safety
    /// A dropped call may have committed or not, as after [`Error::Unknown`].
    pub async fn execute<P: Procedure>(
        &self,
        _procedure: P,
    ) -> Result<P::Output, Execution<P::Error>> {
        todo!()
    }

    /// A linearizable snapshot: sees everything that was acknowledged before the call. Do not hold
    /// it across an `await`: it pins pages of the B-tree.
    pub async fn view(&self) -> Result<View, Error> {
        todo!()
    }
}

/// A consistent snapshot of one shard.
pub struct View {}

impl View {
    pub fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Error> {
        todo!()
    }

    /// Calls `each` with the rows between the bounds in ascending order of keys until it answers
    /// [`Scan::Stop`] or [`Scan::Seek`]s elsewhere.
    pub fn scan(
        &self,
        _from: Bound<&[u8]>,
        _to: Bound<&[u8]>,
        _each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        todo!()
    }

    /// As [`View::scan`], in descending order. A `Seek` goes to the first row below its key.
    pub fn scan_back(
        &self,
        _from: Bound<&[u8]>,
        _to: Bound<&[u8]>,
        _each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        todo!()
    }

    /// The value of a counter: the sum of all that was added to it, 0 if nothing was.
    pub fn counter(&self, _key: &[u8]) -> Result<i64, Error> {
        todo!()
    }
}

/// What a scan does next.
pub enum Scan {
    Next,
    /// Go on at the first row at or after this key (at or before it, backwards).
    Seek(Vec<u8>),
    Stop,
}

/// Why a shard could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No leader, or too much queued. The same request may succeed after `retry_in`.
    #[error("shard unavailable, retry in {retry_in:?}")]
    Unavailable { retry_in: Duration },
    /// The device is full or read-only: deletes may still work.
    #[error("out of space")]
    OutOfSpace,
    /// The batch was sent and its answer lost: it may have happened.
    #[error("outcome unknown")]
    Unknown,
    /// A row's checksum is wrong, or its encoding.
    #[error("row damaged: {0}")]
    Damaged(String),
}
