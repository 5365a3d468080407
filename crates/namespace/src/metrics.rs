//! What the namespace counts.

use base::metrics::{Counter, Gauge};

use crate::key::{self, GarbageCount};
use crate::{Error, Namespace, container};

/// The counters of [`Namespace`] since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Bodies on their way in now.
    pub uploads: Gauge,
    /// Objects that the expirer removed.
    pub objects_expired: Counter,
    /// Expired objects that the expirer knew to be waiting at its last round.
    pub expiry_backlog: Gauge,
    /// Bodies and chunks that the collector deleted.
    pub bodies_collected: Counter,
    pub chunks_collected: Counter,
    /// Rounds of background work that ended with an error and were put off.
    pub background_errors: Counter,
    /// Uploads that were abandoned with parts of their manifest written.
    pub uploads_reaped: Counter,
}

/// What waits to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub garbage_bodies: u64,
    pub garbage_bytes: u64,
}

impl Namespace {
    /// What waits to be deleted, over all shards: two counters of each.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let mut backlog = Backlog::default();
        for shard in self.shard_ids() {
            let view = self.shard(shard).view().await?;
            let count = |what| container::count(&view, &key::garbage_count(what));
            backlog.garbage_bodies += count(GarbageCount::Bodies)?;
            backlog.garbage_bytes += count(GarbageCount::Bytes)?;
        }
        Ok(backlog)
    }
}
