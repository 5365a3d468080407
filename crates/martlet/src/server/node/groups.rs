//! The Raft groups of this node, as membership wants them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId};
use bytes::Bytes;
use cluster::{Replication, control};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shard::{Error, Led, Registry, ReplicaId, Shards};

/// A change needs a round to a majority for each of its two steps.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Nothing is lost by trying again.
const NOT_NOW: Error = Error::Unavailable {
    retry_in: Duration::from_millis(200),
};

pub(super) struct Groups {
    env: Env,
    /// Whoever closes them is not kept from it.
    shards: Weak<Shards>,
    registry: Registry,
}

impl Groups {
    pub(super) fn new(env: &Env, shards: &Arc<Shards>) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            shards: Arc::downgrade(shards),
            registry: control::registry(namespace::registry()),
        })
    }

    fn shards(&self) -> Result<Arc<Shards>, Error> {
        self.shards.upgrade().ok_or(NOT_NOW)
    }

    /// Waits until these are the voters, and nothing is under way.
    async fn changed(&self, shards: &Shards, shard: ShardId, voters: &[DeviceId]) -> bool {
        let until = self.env.clock.monotonic() + CHANGE_TIME_MAX;
        while self.env.clock.monotonic() < until {
            let led = shards.led().into_iter().find(|led| led.shard == shard);
            let Some(led) = led else { return false };
            if led.is_settled && led.voters.keys().eq(voters) {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }
}

/// What a device that does not do it means for membership: somebody will try again.
fn failed(error: device::Error) -> Error {
    tracing::warn!(%error, "a replica was not made or removed");
    NOT_NOW
}

impl Replication for Groups {
    fn local(&self) -> Vec<(DeviceId, ShardId)> {
        self.shards()
            .map_or_else(|_| Vec::new(), |shards| shards.replicas())
    }

    fn create(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<ReplicaId, Error>> {
        async move {
            let id = self.shards()?.create(device, shard).await;
            id.map_err(failed)
        }
        .boxed()
    }

    fn destroy(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let destroyed = self.shards()?.destroy(device, shard).await;
            destroyed.map_err(failed)
        }
        .boxed()
    }

    fn led(&self) -> Vec<Led> {
        self.shards()
            .map_or_else(|_| Vec::new(), |shards| shards.led())
    }

    fn prove(&self, shard: ShardId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let term = self.shards()?.prove(shard).await;
            term.map(drop).ok_or(NOT_NOW)
        }
        .boxed()
    }

    fn set_membership(
        &self,
        shard: ShardId,
        term: u64,
        voters: Vec<(DeviceId, ReplicaId)>,
        learners: Vec<(DeviceId, ReplicaId)>,
    ) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let shards = self.shards()?;
            let mut wanted: Vec<_> = voters.iter().map(|(device, _)| *device).collect();
            wanted.sort_unstable();
            let has_begun = shards.change(shard, term, &voters, &learners);
            match has_begun && self.changed(&shards, shard, &wanted).await {
                true => Ok(()),
                false => Err(NOT_NOW),
            }
        }
        .boxed()
    }

    fn transfer(&self, shard: ShardId, to: DeviceId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            match self.shards()?.transfer(shard, to) {
                true => Ok(()),
                false => Err(NOT_NOW),
            }
        }
        .boxed()
    }

    fn receive(
        &self,
        device: DeviceId,
        shard: ShardId,
        message: Bytes,
    ) -> Option<(DeviceId, Bytes)> {
        self.shards().ok()?.receive(device, shard, message)
    }

    fn receive_piece(
        &self,
        device: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let shards = self.shards()?;
            // A piece that is the last one is installed, whether or not its sender still waits.
            let received =
                tokio::spawn(async move { shards.receive_piece(device, shard, piece).await });
            received.await.ok().flatten().ok_or(NOT_NOW)
        }
        .boxed()
    }

    fn answer(
        &self,
        _device: DeviceId,
        shard: ShardId,
        name: String,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let shards = self.shards()?;
            Ok(self.registry.call(&shards, shard, &name, call).await)
        }
        .boxed()
    }
}
