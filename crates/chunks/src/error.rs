//! Why a chunk could not be written or read.

use std::time::Duration;

use tokio::task::JoinError;

use crate::StorageError;

/// Why a chunk could not be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No device with room is left. Deletes still work.
    #[error("out of space")]
    OutOfSpace,
    /// No device takes it now, or the buffers are in use. The same may succeed after `retry_in`.
    #[error("unavailable, retry in {retry_in:?}")]
    Unavailable { retry_in: Duration },
    /// No copy is left that is there and passes its checksum.
    #[error("{0}")]
    Damaged(String),
}

impl Error {
    /// A device that is out of service comes back when a person has looked at it, so there is no
    /// better guess than a few seconds.
    const RETRY_IN: Duration = Duration::from_secs(5);

    pub(crate) fn unavailable() -> Self {
        Self::Unavailable {
            retry_in: Self::RETRY_IN,
        }
    }
}

/// What a task of ours came to.
pub(crate) fn joined<T>(task: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    match task {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down.
        Err(_) => Err(Error::unavailable()),
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full => Self::OutOfSpace,
            StorageError::Missing | StorageError::Damaged(_) => Self::Damaged(error.to_string()),
            StorageError::Stale
            | StorageError::Unavailable(_)
            | StorageError::Unreached(_)
            | StorageError::Overdue => Self::unavailable(),
        }
    }
}
