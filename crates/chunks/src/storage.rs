//! What `chunks` needs of a device, be it here or on another node.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use device::{Device, Label, State};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Epoch;
use serde::{Deserialize, Serialize};

/// Why a device did not do what it was asked for. Goes between nodes as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StorageError {
    /// Nothing was written.
    #[error("out of space")]
    Full,
    #[error("the chunk is not there")]
    Missing,
    /// This copy cannot be read, or is wrong.
    #[error("{0}")]
    Damaged(String),
    /// The writer knows an older epoch of the group: it may not know all members. Nothing was written.
    #[error("the writer's map is old")]
    Stale,
    /// Out of service, or not reached. What was asked for may have happened.
    #[error("{0}")]
    Unavailable(String),
    /// Not reached: nothing happened.
    #[error("{0}")]
    Unreached(String),
    /// It does not answer. What was asked for may happen yet.
    #[error("the device does not answer")]
    Overdue,
}

/// What is known of a chunk without reading its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub label: Label,
    /// Of the chunk, or of the fragment of it.
    pub bytes: u32,
}

/// The most ids that [`Storage::list`] answers at once.
pub const LIST_MAX: usize = 1024;

/// A device that keeps chunks. What the operations promise is said at [`device::Store`].
pub trait Storage: Send + Sync + 'static {
    fn id(&self) -> DeviceId;

    /// How many bytes of chunks it would still take; `None` if it is out of service.
    fn free_bytes(&self) -> Option<u64>;

    /// Writes a new chunk for a writer that knows the chunk's group as of `epoch`.
    fn write<'a>(
        &'a self,
        epoch: Epoch,
        id: ChunkId,
        label: &'a Label,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), StorageError>>;

    /// At most [`device::READ_BYTES_MAX`] of a whole chunk, or of the fragment that the device is to have: verified.
    fn read(
        &self,
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>>;

    /// Deletes; what is not there is skipped.
    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), StorageError>>;

    /// The first [`LIST_MAX`] chunks of a group behind `after`, in ascending order. What was written
    /// before the call without `after` is in the lists that follow it, unless it is deleted.
    fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
    ) -> BoxFuture<'_, Result<Vec<ChunkId>, StorageError>>;

    fn describe(&self, id: ChunkId) -> BoxFuture<'_, Result<Description, StorageError>>;

    /// Chunks whose records were found to be bad and still are, each with what is wrong: as many as are remembered.
    /// Known of devices of this process alone.
    fn bad(&self) -> Vec<(ChunkId, String)> {
        Vec::new()
    }
}

/// All devices of the cluster, as far as this node can reach them.
pub trait Devices: Send + Sync + 'static {
    fn get(&self, id: DeviceId) -> Option<Arc<dyn Storage>>;

    /// Whether the device is in this process.
    fn is_here(&self, id: DeviceId) -> bool;
}

/// The devices of this process alone.
pub type Here = BTreeMap<DeviceId, Arc<dyn Storage>>;

/// Devices by their ids.
pub fn here(devices: impl IntoIterator<Item = Arc<dyn Storage>>) -> Arc<Here> {
    let devices = devices.into_iter().map(|device| (device.id(), device));
    Arc::new(devices.collect())
}

impl Devices for Here {
    fn get(&self, id: DeviceId) -> Option<Arc<dyn Storage>> {
        self.get(&id).cloned()
    }

    fn is_here(&self, id: DeviceId) -> bool {
        self.contains_key(&id)
    }
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

    /// Any epoch will do; see [`crate::Fenced`].
    fn write<'a>(
        &'a self,
        _epoch: Epoch,
        id: ChunkId,
        label: &'a Label,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        async move { Ok(self.store().write(id, label, payload).await?) }.boxed()
    }

    fn read(
        &self,
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>> {
        async move { Ok(self.store().read(id, index, range).await?) }.boxed()
    }

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), StorageError>> {
        async move { Ok(self.store().delete(ids).await?) }.boxed()
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
    ) -> BoxFuture<'_, Result<Vec<ChunkId>, StorageError>> {
        async move {
            if after.is_none() {
                // The list is the index's, which learns of new chunks with a flush.
                self.store().flush().await?;
            }
            Ok(self.store().list(group, after, LIST_MAX).await?)
        }
        .boxed()
    }

    fn describe(&self, id: ChunkId) -> BoxFuture<'_, Result<Description, StorageError>> {
        async move {
            let (label, bytes) = self.store().describe(id).await?;
            Ok(Description { label, bytes })
        }
        .boxed()
    }

    fn bad(&self) -> Vec<(ChunkId, String)> {
        let bad = self.store().bad_records().into_iter();
        bad.map(|record| (record.chunk, record.what)).collect()
    }
}

impl From<device::Error> for StorageError {
    fn from(error: device::Error) -> Self {
        match error {
            device::Error::Full => Self::Full,
            device::Error::NotFound => Self::Missing,
            device::Error::Damaged(_) => Self::Damaged(error.to_string()),
            device::Error::ReadOnly(_)
            | device::Error::Failed(_)
            | device::Error::Closed
            | device::Error::Foreign(_)
            | device::Error::Locked
            | device::Error::Invalid(_)
            | device::Error::Io { .. } => Self::Unavailable(error.to_string()),
        }
    }
}
