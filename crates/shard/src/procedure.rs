//! What is asked of a shard: procedures change it, queries read it. Both are values with a name and a
//! wire form, so that they run where the shard is led; see docs/formats/call.md.

use base::Timestamp;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

/// What can travel between nodes.
///
/// Its form is what serde makes of it, and is part of the protocol: to change it, change the name of
/// the procedure or query that it belongs to. A list of what takes no bytes, like `Vec<()>`, must not
/// be in it: its length alone would say how long reading it takes.
pub trait Wire: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Wire for T {}

/// A decision about a change: pure, so that it can be tested without a shard.
pub trait Procedure: Wire {
    /// Its name on the wire: no other procedure or query has it, and it never means anything else.
    const NAME: &'static str;

    type Output: Wire;
    /// Why the procedure refuses. Nothing is changed then.
    type Error: Wire;

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

/// A question about a shard: pure, as a [`Procedure`] is. Its answer has a bound.
pub trait Query: Wire {
    /// As [`Procedure::NAME`].
    const NAME: &'static str;

    type Output: Wire;
    type Error: Wire;

    fn answer(&self, view: &View) -> Result<Self::Output, Execution<Self::Error>>;
}

/// Why an execution or a query failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Execution<E> {
    /// The procedure or query refused.
    #[error("refused")]
    Refused(E),
    /// The shard could not.
    #[error(transparent)]
    Shard(#[from] Error),
}
