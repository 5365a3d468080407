//! Why a device refused.

use std::io;
use std::sync::Arc;

/// Why a device refused. A write that failed may have left garbage, never half a record that reads.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Below the reserve: nothing new is taken. Deletes still work, and writes do again when there
    /// is space.
    #[error("device full")]
    Full,
    /// Nothing is written until the process starts again; reads still work.
    #[error("device is read-only: {0}")]
    ReadOnly(Arc<str>),
    /// A sync or a write failed: the device is out of service until the process starts again. What
    /// can still be read and verified may be.
    #[error("device has failed: {0}")]
    Failed(Arc<str>),
    /// The device is being closed.
    #[error("device is closed")]
    Closed,
    /// There is no such chunk here.
    #[error("not found")]
    NotFound,
    /// What is stored is not what was written, or cannot be read: use another copy.
    #[error("{0}")]
    Damaged(Arc<str>),
    /// The directory belongs to something else, or to a version that we do not know.
    #[error("{0}")]
    Foreign(Arc<str>),
    /// Another process has the directory open.
    #[error("the directory is in use by another process")]
    Locked,
    /// The caller asked for what cannot be: a bug of the caller, or a wrong setting.
    #[error("{0}")]
    Invalid(Arc<str>),
    /// The operating system refused something that says nothing about the health of the disk.
    #[error("{what}: {source}")]
    Io {
        what: Arc<str>,
        source: Arc<io::Error>,
    },
}

impl Error {
    pub fn damaged(what: impl Into<Arc<str>>) -> Self {
        Self::Damaged(what.into())
    }

    pub fn foreign(what: impl Into<Arc<str>>) -> Self {
        Self::Foreign(what.into())
    }

    pub fn invalid(what: impl Into<Arc<str>>) -> Self {
        Self::Invalid(what.into())
    }

    /// Wraps `source`; `what` says what was being done to which file.
    pub fn io(what: impl Into<Arc<str>>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source: Arc::new(source),
        }
    }
}
