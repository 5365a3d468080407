//! Deletes, in the background, what abandoned uploads have written.
//!
//! The queue is a list under a lock and a task that runs while there is something in it: a delete
//! waits for the device's index to be written, so everything that came meanwhile goes in one call.
//! What finds the queue full is left to the scrubber, which asks for the owner of old chunks.

use std::future::Future;

use base::ChunkId;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::Chunks;

/// 1 MiB of memory.
const QUEUE_MAX: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Discards {
    queue: Mutex<Queue>,
    settled: tokio::sync::Notify,
}

#[derive(Default)]
struct Queue {
    ids: Vec<ChunkId>,
    running: bool,
    /// Abandoned uploads whose last chunks are still being written.
    ending: usize,
}

impl Chunks {
    /// Deletes chunks to which nothing refers, some time soon.
    pub fn discard(&self, ids: impl IntoIterator<Item = ChunkId>) {
        let metrics = &self.inner.metrics;
        let mut queue = self.inner.discards.queue.lock();
        for id in ids {
            if queue.ids.len() < QUEUE_MAX {
                queue.ids.push(id);
                metrics.discards_queued.add(1);
            } else {
                metrics.discards_left.inc();
            }
        }
        if queue.running || queue.ids.is_empty() {
            return;
        }
        // Without a runtime the process is going down: the scrubber of the next one cleans up.
        if let Ok(runtime) = Handle::try_current() {
            queue.running = true;
            runtime.spawn(self.clone().run_discards());
        }
    }

    /// As [`Chunks::discard`], of chunks that are only known when `written` is done.
    pub(crate) fn discard_when(
        &self,
        written: impl Future<Output = Vec<ChunkId>> + Send + 'static,
    ) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        self.inner.discards.queue.lock().ending += 1;
        let chunks = self.clone();
        runtime.spawn(async move {
            let ids = written.await;
            chunks.discard(ids);
            chunks.inner.discards.queue.lock().ending -= 1;
            chunks.inner.discards.settled.notify_waiters();
        });
    }

    async fn run_discards(self) {
        let metrics = &self.inner.metrics;
        loop {
            let ids = {
                let mut queue = self.inner.discards.queue.lock();
                let ids = std::mem::take(&mut queue.ids);
                queue.running = !ids.is_empty();
                ids
            };
            if ids.is_empty() {
                self.inner.discards.settled.notify_waiters();
                return;
            }
            let failed = self.delete(&ids).await;
            let left = ids.iter().filter(|id| failed.contains(&id.group()));
            metrics.discards_left.add(left.count() as u64);
            metrics
                .discards_queued
                .sub(i64::try_from(ids.len()).expect("bounded by the queue"));
        }
    }

    /// Waits until nothing is left to discard: for an orderly stop, and for tests.
    pub async fn settle(&self) {
        let discards = &self.inner.discards;
        loop {
            let settled = discards.settled.notified();
            let (running, ending) = {
                let queue = discards.queue.lock();
                (queue.running, queue.ending)
            };
            if !running && ending == 0 {
                return;
            }
            settled.await;
        }
    }
}
