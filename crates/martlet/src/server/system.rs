//! What the control API shows of the server.

use std::sync::Arc;
use std::time::Duration;

use admin::Prometheus;
use admin::api::{self, Garbage, Status, Stored};
use base::env::Env;
use cluster::{Cluster, Service};
use device::Device;
use gateway::{InFlight, Server};
use namespace::{Backlog, Namespace, Totals};
use rpc::Listener;
use shard::Shards;
use swift::Swift;

use super::layers::Layers;
use super::numbers;

pub(super) struct System {
    env: Env,
    started: Duration,
    devices: Vec<Device>,
    shards: Arc<Shards>,
    namespace: Namespace,
    cluster: Option<Cluster>,
    node_port: Option<Arc<Listener<Service>>>,
    swift: Server<Swift>,
}

impl System {
    pub(super) fn new(env: &Env, layers: &Layers, swift: Server<Swift>) -> Self {
        Self {
            env: env.clone(),
            started: env.clock.monotonic(),
            devices: layers.devices.clone(),
            shards: Arc::clone(&layers.shards),
            namespace: layers.namespace.clone(),
            cluster: layers.node.as_ref().map(|node| node.cluster.clone()),
            node_port: layers.node.as_ref().map(|node| node.port.clone()),
            swift,
        }
    }
}

impl System {
    /// As the controller sees it; nothing while there is none.
    async fn cluster_status(&self) -> Option<cluster::Status> {
        match self.cluster.as_ref()?.status().await {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::warn!(%error, "cannot tell how the cluster is");
                None
            }
        }
    }
}

/// Who asks how things are is not kept waiting by what does not answer.
const COUNTING_TIME_MAX: Duration = Duration::from_secs(2);

impl System {
    /// What is stored and what is garbage, if all shards answer soon.
    async fn counted(&self) -> Option<(Totals, Backlog)> {
        let counted = async {
            let totals = self.namespace.totals().await?;
            Ok::<_, namespace::Error>((totals, self.namespace.backlog().await?))
        };
        match tokio::time::timeout(COUNTING_TIME_MAX, counted).await {
            Ok(Ok(counted)) => Some(counted),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot count what is stored");
                None
            }
            Err(_) => {
                tracing::warn!("cannot count what is stored: a shard does not answer");
                None
            }
        }
    }
}

impl admin::System for System {
    async fn status(&self) -> Result<Status, namespace::Error> {
        let counted = self.counted().await;
        let discards = self.namespace.chunks().metrics().discards_queued.get();
        let uptime = self.env.clock.monotonic().saturating_sub(self.started);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: uptime.as_secs(),
            stored: counted.as_ref().map(|(totals, _)| Stored {
                accounts: totals.accounts,
                containers: totals.containers,
                objects: totals.objects,
                bytes: totals.bytes,
            }),
            devices: self.devices.iter().map(device_status).collect(),
            shards: u64::from(self.shards.count()),
            garbage: counted.map(|(_, backlog)| Garbage {
                queued: backlog.garbage_bodies,
                queued_bytes: backlog.garbage_bytes,
                discards: u64::try_from(discards).unwrap_or_default(),
            }),
            requests_in_flight: self.swift.requests().len() as u64,
            lost: lost(self.namespace.chunks()),
            cluster: self.cluster_status().await,
        })
    }

    fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    fn cluster_id(&self) -> u128 {
        let first = self.devices.first();
        first.expect("a server has a device").identity().cluster
    }

    fn requests(&self) -> Vec<InFlight> {
        self.swift.requests()
    }

    async fn report(&self, to: &mut Prometheus) {
        self.swift.report(to);
        numbers::chunks(to, self.namespace.chunks());
        numbers::filled(to, self.namespace.chunks().metrics());
        let backlog = tokio::time::timeout(COUNTING_TIME_MAX, self.namespace.backlog()).await;
        let backlog = match backlog {
            Ok(Ok(backlog)) => Some(backlog),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("cannot count garbage: a shard does not answer");
                None
            }
        };
        numbers::namespace(to, self.namespace.metrics(), backlog);
        self.shards.report(to);
        if let Some(cluster) = &self.cluster {
            cluster.count(to);
        }
        if let Some(port) = &self.node_port {
            port.report(to);
        }
        for device in &self.devices {
            device.report(to);
        }
        numbers::process(to);
    }
}

fn lost(chunks: &chunks::Chunks) -> Vec<api::LostChunk> {
    let entry = |lost: chunks::Lost| api::LostChunk {
        object: lost.object(),
        chunk: lost.chunk.to_string(),
        device: lost.device.to_string(),
    };
    let mut lost: Vec<_> = chunks.lost().into_iter().map(entry).collect();
    lost.sort();
    lost
}

fn device_status(device: &Device) -> api::Device {
    let usage = device.store().usage();
    let metrics = device.metrics();
    let space = device.space();
    let bytes = |of: fn(&base::env::Space) -> u64| space.as_ref().map_or(0, of);
    api::Device {
        id: device.id().to_string(),
        directory: device.dir().display().to_string(),
        state: device.health().state().to_string(),
        reason: device.health().reason().to_string(),
        total_bytes: bytes(|space| space.total_bytes),
        free_bytes: bytes(|space| space.free_bytes),
        reserve_bytes: device.reserve_bytes(),
        chunks: usage.chunks,
        live_bytes: usage.live_bytes,
        dead_bytes: usage.dead_bytes,
        bad_records: u64::try_from(metrics.bad_records.get()).unwrap_or_default(),
        scrubbed_bytes: metrics.bytes_scrubbed.get(),
    }
}
