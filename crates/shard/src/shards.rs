//! All shards of this node: on which devices they are, making and opening them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::ShardId;
use base::env::Env;
use base::metrics::Report;
use device::Device;
use futures_util::future::try_join_all;
use openraft::{EmptyNode, ServerState, SnapshotPolicy};
use tracing::info;

use crate::commit::Proposer;
use crate::core::Core;
use crate::host::{Flusher, Host, Opened};
use crate::raft::{LogStore, NoNetwork, NodeId, Raft, StateMachine};
use crate::remote::Remote;
use crate::shard::Shard;

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

/// All shards of this node. Dropped, it flushes, so that the next start has nothing to replay; see
/// [`Shards::shutdown`] for a gentler end.
pub struct Shards {
    shards: Vec<Shard>,
    hosts: Vec<Arc<Host>>,
    flushers: Vec<Flusher>,
}

impl Shards {
    /// Makes `count` empty shards and spreads them over new devices. Devices that have shards
    /// already, from an attempt that was cut short, stay as they are.
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

    /// Opens the shards of a cluster of `count`, as far as their devices are given. A shard whose
    /// device is missing, or has no tree, is unavailable; the others serve.
    ///
    /// # Errors
    /// What is wrong with a device that does not open.
    pub async fn open(
        env: &Env,
        devices: Vec<Device>,
        count: u16,
        config: Config,
    ) -> Result<Self, device::Error> {
        let mut started: BTreeMap<ShardId, Shard> = BTreeMap::new();
        let (mut hosts, mut flushers) = (Vec::new(), Vec::new());
        for device in devices {
            let id = device.id();
            let opened = {
                let config = config.clone();
                let open = move || Host::open(device, &config);
                let opened = tokio::task::spawn_blocking(open).await;
                opened.expect("opening a device does not panic")
            };
            let Opened { host, shards } = match opened {
                Err(device::Error::NotFound) => {
                    info!(device = %id, "the device has no shards");
                    continue;
                }
                opened => opened?,
            };
            let node = node_of(&host);
            let starts = shards.into_iter().map(|(core, store)| {
                let host = host.clone();
                async move { start(node, host, core, store).await }
            });
            for proposer in try_join_all(starts).await? {
                let shard = proposer.shard();
                started.insert(shard, Shard::raft(env.clone(), proposer));
            }
            flushers.push(Flusher::start(host.clone(), config.flush_interval)?);
            hosts.push(host);
        }
        let absent = |id| Shard::absent(env.clone(), id);
        let shards = (0..count)
            .map(ShardId)
            .map(|id| started.remove(&id).unwrap_or_else(|| absent(id)));
        Ok(Self {
            shards: shards.collect(),
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
        Self {
            shards: shards.collect(),
            hosts: Vec::new(),
            flushers: Vec::new(),
        }
    }

    /// Shards of which none is on this node: all calls go through `remote`.
    pub fn remote(env: &Env, count: u16, remote: &Arc<dyn Remote>) -> Self {
        let shards = (0..count).map(|id| Shard::remote(env.clone(), ShardId(id), remote.clone()));
        Self {
            shards: shards.collect(),
            hosts: Vec::new(),
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
        self.hosts.iter().for_each(|host| host.report(to));
    }

    /// Writes into the trees what was committed so far; after this the next start replays nothing.
    pub async fn flush(&self) -> Result<(), device::Error> {
        for host in &self.hosts {
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
        for shard in &self.shards {
            shard.stop().await;
        }
        let flushers = std::mem::take(&mut self.flushers);
        let ended = tokio::task::spawn_blocking(move || drop(flushers)).await;
        ended.expect("a flush does not panic");
        self.let_go().await;
        flushed
    }

    /// Waits until the tasks of the Raft groups have let go of the devices.
    async fn let_go(mut self) {
        /// They have nothing left to do but to end.
        const WAITS_MAX: usize = 1000;
        self.shards.clear();
        for host in std::mem::take(&mut self.hosts) {
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
        let active = self.hosts.iter().map(|host| host.budget().active_bytes());
        active.sum()
    }

    /// Ends the shards as if the process were killed: nothing is flushed.
    #[cfg(test)]
    pub(crate) async fn kill(mut self) {
        self.flushers.iter().for_each(Flusher::abandon);
        for shard in &self.shards {
            shard.stop().await;
        }
        self.flushers.clear();
        self.let_go().await;
    }
}

/// Names the voter that a device is.
fn node_of(host: &Host) -> NodeId {
    let [.., a, b, c, d, e, f, g, h] = host.device().id().0.to_be_bytes();
    NodeId::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Starts one shard's Raft group and waits until it leads and everything in its log is applied.
async fn start(
    node: NodeId,
    host: Arc<Host>,
    core: Arc<Core>,
    store: LogStore,
) -> Result<Arc<Proposer>, device::Error> {
    let shard = core.id();
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        device::Error::damaged(format!("{shard}: {what}: {error}"))
    };
    let is_new = store.is_new();
    let machine = StateMachine::new(host.clone(), core.clone());
    let config = Arc::new(raft_config());
    let raft = Raft::new(node, config, NoNetwork, store.clone(), machine).await;
    let raft = raft.map_err(|error| failed("starting", &error))?;
    if is_new {
        let alone = BTreeMap::from([(node, EmptyNode::new())]);
        let made = raft.initialize(alone).await;
        made.map_err(|error| failed("initializing", &error))?;
    } else {
        // The only voter need not wait for an election timeout. A leader ignores this.
        let elected = raft.trigger().elect().await;
        elected.map_err(|error| failed("electing", &error))?;
    }
    lead(&raft, &store)
        .await
        .map_err(|error| failed("waiting for a leader", &error))?;
    let proposer = Proposer::new(host, core);
    proposer.start(raft);
    Ok(proposer)
}

/// Waits until the group leads and has applied what is in its log.
async fn lead(raft: &Raft, store: &LogStore) -> Result<(), String> {
    /// Nothing but our own disk is waited for.
    const WAIT_MAX: Duration = Duration::from_secs(60);

    let mut metrics = raft.metrics();
    let leads = metrics.wait_for(|now| {
        let ready = now.state == ServerState::Leader && now.last_applied == store.last();
        ready || now.running_state.is_err()
    });
    match tokio::time::timeout(WAIT_MAX, leads).await {
        Err(_) => Err("no leader in time".to_owned()),
        Ok(Err(gone)) => Err(gone.to_string()),
        Ok(Ok(now)) => now.running_state.clone().map_err(|e| e.to_string()),
    }
}

fn raft_config() -> openraft::Config {
    openraft::Config {
        cluster_name: "martlet".to_owned(),
        // A single voter has nobody to send heartbeats to and nobody to miss them from.
        enable_tick: false,
        heartbeat_interval: 60_000,
        election_timeout_min: 120_000,
        election_timeout_max: 180_000,
        // The tree is the snapshot; after each flush we say so, and the log is purged.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..openraft::Config::default()
    }
}
