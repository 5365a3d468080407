//! Devices of other nodes.
//!
//! A [`Server`] answers for the devices of this node; a [`RemoteDevice`] asks that of another, and
//! [`AllDevices`] finds out which of the two it has to be. The bytes are in docs/formats/chunks.md.
//!
//! Sketch of a chunk of 4 MiB on its way to two other nodes: the same pieces that the upload filled are
//! referred to by one call to each, checksummed once per call and encrypted from where they lie. The
//! other side decrypts them into one piece of memory, checks the sum, and hands parts of it to its
//! device, which copies them to where direct I/O takes them. Writes and reads go over the bulk lane, all
//! else over the small one.
//!
//! **Why a checksum, when TLS has one.** TLS guards the wire. What a device has verified, or what a client
//! has sent, lies in memory before and after it, in buffers that are used again and again: a slip of
//! ours there would be written to all copies of a chunk with a good checksum, or be handed to a client. So
//! a payload has its CRC-32C from where the sender got it to where the receiver hands it on. What does not
//! match counts as not reached, not as a bad copy: what lies on the disk may be good.

mod everywhere;
mod serve;
mod wire;

pub use everywhere::AllDevices;
pub use serve::Server;

use std::borrow::Cow;
use std::ops::Range;

use base::{ChunkId, DeviceId, GroupId, NodeId};
use bytes::Bytes;
use device::Label;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::{Current, Epoch};
use rpc::{CallError, Lane, Peers};
use tokio::time::Instant;

use crate::hung::{DEVICE_TIME_MAX, TRY_TIME_MAX};
use crate::{Description, Storage, StorageError};
use wire::{Call, DELETE_MAX};

/// How to reach the devices of other nodes.
#[derive(Clone)]
struct Reach {
    map: Current,
    peers: Peers,
    /// The number of the service that hands its calls to [`Server::serve`].
    service: u16,
}

/// A device of another node. Where that is, the map says at each call: disks move.
struct RemoteDevice {
    id: DeviceId,
    reach: Reach,
}

impl RemoteDevice {
    async fn call(&self, call: Call<'_>) -> Result<Bytes, StorageError> {
        // As long as anybody waits; who waits less drops the call. A write goes on over there without its
        // call, which gives its room on the connection back when its caller may be better off elsewhere.
        let (lane, time) = match &call {
            Call::Write { .. } => (Lane::Bulk, TRY_TIME_MAX),
            Call::Read { .. } => (Lane::Bulk, DEVICE_TIME_MAX),
            Call::Describe { .. } | Call::Delete { .. } | Call::List { .. } => {
                (Lane::Small, DEVICE_TIME_MAX)
            }
        };
        let device = self.reach.map.load().devices.get(&self.id).cloned();
        let Some(device) = device else {
            let text = format!("{} has left the cluster", self.id);
            return Err(StorageError::Unreached(text));
        };
        let body = wire::encode(self.id, &call);
        let Reach { peers, service, .. } = &self.reach;
        let deadline = Instant::now() + time;
        let answer = peers
            .call(device.node, lane, *service, body, deadline)
            .await;
        answer.map_err(|error| no_answer(self.id, device.node, &error))
    }

    /// An answer that is none.
    fn garbled(&self, malformed: wire::Malformed) -> StorageError {
        StorageError::Unavailable(format!("the answer of {}: {malformed}", self.id))
    }
}

fn no_answer(device: DeviceId, node: NodeId, error: &CallError) -> StorageError {
    let text = || format!("{device} on {node}: {error}");
    match error {
        CallError::Refused(refusal) => wire::decode_refusal(refusal),
        CallError::NotSent(_) => StorageError::Unreached(text()),
        // The node is there, else the connection would have been given up before.
        CallError::Unknown(_) if error.is_deadline() => StorageError::Overdue,
        CallError::Unknown(_) => StorageError::Unavailable(text()),
    }
}

impl Storage for RemoteDevice {
    fn id(&self) -> DeviceId {
        self.id
    }

    /// As the map has it: some seconds old, and rough.
    fn free_bytes(&self) -> Option<u64> {
        let map = self.reach.map.load();
        match map.is_up(self.id) {
            true => Some(map.devices.get(&self.id)?.bytes_free),
            false => None,
        }
    }

    fn write<'a>(
        &'a self,
        epoch: Epoch,
        id: ChunkId,
        label: &'a Label,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            let (label, payload) = (Cow::Borrowed(label), Cow::Borrowed(payload));
            let call = Call::Write {
                epoch,
                id,
                label,
                payload,
            };
            self.call(call).await.map(drop)
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
            let bytes = range.end.saturating_sub(range.start);
            let answer = self.call(Call::Read { id, index, range }).await?;
            wire::decode_payload(answer, bytes).map_err(|malformed| self.garbled(malformed))
        }
        .boxed()
    }

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            for ids in ids.chunks(DELETE_MAX) {
                let ids = Cow::Borrowed(ids);
                self.call(Call::Delete { ids }).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
    ) -> BoxFuture<'_, Result<Vec<ChunkId>, StorageError>> {
        async move {
            let answer = self.call(Call::List { group, after }).await?;
            let listed = wire::decode_list(&answer, group, after);
            listed.map_err(|malformed| self.garbled(malformed))
        }
        .boxed()
    }

    fn describe(&self, id: ChunkId) -> BoxFuture<'_, Result<Description, StorageError>> {
        async move {
            let answer = self.call(Call::Describe { id }).await?;
            let description = wire::decode_description(&answer);
            description.map_err(|malformed| self.garbled(malformed))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
