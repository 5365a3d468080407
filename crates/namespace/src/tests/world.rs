//! What a test needs around a namespace.

use std::borrow::Cow;
use std::sync::Arc;

use base::env::Env;
use base::{DeviceId, NodeId, ShardId, Timestamp};
use bytes::Bytes;
use chunks::Storage;
use chunks::testing::MemoryDevice;
use map::{Current, Map};
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Shards, View};
use testkit::SimClock;

use super::disk::{End, OnDisk, shards_config};
use crate::check::{self, Record, Report};
use crate::garbage::Collector;
use crate::{
    AccountQuota, Condition, Config, Container, Error, Expired, Metadata, MetadataChange,
    MetadataLimits, Namespace, PutObject, Written, key, map_row,
};

pub(crate) const SHARDS: u16 = 4;

pub(crate) const LIMITS: MetadataLimits = MetadataLimits {
    prefix: Cow::Borrowed("x-container-meta-"),
    count_max: 90,
    bytes_max: 4096,
};

/// Adds devices to the map in the control shard, as the control group does.
#[derive(Serialize, Deserialize)]
struct Found {
    devices: Vec<DeviceId>,
}

impl Procedure for Found {
    const NAME: &'static str = "found";

    type Output = Map;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(Bytes::from_static(key::MAP))]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, Map), Execution<Error>> {
        let before = view.get(key::MAP)?.as_deref().map(map_row::decode);
        let before = before.transpose()?.unwrap_or_default();
        let after = before.with_devices(self.devices.iter().copied());
        let mut batch = Batch::new();
        if after != before {
            batch.put(key::MAP, Bytes::from(after.encode()));
        }
        Ok((batch, after))
    }
}

async fn open(
    env: &Env,
    shards: &Arc<Shards>,
    storages: Vec<Arc<dyn Storage>>,
    config: &Config,
) -> Namespace {
    let devices = storages.iter().map(|device| device.id()).collect();
    let map = shards.get(ShardId::CONTROL).execute(Found { devices });
    let map = Current::new(map.await.unwrap());
    let (env, shards) = (env.clone(), shards.clone());
    Namespace::open(env, shards, map, chunks::here(storages), config.clone())
}

/// The devices as the namespace takes them.
fn storages(devices: &[Arc<MemoryDevice>]) -> Vec<Arc<dyn Storage>> {
    let storages = devices.iter();
    storages
        .map(|device| device.clone() as Arc<dyn Storage>)
        .collect()
}

/// A namespace, and the world in which it is.
pub(crate) struct World {
    pub(crate) clock: SimClock,
    pub(crate) shards: Arc<Shards>,
    /// Those in memory; none if the world is on a disk.
    pub(crate) devices: Vec<Arc<MemoryDevice>>,
    pub(crate) namespace: Namespace,
    pub(crate) on_disk: Option<OnDisk>,
    env: Env,
    config: Config,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with_config(seed, Config::default()).await
    }

    pub(crate) async fn with_config(seed: u64, config: Config) -> Self {
        let (env, _, clock) = testkit::env(seed, 1 << 20);
        let shards = Arc::new(Shards::volatile(&env, SHARDS));
        let devices: Vec<_> = [1, 2]
            .map(|id| Arc::new(MemoryDevice::new(DeviceId(id))))
            .into();
        let namespace = open(&env, &shards, storages(&devices), &config).await;
        Self {
            clock,
            shards,
            devices,
            namespace,
            on_disk: None,
            env,
            config,
        }
    }

    /// Everything is on a disk that loses its power when it is told to.
    pub(crate) async fn on_disk(seed: u64, config: Config) -> Self {
        let (env, disk, clock) = testkit::env(seed, OnDisk::BYTES);
        let on_disk = OnDisk::new(&env, disk, SHARDS);
        let (shards, device) = on_disk.open(&env).await.unwrap();
        let shards = Arc::new(shards);
        let namespace = open(&env, &shards, vec![device], &config).await;
        Self {
            clock,
            shards,
            devices: Vec::new(),
            namespace,
            on_disk: Some(on_disk),
            env,
            config,
        }
    }

    /// One in memory, and one on a disk.
    pub(crate) async fn both() -> [Self; 2] {
        let on_disk = Self::on_disk(1, Config::default());
        [Self::new(1).await, on_disk.await]
    }

    /// Another node's namespace on the same shards and devices.
    pub(crate) async fn beside(&self) -> Namespace {
        let config = Config {
            node: NodeId(self.config.node.0 + 1),
            ..self.config.clone()
        };
        open(&self.env, &self.shards, storages(&self.devices), &config).await
    }

    /// From now on the namespace is that of a node that has no shards, only these peers.
    pub(crate) async fn use_through(&mut self, peers: Arc<dyn shard::Peers>) {
        let devices = Vec::new();
        let found = self.shards.get(ShardId::CONTROL).execute(Found { devices });
        let map = Current::new(found.await.unwrap());
        let (env, config) = (&self.env, shards_config());
        let far = Shards::open(env, Vec::new(), SHARDS, config, Some(peers));
        let far = Arc::new(far.await.unwrap());
        let chunks = chunks::here(storages(&self.devices));
        self.namespace = Namespace::open(env.clone(), far, map, chunks, self.config.clone());
    }

    /// Stops the namespace and starts another one on what is stored.
    pub(crate) async fn reopen(&mut self) {
        self.restart(End::Stop).await;
    }

    /// Ends the namespace, and starts another one on what is stored.
    pub(crate) async fn restart(&mut self, end: End) {
        let now = self.namespace.now();
        self.end(end).await;
        self.begin().await;
        self.clock.set(now.max(self.namespace.now()));
    }

    /// Ends the namespace, the shards and the device. Memory is in nobody's way.
    async fn end(&mut self, end: End) {
        if end == End::Stop {
            self.namespace.chunks().settle().await;
        }
        let Some(on_disk) = &self.on_disk else { return };
        let nothing = Arc::new(Shards::volatile(&self.env, SHARDS));
        let idle = open(&self.env, &nothing, Vec::new(), &self.config).await;
        drop(std::mem::replace(&mut self.namespace, idle));
        let mut shards = std::mem::replace(&mut self.shards, nothing);
        // Tasks of the namespace may hold them for a moment.
        let shards = loop {
            match Arc::try_unwrap(shards) {
                Ok(shards) => break shards,
                Err(held) => shards = held,
            }
            tokio::task::yield_now().await;
        };
        on_disk.close(&self.env, shards, end).await;
    }

    async fn begin(&mut self) {
        let devices = match &self.on_disk {
            None => storages(&self.devices),
            Some(on_disk) => {
                let (shards, device) = on_disk.open(&self.env).await.unwrap();
                self.shards = Arc::new(shards);
                vec![device]
            }
        };
        self.namespace = open(&self.env, &self.shards, devices, &self.config).await;
    }

    /// Checks everything against everything, as `martlet check` does.
    pub(crate) async fn check_stopped(&mut self) -> Report {
        if self.on_disk.is_none() {
            return self.check().await;
        }
        self.end(End::Stop).await;
        let on_disk = self.on_disk.as_ref().expect("looked at above");
        let report = on_disk.check(&self.env);
        self.begin().await;
        report
    }

    pub(crate) fn disk(&self) -> Arc<dyn base::env::Disk> {
        self.env.disk.clone()
    }

    /// Makes a container of account `a`.
    pub(crate) async fn container(&self, name: &str) -> Container {
        let change = MetadataChange::default();
        let put =
            self.namespace
                .put_container("a", name, change, LIMITS, crate::PolicyChoice::default());
        put.await.unwrap();
        self.namespace.container("a", name).await.unwrap()
    }

    pub(crate) async fn put(
        &self,
        container: &Container,
        name: &str,
        body: &[u8],
    ) -> Result<Written, Error> {
        self.put_with(container, name, body, |_| {}).await
    }

    /// A PUT of which `change` may change anything but the body.
    pub(crate) async fn put_with(
        &self,
        container: &Container,
        name: &str,
        body: &[u8],
        change: impl FnOnce(&mut PutObject),
    ) -> Result<Written, Error> {
        let mut upload = self.namespace.upload(container, name);
        for piece in body.chunks(100_000) {
            upload.write(Bytes::copy_from_slice(piece)).await?;
        }
        let mut put = PutObject {
            name: name.to_owned(),
            content_type: "text/plain".to_owned(),
            metadata: Metadata::new(),
            delete_at: None,
            condition: Condition::None,
            account_quota: AccountQuota::Enforced,
            stored: upload.finish().await?,
        };
        change(&mut put);
        self.namespace.put_object(container, put).await
    }

    /// The whole body of an object.
    pub(crate) async fn get(&self, container: &Container, name: &str) -> Result<Vec<u8>, Error> {
        let object = self
            .namespace
            .object(container, name, Expired::Hide)
            .await?;
        let range = 0..object.bytes;
        let mut reader = self.namespace.read(container, &object, range).await?;
        let mut body = Vec::new();
        while let Some(piece) = reader.next().await {
            body.extend_from_slice(&piece?);
        }
        Ok(body)
    }

    /// Removes all that has expired long enough ago.
    pub(crate) async fn expire(&self) {
        for shard in self.namespace.shard_ids() {
            while self.namespace.expire(shard).await.unwrap() > 0 {}
        }
    }

    /// Collects all garbage that is old enough.
    pub(crate) async fn collect(&self) {
        self.namespace.chunks().settle().await;
        for shard in self.namespace.shard_ids() {
            let mut collector = Collector::default();
            while collector.round(&self.namespace, shard).await.unwrap() > 0 {}
        }
    }

    /// What the devices hold.
    pub(crate) fn records(&self) -> Vec<Record> {
        let devices = self.devices.iter();
        let records = devices.flat_map(|device| {
            let record = |(chunk, _, bytes)| Record {
                fragment: None,
                device: device.id(),
                chunk,
                bytes,
            };
            device.chunks().into_iter().map(record)
        });
        records.collect()
    }

    /// Checks everything against everything, in memory.
    pub(crate) async fn check(&self) -> Report {
        check::run(&self.shards, self.records()).await.unwrap()
    }

    /// The number of chunks on all devices in memory.
    pub(crate) fn chunks(&self) -> usize {
        self.devices
            .iter()
            .map(|device| device.chunks().len())
            .sum()
    }
}
