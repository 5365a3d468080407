//! Keeps out writers that may not know all members of a group.
//!
//! A device that becomes a member of a group is to have every chunk that is written from then on; what
//! was written before, it copies. In between is the writer that still has the old map, whose chunk is
//! acknowledged without the new member and comes too late for the copy. So each member's node is told
//! the new epoch before the copying begins, and once it has confirmed that, no write of an older
//! epoch can succeed any more: those under way have ended, later ones are refused.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use device::Label;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::{Current, Epoch};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::hung::TRY_TIME_MAX;
use crate::{Description, Storage, StorageError};

/// What this node knows of the epochs of groups; one for all its devices.
pub struct Fence {
    map: Current,
    /// Whether the map is fresh enough to be trusted.
    is_open: AtomicBool,
    gates: Mutex<BTreeMap<GroupId, Gate>>,
    ended: Notify,
}

/// A group with writes under way, or whose epoch was raised.
#[derive(Default)]
struct Gate {
    raised: Epoch,
    /// How many writes of each epoch are under way.
    writing: BTreeMap<Epoch, usize>,
}

impl Fence {
    /// A closed fence: it lets nobody in until [`Fence::open`].
    pub fn new(map: Current) -> Self {
        Self {
            map,
            is_open: AtomicBool::new(false),
            gates: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The map is fresh: writes are let in by the epochs that are known.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// Whether the map is fresh.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// The map may be old, as after a start, or when the control group is not reached: no writes.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::Release);
    }

    /// Refuses writes of the group with an older epoch from now on, and waits until those under way
    /// have ended.
    pub async fn raise(&self, group: GroupId, epoch: Epoch) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on no end is missed.
            ended.as_mut().enable();
            {
                let mut gates = self.gates.lock();
                let gate = gates.entry(group).or_default();
                gate.raised = gate.raised.max(epoch);
                if gate.writing.range(..epoch).next().is_none() {
                    return;
                }
            }
            ended.await;
        }
    }

    /// Lets a write in; it is under way until the pass is dropped.
    fn pass(self: &Arc<Self>, group: GroupId, epoch: Epoch) -> Result<Pass, StorageError> {
        if !self.is_open.load(Ordering::Acquire) {
            let text = "this node has not heard from the control group";
            return Err(StorageError::Unavailable(text.into()));
        }
        let known = self.map.load().groups.get(&group).map(|group| group.epoch);
        let mut gates = self.gates.lock();
        let gate = gates.entry(group).or_default();
        let is_stale = epoch < gate.raised.max(known.unwrap_or_default());
        #[cfg(feature = "canary")]
        let is_stale = is_stale && !crate::Canary::EpochUnchecked.is_planted();
        if is_stale {
            return Err(StorageError::Stale);
        }
        *gate.writing.entry(epoch).or_default() += 1;
        Ok(Pass {
            fence: self.clone(),
            group,
            epoch,
        })
    }
}

/// The right to write one chunk.
struct Pass {
    fence: Arc<Fence>,
    group: GroupId,
    epoch: Epoch,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut gates = self.fence.gates.lock();
        let gate = gates.get_mut(&self.group).expect("it was made by the pass");
        let writing = gate.writing.get_mut(&self.epoch);
        let writing = writing.expect("it was counted by the pass");
        *writing -= 1;
        if *writing == 0 {
            gate.writing.remove(&self.epoch);
            drop(gates);
            self.fence.ended.notify_waiters();
        }
    }
}

/// What a device may have in writing, counting what nobody waits for any more: so a disk that hangs
/// ties up no more memory, however often its writers try elsewhere. Thirty-two full chunks keep any disk
/// busy.
const WRITING_BYTES_MAX: usize = 128 << 20;
const _: () = assert!(device::CHUNK_BYTES_MAX <= WRITING_BYTES_MAX);

/// A device of this node behind the node's fence.
pub struct Fenced {
    device: Arc<dyn Storage>,
    fence: Arc<Fence>,
    /// Bytes that may still be in writing.
    room: Arc<Semaphore>,
    writing: Arc<Writing>,
}

/// When the writes that the device has were given to it.
#[derive(Default)]
struct Writing(Mutex<BTreeMap<u64, Instant>>);

impl Writing {
    fn begin(self: &Arc<Self>) -> Begun {
        let mut writing = self.0.lock();
        let number = writing.last_key_value().map_or(0, |(last, _)| last + 1);
        writing.insert(number, Instant::now());
        Begun {
            writing: self.clone(),
            number,
        }
    }
}

/// A write that the device has, until this is dropped.
struct Begun {
    writing: Arc<Writing>,
    number: u64,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.writing.0.lock().remove(&self.number);
    }
}

impl Fenced {
    pub fn new(device: Arc<dyn Storage>, fence: Arc<Fence>) -> Self {
        Self {
            device,
            fence,
            room: Arc::new(Semaphore::new(WRITING_BYTES_MAX)),
            writing: Arc::default(),
        }
    }

    /// Whether it has a write, whoever's, for longer than any disk takes that works.
    pub(crate) fn hangs(&self) -> bool {
        let writing = self.writing.0.lock();
        let oldest = writing.first_key_value();
        oldest.is_some_and(|(_, begun)| begun.elapsed() >= TRY_TIME_MAX)
    }
}

impl Storage for Fenced {
    fn id(&self) -> DeviceId {
        self.device.id()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.device.free_bytes()
    }

    fn write<'a>(
        &'a self,
        epoch: Epoch,
        id: ChunkId,
        label: &'a Label,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            let bytes = payload.iter().map(Bytes::len).sum::<usize>();
            let bytes = u32::try_from(bytes.min(WRITING_BYTES_MAX)).expect("128 MiB fits");
            let room = self.room.clone().acquire_many_owned(bytes).await;
            let room = room.expect("the semaphore is never closed");
            let pass = self.fence.pass(id.group(), epoch)?;
            // A device finishes a write whose caller is gone. So does this, and holds the pass.
            let (device, label, payload) = (self.device.clone(), label.clone(), payload.to_vec());
            let begun = self.writing.begin();
            let write = tokio::spawn(async move {
                let _held = (pass, room, begun);
                device.write(epoch, id, &label, &payload).await
            });
            let failed =
                |error: tokio::task::JoinError| Err(StorageError::Unavailable(error.to_string()));
            write.await.unwrap_or_else(failed)
        }
        .boxed()
    }

    fn read(
        &self,
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>> {
        self.device.read(id, index, range)
    }

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), StorageError>> {
        self.device.delete(ids)
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
    ) -> BoxFuture<'_, Result<Vec<ChunkId>, StorageError>> {
        self.device.list(group, after)
    }

    fn describe(&self, id: ChunkId) -> BoxFuture<'_, Result<Description, StorageError>> {
        self.device.describe(id)
    }

    fn bad(&self) -> Vec<(ChunkId, String)> {
        self.device.bad()
    }
}

#[cfg(test)]
mod tests;
