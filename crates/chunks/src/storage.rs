//! What `chunks` needs of a device, be it here or, some day, on another node.

use std::ops::Range;

use base::{ChunkId, DeviceId};
use bytes::Bytes;
use device::{Device, Error, Owner, State};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

/// A device that keeps chunks. What the operations promise is said at [`device::Store`].
pub trait Storage: Send + Sync + 'static {
    fn id(&self) -> DeviceId;

    /// How many bytes of chunks it would still take; `None` if it is out of service.
    fn free_bytes(&self) -> Option<u64>;

    fn write<'a>(
        &'a self,
        id: ChunkId,
        owner: &'a Owner,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Error>>;

    fn read(&self, id: ChunkId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, Error>>;

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), Error>>;
}

impl Storage for Device {
    fn id(&self) -> DeviceId {
        Device::id(self)
    }

    fn free_bytes(&self) -> Option<u64> {
        if self.health().state() != State::Healthy {
            return None;
        }
        let free = self.space().ok()?.free_bytes;
        Some(free.saturating_sub(self.reserve_bytes()))
    }

    fn write<'a>(
        &'a self,
        id: ChunkId,
        owner: &'a Owner,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.store().write(id, owner, payload).boxed()
    }

    fn read(&self, id: ChunkId, range: Range<u32>) -> BoxFuture<'_, Result<Bytes, Error>> {
        self.store().read(id, range).boxed()
    }

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), Error>> {
        self.store().delete(ids).boxed()
    }
}
