//! What the agent has decided to do, done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{DeviceId, ShardId};
use rpc::Lane;
use shard::ReplicaId;
use tokio::time::Instant;

use super::Cluster;
use crate::agent::{End, Event, Job};
use crate::report::Filled;
use crate::wire::{self, Declined, Prepare, Raise};

/// Makes an empty replica: some rows and a sync.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(5);

/// A write that is under way must end first; it has a disk to wait for.
const RAISE_TIME_MAX: Duration = Duration::from_secs(30);

/// A change of voters waits for a quorum of the old and of the new ones.
const RESHAPE_TIME_MAX: Duration = Duration::from_secs(30);

impl Cluster {
    /// Does a job in a task of its own, and tells the agent how it ended.
    pub(super) fn start(&self, job: Job) {
        let cluster = self.clone();
        tokio::spawn(async move {
            let end = match cluster.work(&job).await {
                Ok(()) => {
                    cluster.inner.metrics.jobs_done.inc();
                    End::Well
                }
                Err(why) => {
                    cluster.inner.metrics.jobs_failed.inc();
                    tracing::debug!(?job, %why, "not done, and tried again");
                    End::Failed
                }
            };
            Box::pin(cluster.agent(Event::Done { job, end })).await;
        });
    }

    async fn work(&self, job: &Job) -> Result<(), Declined> {
        match job {
            Job::Destroy { device, shard } => self.destroy(*device, *shard).await,
            Job::Reshape {
                shard,
                term,
                voters,
                learners,
            } => self.reshape(*shard, *term, voters, learners).await,
            Job::Transfer { shard, to } => {
                let transfer = self.inner.parts.replication.transfer(*shard, *to);
                transfer.await.map_err(unavailable)
            }
            Job::Fill { filled, members } => self.fill(filled, members).await,
        }
    }

    async fn destroy(&self, device: DeviceId, shard: ShardId) -> Result<(), Declined> {
        let _turn = self.inner.replicas.lock().await;
        let is_wanted = {
            let map = self.inner.parts.map.load();
            let replicas = map.shards.get(&shard);
            replicas.is_none_or(|one| one.devices().any(|id| id == device))
        };
        if is_wanted {
            return Err(Declined::Unavailable("the map has changed".to_owned()));
        }
        tracing::info!(%shard, %device, "a replica that is not needed any more is destroyed");
        let destroyed = self.inner.parts.replication.destroy(device, shard);
        destroyed.await.map_err(unavailable)
    }

    async fn reshape(
        &self,
        shard: ShardId,
        term: u64,
        voters: &[(DeviceId, Option<ReplicaId>)],
        learners: &[(DeviceId, Option<ReplicaId>)],
    ) -> Result<(), Declined> {
        let voters = self.prepared(shard, voters).await?;
        let learners = self.prepared(shard, learners).await?;
        let replication = &self.inner.parts.replication;
        let changed = replication.set_membership(shard, term, voters, learners);
        match tokio::time::timeout(RESHAPE_TIME_MAX, changed).await {
            Ok(changed) => changed.map_err(unavailable),
            Err(_) => Err(Declined::Unavailable("no quorum in time".to_owned())),
        }
    }

    async fn prepared(
        &self,
        shard: ShardId,
        replicas: &[(DeviceId, Option<ReplicaId>)],
    ) -> Result<Vec<(DeviceId, ReplicaId)>, Declined> {
        let mut prepared = Vec::new();
        for (device, number) in replicas {
            let number = match number {
                Some(number) => *number,
                None => self.ask_prepare(*device, shard).await?,
            };
            prepared.push((*device, number));
        }
        Ok(prepared)
    }

    async fn ask_prepare(&self, device: DeviceId, shard: ShardId) -> Result<ReplicaId, Declined> {
        let node = self.node_of(device)?;
        let prepare = Prepare { device, shard };
        if node == self.inner.parts.node {
            return self.prepare(prepare).await;
        }
        let deadline = Instant::now() + PREPARE_TIME_MAX;
        let answer = self.ask_node(node, wire::PREPARE, wire::encode(&prepare), deadline);
        wire::decode(&answer.await?)
    }

    /// Makes a replica, if this node's map has one there: who asks may have an old map, or we may. Then the newer
    /// one is on its way, and it is asked again.
    pub(super) async fn prepare(&self, prepare: Prepare) -> Result<ReplicaId, Declined> {
        let Prepare { device, shard } = prepare;
        let _turn = self.inner.replicas.lock().await;
        let is_wanted = {
            let map = self.inner.parts.map.load();
            let is_here = |one: &map::Device| one.node == self.inner.parts.node;
            let replicas = map.shards.get(&shard);
            map.devices.get(&device).is_some_and(is_here)
                && replicas.is_some_and(|one| one.devices().any(|id| id == device))
        };
        if !is_wanted {
            let why = format!("the map of this node has no replica of {shard} on {device}");
            return Err(Declined::Unavailable(why));
        }
        let created = self.inner.parts.replication.create(device, shard);
        created.await.map_err(unavailable)
    }

    /// Keeps older writers out everywhere, then copies.
    async fn fill(&self, filled: &Filled, members: &[DeviceId]) -> Result<(), Declined> {
        let nodes = members.iter().map(|device| self.node_of(*device));
        let nodes = nodes.collect::<Result<BTreeSet<_>, _>>()?;
        let raise = Raise {
            group: filled.group,
            epoch: filled.since,
        };
        for node in nodes {
            if node == self.inner.parts.node {
                self.raise(raise).await;
                continue;
            }
            let deadline = Instant::now() + RAISE_TIME_MAX;
            self.ask_node(node, wire::FENCE, wire::encode(&raise), deadline)
                .await?;
        }
        let (fill, fenced) = (&self.inner.parts.fill, members.to_vec());
        let about = (filled.group, filled.device);
        let cluster = self.clone();
        let progress = move |done, total| {
            cluster.inner.fills.lock().insert(about, (done, total));
        };
        let ended = fill
            .fill(filled.group, filled.device, fenced, Arc::new(progress))
            .await;
        self.inner.fills.lock().remove(&about);
        ended.map_err(Declined::Unavailable)
    }

    pub(super) async fn raise(&self, raise: Raise) {
        self.inner.parts.fence.raise(raise.group, raise.epoch).await;
    }

    fn node_of(&self, device: DeviceId) -> Result<base::NodeId, Declined> {
        let map = self.inner.parts.map.load();
        let node = map.devices.get(&device).map(|device| device.node);
        node.ok_or_else(|| Declined::Unavailable(format!("{device} is not in the map")))
    }

    pub(super) async fn ask_node(
        &self,
        node: base::NodeId,
        service: u16,
        body: bytes::Bytes,
        deadline: Instant,
    ) -> Result<bytes::Bytes, Declined> {
        let peers = &self.inner.parts.peers;
        let called = peers.call(node, Lane::Small, service, vec![body], deadline);
        called.await.map_err(|error| match error {
            rpc::CallError::Refused(why) => wire::decode(&why).unwrap_or_else(|bad| bad),
            rpc::CallError::NotSent(fault) | rpc::CallError::Unknown(fault) => {
                Declined::Unavailable(format!("{node}: {fault}"))
            }
        })
    }
}

pub(super) fn unavailable(error: shard::Error) -> Declined {
    Declined::Unavailable(error.to_string())
}
