//! Makes good, in the background, copies that are bad or missing.
//!
//! A reader that noticed one has had another copy by then, and goes on; the scrubber's finds come from the devices of this
//! node, which are asked now and then ([`Chunks::mend`]). What is to be done is remembered once: a set
//! under a lock, and a task that runs while there is something in it. One chunk at a time is fetched whole,
//! 4 MiB beyond the budget of bodies, written to the device again under its old id, and read back. What
//! does not fit into the set, or fails, is noticed again.
//!
//! A copy may be missing because the chunk is being deleted; then there is soon no other copy to take. Is
//! one taken in the last moment, it becomes a leftover that the scrubber finds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{ChunkId, DeviceId};
use device::Owner;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::fill::Filled;
use crate::{Chunks, Error, StorageError};

/// 64 KiB of memory. A disk that has lost more than that is not made good by its readers.
const QUEUE_MAX: usize = 1024;

/// After a failure, as of a device without room: readers may tell of its chunks again and again.
const PAUSE: Duration = Duration::from_secs(1);

/// What could not be mended is tried again after this time: a copy may come back.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// A chunk on a device of this node of which no member of its group has a good copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub chunk: ChunkId,
    pub device: DeviceId,
    /// Whose it is, if its own record still says so.
    pub owner: Option<Owner>,
    pub what: String,
}

impl Lost {
    /// `account/container/object`; empty if it is not known.
    pub fn object(&self) -> String {
        let owner = self.owner.as_ref();
        let name = owner.map(|one| format!("{}/{}/{}", one.account, one.container, one.object));
        name.unwrap_or_default()
    }
}

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
    /// Copies of devices of this node that a look did not mend: as many as their devices remember as bad.
    left: BTreeMap<(DeviceId, ChunkId), Left>,
}

struct Left {
    again: Instant,
    /// Nothing if it is good after all.
    lost: Option<Lost>,
}

/// What a look at a copy has come to.
enum Outcome {
    Replaced,
    /// It is good, or not to be there.
    Good,
    Lost(Lost),
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
        self.enqueue(&mut queue, chunk, device);
    }

    fn enqueue(&self, queue: &mut Queue, chunk: ChunkId, device: DeviceId) {
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

    /// Makes good what the devices of this node have found to be bad. To be called now and then.
    pub fn mend(&self) {
        let map = self.inner.map.get();
        let here = map
            .devices
            .keys()
            .filter(|id| self.inner.devices.is_here(**id));
        let here = here.filter_map(|id| self.inner.devices.get(*id));
        let mut bad = BTreeMap::new();
        for device in here {
            let id = device.id();
            bad.extend(
                device
                    .bad()
                    .into_iter()
                    .map(|(chunk, what)| ((id, chunk), what)),
            );
        }
        let now = Instant::now();
        let mut queue = self.inner.repairs.queue.lock();
        queue.left.retain(|copy, _| bad.contains_key(copy));
        for ((device, chunk), what) in bad {
            let left = queue.left.get(&(device, chunk));
            let waits = left.is_some_and(|left| now < left.again);
            if waits || queue.copies.contains(&(device, chunk)) {
                continue;
            }
            if left.is_none() {
                self.inner.metrics.copies_bad.inc();
                tracing::warn!(%chunk, %device, what, "bad copy");
            }
            self.enqueue(&mut queue, chunk, device);
        }
    }

    /// Makes a copy that a full member lacks, if it still does.
    pub fn mend_missing(&self, chunk: ChunkId, device: DeviceId) {
        self.repair(chunk, device, &StorageError::Missing);
    }

    /// What could not be made good on devices of this node.
    pub fn lost(&self) -> Vec<Lost> {
        let queue = self.inner.repairs.queue.lock();
        let lost = queue.left.values().filter_map(|left| left.lost.clone());
        lost.collect()
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
            let looked = self.repair_now(chunk, device).await;
            let left = self.note(chunk, device, looked);
            if left.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            let mut queue = self.inner.repairs.queue.lock();
            queue.copies.remove(&(device, chunk));
            match left {
                Some(Some(left)) => drop(queue.left.insert((device, chunk), left)),
                Some(None) => drop(queue.left.remove(&(device, chunk))),
                None => {}
            }
        }
    }

    /// Says what has come of a look. Nothing if it failed; else what is left to be looked at again later.
    fn note(
        &self,
        chunk: ChunkId,
        device: DeviceId,
        looked: Result<Outcome, Error>,
    ) -> Option<Option<Left>> {
        let again = Instant::now() + AGAIN_AFTER;
        // Another node asks its own devices.
        let is_here = self.inner.devices.is_here(device);
        let left = |lost| is_here.then_some(Left { again, lost });
        match looked {
            Ok(Outcome::Replaced) => {
                self.inner.metrics.copies_repaired.inc();
                tracing::info!(%chunk, %device, "bad copy replaced");
                Some(None)
            }
            Ok(Outcome::Good) => Some(left(None)),
            Ok(Outcome::Lost(lost)) => {
                let object = lost.object();
                tracing::error!(%chunk, %device, object, what = lost.what, "no good copy is left");
                Some(left(Some(lost)))
            }
            Err(error) => {
                tracing::debug!(%chunk, %device, %error, "bad copy not replaced");
                None
            }
        }
    }

    /// Writes the copy again, if it is still bad and another one is good.
    async fn repair_now(&self, chunk: ChunkId, device: DeviceId) -> Result<Outcome, Error> {
        let group = self.group(chunk.group()).await?;
        if !group.full().any(|member| member == device) {
            return Ok(Outcome::Good);
        }
        let what = match self.fetch(device, chunk, group.part(device)).await {
            Ok(_) => return Ok(Outcome::Good),
            Err(StorageError::Missing) => None,
            Err(StorageError::Damaged(what)) => Some(what),
            Err(error) => return Err(error.into()),
        };
        let mut filled = Filled::default();
        self.copy(&group, chunk, device, &mut filled).await?;
        match what {
            _ if filled.copied > 0 => Ok(Outcome::Replaced),
            // It has been deleted.
            None => Ok(Outcome::Good),
            Some(what) => Ok(Outcome::Lost(Lost {
                chunk,
                device,
                owner: self.owner_on(device, chunk).await,
                what,
            })),
        }
    }

    /// Whose a chunk is, as its record on a device says.
    async fn owner_on(&self, device: DeviceId, chunk: ChunkId) -> Option<Owner> {
        let source = self.device(device).ok()?;
        let describe = async move { source.describe(chunk).await };
        let described = self.inner.hung.wait(device, describe.boxed()).await;
        Some(described.ok()?.label.owner)
    }

    /// Whose a chunk is.
    ///
    /// # Errors
    /// If the device does not say.
    pub async fn owner(&self, chunk: ChunkId, device: DeviceId) -> Result<Owner, Error> {
        let owner = self.owner_on(device, chunk).await;
        owner.ok_or_else(Error::unavailable)
    }

    /// Waits until nothing is left to repair.
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
