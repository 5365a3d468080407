//! All shards of this node: on which devices they are, making and opening them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::metrics::Report;
use base::{DeviceId, ShardId};
use bytes::Bytes;
use device::{Device, Purpose};
use raft::ReplicaId;
use tracing::info;

use crate::core::Core;
use crate::host::{Flusher, Host, Opened, new_replica};
use crate::peers::{Peers, Post};
use crate::replica::Replica;
use crate::shard::Shard;
use crate::table::Table;

/// Settings of the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Memory for what is not in the tree yet, per device: reached, it is flushed, and as much again
    /// may be in use until that is done. `None`: a 64th of the file system, between 4 MiB and
    /// 64 MiB.
    pub memtable_bytes: Option<u64>,
    /// How often the memtables are flushed; 10 ms to 60 s. A start after a crash replays what was
    /// written since.
    pub flush_interval: Duration,
    /// The size of a log file; 64 KiB to 1 GiB. `None`: a thirty-second of the file system, between
    /// 4 MiB and 64 MiB.
    pub log_file_bytes: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memtable_bytes: None,
            flush_interval: Duration::from_secs(5),
            log_file_bytes: None,
        }
    }
}

/// All shards as this node sees them, and the replicas that are here. Dropped, it flushes, so that the next
/// start has nothing to replay; see [`Shards::shutdown`] for a gentler end.
pub struct Shards {
    env: Env,
    shards: Vec<Shard>,
    pub(crate) table: Arc<Table>,
    hosts: BTreeMap<DeviceId, Arc<Host>>,
    flushers: Vec<Flusher>,
}

impl Shards {
    /// Makes `count` empty shards and spreads them over new devices, one replica each. Devices that
    /// have shards already, from an attempt that was cut short, stay as they are.
    ///
    /// The caller must be sure that the devices are new: on one that was cleared by mistake this
    /// makes empty shards.
    pub fn format(devices: &[Device], count: u16, config: &Config) -> Result<(), device::Error> {
        for (i, device) in devices.iter().enumerate() {
            let here = (0..count).filter(|shard| usize::from(*shard) % devices.len() == i);
            let here: Vec<_> = here.map(ShardId).collect();
            Host::format(device, config, &here)?;
        }
        Ok(())
    }

    /// Makes a new device ready for replicas of shards that there are already.
    pub fn prepare(device: &Device, config: &Config) -> Result<(), device::Error> {
        Host::format(device, config, &[])
    }

    /// Opens the replicas on the given devices, in a cluster of `count` shards; others are reached through
    /// `outside`. Waits until those that are the only ones of their shards lead. A shard that has no
    /// replica anywhere is unavailable; the others serve.
    ///
    /// # Errors
    /// What is wrong with a device that does not open. Where there are other nodes and other devices, that one fails
    /// and the others serve.
    pub async fn open(
        env: &Env,
        devices: Vec<Device>,
        count: u16,
        config: Config,
        outside: Option<Arc<dyn Peers>>,
    ) -> Result<Self, device::Error> {
        let table = Table::new(env, Post::new(outside));
        let mut hosts = BTreeMap::new();
        let mut flushers = Vec::new();
        let count_given = devices.len();
        for device in devices {
            let (id, health) = (device.id(), device.health().clone());
            let opened = {
                let config = config.clone();
                let open = move || Host::open(device, &config);
                let opened = tokio::task::spawn_blocking(open).await;
                opened.expect("opening a device does not panic")
            };
            let Opened { host, replicas } = match opened {
                Err(device::Error::NotFound) => {
                    info!(device = %id, "the device has no shards");
                    continue;
                }
                // What it has is on other nodes as well.
                Err(error) if table.post.outside.is_some() && count_given > 1 => {
                    health.fail(
                        "opening the shards",
                        &std::io::Error::other(error.to_string()),
                    );
                    continue;
                }
                opened => opened?,
            };
            for (core, tail) in replicas {
                let (host, post) = (host.clone(), table.post.clone());
                table.add(Replica::start(env.clone(), host, core, tail, post));
            }
            flushers.push(Flusher::start(host.clone(), config.flush_interval)?);
            hosts.insert(id, host);
        }
        wait_for_rulers(&table).await?;
        let shards = (0..count).map(|id| {
            let table = table.clone();
            Shard::replicated(env.clone(), ShardId(id), table)
        });
        Ok(Self {
            env: env.clone(),
            shards: shards.collect(),
            table,
            hosts,
            flushers,
        })
    }

    /// Shards in memory alone, for tests of what stands on shards: nothing is durable.
    pub fn volatile(env: &Env, count: u16) -> Self {
        let shards = (0..count).map(|id| {
            let core = Core::new(ShardId(id), None).expect("memory has no damage");
            Shard::volatile(env.clone(), Arc::new(core))
        });
        Self::without_replicas(env, shards.collect())
    }

    /// Shards of which none has a replica on this node.
    #[cfg(test)]
    pub(crate) fn elsewhere(env: &Env, count: u16, outside: Arc<dyn Peers>) -> Self {
        let table = Table::new(env, Post::new(Some(outside)));
        let shard = |id| Shard::replicated(env.clone(), ShardId(id), table.clone());
        Self::without_replicas(env, (0..count).map(shard).collect())
    }

    fn without_replicas(env: &Env, shards: Vec<Shard>) -> Self {
        Self {
            env: env.clone(),
            shards,
            table: Table::new(env, Post::new(None)),
            hosts: BTreeMap::new(),
            flushers: Vec::new(),
        }
    }

    /// How many shards the cluster has; fixed when it was made.
    pub fn count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("shards are counted in 16 bits")
    }

    /// The shard, which must be below [`Shards::count`].
    pub fn get(&self, id: ShardId) -> &Shard {
        &self.shards[usize::from(id.0)]
    }

    /// Reports what the shards count.
    pub fn report(&self, to: &mut dyn Report) {
        self.hosts.values().for_each(|host| host.report(to));
    }

    /// The replicas on this node.
    pub fn replicas(&self) -> Vec<(DeviceId, ShardId)> {
        let all = self.table.all();
        let mut all: Vec<_> = all.iter().map(|one| (one.device(), one.shard())).collect();
        all.sort_unstable();
        all
    }

    /// Makes an empty replica on a device of this node, which learns all from the leader once that knows
    /// of it. One that is there already stays.
    ///
    /// # Errors
    /// If the device is not here, or takes no writes.
    pub async fn create(
        &self,
        device: DeviceId,
        shard: ShardId,
    ) -> Result<ReplicaId, device::Error> {
        if let Some(replica) = self.table.get(shard, device) {
            return Ok(replica.id());
        }
        let host = self.hosts.get(&device).ok_or(device::Error::NotFound)?;
        admit_state(host).await?;
        let id = new_replica(&self.env);
        let core = {
            let host = host.clone();
            let added = tokio::task::spawn_blocking(move || host.add(shard, id)).await;
            added.expect("adding a shard does not panic")?
        };
        let tail = crate::replica::Tail::after(id, core.memo().applied);
        let (env, post) = (self.env.clone(), self.table.post.clone());
        self.table
            .add(Replica::start(env, host.clone(), core, tail, post));
        info!(%shard, %device, "replica made");
        Ok(id)
    }

    /// Removes a replica and all that it has. One that is not here is no error.
    ///
    /// The caller must be sure that the shard does without it.
    pub async fn destroy(&self, device: DeviceId, shard: ShardId) -> Result<(), device::Error> {
        if let Some(host) = self.hosts.get(&device) {
            admit_state(host).await?;
        }
        let Some(replica) = self.table.remove(shard, device) else {
            return Ok(());
        };
        replica.stop();
        let host = replica.host().clone();
        drop(replica);
        let removed = tokio::task::spawn_blocking(move || host.remove(shard)).await;
        removed.expect("removing a shard does not panic")?;
        info!(%shard, %device, "replica removed");
        Ok(())
    }

    /// The shards that this node leads, or believes to.
    pub fn led(&self) -> Vec<Led> {
        let all = self.table.all();
        all.iter().filter_map(|replica| replica.led()).collect()
    }

    /// Whether background work on the shard is for this node to do: it leads it, or is alone.
    pub fn is_for_us(&self, shard: ShardId) -> bool {
        self.table.post.outside.is_none() || self.table.leader(shard).is_some()
    }

    /// The term in which this node leads the shard, if it can be proved now.
    pub async fn prove(&self, shard: ShardId) -> Option<u64> {
        self.table.leader(shard)?.proof().await
    }

    /// Begins to make this the membership of a shard that this node leads in this term, by way of both if
    /// voters are others. Whether it has begun: if not, a change is under way already or somebody else
    /// leads.
    pub fn change(
        &self,
        shard: ShardId,
        term: u64,
        voters: &[(DeviceId, ReplicaId)],
        learners: &[(DeviceId, ReplicaId)],
    ) -> bool {
        let leader = self.table.leader(shard);
        leader.is_some_and(|leader| leader.change(term, voters, learners).is_ok())
    }

    /// Begins to let another voter lead a shard that this node leads.
    pub fn transfer(&self, shard: ShardId, to: DeviceId) -> bool {
        let leader = self.table.leader(shard);
        leader.is_some_and(|leader| leader.transfer(to).is_ok())
    }

    /// Lets others lead what this node leads, so that nobody has to find out that it has gone. Gives up after
    /// a second.
    pub async fn step_aside(&self) {
        const TIME_MAX: Duration = Duration::from_secs(1);
        const LOOK: Duration = Duration::from_millis(20);
        let until = self.env.clock.monotonic() + TIME_MAX;
        while self.env.clock.monotonic() < until {
            let here: Vec<_> = self.hosts.keys().copied().collect();
            let mut left = 0;
            for led in self.led() {
                let mut others = led.voters.keys().copied();
                let to = others.find(|one| led.near.contains(one) && !here.contains(one));
                if let Some(to) = to {
                    left += 1;
                    // One that is under way already is refused.
                    self.transfer(led.shard, to);
                }
            }
            if left == 0 {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A message of a replica on another node for one that is here. Gives what that has to say to it at once,
    /// and the device of the replica to which it says it.
    pub fn receive(
        &self,
        device: DeviceId,
        shard: ShardId,
        message: Bytes,
    ) -> Option<(DeviceId, Bytes)> {
        self.table.post.receive(device, shard, message)
    }

    /// A piece of a snapshot from another node; gives the answer for its sender. `None` if there is no
    /// such replica here.
    pub async fn receive_piece(
        &self,
        device: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> Option<Bytes> {
        let replica = self.table.get(shard, device)?;
        Some(replica.receive_piece(piece).await)
    }

    /// Writes into the trees what was committed so far; after this the next start replays nothing.
    pub async fn flush(&self) -> Result<(), device::Error> {
        for host in self.hosts.values() {
            let host = host.clone();
            let flushed = tokio::task::spawn_blocking(move || host.flush()).await;
            flushed.expect("a flush does not panic")?;
        }
        Ok(())
    }

    /// Ends the shards: what is under way is finished or fails, and everything is flushed. Calls
    /// after this fail with [`crate::Error::Unavailable`].
    pub async fn shutdown(mut self) -> Result<(), device::Error> {
        let flushed = self.flush().await;
        self.stop();
        let flushers = std::mem::take(&mut self.flushers);
        let ended = tokio::task::spawn_blocking(move || drop(flushers)).await;
        ended.expect("a flush does not panic");
        self.let_go().await;
        flushed
    }

    fn stop(&self) {
        self.table.all().iter().for_each(|replica| replica.stop());
    }

    /// Waits until the tasks of the replicas have let go of the devices.
    async fn let_go(mut self) {
        /// They have nothing left to do but to end.
        const WAITS_MAX: usize = 1000;
        self.shards.clear();
        self.table.clear();
        for host in std::mem::take(&mut self.hosts).into_values() {
            for _ in 0..WAITS_MAX {
                if Arc::strong_count(&host) == 1 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> u64 {
        let active = self.hosts.values().map(|host| host.budget().active_bytes());
        active.sum()
    }

    /// Calls that were answered from memory.
    #[cfg(test)]
    pub(crate) fn recalled(&self) -> u64 {
        let hosts = self.hosts.values();
        hosts.map(|host| host.metrics().recalled.get()).sum()
    }

    /// Ends the shards as if the process were killed: nothing is flushed.
    #[cfg(test)]
    pub(crate) async fn kill(mut self) {
        self.flushers.iter().for_each(Flusher::abandon);
        self.stop();
        self.flushers.clear();
        self.let_go().await;
    }
}

/// The tasks of replicas hold what they need until they are told to end.
impl Drop for Shards {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until the log has room for who lives in a shard: on a full device a flush makes some.
async fn admit_state(host: &Host) -> Result<(), device::Error> {
    const STATE_BYTES: u64 = 64;
    let admitted = host.admit(STATE_BYTES, Purpose::Reclaim).await;
    admitted.map_err(|_| match host.device().health().check_write() {
        Err(error) => error,
        Ok(()) => device::Error::Full,
    })
}

/// A shard that a node leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    pub shard: ShardId,
    /// Of the replica that leads.
    pub leader: DeviceId,
    pub term: u64,
    pub voters: BTreeMap<DeviceId, ReplicaId>,
    pub learners: BTreeMap<DeviceId, ReplicaId>,
    /// Learners that have all but the latest entries.
    pub ready: BTreeSet<DeviceId>,
    /// Members that were heard of lately, the leader among them.
    pub near: BTreeSet<DeviceId>,
    /// The membership is committed, and no change under way.
    pub is_settled: bool,
}

/// Waits until the only replica of a shard leads it and has done what is in its log.
async fn wait_for_rulers(table: &Table) -> Result<(), device::Error> {
    /// Nothing but our own disk is waited for.
    const WAIT_MAX: Duration = Duration::from_secs(60);
    const LOOK: Duration = Duration::from_millis(1);

    let rules = |replica: &Arc<Replica>| replica.is_ready();
    let waiting = async {
        let mut left = table.all();
        loop {
            left.retain(|replica| !rules(replica));
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(WAIT_MAX, waiting).await;
    waited.map_err(|_| device::Error::damaged("the shards do not come to life"))
}
