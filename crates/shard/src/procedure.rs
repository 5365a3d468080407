//! What the leader executes.

use base::Timestamp;
use bytes::Bytes;

use crate::{Batch, Error, View};

/// A key that a procedure's decision rests on, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Latch {
    /// Changes the row: no other procedure that names the key, in either way, is planned until this
    /// one is committed.
    Exclusive(Bytes),
    /// Relies on the row to stay: only [`Latch::Exclusive`] of the key waits, and is waited for. So
    /// many objects of one container are written at once, but none while the container is deleted.
    Shared(Bytes),
}

/// A decision about a change: pure, so that it can be tested without a shard.
pub trait Procedure: Send + 'static {
    type Output: Send + 'static;
    /// Why the procedure refuses. Nothing is changed then.
    type Error: Send + 'static;

    /// The keys on whose rows the decision rests. They need not exist, and need not be rows. All are
    /// taken before planning and given back after the commit, first come first served.
    fn latches(&self) -> Vec<Latch>;

    /// Decides. The same inputs give the same batch: no clock, no randomness, no I/O but the view.
    fn plan(
        &self,
        now: Timestamp,
        view: &View,
    ) -> Result<(Batch, Self::Output), Execution<Self::Error>>;
}

/// Why an execution failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Execution<E> {
    /// The procedure refused.
    #[error("refused")]
    Refused(E),
    /// The shard could not.
    #[error(transparent)]
    Shard(#[from] Error),
}
