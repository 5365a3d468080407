//! What the server stands on: opened from below to above, closed from above to below.

use std::sync::Arc;

use anyhow::Context as _;
use base::env::Env;
use chunks::Storage;
use device::Device;
use namespace::{Background, Namespace};
use shard::Shards;

use super::devices;
use crate::config::Config;

pub(super) struct Layers {
    pub(super) devices: Vec<Device>,
    pub(super) shards: Arc<Shards>,
    pub(super) namespace: Namespace,
    background: Background,
}

impl Layers {
    pub(super) async fn open(env: &Env, config: &Config) -> anyhow::Result<Self> {
        devices::prepare(env, &config.data, config.shards)?;
        let open = |dir| Device::open(env.clone(), dir, config.device());
        let devices = config
            .data
            .iter()
            .map(|dir| open(dir).with_context(|| format!("opening {}", dir.display())));
        let devices = devices.collect::<anyhow::Result<Vec<_>>>()?;
        tracing::warn!("metadata is kept in memory for now: stopping the server loses it");
        let shards = Arc::new(Shards::volatile(env, config.shards));
        let storage = devices
            .iter()
            .map(|device| Arc::new(device.clone()) as Arc<dyn Storage>);
        let storage = storage.collect();
        let namespace = Namespace::open(
            env.clone(),
            Arc::clone(&shards),
            storage,
            config.namespace(),
        );
        let namespace = namespace.await.context("opening the namespace")?;
        let background = namespace.start();
        Ok(Self {
            devices,
            shards,
            namespace,
            background,
        })
    }

    /// Writes back what is in memory, so that the next start has nothing to recover.
    pub(super) async fn close(self) {
        self.background.stop().await;
        for device in &self.devices {
            if let Err(error) = device.close().await {
                let directory = device.dir().display();
                tracing::warn!(%directory, %error, "not closed cleanly: the next start reads more");
            }
        }
    }
}
