//! What the namespace counts.

use base::metrics::{Counter, Gauge};
use bytes::Bytes;

use crate::key::{self, GarbageCount, Parts, table};
use crate::{Error, Namespace, rows};

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

/// What all accounts hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub accounts: u64,
    pub containers: u64,
    pub objects: u64,
    pub bytes: u64,
}

impl Namespace {
    /// What all accounts hold together; each is summed at its own moment. Costs three counters per
    /// account and shard, so it is for people and not for every scrape.
    pub async fn totals(&self) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        for shard in self.shard_ids() {
            let mut from = Some(Bytes::from_static(&[table::ACCOUNT]));
            while let Some(next) = from {
                let to = key::end_of(&[table::ACCOUNT]);
                let page = rows::page(self.shard(shard), next, to).await?;
                for (key, _) in &page.rows {
                    let name = Parts::of(table::ACCOUNT, key)?.last_name()?;
                    let usage = self.usage(name).await?;
                    totals.accounts += 1;
                    totals.containers += usage.containers;
                    totals.objects += usage.objects;
                    totals.bytes += usage.bytes;
                }
                from = page.next;
            }
        }
        Ok(totals)
    }

    /// What waits to be deleted, over all shards: two counters of each.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let keys = [GarbageCount::Bodies, GarbageCount::Bytes].map(key::garbage_count);
        let [garbage_bodies, garbage_bytes] = self.sums(&keys).await?;
        Ok(Backlog {
            garbage_bodies,
            garbage_bytes,
        })
    }
}
