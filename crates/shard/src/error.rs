//! Why a shard could not answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a shard could not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
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
