//! Shards and a device on a simulated disk, and the ways in which a server ends.
//!
//! The two LMDB files are real ones, in a temporary directory: nobody cuts their power, but what they
//! have was committed before the power went, since nothing is flushed after that.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::env::{Env, Open};
use base::{DeviceId, ShardId, Timestamp};
use bytes::Bytes;
use chunks::Storage;
use device::{Device, Finding, Identity, Offline};
use parking_lot::Mutex;
use shard::{Row, Shards};
use tempfile::TempDir;
use testkit::SimDisk;

use crate::check::{self, Counter, Record, Report};

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Stop,
    /// Nothing more is written, but the system has what was.
    Kill,
    /// Only what was synced survives, and as the seed says.
    PowerCut(u64),
}

pub(crate) struct OnDisk {
    pub(crate) disk: SimDisk,
    /// That is open.
    device: Mutex<Weak<Device>>,
    dir: TempDir,
    shards: u16,
}

fn device_config() -> device::Config {
    device::Config {
        segment_bytes: Some(8 << 20),
        write_threads: 2,
        ..device::Config::default()
    }
}

pub(super) fn shards_config() -> shard::Config {
    shard::Config {
        // Small, so that flushes and recycled files happen.
        memtable_bytes: Some(256 << 10),
        log_file_bytes: Some(512 << 10),
        flush_interval: Duration::from_secs(60),
    }
}

impl OnDisk {
    pub(crate) const BYTES: u64 = 1 << 30;

    /// A new device with empty shards.
    pub(crate) fn new(env: &Env, disk: SimDisk, shards: u16) -> Self {
        let on_disk = Self {
            disk,
            device: Mutex::default(),
            // Memory, if there is some.
            dir: tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()),
            shards,
        };
        let identity = Identity {
            cluster: 1,
            device: DeviceId(1),
            shards,
            created: Timestamp::from_secs(1),
        };
        Device::format(env, on_disk.dir(), &identity).unwrap();
        let device = Device::open(env.clone(), on_disk.dir(), device_config()).unwrap();
        Shards::format(&[device], shards, &shards_config()).unwrap();
        on_disk
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn open(
        &self,
        env: &Env,
    ) -> Result<(Shards, Arc<dyn Storage>), device::Error> {
        let device = Device::open(env.clone(), self.dir(), device_config())?;
        let devices = vec![device.clone()];
        let shards = Shards::open(env, devices, self.shards, shards_config(), None).await?;
        let device = Arc::new(device);
        *self.device.lock() = Arc::downgrade(&device);
        Ok((shards, device))
    }

    /// Ends what [`OnDisk::open`] began, and waits until nobody has the device open.
    pub(crate) async fn close(&self, env: &Env, shards: Shards, end: End) {
        let device = self.device.lock().clone();
        if let Some(device) = device.upgrade()
            && end != End::Stop
        {
            // From now on neither a tree nor an index is written any more.
            let gone = io::Error::other("the process is gone");
            device.health().fail("running", &gone);
        }
        let flushed = shards.shutdown().await;
        assert!(flushed.is_ok() || end != End::Stop, "{flushed:?}");
        while device.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        // If the power is off the lock cannot be asked, and nobody who has it can do any harm.
        if let Ok(lock) = env.disk.open(&self.dir().join("lock"), Open::Write) {
            while !lock.try_lock().unwrap() {
                tokio::task::yield_now().await;
            }
        }
        if let End::PowerCut(seed) = end {
            self.disk.power_cut(seed);
        }
    }

    /// What `martlet check` says of the device, which nobody has open.
    pub(crate) fn check(&self, env: &Env) -> Report {
        let device = Offline::open(env.clone(), self.dir()).unwrap();
        let mut records = Vec::new();
        let each = &mut |finding| match finding {
            Finding::Record(found) if found.wrong.is_none() && found.live => {
                records.push(Record {
                    fragment: None,
                    device: device.identity().device,
                    chunk: found.chunk,
                    bytes: found.payload_bytes,
                });
            }
            Finding::Record(_) => {}
            other => panic!("{other:?}"),
        };
        device.verify(each).unwrap();
        let shards = shard::Offline::open(&*env.disk, self.dir()).unwrap();
        let ids = (0..self.shards).map(ShardId);
        let views: Result<Vec<_>, _> = ids.map(|id| shards.view(id).unwrap()).collect();
        let mut counters = Vec::new();
        for shard in (0..self.shards).map(ShardId) {
            let each: shard::EachRow<'_> = &mut |key, row| {
                if let Row::Counter(value) = row.unwrap() {
                    let key = Bytes::copy_from_slice(key);
                    counters.push(Counter { shard, key, value });
                }
            };
            shards.visit(shard, each).unwrap();
        }
        check::of_views(&views.unwrap(), counters, records).unwrap()
    }
}
