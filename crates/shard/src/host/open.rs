//! Making and opening what the shards of a device stand on.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ShardId;
use device::{Access, Device, Log};
use parking_lot::{Mutex, RwLock};
use tracing::info;

use super::{Host, Settings, flush};
use crate::budget::Budget;
use crate::core::Core;
use crate::metrics::Metrics;
use crate::raft::{Cache, LogStore};
use crate::shards::Config;
use crate::tree::Tree;

/// A device that is open, with its shards and what each has in the log.
pub(crate) struct Opened {
    pub(crate) host: Arc<Host>,
    pub(crate) shards: Vec<(Arc<Core>, LogStore)>,
}

impl Host {
    /// Makes empty shards on a device, unless it has some already.
    pub(crate) fn format(
        device: &Device,
        config: &Config,
        shards: &[ShardId],
    ) -> Result<(), device::Error> {
        let settings = Settings::of(device, config)?;
        let dir = device.dir();
        match Tree::open(&dir.join("tree"), Access::ReadWrite, settings.map_bytes) {
            Ok(_) => return Ok(()),
            Err(device::Error::NotFound) => {}
            Err(error) => return Err(error),
        }
        let (env, health) = (device.env(), device.health());
        refuse_used_log(device)?;
        let log_id = Log::create(env, &dir.join("log"), health, &settings.log)?;
        // The tree is last: with it the shards exist.
        Tree::create(&dir.join("tree"), settings.map_bytes, log_id, shards)?;
        info!(device = %device.id(), shards = shards.len(), "made shards");
        Ok(())
    }

    /// Opens a device's log and tree. Waits for the disk.
    pub(crate) fn open(device: Device, config: &Config) -> Result<Opened, device::Error> {
        let settings = Settings::of(&device, config)?;
        let dir = device.dir().to_owned();
        let tree = Tree::open(&dir.join("tree"), Access::ReadWrite, settings.map_bytes)?;
        let tree = Arc::new(tree);
        let damaged =
            |error: crate::Error| device::Error::damaged(format!("{}: {error}", dir.display()));

        let mut shards: BTreeMap<ShardId, (Arc<Core>, Cache)> = BTreeMap::new();
        for id in tree.shards() {
            let core = Core::new(id, Some(tree.clone())).map_err(damaged)?;
            let cache = Cache::after(core.memo().applied);
            shards.insert(id, (Arc::new(core), cache));
        }
        let visit = &mut |record: device::Record| {
            let shard = ShardId(record.stream);
            let (_, cache) = shards.get_mut(&shard).ok_or_else(|| {
                device::Error::damaged(format!("the log has entries of {shard}, the tree has not"))
            })?;
            cache.replay(record).map_err(damaged)
        };
        let (env, health) = (device.env(), device.health());
        let log = Log::open(env, &dir.join("log"), health, &settings.log, visit);
        let log = log.map_err(|error| match error {
            // The tree is made after the log.
            device::Error::NotFound => {
                device::Error::damaged(format!("{}: the log is gone", dir.display()))
            }
            error => error,
        })?;
        if log.id() != tree.log_id() {
            return Err(device::Error::damaged(format!(
                "{}: log and tree are of different devices",
                dir.display()
            )));
        }
        let host = Arc::new(Self {
            tree,
            cores: shards.values().map(|(core, _)| core.clone()).collect(),
            budget: Arc::new(Budget::new(settings.memtable_bytes)),
            writing: Mutex::new(()),
            proposers: RwLock::new(BTreeMap::new()),
            flush_asked: flush::Asked::default(),
            reserve_bytes: settings.reserve_bytes,
            metrics: Metrics::default(),
            log: log.clone(),
            device,
        });
        let shards = shards.into_values().map(|(core, cache)| {
            let store = LogStore::new(core.id(), log.clone(), cache);
            (core, store)
        });
        let shards = shards.collect();
        Ok(Opened { host, shards })
    }
}

/// A log that holds something without a tree beside it is what is left of shards, and no leftover of
/// an attempt to make them.
fn refuse_used_log(device: &Device) -> Result<(), device::Error> {
    let dir = device.dir();
    let damaged = || {
        let dir = dir.display();
        device::Error::damaged(format!("{dir}: the tree is gone, but the log is not empty"))
    };
    let read = Log::read(&*device.env().disk, &dir.join("log"), &mut |_| {
        Err(damaged())
    });
    match read {
        Ok(_) | Err(device::Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}
