//! What the leader executes.

use base::Timestamp;
use bytes::Bytes;

use crate::{Batch, Error, View};

/// A decision about a change: pure, so that it can be tested without a shard.
pub trait Procedure: Send + 'static {
    type Output: Send + 'static;
    /// Why the procedure refuses. Nothing is changed then.
    type Error: Send + 'static;

    /// The keys on whose rows the decision rests: no other procedure that names one of them is
    /// planned until this one is committed. They need not exist, and need not be rows.
    fn latches(&self) -> Vec<Bytes>;

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
