//! Writing: pieces become chunks, chunks go to groups.
//!
//! Up to two chunks of an upload are on their way to the devices while the next one fills, so that
//! receiving, hashing and writing overlap; more would only let one fast client take the budget of
//! many. A chunk that fails on one group goes to another, from the same memory.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use map::{Group, Map};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::error::joined;
use crate::{CHUNK_BYTES_MAX, Chunks, Error, Owner, StorageError};

/// On their way to the devices while the next one fills.
const IN_FLIGHT_MAX: usize = 2;

/// If so many groups have failed in a row, something else is wrong.
const TRIES_MAX: usize = 4;

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
    filling: Vec<Bytes>,
    filling_bytes: usize,
    in_flight: VecDeque<JoinHandle<Result<Chunk, Error>>>,
    written: Vec<Chunk>,
}

impl Chunks {
    pub fn writer(&self, owner: Owner) -> Writer {
        Writer {
            chunks: self.clone(),
            owner: Arc::new(owner),
            filling: Vec::new(),
            filling_bytes: 0,
            in_flight: VecDeque::new(),
            written: Vec::new(),
        }
    }

    /// Writes one chunk, to another group if the first fails.
    async fn write(self, owner: Arc<Owner>, payload: Vec<Bytes>) -> Result<Chunk, Error> {
        let bytes: usize = payload.iter().map(Bytes::len).sum();
        let bytes = u32::try_from(bytes).expect("a chunk is at most 4 MiB");
        let mut tried = Vec::new();
        let mut full = false;
        while tried.len() < TRIES_MAX {
            let Some((group, members)) = self.place(&tried) else {
                break;
            };
            let now = self.inner.env.clock.now();
            let id = ChunkId::new(group, now.millis(), self.inner.env.entropy.u64());
            let Err(error) = self.write_in(&members, id, &owner, &payload).await else {
                self.inner.metrics.chunks_written.inc();
                return Ok(Chunk { id, bytes });
            };
            tracing::debug!(%group, %error, "chunk not written");
            full |= error == StorageError::Full;
            // Some of the group's devices may have it, or come to have it.
            if members.members.len() > 1 || error != StorageError::Full {
                self.discard([id]);
            }
            tried.push(group);
            self.inner.metrics.writes_moved.inc();
        }
        let map = self.inner.map.load();
        let mut devices = map.devices.keys();
        if full || devices.any(|device| self.free_bytes(&map, *device).is_some()) {
            Err(Error::OutOfSpace)
        } else {
            Err(Error::unavailable())
        }
    }

    /// A group for a new chunk, as the map has it now.
    fn place(&self, tried: &[GroupId]) -> Option<(GroupId, Group)> {
        let map = self.inner.map.load();
        let free = |device| self.free_bytes(&map, device);
        let draw = self.inner.env.entropy.u64();
        let id = map.place(Map::POLICY, free, tried, draw)?;
        Some((id, map.groups[&id].clone()))
    }

    /// What a device would still take, `None` if it takes nothing now.
    fn free_bytes(&self, map: &Map, device: DeviceId) -> Option<u64> {
        match map.is_up(device) {
            true => self.inner.devices.get(device)?.free_bytes(),
            false => None,
        }
    }

    /// Writes to all members at once: one trip and one sync.
    async fn write_in(
        &self,
        group: &Group,
        id: ChunkId,
        owner: &Owner,
        payload: &[Bytes],
    ) -> Result<(), StorageError> {
        let writes = group.devices().map(async |device| {
            let device = self.inner.devices.get(device);
            let missing = || StorageError::Unavailable("the device is missing".into());
            let device = device.ok_or_else(missing)?;
            device.write(group.epoch, id, owner, payload).await
        });
        let written = futures_util::future::join_all(writes).await;
        written.into_iter().collect()
    }
}

impl Writer {
    /// Takes the next piece of the body: at most [`crate::PIECE_BYTES`], and only the last may be
    /// shorter. Waits while too many chunks are in flight.
    ///
    /// # Errors
    /// That of a chunk that could not be written; the upload is lost then.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), Error> {
        self.filling_bytes += piece.len();
        self.filling.push(piece);
        if self.filling_bytes >= CHUNK_BYTES_MAX {
            self.cut().await?;
        }
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
        self.launch().await
    }

    async fn launch(&mut self) -> Result<(), Error> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.land().await?;
        }
        self.filling_bytes = 0;
        let payload = std::mem::take(&mut self.filling);
        let write = self.chunks.clone().write(self.owner.clone(), payload);
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
            self.launch().await?;
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
