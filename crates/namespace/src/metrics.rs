//! What the namespace counts.

use base::ShardId;
use base::metrics::{Counter, Gauge};

use crate::key::{self, GarbageCount, Parts, table};
use crate::{Error, Namespace, container, scan};

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
            let mut after = vec![table::ACCOUNT];
            loop {
                let names = self.accounts_after(shard, &after).await?;
                let Some(last) = names.last() else { break };
                after = key::account(last).to_vec();
                after.push(0);
                for name in &names {
                    let usage = self.usage(name).await?;
                    totals.accounts += 1;
                    totals.containers += usage.containers;
                    totals.objects += usage.objects;
                    totals.bytes += usage.bytes;
                }
            }
        }
        Ok(totals)
    }

    /// The next accounts of a shard, from the key `after` on.
    async fn accounts_after(&self, shard: ShardId, after: &[u8]) -> Result<Vec<String>, Error> {
        const ROUND_MAX: usize = 1000;
        let view = self.shard(shard).view().await?;
        let mut names = Vec::new();
        scan::rows(&view, after, &[table::ACCOUNT + 1], |key, _| {
            names.push(Parts::of(table::ACCOUNT, key)?.last_name()?.to_owned());
            Ok(scan::while_below(names.len(), ROUND_MAX))
        })?;
        Ok(names)
    }

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
