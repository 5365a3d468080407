//! Why a call gave no answer.

use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;

/// A call gave no answer. The variant says what the caller may do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer's handler has not begun it and never will: it may be tried again, there or elsewhere.
    #[error("not sent: {0}")]
    NotSent(Fault),
    /// It may have happened, may be happening, or not: ask before repeating what must not happen twice.
    #[error("outcome unknown: {0}")]
    Unknown(Fault),
    /// The handler said no, in words that its service defines.
    #[error("refused by the peer's handler")]
    Refused(Bytes),
}

impl CallError {
    /// What went wrong below the handlers.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::NotSent(fault) | Self::Unknown(fault) => Some(fault),
            Self::Refused(_) => None,
        }
    }

    /// Whether the caller's own deadline ended the call.
    pub fn is_deadline(&self) -> bool {
        self.fault() == Some(&Fault::Deadline)
    }
}

/// What went wrong below the handlers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the deadline has passed")]
    Deadline,
    #[error("{0} has no address")]
    NoAddress(NodeId),
    /// Nobody there, or not for us.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable { address: String, reason: Arc<str> },
    #[error("speaks versions {theirs:?} of the protocol, this node {ours:?}: upgrade one of them")]
    Version { theirs: Versions, ours: Versions },
    /// This node is not, or not yet, in the peer's map.
    #[error("the peer does not know this node")]
    Stranger,
    #[error("the peer is stopping")]
    Stopping,
    #[error("the peer has too many joins to handle")]
    Busy,
    #[error("a body of {bytes} bytes, at most {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("connection lost: {0}")]
    Broken(Arc<str>),
    /// It was cancelled, its deadline passed over there, or it panicked.
    #[error("the peer's handler did not finish")]
    Unfinished,
    /// The connection or the whole pool was closed on this side.
    #[error("closed")]
    Closed,
}

impl Fault {
    pub(crate) fn broken(reason: impl std::fmt::Display) -> Self {
        Self::Broken(reason.to_string().into())
    }
}

/// The versions of the protocol that a node speaks: from, to.
pub type Versions = std::ops::RangeInclusive<u16>;
