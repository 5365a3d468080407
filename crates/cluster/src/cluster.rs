//! What drives the pure parts: two loops, and what other nodes call.
//!
//! Four times a second the *ruler* looks whether this node leads the control shard, proves it, and makes the
//! change that the controller wants; and the *follower* lets the agent decide. Twice a second the follower reports to all
//! who may lead the control shard, and more often while somebody waits for a newer map. Jobs run in tasks of their own.
//!
//! Cost per node: six small messages a second, and a round to a quorum for each shard whose membership is to be told.

mod ask;
mod follow;
mod jobs;
mod rule;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::metrics::Report;
use base::{DeviceId, GroupId, NodeId};
use chunks::{Chunks, Fence};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Current;
use parking_lot::Mutex;
use rpc::{JoinToken, Peers};
use shard::{Execution, Procedure, Shard};
use tokio::sync::Notify;

use crate::agent::{self, Agent};
use crate::control::{
    self, AddToken, Drain, Losses, Part, PutPolicy, Refusal, Remove, SetZone, TokenState,
};
use crate::directory::Directory;
use crate::health::{self, Now};
use crate::heard::Heard;
use crate::home::Home;
use crate::metrics::{self, Metrics};
use crate::replication::Replication;
use crate::report::DeviceReport;
use crate::status::Status;
use crate::wire::Declined;
use rule::Rule;
pub use service::{Handler, Service};

/// Settings of membership.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub health: health::Config,
    pub agent: agent::Config,
}

/// How long a join token is good if nobody says otherwise.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Copies groups to new members of this node, and removes what those that left them have kept.
pub trait Fill: Send + Sync + 'static {
    /// Makes a filling member hold what the full ones hold. The nodes of `fenced` keep older writers out. `progress` is
    /// told how many chunks have been looked at, and of how many.
    ///
    /// # Errors
    /// Why it could not; what was copied stays.
    fn fill(
        &self,
        group: GroupId,
        device: DeviceId,
        fenced: Vec<DeviceId>,
        progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
    ) -> BoxFuture<'_, Result<(), String>>;

    /// What was copied since the process began.
    fn copied_bytes(&self) -> u64;

    /// Removes copies that devices of this node have kept of groups that they left, if all present members have
    /// theirs; gives how many. The map was confirmed a moment ago.
    fn remove_left_behind(&self) -> BoxFuture<'_, u64>;
}

impl Fill for Chunks {
    fn fill(
        &self,
        group: GroupId,
        device: DeviceId,
        fenced: Vec<DeviceId>,
        progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
    ) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let progress = |filled: &chunks::Filled| {
                progress(filled.present + filled.copied + filled.lost, filled.listed);
            };
            match Chunks::fill(self, group, device, &fenced, progress).await {
                Ok(filled) => {
                    let chunks::Filled {
                        present,
                        copied,
                        lost,
                        ..
                    } = filled;
                    tracing::info!(%group, %device, present, copied, lost, "a member was filled");
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }

    fn copied_bytes(&self) -> u64 {
        self.metrics().filled_bytes.get()
    }

    fn remove_left_behind(&self) -> BoxFuture<'_, u64> {
        Chunks::remove_left_behind(self).boxed()
    }
}

/// Says how the devices of this node are.
pub type Devices = dyn Fn() -> Vec<DeviceReport> + Send + Sync;

/// All that membership stands on.
pub struct Parts {
    pub env: Env,
    pub node: NodeId,
    /// The cluster's id, and how many shards it has.
    pub cluster: u128,
    pub shards: u16,
    pub home: Home,
    pub map: Current,
    pub directory: Directory,
    pub fence: Arc<Fence>,
    /// The control shard, wherever it is led.
    pub control: Shard,
    pub replication: Arc<dyn Replication>,
    pub peers: Peers,
    pub fill: Arc<dyn Fill>,
    pub devices: Arc<Devices>,
    /// Where this node's port is, the best first.
    pub addresses: Vec<String>,
    /// Told by who cannot go on with the map that this node has.
    pub map_wanted: Arc<Notify>,
    pub config: Config,
}

/// This node as one of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    agent: Mutex<Agent>,
    rule: Mutex<Option<Rule>>,
    heard: Mutex<Heard>,
    /// The fills under way here, with how far they are.
    fills: Mutex<BTreeMap<(GroupId, DeviceId), (u64, u64)>>,
    /// Who led the control group when it was last asked.
    leader: Mutex<Option<NodeId>>,
    /// When a report was last answered, by the monotonic clock.
    answered: Mutex<Duration>,
    /// Making and destroying replicas exclude each other, so that each sees what the map says meanwhile.
    replicas: tokio::sync::Mutex<()>,
    /// Maps are written one after the other.
    file: tokio::sync::Mutex<()>,
    metrics: Metrics,
}

impl Cluster {
    /// Nothing runs before [`Cluster::run`].
    pub fn new(parts: Parts) -> Self {
        let now = parts.env.clock.monotonic();
        let agent = Agent::new(parts.node, parts.config.agent, parts.map.get());
        Self {
            inner: Arc::new(Inner {
                parts,
                agent: Mutex::new(agent),
                rule: Mutex::default(),
                heard: Mutex::default(),
                fills: Mutex::default(),
                leader: Mutex::default(),
                answered: Mutex::new(now),
                replicas: tokio::sync::Mutex::default(),
                file: tokio::sync::Mutex::default(),
                metrics: Metrics::default(),
            }),
        }
    }

    /// Takes part in the cluster until `stop` is ready.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        self.inner
            .parts
            .directory
            .learn(&self.inner.parts.map.get())
            .await;
        let loops = async {
            tokio::join!(
                self.rule(),
                self.follow(),
                self.report(),
                self.look_up(),
                self.clear()
            );
        };
        tokio::select! {
            () = loops => {}
            () = stop => {}
        }
        // What is not up to date any more takes no chunks from others.
        self.inner.parts.fence.close();
    }

    /// Names of nodes may come to mean other addresses.
    async fn look_up(&self) {
        const PAUSE: Duration = Duration::from_secs(30);
        loop {
            tokio::time::sleep(PAUSE).await;
            let map = self.inner.parts.map.get();
            self.inner.parts.directory.learn(&map).await;
        }
    }

    /// What others have taken over is removed, by a map that is fresh.
    async fn clear(&self) {
        const PAUSE: Duration = Duration::from_secs(10);
        loop {
            tokio::time::sleep(PAUSE).await;
            if !self.inner.parts.fence.is_open() {
                continue;
            }
            let removed = self.inner.parts.fill.remove_left_behind().await;
            if removed > 0 {
                tracing::info!(removed, "copies that others have taken over were removed");
            }
        }
    }

    fn now(&self) -> Now {
        let clock = &self.inner.parts.env.clock;
        Now {
            monotonic: clock.monotonic(),
            wall: clock.now(),
        }
    }

    /// How long the control leader has not confirmed this node's map.
    fn unconfirmed(&self) -> Duration {
        let answered = *self.inner.answered.lock();
        self.now().monotonic.saturating_sub(answered)
    }

    /// Reports how the cluster is by this node's map, and how the node gets on with the others. Each node by itself
    /// is reported by the control leader alone.
    pub fn count(&self, to: &mut dyn Report) {
        let Inner { parts, metrics, .. } = &*self.inner;
        let map = parts.map.load();
        metrics::of_map(&map, to);
        let leads = self.inner.rule.lock().is_some();
        if leads {
            metrics::each_node(&map, to);
        }
        let help = "1 on the node that leads the control group";
        to.gauge("martlet_cluster_leads", help, &[], i64::from(leads));
        metrics.report(self.unconfirmed(), to);
        parts.peers.report(to);
    }

    /// How the cluster is, by who knows it.
    pub async fn status(&self) -> Result<Status, Declined> {
        self.ask_status().await
    }

    /// Makes a token that lets one node in, once, within this time.
    pub async fn create_token(&self, life: Duration) -> Result<JoinToken, Declined> {
        self.ask_token(life).await
    }

    /// All tokens that are not forgotten yet.
    pub async fn tokens(&self) -> Result<Vec<TokenState>, Declined> {
        let tokens = self.inner.parts.control.query(control::ListTokens {}).await;
        tokens.map_err(declined)
    }

    pub async fn remove_token(&self, id: u64) -> Result<(), Declined> {
        self.execute(control::RemoveToken { id }).await
    }

    /// Lets a node or a device give away all that it holds, or be used again.
    pub async fn drain(&self, part: Part, is_draining: bool) -> Result<(), Declined> {
        self.execute(Drain { part, is_draining }).await
    }

    pub async fn set_zone(&self, node: NodeId, zone: String) -> Result<(), Declined> {
        self.execute(SetZone { node, zone }).await
    }

    /// Adds a policy, or makes one the default. This node knows it then; others do half a second later.
    pub async fn put_policy(&self, put: PutPolicy) -> Result<(), Declined> {
        /// A map takes less if its node reaches the control leader; without it nothing goes on anyway.
        const LOOKS_MAX: usize = 100;
        const LOOK: Duration = Duration::from_millis(20);
        let epoch = self.execute(put).await?;
        let parts = &self.inner.parts;
        for _ in 0..LOOKS_MAX {
            if parts.map.load().epoch >= epoch {
                break;
            }
            parts.map_wanted.notify_one();
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Removes a node or a device for ever.
    pub async fn remove(&self, part: Part, losses: Losses) -> Result<(), Declined> {
        self.execute(Remove { part, losses }).await
    }

    async fn execute<P>(&self, procedure: P) -> Result<P::Output, Declined>
    where
        P: Procedure<Error = Refusal>,
    {
        let done = self.inner.parts.control.execute(procedure).await;
        done.map_err(declined)
    }

    async fn add_token(&self, token: &JoinToken) -> Result<(), Declined> {
        let record = token.record();
        self.execute(AddToken { record }).await
    }
}

fn declined(error: Execution<Refusal>) -> Declined {
    match error {
        Execution::Refused(refusal) => Declined::Refused(refusal),
        Execution::Shard(error) => Declined::Unavailable(error.to_string()),
    }
}
