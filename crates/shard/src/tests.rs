//! Tests of the whole: a shard over its log and tree. This file has what they share.

mod concurrent;
mod crash;
mod damage;
mod exports;
mod model;
mod repeats;
mod replicas;
mod space;

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::env::{Clock, Env};
use base::{DeviceId, ShardId, Timestamp};
use device::{Device, Identity};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tempfile::TempDir;

use crate::{Batch, Config, Execution, Latch, Procedure, Scan, Shard, Shards, View, Wire};

/// Devices in temporary directories, on the real disk.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) config: Config,
    pub(crate) count: u16,
    dir: TempDir,
    devices: u16,
}

impl World {
    pub(crate) fn new(devices: u16, count: u16) -> Self {
        let world = Self {
            env: Env::real(),
            config: Config {
                // Tests flush when they want to.
                flush_interval: Duration::from_secs(60),
                log_file_bytes: Some(1 << 20),
                memtable_bytes: None,
            },
            count,
            dir: tempfile::tempdir().unwrap(),
            devices,
        };
        for i in 0..devices {
            let identity = Identity {
                cluster: 1,
                device: DeviceId(u128::from(i) + 1),
                shards: count,
                created: Timestamp::from_secs(1),
            };
            Device::format(&world.env, &world.path(i), &identity).unwrap();
        }
        let devices: Vec<_> = (0..devices).map(|i| world.device(i).unwrap()).collect();
        Shards::format(&devices, count, &world.config).unwrap();
        world
    }

    pub(crate) fn path(&self, device: u16) -> PathBuf {
        self.dir.path().join(format!("d{device}"))
    }

    pub(crate) fn device(&self, i: u16) -> Result<Device, device::Error> {
        Device::open(self.env.clone(), &self.path(i), device::Config::default())
    }

    /// Waits for tasks of shards that were dropped to let go of the device.
    pub(crate) async fn free_device(&self, i: u16) -> Device {
        for _ in 0..100_000 {
            match self.device(i) {
                Err(device::Error::Locked) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
        panic!("the device stays locked");
    }

    pub(crate) async fn open(&self) -> Shards {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<Shards, device::Error> {
        let mut devices = Vec::new();
        for i in 0..self.devices {
            devices.push(self.free_device(i).await);
        }
        Shards::open(&self.env, devices, self.count, self.config.clone(), None).await
    }
}

/// A clock that goes as tokio's, which a test may pause.
pub(crate) struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub(crate) fn env() -> Env {
        Env {
            clock: Arc::new(Self(tokio::time::Instant::now())),
            ..Env::real()
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1 + self.monotonic().as_secs())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Does what a closure says, under the given latches.
pub(crate) struct Do<F>(pub(crate) Vec<Latch>, pub(crate) F);

impl<F, T> Procedure for Do<F>
where
    F: Fn(Timestamp, &View) -> (Batch, T) + Send + Sync + 'static,
    T: Wire,
{
    const NAME: &'static str = "do";

    type Output = T;
    type Error = ();

    fn latches(&self) -> Vec<Latch> {
        self.0.clone()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, T), Execution<()>> {
        Ok((self.1)(now, view))
    }
}

/// A closure stays where it is.
impl<F> Serialize for Do<F> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a closure"))
    }
}

impl<'de, F> Deserialize<'de> for Do<F> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a closure"))
    }
}

/// Commits a batch.
pub(crate) async fn commit(shard: &Shard, batch: Batch) -> Result<(), Execution<()>> {
    let plan = move |_, _: &View| (batch.clone(), ());
    shard.execute(Do(Vec::new(), plan)).await
}

pub(crate) async fn write(shard: &Shard, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    commit(shard, batch).await.unwrap();
}

pub(crate) fn first(shards: &Shards) -> &Shard {
    shards.get(ShardId(0))
}

pub(crate) fn rows(view: &View) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let each = &mut |key: &[u8], value: &[u8]| {
        rows.push((text(key), text(value)));
        Scan::Next
    };
    view.scan(Bound::Unbounded, Bound::Unbounded, each).unwrap();
    rows
}

pub(crate) fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A device whose log is on a simulated disk, and whose tree on the real one.
pub(crate) struct SimWorld {
    pub(crate) env: Env,
    pub(crate) disk: testkit::SimDisk,
    dir: TempDir,
}

impl SimWorld {
    pub(crate) const DISK_BYTES: u64 = 512 << 20;

    pub(crate) fn new() -> Self {
        let (env, disk, _) = testkit::env(1, Self::DISK_BYTES);
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            cluster: 1,
            device: DeviceId(1),
            shards: 1,
            created: Timestamp::from_secs(1),
        };
        Device::format(&env, dir.path(), &identity).unwrap();
        let world = Self { env, disk, dir };
        let device = world.device().unwrap();
        Shards::format(&[device], 1, &Self::config()).unwrap();
        world
    }

    fn config() -> Config {
        Config {
            flush_interval: Duration::from_secs(60),
            log_file_bytes: Some(256 << 10),
            memtable_bytes: None,
        }
    }

    fn device(&self) -> Result<Device, device::Error> {
        Device::open(self.env.clone(), self.dir.path(), device::Config::default())
    }

    /// Opens the shards; waits for those that were dropped to let go of the device.
    pub(crate) async fn open(&self) -> Result<Shards, device::Error> {
        let device = loop {
            match self.device() {
                Err(device::Error::Locked) => tokio::task::yield_now().await,
                opened => break opened?,
            }
        };
        Shards::open(&self.env, vec![device], 1, Self::config(), None).await
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        let space = self.env.disk.space(self.dir.path()).unwrap();
        space.total_bytes - space.free_bytes
    }

    /// A file of somebody else takes all the space that is left.
    pub(crate) fn fill_disk(&self) {
        let free = Self::DISK_BYTES - self.used_bytes();
        let path = self.dir.path().join("foreign");
        let file = self.env.disk.open(&path, base::env::Open::Write).unwrap();
        file.allocate(free).unwrap();
    }

    pub(crate) fn fail_writes(&self) {
        self.disk.fail_when(|call, _| {
            (call == testkit::Call::Write).then_some(std::io::ErrorKind::Other)
        });
    }
}
