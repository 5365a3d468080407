//! What the server stands on: opened from below to above, closed from above to below.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::Env;
use base::{ChunkId, ShardId};
use chunks::Storage;
use cluster::{Home, control};
use device::{Device, Owner, Referenced};
use map::Current;
use namespace::{Background, Namespace, Owns};
use shard::Shards;
use tokio::net::TcpListener;

use super::devices::Plan;
use super::node::{Ground, Node, Outside, join_if_told};
use super::patience::Patience;
use crate::config::Config;

pub(super) struct Layers {
    pub(super) devices: Vec<Device>,
    pub(super) shards: Arc<Shards>,
    pub(super) namespace: Namespace,
    /// Nothing while there is no node port.
    pub(super) node: Option<Node>,
    background: Background,
}

impl Layers {
    /// `node_port` is there if this server is to be a node among others.
    pub(super) async fn open(
        env: &Env,
        config: &Config,
        node_port: Option<TcpListener>,
        patience: &mut Patience,
    ) -> anyhow::Result<Self> {
        join_if_told(env, config).await?;
        let plan = Plan::of(env, &config.data, config.shards)?;
        let mut devices = Vec::new();
        if plan.is_new {
            plan.make(env)?;
            devices = open_devices(env, config, &plan.to_make, patience).await?;
            Shards::format(&devices, plan.shards, &config.shard())?;
            plan.done(env)?;
        }
        devices.extend(open_devices(env, config, &plan.made, patience).await?);
        let outside = Outside::default();
        let peers = node_port
            .as_ref()
            .map(|_| Arc::new(outside.clone()) as Arc<dyn shard::Peers>);
        let shards = Shards::open(env, devices.clone(), plan.shards, config.shard(), peers);
        let shards = Arc::new(shards.await.context("opening the shards")?);
        let (node, namespace) = match node_port {
            Some(port) => {
                if !plan.is_new && !plan.to_make.is_empty() {
                    bail!("a node of a cluster cannot be given another directory yet");
                }
                let ground = Ground {
                    env,
                    config,
                    shards: &shards,
                    devices: &devices,
                    outside: &outside,
                    cluster: plan.cluster,
                    port,
                };
                let (node, namespace) = Node::open(ground).await?;
                (Some(node), namespace)
            }
            None => {
                let alone = open_alone(env, config, &shards, &mut devices, &plan, patience);
                (None, alone.await?)
            }
        };
        let background = namespace.start();
        for device in &devices {
            device.start_jobs(referenced(&namespace))?;
        }
        Ok(Self {
            devices,
            shards,
            namespace,
            node,
            background,
        })
    }

    /// Writes back what is in memory, so that the next start has nothing to recover. Whatever goes
    /// wrong here is recovered then.
    pub(super) async fn close(self) {
        let Self {
            devices,
            shards,
            namespace,
            node,
            background,
        } = self;
        background.stop().await;
        if let Some(node) = node {
            shards.step_aside().await;
            node.close().await;
        }
        // Scrubbers ask the namespace, so they end before it.
        for device in devices {
            if let Err(error) = device.close().await {
                let directory = device.dir().display();
                tracing::warn!(%directory, %error, "not closed cleanly: the next start reads more");
            }
        }
        drop(namespace);
        let closed = match Arc::try_unwrap(shards) {
            Ok(shards) => shards.shutdown().await,
            // Requests that were cut off have not let go yet.
            Err(shards) => shards.flush().await,
        };
        if let Err(error) = closed {
            tracing::warn!(%error, "shards not closed cleanly: the next start reads more");
        }
    }
}

/// Opens the namespace of a server that has no others beside it, and adds directories that it did not have
/// before.
async fn open_alone(
    env: &Env,
    config: &Config,
    shards: &Arc<Shards>,
    devices: &mut Vec<Device>,
    plan: &Plan,
    patience: &mut Patience,
) -> anyhow::Result<Namespace> {
    let known = Home::new(env.clone(), &config.data[0]).map()?;
    if known.is_some_and(|map| map.nodes.len() > 1) {
        bail!("this server is a node of a cluster: it needs node_listen");
    }
    let namespace = open_namespace(env, config, shards, devices).await?;
    report_missing(&namespace, devices);
    if plan.is_new || plan.to_make.is_empty() {
        return Ok(namespace);
    }
    check_none_is_missing(plan, &namespace, devices)?;
    plan.make(env)?;
    devices.extend(open_devices(env, config, &plan.to_make, patience).await?);
    plan.done(env)?;
    open_namespace(env, config, shards, devices).await
}

async fn open_devices(
    env: &Env,
    config: &Config,
    dirs: &[PathBuf],
    patience: &mut Patience,
) -> anyhow::Result<Vec<Device>> {
    let mut devices = Vec::new();
    for dir in dirs {
        let open = || {
            let device = Device::open(env.clone(), dir, config.device());
            device.with_context(|| format!("opening {}", dir.display()))
        };
        devices.push(patience.get(open).await?);
    }
    Ok(devices)
}

async fn open_namespace(
    env: &Env,
    config: &Config,
    shards: &Arc<Shards>,
    devices: &[Device],
) -> anyhow::Result<Namespace> {
    let ids = devices.iter().map(Device::id).collect();
    let found = control::Found {
        devices: ids,
        addresses: Vec::new(),
    };
    let map = shards.get(ShardId::CONTROL).execute(found).await;
    let map = map.context("reading the map")?;
    let storage = devices
        .iter()
        .map(|device| Arc::new(device.clone()) as Arc<dyn Storage>);
    Ok(Namespace::open(
        env.clone(),
        Arc::clone(shards),
        Current::new(map),
        chunks::here(storage),
        config.namespace(),
    ))
}

/// Devices that the map knows and nobody gave us.
fn missing(namespace: &Namespace, devices: &[Device]) -> Vec<base::DeviceId> {
    let given = |id: &base::DeviceId| devices.iter().any(|device| device.id() == *id);
    let map = namespace.chunks().map().get();
    let known = map.devices.keys().copied();
    known.filter(|id| !given(id)).collect()
}

fn report_missing(namespace: &Namespace, devices: &[Device]) {
    for device in missing(namespace, devices) {
        tracing::error!(%device, "a device is missing: what is on it cannot be reached");
    }
}

/// Before directories are added to a server that was there before: an empty one may be the mount
/// point of a disk that is not mounted, and what would be written there would be hidden as soon as it
/// is.
fn check_none_is_missing(
    plan: &Plan,
    namespace: &Namespace,
    devices: &[Device],
) -> anyhow::Result<()> {
    if let Some(device) = missing(namespace, devices).first() {
        let dir = plan.to_make.first().map(|dir| dir.display().to_string());
        bail!(
            "{} is empty and device {device} is missing: is a disk not mounted? No new device is made \
             while one is missing",
            dir.unwrap_or_default()
        );
    }
    Ok(())
}

/// Tells a device's scrubber whether a chunk is still needed.
fn referenced(
    namespace: &Namespace,
) -> impl Fn(ChunkId, Owner) -> std::pin::Pin<Box<dyn Future<Output = Referenced> + Send>> + Send + 'static
{
    let namespace = namespace.clone();
    move |chunk, owner| {
        let namespace = namespace.clone();
        Box::pin(async move {
            match namespace.owns(&owner, chunk).await {
                Owns::Yes => Referenced::Yes,
                Owns::No => Referenced::No,
                Owns::Unknown => Referenced::Unknown,
            }
        })
    }
}
