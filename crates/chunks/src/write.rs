//! Writing: pieces become chunks, chunks go to groups.
//!
//! Up to two chunks of an upload are on their way to the devices while the next one fills, so that
//! receiving, hashing and writing overlap; more would only let one fast client take the budget of
//! many. A chunk that fails on one group goes to another, from the same memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use map::{Group, Map, Policy};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::code::Code;
use crate::error::joined;
use crate::hung::{DEVICE_TIME_MAX, TRY_TIME_MAX};
use crate::{CHUNK_BYTES_MAX, Chunks, Error, Fragment, Label, Owner, StorageError};

/// On their way to the devices while the next one fills.
const IN_FLIGHT_MAX: usize = 2;

/// If so many groups have failed in a row, something else is wrong.
const TRIES_MAX: usize = 4;

/// A chunk waits so long for a map that has a group for it: a node that died is *down* in the map after
/// some 2.3 s, and the groups that do without it come in the same change or the next.
const MAP_WAIT: Duration = Duration::from_secs(5);

/// How often who waits looks at the map.
const MAP_LOOK: Duration = Duration::from_millis(50);

/// A chunk that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub id: ChunkId,
    pub bytes: u32,
}

/// The chunks of one upload. Dropped before [`Writer::finish`], it deletes what it wrote.
pub struct Writer {
    chunks: Chunks,
    owner: Arc<Owner>,
    policy: Policy,
    /// How much of the body is in chunks that were begun.
    cut_bytes: u64,
    filling: Vec<Bytes>,
    filling_bytes: usize,
    in_flight: VecDeque<JoinHandle<Result<Chunk, Error>>>,
    written: Vec<Chunk>,
}

impl Chunks {
    /// A body that is kept as `policy` says, as far as there are groups for it; else in whole copies.
    pub fn writer(&self, owner: Owner, policy: Policy) -> Writer {
        Writer {
            chunks: self.clone(),
            owner: Arc::new(owner),
            policy,
            cut_bytes: 0,
            filling: Vec::new(),
            filling_bytes: 0,
            in_flight: VecDeque::new(),
            written: Vec::new(),
        }
    }

    /// Writes one chunk, to another group if the first fails.
    async fn write(
        self,
        policy: Policy,
        label: Label,
        payload: Vec<Bytes>,
    ) -> Result<Chunk, Error> {
        let bytes: usize = payload.iter().map(Bytes::len).sum();
        let bytes = u32::try_from(bytes).expect("a chunk is at most 4 MiB");
        let policy = match Code::of(policy) {
            Some(code) if bytes < code.chunk_bytes_min() => Map::POLICY,
            _ => policy,
        };
        let mut content = Content::new(label, bytes, payload);
        self.serves_client();
        let start = Instant::now();
        let mut tries = Tries::default();
        while tries.count < TRIES_MAX && start.elapsed() < DEVICE_TIME_MAX {
            let map = self.inner.map.get();
            let avoid = tries.avoid(&map);
            let group = self.place(&map, policy, &avoid);
            // Whole copies cost more, but nobody has to wait until all devices are back.
            let Some(group) = group.or_else(|| self.place(&map, Map::POLICY, &avoid)) else {
                if tries.full || self.is_out_of_space(&map, policy) || map.nodes.len() < 2 {
                    break;
                }
                if self.newer_map(&map, start + MAP_WAIT).await {
                    tries.groups.clear();
                    continue;
                }
                // It may be that what failed is back.
                if tries.forget() {
                    continue;
                }
                break;
            };
            let now = self.inner.env.clock.now();
            let id = ChunkId::new(group, now.millis(), self.inner.env.entropy.u64());
            let members = &map.groups[&group];
            let until = self.patience(&map, members, start);
            let parts = content.parts(members.policy, &self.inner.coding).await;
            let failures = self.write_in(members, id, &parts, until).await;
            if failures.is_empty() {
                self.inner.metrics.chunks_written.inc();
                return Ok(Chunk { id, bytes });
            }
            self.give_up(id, members, &failures);
            tries.failed(group, &failures);
            self.inner.metrics.writes_moved.inc();
        }
        match tries.full || self.is_out_of_space(&self.inner.map.get(), policy) {
            true => Err(Error::OutOfSpace),
            false => Err(Error::unavailable()),
        }
    }

    /// A group for a new chunk.
    fn place(&self, map: &Map, policy: Policy, avoid: &[GroupId]) -> Option<GroupId> {
        let free = |device| self.free_bytes(map, device);
        let draw = self.inner.env.entropy.u64();
        map.place(policy, free, avoid, draw)
    }

    /// Whether there is a group whose devices work, but one of them has no room.
    fn is_out_of_space(&self, map: &Map, policy: Policy) -> bool {
        let usable = |group: &&Group| [policy, Map::POLICY].contains(&group.policy);
        let groups = map.groups.values().filter(usable);
        let mut able = groups.filter(|group| map.takes_chunks(group));
        let free = |group: &Group| group.devices().map(|id| self.free_bytes(map, id)).min();
        able.any(|group| free(group) == Some(Some(0)))
    }

    /// Until when one try is waited for, if the first has begun at `start`. There is one bound for all of
    /// them, since it is the client who waits.
    fn patience(&self, map: &Map, group: &Group, start: Instant) -> Instant {
        let last = start + DEVICE_TIME_MAX;
        match self.has_other(map, group) {
            true => last.min(Instant::now() + TRY_TIME_MAX),
            false => last,
        }
    }

    /// Whether there is a group with room that does not need all of this one's devices, so that it may
    /// work when this one hangs.
    fn has_other(&self, map: &Map, group: &Group) -> bool {
        let takes = |id| self.free_bytes(map, id).is_some_and(|free| free > 0);
        let usable = |other: &&Group| [group.policy, Map::POLICY].contains(&other.policy);
        let groups = map.groups.values().filter(usable);
        let able = groups.filter(|other| map.takes_chunks(other));
        let mut others = able.filter(|other| group.devices().any(|id| !other.is_member(id)));
        others.any(|other| other.devices().all(takes))
    }

    /// Waits for a newer map; says whether it came.
    async fn newer_map(&self, map: &Map, until: Instant) -> bool {
        while Instant::now() < until {
            if self.inner.map.load().epoch > map.epoch {
                return true;
            }
            self.inner.map_wanted.notify_one();
            tokio::time::sleep(MAP_LOOK).await;
        }
        false
    }

    /// Waits until the map calls a device down: then who waits for it had better go elsewhere.
    async fn falls(&self, device: DeviceId) {
        while self.inner.map.load().is_up(device) {
            tokio::time::sleep(MAP_LOOK).await;
        }
    }

    /// What a device would still take, `None` if it takes nothing now.
    fn free_bytes(&self, map: &Map, device: DeviceId) -> Option<u64> {
        match map.is_up(device) && !self.inner.hung.is_hung(device) {
            true => self.inner.devices.get(device)?.free_bytes(),
            false => None,
        }
    }

    /// Writes to all members at once: one trip and one sync. Gives those that did not do it in time.
    async fn write_in(
        &self,
        group: &Group,
        id: ChunkId,
        parts: &Parts,
        until: Instant,
    ) -> Failures {
        let writes = group.members.iter().map(async |member| {
            let part = parts.of(member.index);
            let (member, epoch) = (member.device, group.epoch);
            let device = self.device(member);
            let write = async move { device?.write(epoch, id, &part.label, &part.payload).await };
            // What is written late comes after the first discard.
            let chunks = self.clone();
            let ended = move || chunks.discard([id]);
            let hung = &self.inner.hung;
            let falls = self.falls(member);
            let written = hung.wait_for_write(member, until, falls, write.boxed(), ended);
            let span = tracing::trace_span!("write_copy", device = %member);
            Some((member, written.instrument(span).await.err()?))
        });
        let span = tracing::trace_span!("write_chunk", %id);
        let failures = futures_util::future::join_all(writes);
        let failures = failures.instrument(span).await;
        failures.into_iter().flatten().collect()
    }

    /// Sees to it that nothing is left of a chunk that not all members took.
    fn give_up(&self, id: ChunkId, group: &Group, failures: &Failures) {
        for (device, error) in failures {
            tracing::debug!(chunk = %id, %device, %error, "chunk not written");
        }
        // Some of the group's devices have it, or may come to have it.
        if group.members.len() > 1 || failures.iter().any(|(_, error)| may_be_there(error)) {
            self.discard([id]);
        }
    }
}

/// What the members of a group are to write.
struct Part {
    label: Label,
    payload: Vec<Bytes>,
}

/// The parts by their members' indexes; those of whole copies have the same.
struct Parts {
    parts: Vec<Arc<Part>>,
    /// What was computed is in nobody's budget but this.
    _coding: Option<OwnedSemaphorePermit>,
}

impl Parts {
    fn of(&self, index: u8) -> Arc<Part> {
        self.parts[usize::from(index)].clone()
    }
}

/// A chunk that is to be written somewhere.
struct Content {
    label: Label,
    bytes: u32,
    payload: Vec<Bytes>,
    /// As it was cut for the last try.
    parts: Option<(Policy, Arc<Parts>)>,
}

impl Content {
    fn new(label: Label, bytes: u32, payload: Vec<Bytes>) -> Self {
        Self {
            label,
            bytes,
            payload,
            parts: None,
        }
    }

    async fn parts(&mut self, policy: Policy, coding: &Arc<Semaphore>) -> Arc<Parts> {
        if let Some((of, parts)) = &self.parts
            && *of == policy
        {
            return parts.clone();
        }
        self.parts = None;
        let parts = Arc::new(match Code::of(policy) {
            None => self.whole(),
            Some(code) => {
                let permit = coding.clone().acquire_owned().await;
                self.fragments(code, permit.expect("the semaphore is never closed"))
            }
        });
        self.parts = Some((policy, parts.clone()));
        parts
    }

    fn whole(&self) -> Parts {
        let part = Part {
            label: self.label.clone(),
            payload: self.payload.clone(),
        };
        Parts {
            parts: vec![Arc::new(part)],
            _coding: None,
        }
    }

    fn fragments(&self, code: Code, permit: OwnedSemaphorePermit) -> Parts {
        let fragment = |index| Fragment {
            index,
            data: code.data,
            parity: code.parity,
            chunk_bytes: self.bytes,
        };
        let parts = code.cut(&self.payload).into_iter().zip(0..);
        let part = |(payload, index)| {
            Arc::new(Part {
                label: Label {
                    fragment: Some(fragment(index)),
                    ..self.label.clone()
                },
                payload,
            })
        };
        Parts {
            parts: parts.map(part).collect(),
            _coding: Some(permit),
        }
    }
}

/// The devices that did not take a chunk, and why.
type Failures = Vec<(DeviceId, StorageError)>;

/// How it went with one chunk so far.
#[derive(Default)]
struct Tries {
    count: usize,
    /// Groups that have failed, under the present map.
    groups: Vec<GroupId>,
    /// Devices that were not reached, or are out of service. The map is behind if it calls them up.
    devices: Vec<DeviceId>,
    /// Some device had no room.
    full: bool,
    has_forgotten: bool,
}

impl Tries {
    /// Groups that failed, and those that would because of a device of theirs.
    fn avoid(&self, map: &Map) -> Vec<GroupId> {
        let is_bad = |group: &Group| self.devices.iter().any(|id| group.is_member(*id));
        let bad = map.groups.iter().filter(|(_, group)| is_bad(group));
        let bad = bad.map(|(id, _)| *id);
        bad.chain(self.groups.iter().copied()).collect()
    }

    /// Avoids nothing any more, once; says whether it did.
    fn forget(&mut self) -> bool {
        let is_first = !self.devices.is_empty() && !self.has_forgotten;
        self.has_forgotten = true;
        self.groups.clear();
        self.devices.clear();
        is_first
    }

    fn failed(&mut self, group: GroupId, failures: &Failures) {
        self.count += 1;
        self.groups.push(group);
        for (device, error) in failures {
            match error {
                StorageError::Full => self.full = true,
                StorageError::Unavailable(_)
                | StorageError::Unreached(_)
                | StorageError::Overdue => self.devices.push(*device),
                StorageError::Stale | StorageError::Missing | StorageError::Damaged(_) => {}
            }
        }
    }
}

/// Whether a write that failed may have happened.
fn may_be_there(error: &StorageError) -> bool {
    match error {
        StorageError::Full | StorageError::Stale | StorageError::Unreached(_) => false,
        StorageError::Missing
        | StorageError::Damaged(_)
        | StorageError::Unavailable(_)
        | StorageError::Overdue => true,
    }
}

impl Writer {
    /// Takes the next piece of the body: at most [`crate::PIECE_BYTES`], and only the last may be
    /// shorter. Waits while too many chunks are in flight.
    ///
    /// # Errors
    /// That of a chunk that could not be written; the upload is lost then.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), Error> {
        // Only now is it known that a full chunk is not the last.
        if self.filling_bytes >= CHUNK_BYTES_MAX {
            self.cut().await?;
        }
        self.filling_bytes += piece.len();
        self.filling.push(piece);
        Ok(())
    }

    /// Starts to write what there is, to get its memory back.
    pub async fn cut(&mut self) -> Result<(), Error> {
        if self.filling.is_empty() {
            return Ok(());
        }
        if self.filling_bytes < CHUNK_BYTES_MAX {
            self.chunks.inner.metrics.chunks_cut_short.inc();
        }
        self.launch(false).await
    }

    async fn launch(&mut self, is_last: bool) -> Result<(), Error> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.land().await?;
        }
        self.filling_bytes = 0;
        let payload = std::mem::take(&mut self.filling);
        let label = Label {
            owner: Owner::clone(&self.owner),
            offset: self.cut_bytes,
            is_last,
            fragment: None,
        };
        self.cut_bytes += payload.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let write = self.chunks.clone().write(self.policy, label, payload);
        self.in_flight.push_back(tokio::spawn(write));
        Ok(())
    }

    /// Waits for the oldest chunk in flight.
    async fn land(&mut self) -> Result<(), Error> {
        // It stays in the queue until it is done: if this call is dropped, the writer still knows it.
        let Some(oldest) = self.in_flight.front_mut() else {
            return Ok(());
        };
        let landed = oldest.await;
        self.in_flight.pop_front();
        self.written.push(joined(landed)?);
        Ok(())
    }

    /// The chunks that were written since the last call: they are the caller's now.
    pub fn take_written(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.written)
    }

    /// How many chunks [`Writer::take_written`] would give.
    pub fn written(&self) -> usize {
        self.written.len()
    }

    /// Waits until everything would survive power loss. Returns the chunks that were not taken yet.
    pub async fn finish(mut self) -> Result<Vec<Chunk>, Error> {
        if !self.filling.is_empty() {
            self.launch(true).await?;
        }
        while !self.in_flight.is_empty() {
            self.land().await?;
        }
        Ok(self.take_written())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.chunks
            .discard(self.written.drain(..).map(|chunk| chunk.id));
        let in_flight = std::mem::take(&mut self.in_flight);
        if in_flight.is_empty() {
            return;
        }
        self.chunks.discard_when(async move {
            let landed = futures_util::future::join_all(in_flight).await;
            let written = landed.into_iter().filter_map(|one| one.ok()?.ok());
            written.map(|chunk| chunk.id).collect()
        });
    }
}

#[cfg(test)]
mod tests;
