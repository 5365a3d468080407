//! Answers other nodes for the devices of this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::DeviceId;
use bytes::Bytes;

use super::wire::{self, Call};
use crate::{Fenced, Here, Storage, StorageError};

/// The devices of this node, as other nodes may use them: behind the fence.
#[derive(Clone, Default)]
pub struct Server {
    devices: Arc<BTreeMap<DeviceId, Arc<Fenced>>>,
}

impl Server {
    pub fn new(devices: impl IntoIterator<Item = Arc<Fenced>>) -> Self {
        let devices = devices.into_iter().map(|device| (device.id(), device));
        Self {
            devices: Arc::new(devices.collect()),
        }
    }

    /// The same devices for this node's own use: its writers are kept out like all others.
    pub fn here(&self) -> Arc<Here> {
        let devices = self.devices.values().cloned();
        crate::here(devices.map(|device| device as Arc<dyn Storage>))
    }

    /// Whether a device of this node neither writes nor fails.
    pub fn hangs(&self, id: DeviceId) -> bool {
        self.devices.get(&id).is_some_and(|device| device.hangs())
    }

    /// Answers a call as [`rpc::Service::call`] is to, whatever its bytes are. Who carries the bytes
    /// bounds their length.
    ///
    /// # Cancel safety
    /// A write that was begun goes on when its caller has gone; see [`Fenced`].
    pub async fn serve(&self, body: Bytes) -> Result<Vec<Bytes>, Bytes> {
        let answer = self.answer(body).await;
        answer.map_err(wire::encode_refusal)
    }

    async fn answer(&self, body: Bytes) -> Result<Vec<Bytes>, StorageError> {
        let call = wire::decode(body);
        let (id, call) = call.map_err(|malformed| {
            // Of another version, or a slip of ours: it must be seen.
            tracing::warn!(%malformed, "a call for chunks was not understood");
            StorageError::Unreached(format!("not understood: {malformed}"))
        })?;
        let missing = || StorageError::Unreached(format!("{id} is not on this node"));
        let device = self.devices.get(&id).ok_or_else(missing)?;
        Ok(match call {
            Call::Write {
                epoch,
                id,
                label,
                payload,
            } => {
                device.write(epoch, id, &label, &payload).await?;
                Vec::new()
            }
            Call::Read { id, index, range } => {
                wire::encode_payload(device.read(id, index, range).await?)
            }
            Call::Delete { ids } => {
                device.delete(&ids).await?;
                Vec::new()
            }
            Call::List { group, after } => wire::encode_list(&device.list(group, after).await?),
            Call::Describe { id } => wire::encode_description(&device.describe(id).await?),
        })
    }
}
