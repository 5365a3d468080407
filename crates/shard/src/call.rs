//! One call of a procedure, and its tries.
//!
//! A try whose answer is lost may have been done, or may be yet. So the call is tried again under the same request id,
//! which every entry of the log carries: who leads by then knows the ids of the entries of late (`replica::outcomes`),
//! and answers with the outcome of the first try if there is one.
//!
//! **How it knows that there is none.** Each call names an entry that had been decided before its first try (`since`). What
//! it may have proposed lies behind that entry, if it is ever decided. A leader that has forgotten no entry behind it, and
//! does not have the id, is sure. Another one says that it is not, and executes nothing. Places in the log are compared, and
//! no clocks: a call may be as late as it likes, and its caller may have stood still for an hour.

use std::sync::atomic::{AtomicU64, Ordering};

use base::env::Env;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Tells a call from all others, of this process and of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RequestId {
    /// Drawn at random by who calls, at its start.
    pub(crate) origin: u64,
    /// Its calls are numbered.
    pub(crate) number: u64,
}

/// What each try says beside the procedure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) request: RequestId,
    /// An earlier try may have been done, or may be yet.
    pub(crate) is_repeat: bool,
    /// This entry was decided before the first try.
    pub(crate) since: u64,
}

impl Call {
    /// As it is told to a replica on this node. A first try cannot be late here, so nothing is known to have been done of it.
    pub(crate) fn as_told_here(self) -> Self {
        match self.is_repeat {
            true => self,
            false => Self {
                since: u64::MAX,
                ..self
            },
        }
    }

    /// What an error of a try means for the call.
    pub(crate) fn failed(&self, error: Error) -> Error {
        match self.is_repeat {
            // This try did nothing, but an earlier one may have.
            true => Error::Unknown,
            false => error,
        }
    }
}

/// Gives calls their ids.
pub(crate) struct Calls {
    origin: u64,
    made: AtomicU64,
}

impl Calls {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            origin: env.entropy.u64(),
            made: AtomicU64::new(0),
        }
    }

    /// Another call, to a shard whose log is decided up to `since` at least.
    pub(crate) fn first_try(&self, since: u64) -> Call {
        let request = RequestId {
            origin: self.origin,
            number: self.made.fetch_add(1, Ordering::Relaxed),
        };
        Call {
            request,
            is_repeat: false,
            since,
        }
    }
}
