//! Readers on one node keep a body from the collector on another.
//!
//! A pin is known to its node alone. So where several nodes use the shards, each asks every few seconds
//! whether one of the bodies that it has been reading for longer is garbage by now, and if so writes the
//! time into the garbage row. The collector deletes only what nobody has asked for in the last
//! [`RENEWED_FOR`], which is longer than several such rounds, and than the difference between clocks of
//! nodes that can be told the time at all.
//!
//! A node that does not get through for so long loses the body under its readers' hands: they get an error,
//! never other bytes, since no chunk's id is used again.
//!
//! Costs nothing for short reads, and else one query per shard and round, whatever the number of readers; a
//! commit only for bodies that were replaced or deleted while they are read.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{ShardId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Query, View};

use crate::key::{self, GarbageCount};
use crate::row::{self, GarbageRow};
use crate::{Error, Namespace, placement};

/// The pause between two rounds; and what has been read for a shorter time is not looked at.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(5);

/// How long garbage stays that was queued or renewed: a round may fail, and a clock be some seconds off.
pub(crate) const RENEWED_FOR: Duration = Duration::from_secs(20);

/// Of one call: some 300 KiB of keys.
const KEYS_MAX: usize = 256;

/// Which of these rows of the garbage queue there are.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindGarbage {
    keys: Vec<Bytes>,
}

impl Query for FindGarbage {
    const NAME: &'static str = "garbage.find";

    type Output = Vec<Bytes>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Vec<Bytes>, Execution<Error>> {
        let mut found = Vec::new();
        for key in &self.keys {
            if view.get(key)?.is_some() {
                found.push(key.clone());
            }
        }
        Ok(found)
    }
}

/// Lets these rows of the garbage queue, if they are still there, begin their time anew.
#[derive(Serialize, Deserialize)]
pub(crate) struct Renew {
    pub(crate) keys: Vec<Bytes>,
}

impl Procedure for Renew {
    const NAME: &'static str = "garbage.renew";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        // What the collector removes must not come back.
        let counter = key::garbage_count(GarbageCount::Bodies);
        vec![Latch::Shared(counter)]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, ()), Execution<Error>> {
        let mut batch = Batch::new();
        for key in &self.keys {
            let Some(bytes) = view.get(key)? else {
                continue;
            };
            let garbage: GarbageRow<'_> = row::decode(&bytes)?;
            let renewed = GarbageRow {
                queued: now.max(garbage.queued),
                ..garbage
            };
            batch.put(key.clone(), row::encode(&renewed));
        }
        Ok((batch, ()))
    }
}

impl Namespace {
    /// One round: keeps what is read here, and is garbage, from being collected elsewhere. Returns how
    /// many bodies that were.
    pub(crate) async fn renew(&self) -> Result<usize, Error> {
        let now = self.inner.env.clock.monotonic();
        let Some(then) = now.checked_sub(RENEW_EVERY) else {
            return Ok(0);
        };
        let mut keys: BTreeMap<ShardId, Vec<Bytes>> = BTreeMap::new();
        for id in self.inner.pins.since(then) {
            let shard = placement::of_id(id.container);
            keys.entry(shard).or_default().push(id.garbage());
        }
        // One shard that does not answer must not hold up the others for long.
        let renewals = keys.into_iter().map(|(shard, keys)| async move {
            let mut renewed = 0;
            for keys in keys.chunks(KEYS_MAX) {
                let keys = keys.to_vec();
                let keys = self.query(shard, FindGarbage { keys }).await?;
                renewed += keys.len();
                if !keys.is_empty() {
                    self.execute(shard, Renew { keys }).await?;
                }
            }
            Ok(renewed)
        });
        let renewed = futures_util::future::join_all(renewals).await;
        let renewed: Result<Vec<usize>, Error> = renewed.into_iter().collect();
        Ok(renewed?.into_iter().sum())
    }
}
