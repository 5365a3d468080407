//! Which replicas are on this node, and where else a shard may be led.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{DeviceId, ShardId};
use parking_lot::RwLock;

use crate::peers::Post;
use crate::replica::Replica;

pub(crate) struct Table {
    pub(crate) post: Arc<Post>,
    replicas: RwLock<BTreeMap<ShardId, Vec<Arc<Replica>>>>,
}

/// Whom to ask.
pub(crate) enum Place {
    Here(Arc<Replica>),
    There(DeviceId),
    /// There is no replica that could be asked.
    Nowhere,
}

impl Table {
    pub(crate) fn new(post: Arc<Post>) -> Arc<Self> {
        Arc::new(Self {
            post,
            replicas: RwLock::default(),
        })
    }

    pub(crate) fn add(&self, replica: Arc<Replica>) {
        self.post.introduce(&replica);
        let mut replicas = self.replicas.write();
        replicas.entry(replica.shard()).or_default().push(replica);
    }

    pub(crate) fn remove(&self, shard: ShardId, device: DeviceId) -> Option<Arc<Replica>> {
        let mut replicas = self.replicas.write();
        let here = replicas.get_mut(&shard)?;
        let place = here.iter().position(|replica| replica.device() == device)?;
        Some(here.swap_remove(place))
    }

    pub(crate) fn get(&self, shard: ShardId, device: DeviceId) -> Option<Arc<Replica>> {
        let replicas = self.replicas.read();
        let mut here = replicas.get(&shard)?.iter();
        here.find(|replica| replica.device() == device).cloned()
    }

    /// The replica here that leads the shard, or believes to.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<Arc<Replica>> {
        let replicas = self.replicas.read();
        let mut here = replicas.get(&shard)?.iter();
        here.find(|replica| replica.is_leader()).cloned()
    }

    /// What a replica here has, whether it leads or not.
    #[cfg(feature = "canary")]
    pub(crate) fn stale_view(&self, shard: ShardId) -> Option<Result<crate::View, crate::Error>> {
        let replicas = self.replicas.read();
        let replica = replicas.get(&shard)?.first()?;
        Some(replica.stale_view())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().values().flatten().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.replicas.write().clear();
    }

    /// Whom to ask for what the leader of a shard does: `hint` is what the last one said who was asked, and
    /// `tries` counts them.
    pub(crate) fn place(&self, shard: ShardId, hint: Option<DeviceId>, tries: usize) -> Place {
        if let Some(leader) = self.leader(shard) {
            return Place::Here(leader);
        }
        let here = self.replicas.read().get(&shard).cloned();
        let here = here.unwrap_or_default();
        let leader = hint.or_else(|| here.iter().find_map(|replica| replica.leader()));
        if let Some(device) = leader {
            return self.at(shard, device);
        }
        let mut devices = match &self.post.outside {
            Some(outside) => outside.replicas(shard),
            None => Vec::new(),
        };
        if devices.is_empty() {
            devices = here.iter().map(|replica| replica.device()).collect();
        }
        match devices.is_empty() {
            true => Place::Nowhere,
            false => self.at(shard, devices[tries % devices.len()]),
        }
    }

    fn at(&self, shard: ShardId, device: DeviceId) -> Place {
        match self.get(shard, device) {
            Some(replica) => Place::Here(replica),
            None if self.post.outside.is_none() => Place::Nowhere,
            None => Place::There(device),
        }
    }
}
