//! What all shards of one device share: its log, its tree, the flush and the memory.

mod flush;
mod open;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::ShardId;
use device::{Device, Kind, Log, Purpose, Record, Room};
use parking_lot::{Mutex, RwLock};
use raft::ReplicaId;
use tokio::sync::Semaphore;

use crate::budget::Budget;
use crate::core::Core;
use crate::metrics::Metrics;
use crate::replica::{Memo, Replica, SnapshotData, Spool, StateRecord, snapshot_rows};
use crate::tree::{Failure, Tree};
use crate::{Error, shards::Config};

pub(crate) use flush::Flusher;
pub(crate) use open::{Opened, Tails, new_replica};

pub(crate) struct Host {
    device: Device,
    tree: Arc<Tree>,
    log: Log,
    cores: RwLock<BTreeMap<ShardId, Arc<Core>>>,
    budget: Arc<Budget>,
    /// Held by the one who writes to the tree.
    writing: Mutex<()>,
    /// Who is told that a shard was flushed, so that its log can be let go of.
    replicas: RwLock<BTreeMap<ShardId, Weak<Replica>>>,
    /// Turns at sending snapshots.
    transfers: Semaphore,
    flush_asked: Arc<flush::Asked>,
    /// Less than this left on the file system, and only what frees space is taken.
    reserve_bytes: u64,
    metrics: Metrics,
}

impl Host {
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The replicas on this device.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        let replicas = self.replicas.read();
        replicas.values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn introduce(&self, replica: &Arc<Replica>) {
        let weak = Arc::downgrade(replica);
        self.replicas.write().insert(replica.shard(), weak);
    }

    pub(crate) fn transfers(&self) -> &Semaphore {
        &self.transfers
    }

    /// Makes an empty replica, which knows nothing and votes for nobody until a leader has found it. Waits
    /// for the disk.
    pub(crate) fn add(
        &self,
        shard: ShardId,
        replica: ReplicaId,
    ) -> Result<Arc<Core>, device::Error> {
        let state = StateRecord {
            replica,
            ..StateRecord::NOBODY
        };
        // Not with the tree in hand: the log may wait for a flush.
        self.write_state(shard, state)?;
        let _writing = self.writing.lock();
        self.device.health().check_write()?;
        let add = || -> Result<Core, Failure> {
            self.tree.add(shard, &Memo::new(replica))?;
            Ok(Core::new(shard, Some(self.tree.clone()))?)
        };
        let core = Arc::new(add().map_err(|failure| self.failed("adding a shard", failure))?);
        self.cores.write().insert(shard, core.clone());
        Ok(core)
    }

    /// Removes a replica that has been stopped, and all that it had. Waits for the disk.
    pub(crate) fn remove(&self, shard: ShardId) -> Result<(), device::Error> {
        // From here on it is gone, whatever the tree still has.
        self.write_state(shard, StateRecord::NOBODY)?;
        let _writing = self.writing.lock();
        self.device.health().check_write()?;
        self.replicas.write().remove(&shard);
        let core = self.cores.write().remove(&shard);
        let removed = self.tree.remove(shard);
        removed.map_err(|error| self.failed("removing a shard", error.into()))?;
        self.log.retire(shard.0);
        if let Some(core) = core {
            self.budget.shrank(core.memtable_bytes());
        }
        Ok(())
    }

    /// Writes who lives here, and waits until that is durable.
    fn write_state(&self, shard: ShardId, state: StateRecord) -> Result<(), device::Error> {
        let record = Record {
            stream: shard.0,
            kind: Kind::State,
            body: vec![state.encode()],
        };
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        self.log.append(vec![record], move |written| {
            // Whoever waits is still there.
            let _ = done.send(written);
        });
        answer.recv().unwrap_or(Err(device::Error::Closed))
    }

    /// The active memtables grew by this much.
    pub(crate) fn grew(&self, bytes: u64) {
        if self.budget.grew(bytes) {
            self.flush_asked.ask();
        }
    }

    /// Waits until there is memory for another procedure's effects.
    pub(crate) async fn room(&self) -> Result<(), Error> {
        if self.budget.has_room() {
            return Ok(());
        }
        self.metrics.waits.inc();
        self.budget.room(|| self.flush_asked.ask()).await
    }

    /// Whether a batch of `bytes` may be committed here. On a full device what frees space waits for a
    /// flush, which lets files of the log be used again.
    ///
    /// # Errors
    /// [`Error::OutOfSpace`] for what grows on a full device; [`Error::Unavailable`] if the device
    /// is out of service.
    pub(crate) async fn admit(&self, bytes: u64, purpose: Purpose) -> Result<(), Error> {
        /// For the entry's head, and what else is in it.
        const HEAD_BYTES: u64 = 64 << 10;
        /// A flush takes seconds at worst. A release comes a moment after it.
        const LOOKS_MAX: u32 = 1000;
        const LOOK_INTERVAL: Duration = Duration::from_millis(10);

        if bytes + HEAD_BYTES > self.log.append_bytes_max() {
            tracing::error!(bytes, "a batch is too large for the log");
            return Err(Error::OutOfSpace);
        }
        if purpose == Purpose::Grow && self.budget.is_full() {
            return Err(Error::OutOfSpace);
        }
        for _ in 0..LOOKS_MAX {
            match self.log.admit(bytes, purpose) {
                Ok(Room::Ample) => return Ok(()),
                Ok(Room::Last) => {
                    self.flush_asked.ask();
                    return Ok(());
                }
                Err(device::Error::Full) => self.flush_asked.ask(),
                Err(device::Error::ReadOnly(_)) => return Err(Error::OutOfSpace),
                Err(_) => {
                    return Err(Error::Unavailable {
                        retry_in: Duration::from_secs(30),
                    });
                }
            }
            if purpose == Purpose::Grow {
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Err(Error::OutOfSpace)
    }

    /// A file to receive a snapshot of the shard into.
    pub(crate) fn spool(&self, shard: ShardId) -> io::Result<Spool> {
        let path = self.device.dir().join(format!("snapshot-{:04}", shard.0));
        Spool::new(self.device.env().disk.clone(), &path)
    }

    /// Replaces a shard by a snapshot.
    pub(crate) fn install(
        &self,
        core: &Core,
        memo: Memo,
        snapshot: &mut SnapshotData,
    ) -> Result<(), device::Error> {
        let _writing = self.writing.lock();
        let mut install = || {
            let mut txn = self.tree.write()?;
            let database = self.tree.database(core.id());
            database.clear(&mut txn)?;
            while let Some(piece) = snapshot.next_piece()? {
                snapshot_rows(piece, |key, stored| -> Result<(), Failure> {
                    Ok(database.put(&mut txn, key, stored)?)
                })?;
            }
            self.tree.put_memo(&mut txn, core.id(), &memo)?;
            let id = txn.id();
            let dropped = core.replace(id, memo.clone(), || {
                txn.commit()?;
                self.tree.committed(id);
                Ok(())
            })?;
            Ok(dropped)
        };
        let dropped = install().map_err(|failure| self.failed("installing a snapshot", failure))?;
        self.budget.shrank(dropped);
        Ok(())
    }

    /// What a failed write of the tree means for the device.
    fn failed(&self, what: &str, failure: Failure) -> device::Error {
        match failure {
            Failure::Lmdb(error) => {
                let error = device::lmdb::into_io(error);
                self.device.health().write_failed(what, &error)
            }
            Failure::Shard(error) => device::Error::damaged(format!("{what}: {error}")),
        }
    }
}

/// Settings with every value decided for a device.
pub(crate) struct Settings {
    pub(crate) memtable_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) map_bytes: usize,
    pub(crate) log: device::LogConfig,
}

impl Settings {
    pub(crate) fn of(device: &Device, config: &Config) -> Result<Self, device::Error> {
        const MIB: u64 = 1 << 20;
        let total_bytes = device.space()?.total_bytes;
        let memtable_bytes = config
            .memtable_bytes
            .unwrap_or((total_bytes / 64).clamp(4 * MIB, 64 * MIB));
        // A flush writes what two memtables hold, and the tree's pages around it.
        let reserve_bytes = device.reserve_bytes().min(4 * memtable_bytes);
        // The file cannot outgrow the file system; the rest is address space.
        let map_bytes = total_bytes.next_power_of_two().max(1 << 30);
        Ok(Self {
            memtable_bytes,
            reserve_bytes,
            map_bytes: usize::try_from(map_bytes).unwrap_or(usize::MAX / 2),
            log: device::LogConfig {
                file_bytes: config.log_file_bytes,
                reserve_bytes,
            },
        })
    }
}
