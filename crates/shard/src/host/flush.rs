//! The flush: from the memtables of a device into its tree, in one commit.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use heed::RwTxn;
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use super::Host;
use crate::core::Core;
use crate::tree::Failure;

/// Whether somebody wants a flush before its time.
#[derive(Default)]
pub(super) struct Asked {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Nothing,
    Flush,
    /// Flush and end.
    Quit,
    /// End at once, as if killed.
    Abandon,
}

impl Asked {
    pub(super) fn ask(&self) {
        let mut state = self.state.lock();
        if *state == State::Nothing {
            *state = State::Flush;
            self.changed.notify_all();
        }
    }

    fn quit(&self, how: State) {
        let mut state = self.state.lock();
        if *state != State::Abandon {
            *state = how;
        }
        self.changed.notify_all();
    }

    /// Waits until somebody asks or it is time.
    fn wait(&self, interval: Duration) -> State {
        let mut state = self.state.lock();
        if *state == State::Nothing {
            self.changed.wait_for(&mut state, interval);
        }
        let asked = *state;
        if asked == State::Flush {
            *state = State::Nothing;
        }
        asked
    }
}

impl Host {
    /// Writes into the tree what was applied so far.
    ///
    /// # Errors
    /// The memtables stay until a later flush succeeds. [`device::Error::Full`] if the device lacks
    /// space; after any other failure it is out of service.
    pub(crate) fn flush(&self) -> Result<(), device::Error> {
        let health = self.device.health();
        let flushed = health.guard("flushing the memtables", || self.flush_once());
        flushed.flatten()
    }

    fn flush_once(&self) -> Result<(), device::Error> {
        let _writing = self.writing.lock();
        self.device.health().check_write()?;
        let clock = &self.device.env().clock;
        let started = clock.monotonic();
        let flushed = self.write_tree();
        if let Err(error) = &flushed {
            self.note_space(true);
            return Err(error.clone());
        }
        self.note_space(false);
        self.replicas().iter().for_each(|replica| replica.tidy());
        if flushed? {
            let took = clock.monotonic() - started;
            self.metrics.flush_duration.observe(took);
        }
        Ok(())
    }

    /// Returns whether there was anything to write.
    fn write_tree(&self) -> Result<bool, device::Error> {
        let what = "writing the tree";
        let begun = self.tree.write();
        let txn = begun.map_err(|error| self.failed(what, Failure::Lmdb(error)))?;
        let id = txn.id();
        let mut frozen_bytes = 0;
        let mut dirty = Vec::new();
        let cores: Vec<_> = self.cores.read().values().cloned().collect();
        for core in cores {
            if let Some(bytes) = core.freeze(id) {
                frozen_bytes += bytes;
                dirty.push(core);
            }
        }
        self.budget.shrank(frozen_bytes);
        if dirty.is_empty() {
            return Ok(false);
        }
        if let Err(error) = write(txn, &dirty) {
            dirty.iter().for_each(|core| core.not_written());
            return Err(self.failed(what, Failure::Lmdb(error)));
        }
        self.tree.committed(id);
        for core in &dirty {
            let Some((bytes, applied)) = core.written() else {
                continue;
            };
            self.metrics.flushed_bytes.add(bytes);
            let replica = self.replicas.read().get(&core.id()).and_then(Weak::upgrade);
            if let Some(replica) = replica {
                replica.flushed(applied);
            }
        }
        Ok(true)
    }

    /// Looks whether there is space for what grows; there is none if a flush found none.
    fn note_space(&self, flush_failed: bool) {
        let low = match self.device.space() {
            Ok(space) => space.free_bytes < self.reserve_bytes,
            Err(error) => {
                warn!(%error, "cannot tell how much space is left");
                false
            }
        };
        let full = flush_failed || low;
        if self.budget.set_full(full) {
            let device = self.device.id();
            match full {
                true => warn!(%device, "device full: only what frees space is taken"),
                false => info!(%device, "device has space again"),
            }
        }
    }
}

fn write(mut txn: RwTxn<'_>, dirty: &[Arc<Core>]) -> Result<(), heed::Error> {
    for core in dirty {
        core.write_frozen(&mut txn)?;
    }
    txn.commit()
}

/// The thread that flushes a device every few seconds or when it is asked to. Flushes once more,
/// and is waited for, when dropped.
pub(crate) struct Flusher {
    host: Arc<Host>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn start(host: Arc<Host>, interval: Duration) -> Result<Self, device::Error> {
        let run = {
            let host = host.clone();
            move || host.flush_often(interval)
        };
        let thread = thread::Builder::new()
            .name("tree-flush".to_owned())
            .spawn(run)
            .map_err(|error| device::Error::io("starting thread tree-flush", error))?;
        Ok(Self {
            host,
            thread: Some(thread),
        })
    }

    /// Ends without another flush, as if the process were killed.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        self.host.flush_asked.quit(State::Abandon);
    }
}

impl Host {
    fn flush_often(&self, interval: Duration) {
        loop {
            let asked = self.flush_asked.wait(interval);
            if asked == State::Abandon {
                return;
            }
            match self.flush() {
                // Healthy or not was logged when it changed.
                Ok(()) | Err(device::Error::Failed(_) | device::Error::ReadOnly(_)) => {}
                Err(device::Error::Full) => warn!("no space for a flush of the memtables"),
                Err(error) => error!(%error, "flushing the memtables"),
            }
            if asked == State::Quit {
                return;
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.host.flush_asked.quit(State::Quit);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread.
            let _ = thread.join();
        }
    }
}
