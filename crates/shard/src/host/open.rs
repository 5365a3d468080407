//! Making and opening what the shards of a device stand on.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::ShardId;
use base::env::Env;
use device::lmdb::into_io;
use device::{Access, Device, Kind, Log};
use parking_lot::{Mutex, RwLock};
use raft::ReplicaId;
use tokio::sync::Semaphore;
use tracing::info;

use super::{Host, Settings, flush};
use crate::budget::Budget;
use crate::core::Core;
use crate::metrics::Metrics;
use crate::replica::{Memo, StateRecord, Tail};
use crate::shards::Config;
use crate::tree::Tree;

/// A device that is open, with its replicas and what each has in the log.
pub(crate) struct Opened {
    pub(crate) host: Arc<Host>,
    pub(crate) replicas: Vec<(Arc<Core>, Tail)>,
}

impl Host {
    /// Makes empty shards on a device, of which it has the only replica each, unless it has a tree
    /// already.
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
        let first = |shard: &ShardId| (*shard, Memo::first(new_replica(env), device.id()));
        let memos: BTreeMap<_, _> = shards.iter().map(first).collect();
        // The tree is last: with it the shards exist.
        Tree::create(&dir.join("tree"), settings.map_bytes, log_id, &memos)?;
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

        let mut tails = Tails::of(&tree).map_err(damaged)?;
        let visit = &mut |record| tails.replay(record).map_err(damaged);
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
        let (tails, strangers) = tails.read().map_err(damaged)?;
        for stream in strangers {
            log.retire(stream);
        }
        let mut replicas = Vec::new();
        for (shard, tail) in tails {
            if tail.is_gone() {
                // It was being removed when the power went.
                let removed = tree.remove(shard);
                removed.map_err(|error| device::Error::io("removing a shard", into_io(error)))?;
                log.retire(shard.0);
                continue;
            }
            let core = Core::new(shard, Some(tree.clone())).map_err(damaged)?;
            replicas.push((Arc::new(core), tail));
        }
        let flush_asked = Arc::new(flush::Asked::default());
        let asked = flush_asked.clone();
        log.on_shortage(move || asked.ask());
        let cores = replicas.iter().map(|(core, _)| (core.id(), core.clone()));
        let host = Arc::new(Self {
            tree,
            cores: RwLock::new(cores.collect()),
            budget: Arc::new(Budget::new(settings.memtable_bytes)),
            writing: Mutex::new(()),
            replicas: RwLock::new(BTreeMap::new()),
            transfers: Semaphore::new(TRANSFERS_MAX),
            flush_asked,
            reserve_bytes: settings.reserve_bytes,
            metrics: Metrics::default(),
            log,
            device,
        });
        Ok(Opened { host, replicas })
    }
}

/// Snapshots that a device sends at once: it has other things to do, and so have their receivers.
const TRANSFERS_MAX: usize = 2;

/// A replica that has never lived before.
pub(crate) fn new_replica(env: &Env) -> ReplicaId {
    // 0 is nobody.
    ReplicaId(env.entropy.u64().max(1))
}

/// What the log has of each stream.
pub(crate) struct Tails {
    /// Of the replicas that the tree knows.
    known: BTreeMap<ShardId, Tail>,
    /// Of others: who has the stream, and whether it has entries.
    strangers: BTreeMap<ShardId, (ReplicaId, bool)>,
}

impl Tails {
    pub(crate) fn of(tree: &Tree) -> Result<Self, crate::Error> {
        let reader = tree.read()?;
        let tail = |shard| {
            let memo = tree.memo(&reader, shard)?;
            Ok((shard, Tail::after(memo.replica, memo.applied)))
        };
        let known = tree.shards().into_iter().map(tail);
        Ok(Self {
            known: known.collect::<Result<_, crate::Error>>()?,
            strangers: BTreeMap::new(),
        })
    }

    pub(crate) fn replay(&mut self, record: device::Record) -> Result<(), crate::Error> {
        let shard = ShardId(record.stream);
        if let Some(tail) = self.known.get_mut(&shard) {
            return tail.replay(record);
        }
        // It was removed, or was being made.
        let stranger = self.strangers.entry(shard);
        let (replica, has_entries) = stranger.or_insert((StateRecord::NOBODY.replica, false));
        if let Kind::Entry(_) = record.kind {
            *has_entries = true;
            return Ok(());
        }
        let state = StateRecord::decode(record.body.into_iter().next().unwrap_or_default())?;
        if state.replica != *replica {
            (*replica, *has_entries) = (state.replica, false);
        }
        Ok(())
    }

    /// The tails of the replicas that the tree knows, and the streams of others.
    ///
    /// # Errors
    /// If one of the others has lived: then the tree has lost it.
    pub(crate) fn read(self) -> Result<(BTreeMap<ShardId, Tail>, Vec<u16>), crate::Error> {
        for (shard, (replica, has_entries)) in &self.strangers {
            if *replica != StateRecord::NOBODY.replica && *has_entries {
                let what = format!("the log has entries of {shard}, the tree has not");
                return Err(crate::Error::Damaged(what));
            }
        }
        let strangers = self.strangers.into_keys().map(|shard| shard.0);
        Ok((self.known, strangers.collect()))
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
