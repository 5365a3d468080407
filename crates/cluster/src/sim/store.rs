//! The chunks of a simulated device, as one life of its node sees them: behind the production fence.

use std::ops::Range;
use std::sync::Arc;

use base::{ChunkId, DeviceId, GroupId, NodeId};
use bytes::Bytes;
use chunks::{Chunks, Description, Label, Storage, StorageError};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Epoch;
use tokio::time::sleep;

use super::Bug;
use super::disk::Disk;
use super::shared::Shared;
use crate::Fill;

pub(super) struct Store {
    pub(super) node: NodeId,
    pub(super) disk: Arc<Disk>,
    pub(super) shared: Arc<Shared>,
}

impl Store {
    fn admit(&self) -> Result<(), StorageError> {
        match self.disk.is_broken() {
            true => Err(StorageError::Unavailable("broken".into())),
            false => Ok(()),
        }
    }

    async fn turn(&self) -> Result<(), StorageError> {
        sleep(self.shared.write_time()).await;
        self.admit()
    }
}

impl Storage for Store {
    fn id(&self) -> DeviceId {
        self.disk.id
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.chunks.free_bytes()
    }

    fn write<'a>(
        &'a self,
        epoch: Epoch,
        id: ChunkId,
        label: &'a Label,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            self.turn().await?;
            self.shared.checks.lock().writes(self.node, id, epoch);
            self.disk.chunks.write(epoch, id, label, payload).await?;
            // It is there; that it is, is told later.
            self.turn().await
        }
        .boxed()
    }

    fn read(
        &self,
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>> {
        async move {
            self.admit()?;
            self.disk.chunks.read(id, index, range).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            self.turn().await?;
            self.disk.chunks.delete(ids).await
        }
        .boxed()
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
    ) -> BoxFuture<'_, Result<Vec<ChunkId>, StorageError>> {
        async move {
            self.turn().await?;
            self.disk.chunks.list(group, after).await
        }
        .boxed()
    }

    fn describe(&self, id: ChunkId) -> BoxFuture<'_, Result<Description, StorageError>> {
        async move {
            self.admit()?;
            self.disk.chunks.describe(id).await
        }
        .boxed()
    }
}

/// The production copier, unless it is to do it wrong.
pub(super) struct Filler {
    pub(super) chunks: Chunks,
    pub(super) shared: Arc<Shared>,
}

impl Fill for Filler {
    fn fill(
        &self,
        group: GroupId,
        device: DeviceId,
        fenced: Vec<DeviceId>,
        progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
    ) -> BoxFuture<'_, Result<(), String>> {
        async move {
            if self.shared.has(Bug::FillsNothing) {
                return Ok(());
            }
            self.shared.checks.lock().counts.fills += 1;
            Fill::fill(&self.chunks, group, device, fenced, progress).await
        }
        .boxed()
    }

    fn copied_bytes(&self) -> u64 {
        Fill::copied_bytes(&self.chunks)
    }

    fn remove_left_behind(&self) -> BoxFuture<'_, u64> {
        async move {
            let removed = Fill::remove_left_behind(&self.chunks).await;
            self.shared.checks.lock().counts.left += removed;
            removed
        }
        .boxed()
    }
}
