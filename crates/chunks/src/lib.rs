//! Placement of chunks: get them onto a group of devices, back from it, and away.
//!
//! A body on its way in is copied once, from what the socket gave into [`Piece`]s of the upload
//! budget; those same pieces are hashed, checksummed and written to the device without another copy.
//! A body on its way out is read in pieces of up to 1 MiB, one ahead of the client.
//!
//! **Invariant:** memory for bodies in flight is bounded by [`Config::buffer_bytes`], whatever the
//! number of clients, their speed and the size of their objects.
//! **Invariant:** nobody waits for a device longer than half a minute; one that hangs gets no new chunks.
//! **Invariant:** a chunk is never changed, and never written twice under one id.
//! **Invariant:** nobody here knows what a chunk is for; who refers to it deletes it.

#[cfg(feature = "canary")]
mod canary;
mod code;
mod compare;
mod config;
mod discard;
mod error;
mod fence;
mod fill;
mod fragment;
mod hung;
mod leave;
mod metrics;
mod pace;
mod pool;
mod read;
mod remote;
mod repair;
mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod write;

#[cfg(feature = "canary")]
pub use canary::Canary;
pub use code::fragment_bytes;
pub use compare::{Compared, Missing};
pub use config::Config;
pub use device::{CHUNK_BYTES_MAX, Fragment, Label, Owner};
pub use error::Error;
pub use fence::{Fence, Fenced};
pub use fill::Filled;
pub use metrics::{Buffers, Metrics};
pub use pool::{PIECE_BYTES, Piece, Pool};
pub use read::{Reader, Span};
pub use remote::{AllDevices, Server};
pub use repair::Lost;
pub use storage::{Description, Devices, Here, LIST_MAX, Storage, StorageError, here};
pub use write::{Chunk, Writer};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::{ChunkId, DeviceId, GroupId};
use futures_util::FutureExt as _;
use map::{Current, Group};
use tokio::sync::{Notify, Semaphore};

use crate::discard::Discards;
use crate::hung::Hung;
use crate::leave::Settled;
use crate::pace::Pace;
use crate::repair::Repairs;

/// With half as much parity as data, 32 MiB beside the buffer budget, and twice as much again for a moment.
const CODING_MAX: usize = 16;

/// Each holds as many pieces of up to 1 MiB as a policy has data fragments, and one more.
const MAKING_MAX: usize = 8;

/// The chunks of the cluster, as seen from this node. Cheap to clone.
#[derive(Clone)]
pub struct Chunks {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    map: Current,
    devices: Arc<dyn Devices>,
    pool: Pool,
    /// The reads' share of the buffer budget, in pieces.
    reads: Arc<Semaphore>,
    reads_pieces: usize,
    /// Chunks that are being written in fragments: what is computed of them is not in the buffer budget.
    coding: Arc<Semaphore>,
    /// Fragments that are being made of others.
    making: Arc<Semaphore>,
    discards: Discards,
    repairs: Repairs,
    hung: Hung,
    pace: Pace,
    /// Held by who deletes what a device has kept of a group.
    leaving: tokio::sync::Mutex<Settled>,
    /// Told by uploads for which the map has no group.
    map_wanted: Arc<Notify>,
    metrics: Metrics,
}

impl Chunks {
    /// Chunks on those of the `devices` that are in the map.
    pub fn new(env: Env, map: Current, devices: Arc<dyn Devices>, config: &Config) -> Self {
        let pieces = config.pieces();
        Self {
            inner: Arc::new(Inner {
                env,
                map,
                devices,
                pool: Pool::new(pieces.uploads),
                reads: Arc::new(Semaphore::new(pieces.reads)),
                reads_pieces: pieces.reads,
                coding: Arc::new(Semaphore::new(CODING_MAX)),
                making: Arc::new(Semaphore::new(MAKING_MAX)),
                discards: Discards::default(),
                repairs: Repairs::default(),
                hung: Hung::default(),
                pace: Pace::new(config.repair_bytes_per_second),
                leaving: tokio::sync::Mutex::default(),
                map_wanted: Arc::default(),
                metrics: Metrics::default(),
            }),
        }
    }

    pub fn map(&self) -> &Current {
        &self.inner.map
    }

    /// Tells that somebody waits for a newer map.
    pub fn map_wanted(&self) -> &Arc<Notify> {
        &self.inner.map_wanted
    }

    /// Where the pieces of uploads come from.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// A client is being served: what is copied in the background gives way.
    pub fn serves_client(&self) {
        self.inner.pace.client();
    }

    /// How many devices neither answer nor fail.
    pub fn devices_hung(&self) -> usize {
        self.inner.hung.count()
    }

    /// How much of the buffer budget is in use.
    pub fn buffers(&self) -> Buffers {
        let bytes = |pieces: usize| (pieces * PIECE_BYTES) as u64;
        Buffers {
            upload_bytes: bytes(self.inner.pool.pieces()),
            upload_bytes_free: bytes(self.inner.pool.pieces_free()),
            upload_waits: self.inner.pool.waits(),
            read_bytes: bytes(self.inner.reads_pieces),
            read_bytes_free: bytes(self.inner.reads.available_permits()),
        }
    }

    /// Deletes chunks, durably; those that are gone already are skipped. Returns the groups where
    /// that failed: their chunks may be there or not, so try again later.
    pub async fn delete(&self, ids: &[ChunkId]) -> BTreeSet<GroupId> {
        let mut groups: BTreeMap<GroupId, Vec<ChunkId>> = BTreeMap::new();
        for id in ids {
            groups.entry(id.group()).or_default().push(*id);
        }
        let deletions = groups.iter().map(|(group, ids)| async move {
            match self.delete_in(*group, ids).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::debug!(%group, %error, "chunks not deleted");
                    Some(*group)
                }
            }
        });
        let failed = futures_util::future::join_all(deletions).await;
        failed.into_iter().flatten().collect()
    }

    /// Deletes on every member that can be reached; one that cannot is an error, but spares the others
    /// nothing.
    async fn delete_in(&self, group: GroupId, ids: &[ChunkId]) -> Result<(), Error> {
        let group = self.group(group).await?;
        let ids: Arc<[ChunkId]> = ids.into();
        let deletions = group.devices().map(async |member| {
            let (device, ids) = (self.device(member)?, ids.clone());
            let delete = async move { device.delete(&ids).await };
            let deleted = self.inner.hung.wait(member, delete.boxed()).await;
            deleted.map_err(|error| {
                tracing::debug!(device = %member, %error, "chunks not deleted");
                Error::from(error)
            })
        });
        let deleted = futures_util::future::join_all(deletions).await;
        deleted.into_iter().collect()
    }

    /// A group of the map. One that was made a moment ago may not be in ours yet.
    async fn group(&self, id: GroupId) -> Result<Group, Error> {
        /// As long as a map takes to reach every node that is up.
        const WAITS_MAX: usize = 40;
        const WAIT: Duration = Duration::from_millis(50);
        for _ in 0..WAITS_MAX {
            if let Some(group) = self.inner.map.load().groups.get(&id) {
                return Ok(group.clone());
            }
            tokio::time::sleep(WAIT).await;
        }
        Err(Error::unavailable())
    }

    fn device(&self, id: DeviceId) -> Result<Arc<dyn Storage>, StorageError> {
        let missing = || StorageError::Unreached("the device is missing".into());
        self.inner.devices.get(id).ok_or_else(missing)
    }
}
