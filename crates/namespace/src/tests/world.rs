//! What a test needs around a namespace.

use std::borrow::Cow;
use std::sync::Arc;

use base::DeviceId;
use base::env::Env;
use bytes::Bytes;
use chunks::Storage;
use chunks::testing::MemoryDevice;
use shard::Shards;
use testkit::SimClock;

use crate::check::{self, Record, Report};
use crate::garbage::Collector;
use crate::{
    AccountQuota, Condition, Config, Container, Error, Expired, Metadata, MetadataChange,
    MetadataLimits, Namespace, PutObject, Written,
};

pub(crate) const SHARDS: u16 = 4;

pub(crate) const LIMITS: MetadataLimits = MetadataLimits {
    prefix: Cow::Borrowed("x-container-meta-"),
    count_max: 90,
    bytes_max: 4096,
};

async fn open(
    env: &Env,
    shards: &Arc<Shards>,
    devices: &[Arc<MemoryDevice>],
    config: &Config,
) -> Namespace {
    let storages = devices
        .iter()
        .map(|device| device.clone() as Arc<dyn Storage>);
    let storages = storages.collect();
    let namespace = Namespace::open(env.clone(), shards.clone(), storages, config.clone());
    namespace.await.unwrap()
}

/// A namespace, and the world in which it is.
pub(crate) struct World {
    pub(crate) clock: SimClock,
    pub(crate) shards: Arc<Shards>,
    pub(crate) devices: Vec<Arc<MemoryDevice>>,
    pub(crate) namespace: Namespace,
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
        let namespace = open(&env, &shards, &devices, &config).await;
        Self {
            clock,
            shards,
            devices,
            namespace,
            env,
            config,
        }
    }

    /// Stops the namespace and starts another one on what is stored.
    pub(crate) async fn reopen(&mut self) {
        self.namespace.chunks().settle().await;
        let now = self.namespace.now();
        self.namespace = open(&self.env, &self.shards, &self.devices, &self.config).await;
        self.clock.set(now.max(self.namespace.now()));
    }

    /// Makes a container of account `a`.
    pub(crate) async fn container(&self, name: &str) -> Container {
        let change = MetadataChange::default();
        let put = self.namespace.put_container("a", name, change, LIMITS);
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
                device: device.id(),
                chunk,
                bytes,
            };
            device.chunks().into_iter().map(record)
        });
        records.collect()
    }

    /// Checks everything against everything.
    pub(crate) async fn check(&self) -> Report {
        check::run(&self.shards, self.records()).await.unwrap()
    }

    /// The number of chunks on all devices.
    pub(crate) fn chunks(&self) -> usize {
        self.devices
            .iter()
            .map(|device| device.chunks().len())
            .sum()
    }
}
