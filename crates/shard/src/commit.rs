//! The way of a batch into the log: what waits for the same shard travels as one Raft entry.
//!
//! One entry of a shard is on its way to the log at a time. The moment it is there the next one goes
//! with everything that came in the meantime, while the first is still being applied. So an entry
//! costs its hops (see `raft`) once for all procedures that wait together, and the disk never waits
//! for us. There is no task of its own: who finds the way free sends what waits.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use base::ShardId;
use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Error;
use crate::core::Core;
use crate::host::Host;
use crate::latch::Held;
use crate::raft::{Local, Proposal, Raft, Slot, Waiter};

/// An entry ends with the batch that reaches this.
const ENTRY_BYTES: usize = 512 << 10;
/// More would make the first ones wait for the last.
const ENTRY_BATCHES_MAX: usize = 512;

/// Proposes the batches of one shard.
pub(crate) struct Proposer {
    host: Arc<Host>,
    core: Arc<Core>,
    /// Set once, before anything is proposed.
    raft: OnceLock<Raft>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Bounded by the memory budget of the device.
    waiting: Vec<Pending>,
    /// An entry is on its way to the log.
    busy: bool,
}

struct Pending {
    batch: Bytes,
    waiter: Waiter,
}

impl Proposer {
    pub(crate) fn new(host: Arc<Host>, core: Arc<Core>) -> Arc<Self> {
        let proposer = Arc::new(Self {
            host: host.clone(),
            core,
            raft: OnceLock::new(),
            queue: Mutex::default(),
        });
        host.introduce(&proposer);
        proposer
    }

    pub(crate) fn start(&self, raft: Raft) {
        if self.raft.set(raft).is_err() {
            panic!("a shard is started once");
        }
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.core.id()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(crate) fn raft(&self) -> Option<&Raft> {
        self.raft.get()
    }

    /// Commits a batch; the latches are held until it is applied, also if this call is dropped.
    pub(crate) async fn commit(self: &Arc<Self>, batch: Bytes, held: Held) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        let waiter = Waiter {
            held,
            queued: self.host.budget().queue(batch.len() as u64),
            done,
        };
        let next = {
            let mut queue = self.queue.lock();
            queue.waiting.push(Pending { batch, waiter });
            queue.next()
        };
        self.propose(next);
        result.await.unwrap_or(Err(Error::Unknown))
    }

    /// The way to the log is free.
    fn freed(self: &Arc<Self>) {
        let next = {
            let mut queue = self.queue.lock();
            queue.busy = false;
            queue.next()
        };
        self.propose(next);
    }

    fn propose(self: &Arc<Self>, pending: Vec<Pending>) {
        if pending.is_empty() {
            return;
        }
        let metrics = self.host.metrics();
        metrics.entries.inc();
        metrics.batches.add(pending.len() as u64);
        let me: Weak<Self> = Arc::downgrade(self);
        let slot = Slot::new(move || {
            if let Some(me) = me.upgrade() {
                me.freed();
            }
        });
        let (batches, waiters) = pending.into_iter().map(|p| (p.batch, p.waiter)).unzip();
        let local = Local::new(waiters, slot);
        let proposal = Proposal::new(self.core.newest_time(), batches, Some(local));
        // If it is not taken, the last clone fails those who wait and frees the slot.
        let raft = self
            .raft
            .get()
            .expect("a shard is started before it is used");
        let sent = raft.client_write_ff(proposal.clone()).now_or_never();
        if let (Some(Ok(answer)), Some(local)) = (sent, proposal.local()) {
            local.keep(answer);
        }
    }

    /// The shard was flushed: its log can be purged. Openraft purges what is in a snapshot.
    pub(crate) fn purge(&self) {
        if let Some(raft) = self.raft.get() {
            // A stopped group keeps its log.
            let _ = raft.trigger().snapshot().now_or_never();
        }
    }

    /// Whether this node may answer for the shard.
    pub(crate) async fn linearize(&self) -> Result<(), Error> {
        if self.core.is_alone() {
            // Whatever was acknowledged is applied here, and nobody else leads.
            return Ok(());
        }
        let raft = self
            .raft
            .get()
            .expect("a shard is started before it is used");
        let leads = raft.ensure_linearizable().await;
        leads.map(drop).map_err(|_| Error::Unavailable {
            retry_in: Duration::from_millis(200),
        })
    }
}

impl Queue {
    /// Takes what goes in the next entry; nothing while another is on its way.
    fn next(&mut self) -> Vec<Pending> {
        if self.busy || self.waiting.is_empty() {
            return Vec::new();
        }
        self.busy = true;
        let mut bytes = 0;
        let fit = self.waiting.iter().take_while(|pending| {
            let fits = bytes < ENTRY_BYTES;
            bytes += pending.batch.len();
            fits
        });
        let count = fit.count().min(ENTRY_BATCHES_MAX);
        if count == self.waiting.len() {
            return std::mem::take(&mut self.waiting);
        }
        self.waiting.drain(..count).collect()
    }
}
