//! Why the namespace refused.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shard::Execution;

/// What is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    Account,
    Container,
    Object,
    User,
}

/// Why the namespace refused. Nothing was changed, unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    #[error("no such {0:?}")]
    NotFound(Missing),
    /// The container or account still holds something.
    #[error("not empty")]
    NotEmpty,
    /// The container keeps its bodies in another way than the caller demands.
    #[error("the container has another policy")]
    OtherPolicy,
    /// A condition did not hold against the present state: read again before a retry.
    #[error("precondition failed")]
    Precondition,
    /// The container or its rights changed since the caller looked: look again, then retry.
    #[error("changed meanwhile")]
    Changed,
    /// Metadata beyond the limits, after merging; the text says which, in Swift's words.
    #[error("{0}")]
    Limit(String),
    /// The body would exceed the quota of the container or the account.
    #[error("quota exceeded")]
    QuotaExceeded,
    /// No device with room is left. Deletes still work.
    #[error("out of space")]
    OutOfSpace,
    /// The same request may succeed after `retry_in`.
    #[error("unavailable, retry in {retry_in:?}")]
    Unavailable { retry_in: Duration },
    /// The commit was sent and its answer lost: it may have happened.
    #[error("outcome unknown")]
    Unknown,
    /// Stored bytes fail their checksum and no good copy is left.
    #[error("damaged: {0}")]
    Damaged(String),
}

impl Error {
    /// Something was in the way that will not be there for long.
    pub(crate) fn later() -> Self {
        Self::Unavailable {
            retry_in: Duration::from_secs(1),
        }
    }
}

impl From<shard::Error> for Error {
    fn from(error: shard::Error) -> Self {
        match error {
            shard::Error::Unavailable { retry_in } => Self::Unavailable { retry_in },
            shard::Error::OutOfSpace => Self::OutOfSpace,
            shard::Error::Unknown => Self::Unknown,
            shard::Error::Damaged(what) => Self::Damaged(what),
        }
    }
}

impl From<Execution<Self>> for Error {
    fn from(error: Execution<Self>) -> Self {
        match error {
            Execution::Refused(error) => error,
            Execution::Shard(error) => error.into(),
        }
    }
}

/// So that a plan can say `?` to what it reads and decides.
impl From<Error> for Execution<Error> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<chunks::Error> for Error {
    fn from(error: chunks::Error) -> Self {
        match error {
            chunks::Error::OutOfSpace => Self::OutOfSpace,
            chunks::Error::Unavailable { retry_in } => Self::Unavailable { retry_in },
            chunks::Error::Damaged(what) => Self::Damaged(what),
        }
    }
}
