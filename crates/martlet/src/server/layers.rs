//! What the server stands on: opened from below to above, closed from above to below.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::Env;
use base::{ChunkId, ShardId};
use chunks::Storage;
use cluster::control;
use device::{Device, Owner, Referenced};
use map::Current;
use namespace::{Background, Namespace, Owns};
use shard::Shards;

use super::devices::Plan;
use super::patience::Patience;
use crate::config::Config;

pub(super) struct Layers {
    pub(super) devices: Vec<Device>,
    pub(super) shards: Arc<Shards>,
    pub(super) namespace: Namespace,
    background: Background,
}

impl Layers {
    pub(super) async fn open(
        env: &Env,
        config: &Config,
        patience: &mut Patience,
    ) -> anyhow::Result<Self> {
        let plan = Plan::of(env, &config.data, config.shards)?;
        let mut devices = Vec::new();
        if plan.is_new {
            plan.make(env)?;
            devices = open_devices(env, config, &plan.to_make, patience).await?;
            Shards::format(&devices, plan.shards, &config.shard())?;
            plan.done(env)?;
        }
        devices.extend(open_devices(env, config, &plan.made, patience).await?);
        let shards = Shards::open(env, devices.clone(), plan.shards, config.shard(), None);
        let shards = Arc::new(shards.await.context("opening the shards")?);
        let mut namespace = open_namespace(env, config, &shards, &devices).await?;
        report_missing(&namespace, &devices);
        if !plan.is_new && !plan.to_make.is_empty() {
            check_none_is_missing(&plan, &namespace, &devices)?;
            plan.make(env)?;
            devices.extend(open_devices(env, config, &plan.to_make, patience).await?);
            plan.done(env)?;
            namespace = open_namespace(env, config, &shards, &devices).await?;
        }
        let background = namespace.start();
        for device in &devices {
            device.start_jobs(referenced(&namespace))?;
        }
        Ok(Self {
            devices,
            shards,
            namespace,
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
            background,
        } = self;
        background.stop().await;
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
    let found = control::Found { devices: ids };
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
