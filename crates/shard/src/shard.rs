//! The shards of a node and what can be done with one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use base::env::Env;
use base::{ShardId, Timestamp};
use parking_lot::Mutex;

use crate::latch::Latches;
use crate::memtable::{Memtable, Seq};
use crate::{Batch, Error, Execution, Procedure, View};

/// All shards of this node.
pub struct Shards {
    shards: Vec<Shard>,
}

impl Shards {
    /// Shards in memory alone, for tests of what stands on shards: nothing is durable.
    pub fn volatile(env: &Env, count: u16) -> Self {
        let shards = (0..count).map(|_| Shard::new(env.clone())).collect();
        Self { shards }
    }

    /// How many shards the cluster has; fixed when it was made.
    pub fn count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("shards are counted in 16 bits")
    }

    /// The shard, which must be below [`Shards::count`].
    pub fn get(&self, id: ShardId) -> &Shard {
        &self.shards[usize::from(id.0)]
    }
}

/// One shard. Cheap to clone.
#[derive(Clone)]
pub struct Shard {
    core: Arc<Core>,
}

struct Core {
    env: Env,
    latches: Latches,
    tables: ArcSwap<Tables>,
    /// Everything up to here is in the tables, and readers may see it.
    applied: AtomicU64,
    /// Held while something is applied.
    applying: Mutex<()>,
    /// The newest time that a procedure was given, in ticks.
    newest: AtomicU64,
}

/// The memtables of a shard, the newest first.
struct Tables {
    active: Arc<Memtable>,
}

impl Shard {
    fn new(env: Env) -> Self {
        let tables = Tables {
            active: Arc::default(),
        };
        let core = Core {
            env,
            latches: Latches::default(),
            tables: ArcSwap::from_pointee(tables),
            applied: AtomicU64::new(0),
            applying: Mutex::new(()),
            newest: AtomicU64::new(0),
        };
        Self {
            core: Arc::new(core),
        }
    }

    /// Plans `procedure` under latches on its keys, commits what it planned and returns its output.
    /// On `Ok` the effects survive power loss and every later [`Shard::view`] sees them.
    ///
    /// # Cancel safety
    /// A dropped call may have committed or not, as after [`Error::Unknown`].
    pub async fn execute<P: Procedure>(
        &self,
        procedure: P,
    ) -> Result<P::Output, Execution<P::Error>> {
        let _held = self.core.latches.hold(procedure.latches()).await;
        let (batch, output) = procedure.plan(self.core.tick(), &self.core.view())?;
        if !batch.is_empty() {
            self.core.apply(batch);
        }
        Ok(output)
    }

    /// A linearizable snapshot: sees everything that was acknowledged before the call. Do not hold
    /// it across an `await`: it pins pages of the B-tree.
    pub async fn view(&self) -> Result<View, Error> {
        Ok(self.core.view())
    }
}

impl Core {
    /// The time, later than any that was given before.
    fn tick(&self) -> Timestamp {
        let now = self.env.clock.now();
        let later = |newest| Some(now.ticks().max(newest + 1));
        let before = self
            .newest
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later)
            .expect("there always is a later time");
        Timestamp::from_ticks(now.ticks().max(before + 1))
    }

    fn view(&self) -> View {
        let tables = self.tables.load();
        View {
            seq: self.applied.load(Ordering::Acquire),
            memtables: vec![tables.active.clone()],
        }
    }

    fn apply(&self, batch: Batch) {
        let _applying = self.applying.lock();
        let seq: Seq = self.applied.load(Ordering::Relaxed) + 1;
        self.tables.load().active.apply(seq, batch.effects);
        self.applied.store(seq, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
