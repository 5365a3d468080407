//! The task of a replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft::{LogId, Payload};

use super::{Entry, Fate, Replica};
use crate::Error;
use crate::core::Core;

/// What is done before others get a turn.
const APPLY_BYTES: usize = 1 << 20;

impl Replica {
    /// Runs until the replica is stopped or its log has failed.
    pub(super) async fn drive(self: Arc<Self>) {
        loop {
            let deadline = {
                let mut state = self.state.lock();
                if self.signal.has_failed.load(Ordering::Acquire) {
                    // The device has said why.
                    state.end();
                }
                if state.is_over {
                    return;
                }
                let now = self.now();
                let inbox = std::mem::take(&mut *self.signal.inbox.lock());
                for (device, message) in inbox {
                    state.know(message.from, device);
                    state.raft.receive(now, message);
                }
                state
                    .raft
                    .persisted(now, self.signal.written.load(Ordering::Acquire));
                if state.raft.deadline().is_some_and(|at| at <= now) {
                    state.raft.tick(now);
                }
                state.raft.pump(now);
                self.act(&mut state);
                let elections = state.raft.elections();
                let more = elections - state.elections;
                self.host.metrics().elections.add(more);
                state.elections = elections;
                state.raft.deadline()
            };
            let is_behind = match self.apply() {
                Ok(is_behind) => is_behind,
                Err(error) => {
                    let (shard, device) = (self.shard(), self.device);
                    tracing::error!(%shard, %device, %error, "replica out of service");
                    self.signal.has_failed.store(true, Ordering::Release);
                    self.stop();
                    return;
                }
            };
            if !is_behind {
                self.wait(deadline).await;
            }
        }
    }

    async fn wait(&self, deadline: Option<Duration>) {
        let changed = self.signal.changed.notified();
        let Some(deadline) = deadline else {
            return changed.await;
        };
        let left = deadline.saturating_sub(self.now());
        // Whichever it was, all is looked at.
        let _ = tokio::time::timeout(left, changed).await;
    }

    /// Does what is decided, a part at a time; whether there is more.
    fn apply(self: &Arc<Self>) -> Result<bool, Error> {
        let Ok(_applying) = self.applying.try_lock() else {
            // A snapshot is being installed; it wakes us when it is.
            return Ok(false);
        };
        let entries = self.state.lock().raft.to_apply(APPLY_BYTES);
        let Some(last) = entries.last().map(|entry| entry.id.index) else {
            return Ok(false);
        };
        let health = self.host.device().health();
        let applied = health.guard("applying entries", || apply_to(&self.core, &entries));
        let grown = applied.map_err(|_| Error::Damaged("a panic while applying".into()))??;
        self.host.grew(grown);
        let first = entries[0].id.index;
        let fate = |id: LogId| {
            let place = usize::try_from(id.index - first).unwrap_or(usize::MAX);
            match entries.get(place).is_some_and(|entry| entry.id == id) {
                true => Fate::Done,
                false => Fate::Replaced,
            }
        };
        let now = self.now();
        let mut state = self.state.lock();
        state.raft.set_applied(last);
        for Entry { id, payload } in &entries {
            if let Payload::Data(effects) = payload {
                let (request, outcome) = (effects.request, &effects.outcome);
                state.outcomes.done(id.index, request, outcome, now);
            }
        }
        if state.in_tree >= last {
            // A flush was faster than we.
            self.let_go(&mut state);
        }
        state.done(last, fate);
        // It may rule from now on.
        self.act(&mut state);
        Ok(state.raft.commit() > last)
    }
}

/// Does what entries say; returns by how much the memtable grew.
pub(crate) fn apply_to<'a>(
    core: &Core,
    entries: impl IntoIterator<Item = &'a Entry, IntoIter: Clone>,
) -> Result<u64, Error> {
    let entries = entries.into_iter();
    let batches = entries.clone().filter_map(|entry| match &entry.payload {
        Payload::Data(effects) => Some(&effects.batch),
        Payload::Blank | Payload::Membership(_) => None,
    });
    core.apply(batches, |memo| {
        for entry in entries {
            memo.applied = entry.id;
            match &entry.payload {
                Payload::Data(effects) => memo.time = memo.time.max(effects.time),
                Payload::Membership(membership) => memo.membership = membership.clone(),
                Payload::Blank => {}
            }
        }
    })
}
