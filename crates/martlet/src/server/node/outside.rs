//! The way from the shards of this node to others. The shards are opened before the node knows the way, since
//! who it is may be written in them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use base::{DeviceId, ShardId};
use bytes::Bytes;
use cluster::Wires;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Current;
use shard::{Error, Peers};

/// Nowhere, until it is connected. Clones are the same one.
#[derive(Clone, Default)]
pub(in crate::server) struct Outside(Arc<OnceLock<(Wires, Current)>>);

impl Outside {
    pub(super) fn connect(&self, wires: Wires, map: Current) {
        let is_first = self.0.set((wires, map)).is_ok();
        assert!(is_first, "a server is one node");
    }
}

const SOON: std::time::Duration = std::time::Duration::from_millis(200);

impl Peers for Outside {
    fn send(&self, to: DeviceId, shard: ShardId, message: Bytes) {
        if let Some((wires, _)) = self.0.get() {
            wires.send(to, shard, message);
        }
    }

    fn send_piece(
        &self,
        to: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        match self.0.get() {
            Some((wires, _)) => wires.send_piece(to, shard, piece),
            None => std::future::ready(Err(Error::Unavailable { retry_in: SOON })).boxed(),
        }
    }

    fn call(
        &self,
        to: DeviceId,
        shard: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        match self.0.get() {
            Some((wires, _)) => wires.call(to, shard, name.to_owned(), call),
            None => std::future::ready(Err(Error::Unavailable { retry_in: SOON })).boxed(),
        }
    }

    fn replicas(&self, shard: ShardId) -> Vec<DeviceId> {
        let Some((_, map)) = self.0.get() else {
            return Vec::new();
        };
        let map = map.load();
        if let Some(replicas) = map.shards.get(&shard) {
            return replicas.devices().collect();
        }
        // Its leader has not said where it is: any device stands for its node, which knows or has it.
        let nodes = map.devices.iter().map(|(id, device)| (device.node, *id));
        nodes.collect::<BTreeMap<_, _>>().into_values().collect()
    }
}
