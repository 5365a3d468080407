//! What the server stands on: opened from below to above, closed from above to below.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::{Env, Open};
use base::{ChunkId, DeviceId, ShardId};
use chunks::Storage;
use cluster::{Home, control};
use device::{Device, Owner, Referenced};
use map::{Current, Map};
use namespace::{Background, Namespace, Owns};
use shard::Shards;
use tokio::net::TcpListener;

use super::devices::{Newcomers, Plan, Spare};
use super::node::{Ground, Node, Outside, join_if_told};
use super::patience::Patience;
use crate::config::Config;
use crate::restore;

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
        let spare = match node_port {
            Some(_) => Spare::Some,
            None => Spare::None,
        };
        refuse_half_restored(env, &config.data)?;
        let plan = Plan::of(env, &config.data, config.shards, spare)?;
        let mut devices = Vec::new();
        if plan.is_new {
            plan.make(env)?;
            devices = open_devices(env, config, &plan.to_make, patience, Spare::None).await?;
            Shards::format(&devices, plan.shards, &config.shard())?;
            plan.done(env)?;
        }
        devices.extend(open_devices(env, config, &plan.made, patience, spare).await?);
        let mut new = Newcomers::default();
        if node_port.is_some() && !plan.is_new && may_add(env, config, &plan)? {
            plan.make(env)?;
            for device in open_devices(env, config, &plan.to_make, patience, spare).await? {
                Shards::prepare(&device, &config.shard())?;
                new.add(&device);
                devices.push(device);
            }
        }
        let outside = Outside::default();
        let peers = node_port
            .as_ref()
            .map(|_| Arc::new(outside.clone()) as Arc<dyn shard::Peers>);
        let shards = Shards::open(env, devices.clone(), plan.shards, config.shard(), peers);
        let shards = Arc::new(shards.await.context("opening the shards")?);
        let (node, namespace) = match node_port {
            Some(port) => {
                let ground = Ground {
                    env,
                    config,
                    shards: &shards,
                    devices: &devices,
                    new,
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

/// Metadata that is there in part would look like data that was deleted.
fn refuse_half_restored(env: &Env, dirs: &[PathBuf]) -> anyhow::Result<()> {
    let is_marked = |dir: &&PathBuf| env.disk.open(&dir.join(restore::MARK), Open::Read).is_ok();
    match dirs.iter().find(is_marked) {
        Some(dir) => bail!(
            "a restore into {} was cut short: do it again",
            dir.display()
        ),
        None => Ok(()),
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
    let known = Home::new(env.clone(), &config.data).map()?;
    if known.is_some_and(|map| map.nodes.len() > 1) {
        bail!("this server is a node of a cluster: it needs node_listen");
    }
    let namespace = open_namespace(env, config, shards, devices, &[]).await?;
    let map = namespace.chunks().map().get();
    report_missing(map.devices.keys().copied(), devices);
    if plan.is_new || plan.to_make.is_empty() {
        return Ok(namespace);
    }
    check_none_is_missing(plan, &map, devices)?;
    plan.make(env)?;
    let new = open_devices(env, config, &plan.to_make, patience, Spare::None).await?;
    for device in &new {
        // It has none now, and may get some when others join.
        Shards::prepare(device, &config.shard())?;
    }
    devices.extend(new.iter().cloned());
    let namespace = open_namespace(env, config, shards, devices, &new).await?;
    plan.done(env)?;
    Ok(namespace)
}

/// Whether a node is given directories that it did not have, and may use them. It serves in any case.
fn may_add(env: &Env, config: &Config, plan: &Plan) -> anyhow::Result<bool> {
    let mut given = BTreeSet::new();
    for dir in plan.made.iter().chain(&plan.to_make) {
        given.extend(Device::inspect(env, dir)?.map(|identity| identity.device));
    }
    let home = Home::new(env.clone(), &config.data);
    let Some(credentials) = home.credentials()? else {
        // It has been alone.
        return Ok(!plan.to_make.is_empty());
    };
    let map = home.map()?.unwrap_or_default();
    let own = map
        .devices
        .iter()
        .filter(|(_, one)| one.node == credentials.node());
    let missing = own.map(|(id, _)| *id).find(|id| !given.contains(id));
    match (missing, plan.to_make.first()) {
        (Some(device), Some(dir)) => {
            tracing::error!(
                %device,
                directory = %dir.display(),
                "a device is missing, and a directory is empty: is a disk not mounted? No new device is made while one \
                 is missing; one that is lost is to be removed by `martlet device remove`"
            );
            Ok(false)
        }
        (Some(device), None) => {
            tracing::error!(%device, "a device is missing: what is on it cannot be reached");
            Ok(false)
        }
        (None, to_make) => Ok(to_make.is_some()),
    }
}

/// Opens devices. Where some can be spared, those that open are enough, if there is one.
async fn open_devices(
    env: &Env,
    config: &Config,
    dirs: &[PathBuf],
    patience: &mut Patience,
    spare: Spare,
) -> anyhow::Result<Vec<Device>> {
    let (mut devices, mut failed) = (Vec::new(), None);
    for dir in dirs {
        let open = || {
            let device = Device::open(env.clone(), dir, config.device());
            device.with_context(|| format!("opening {}", dir.display()))
        };
        match patience.get(open).await {
            Ok(device) => devices.push(device),
            Err(error) if spare == Spare::Some && !is_locked(&error) => {
                let reason = format!("{error:#}");
                tracing::error!(
                    reason,
                    "a device is out of service: the node goes on without it"
                );
                failed = failed.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    match failed.filter(|_| devices.is_empty()) {
        Some(error) => Err(error),
        None => Ok(devices),
    }
}

/// Another process serves from it, perhaps as this very node.
fn is_locked(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<device::Error>();
    matches!(cause, Some(device::Error::Locked))
}

async fn open_namespace(
    env: &Env,
    config: &Config,
    shards: &Arc<Shards>,
    devices: &[Device],
    new: &[Device],
) -> anyhow::Result<Namespace> {
    let ids = |devices: &[Device]| devices.iter().map(Device::id).collect();
    let found = control::Found {
        devices: ids(devices),
        new: ids(new),
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

/// Of these devices, those that nobody gave us.
fn missing(known: impl Iterator<Item = DeviceId>, devices: &[Device]) -> Vec<DeviceId> {
    let given = |id: &DeviceId| devices.iter().any(|device| device.id() == *id);
    known.filter(|id| !given(id)).collect()
}

fn report_missing(known: impl Iterator<Item = DeviceId>, devices: &[Device]) {
    for device in missing(known, devices) {
        tracing::error!(%device, "a device is missing: what is on it cannot be reached");
    }
}

/// Before directories are added to a server that was there before: an empty one may be the mount
/// point of a disk that is not mounted, and what would be written there would be hidden as soon as it
/// is.
fn check_none_is_missing(plan: &Plan, map: &Map, devices: &[Device]) -> anyhow::Result<()> {
    if let Some(device) = missing(map.devices.keys().copied(), devices).first() {
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
                Owns::Yes | Owns::Doomed => Referenced::Yes,
                Owns::No => Referenced::No,
                Owns::Unknown => Referenced::Unknown,
            }
        })
    }
}
