//! Calls without connections, for tests that carry them by themselves.

use std::pin::Pin;

use base::NodeId;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{CallError, Lane};

/// A call under way.
pub type Carried = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;

/// Carries a call as [`crate::Peers::call`] does: to which node, on which lane, to which service, with which body, until
/// when.
pub type Carrier = dyn Fn(NodeId, Lane, u16, Vec<Bytes>, Instant) -> Carried + Send + Sync;
