//! How replicas reach each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use base::{DeviceId, ShardId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;

use crate::Error;
use crate::replica::{Message, Replica, decode_message, encode_message};

/// How this node reaches what is on devices of other nodes.
pub trait Peers: Send + Sync + 'static {
    /// Sends a message to the replica of the shard on that device; never waits. It may be lost.
    fn send(&self, to: DeviceId, shard: ShardId, message: Bytes);

    /// Sends a piece of a snapshot, and gives the receiver's answer.
    ///
    /// # Errors
    /// If there is none; the piece may have come.
    fn send_piece(
        &self,
        to: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>>;

    /// The encoded answer to an encoded call, as [`crate::Registry::call`] gives it on the node of that
    /// device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the call was certainly not run, else [`Error::Unknown`].
    fn call(
        &self,
        to: DeviceId,
        shard: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>>;

    /// The devices that have replicas of the shard, the one that is to lead first.
    fn replicas(&self, shard: ShardId) -> Vec<DeviceId>;
}

/// All replicas, wherever they are.
pub(crate) struct Post {
    here: RwLock<BTreeMap<(ShardId, DeviceId), Weak<Replica>>>,
    pub(crate) outside: Option<Arc<dyn Peers>>,
}

impl Post {
    pub(crate) fn new(outside: Option<Arc<dyn Peers>>) -> Arc<Self> {
        Arc::new(Self {
            here: RwLock::default(),
            outside,
        })
    }

    pub(crate) fn introduce(&self, replica: &Arc<Replica>) {
        let key = (replica.shard(), replica.device());
        self.here.write().insert(key, Arc::downgrade(replica));
    }

    pub(crate) fn here(&self, shard: ShardId, device: DeviceId) -> Option<Arc<Replica>> {
        self.here.read().get(&(shard, device))?.upgrade()
    }

    pub(crate) fn send(&self, from: DeviceId, to: DeviceId, shard: ShardId, message: Message) {
        if let Some(replica) = self.here(shard, to) {
            replica.receive(from, message);
        } else if let Some(outside) = &self.outside {
            outside.send(to, shard, encode_message(from, &message));
        }
    }

    /// Delivers a message of another node. What is no message is dropped. Gives what the replica has to say to
    /// that at once, and the device to which it says it.
    pub(crate) fn receive(
        &self,
        to: DeviceId,
        shard: ShardId,
        message: Bytes,
    ) -> Option<(DeviceId, Bytes)> {
        let replica = self.here(shard, to)?;
        let Some((from, message)) = decode_message(message) else {
            tracing::warn!(%shard, device = %to, "a message was not understood");
            return None;
        };
        let answer = replica.converse(from, message)?;
        Some((from, encode_message(to, &answer)))
    }

    pub(crate) async fn send_piece(
        &self,
        to: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> Result<Bytes, Error> {
        if let Some(replica) = self.here(shard, to) {
            return Ok(replica.receive_piece(piece).await);
        }
        match &self.outside {
            Some(outside) => outside.send_piece(to, shard, piece).await,
            None => Err(Error::Unknown),
        }
    }
}
