//! Makes good, in the background, copies that a read has found to be bad or missing.
//!
//! The reader has had another copy by then, and goes on. What it noticed is remembered once: a set
//! under a lock, and a task that runs while there is something in it. One chunk at a time is fetched whole,
//! 4 MiB beyond the budget of bodies, written to the device again under its old id, and read back. What
//! does not fit into the set, or fails, is noticed again by the next read, or by the scrubber.
//!
//! A copy may be missing because the chunk is being deleted; then there is soon no other copy to take. Is
//! one taken in the last moment, it becomes a leftover that the scrubber finds.

use std::collections::BTreeSet;
use std::time::Duration;

use base::{ChunkId, DeviceId};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::fill::Filled;
use crate::{Chunks, Error, StorageError};

/// 64 KiB of memory. A disk that has lost more than that is not made good by its readers.
const QUEUE_MAX: usize = 1024;

/// After a failure, as of a device without room: readers may tell of its chunks again and again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Repairs {
    queue: Mutex<Queue>,
    settled: tokio::sync::Notify,
}

#[derive(Default)]
struct Queue {
    /// With the one that is being worked on, which is the first or was.
    copies: BTreeSet<(DeviceId, ChunkId)>,
    running: bool,
}

impl Chunks {
    /// Remembers that a device's copy of a chunk is not what it should be, while another copy is good.
    pub(crate) fn repair(&self, chunk: ChunkId, device: DeviceId, error: &StorageError) {
        let mut queue = self.inner.repairs.queue.lock();
        if queue.copies.contains(&(device, chunk)) {
            return;
        }
        self.inner.metrics.copies_bad.inc();
        tracing::warn!(%chunk, %device, %error, "bad copy");
        if queue.copies.len() >= QUEUE_MAX {
            return;
        }
        queue.copies.insert((device, chunk));
        if !queue.running
            && let Ok(runtime) = Handle::try_current()
        {
            queue.running = true;
            runtime.spawn(self.clone().run_repairs());
        }
    }

    async fn run_repairs(self) {
        loop {
            let next = {
                let mut queue = self.inner.repairs.queue.lock();
                let next = queue.copies.first().copied();
                queue.running = next.is_some();
                next
            };
            let Some((device, chunk)) = next else {
                self.inner.repairs.settled.notify_waiters();
                return;
            };
            match self.repair_now(chunk, device).await {
                Ok(true) => {
                    self.inner.metrics.copies_repaired.inc();
                    tracing::info!(%chunk, %device, "bad copy replaced");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%chunk, %device, %error, "bad copy not replaced");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            self.inner
                .repairs
                .queue
                .lock()
                .copies
                .remove(&(device, chunk));
        }
    }

    /// Writes the copy again, if it is still bad and another one is good; says whether it did.
    async fn repair_now(&self, chunk: ChunkId, device: DeviceId) -> Result<bool, Error> {
        let group = self.group(chunk.group()).await?;
        let (its, others): (Vec<_>, Vec<_>) = group.full().partition(|member| *member == device);
        if its.is_empty() {
            return Ok(false);
        }
        match self.fetch(device, chunk).await {
            Ok(_) => return Ok(false),
            Err(StorageError::Missing | StorageError::Damaged(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut filled = Filled::default();
        self.copy(&others, group.epoch, chunk, device, &mut filled)
            .await?;
        Ok(filled.copied > 0)
    }

    /// Waits until nothing is left to repair.
    #[cfg(any(test, feature = "testing"))]
    pub async fn settle_repairs(&self) {
        let repairs = &self.inner.repairs;
        loop {
            let settled = repairs.settled.notified();
            if !repairs.queue.lock().running {
                return;
            }
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests;
