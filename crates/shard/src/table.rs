//! Which replicas are on this node, and where else a shard may be led.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId};
use parking_lot::RwLock;

use crate::call::Calls;
use crate::peers::Post;
use crate::replica::Replica;

/// How often who waits for a leader looks whether it still is one.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Table {
    pub(crate) post: Arc<Post>,
    pub(crate) calls: Calls,
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
    pub(crate) fn new(env: &Env, post: Arc<Post>) -> Arc<Self> {
        Arc::new(Self {
            post,
            calls: Calls::new(env),
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

    /// Whom to ask for what any replica can answer that keeps up.
    pub(crate) fn nearest(&self, shard: ShardId) -> Place {
        if let Some(leader) = self.leader(shard) {
            return Place::Here(leader);
        }
        let here = self
            .replicas
            .read()
            .get(&shard)
            .cloned()
            .unwrap_or_default();
        match here.into_iter().find(|replica| replica.keeps_up()) {
            Some(replica) => Place::Here(replica),
            None => self.place(shard, None, 0),
        }
    }

    /// The last entry of the shard that is done here, by any replica; 0 if there is none.
    pub(crate) fn position(&self, shard: ShardId) -> u64 {
        let replicas = self.replicas.read();
        let here = replicas.get(&shard).map(Vec::as_slice);
        let positions = here.unwrap_or_default().iter().map(|one| one.position());
        positions.max().unwrap_or_default()
    }

    /// Who leads the shard as far as the replicas here know.
    fn leading(&self, shard: ShardId) -> Option<DeviceId> {
        let replicas = self.replicas.read();
        let mut here = replicas.get(&shard)?.iter();
        here.find_map(|replica| replica.leader())
    }

    /// Waits until a replica here knows that another one than `asked` leads now.
    pub(crate) async fn replaced(&self, shard: ShardId, asked: DeviceId) -> DeviceId {
        replaced(|| self.leading(shard), asked).await
    }

    fn at(&self, shard: ShardId, device: DeviceId) -> Place {
        match self.get(shard, device) {
            Some(replica) => Place::Here(replica),
            None if self.post.outside.is_none() => Place::Nowhere,
            None => Place::There(device),
        }
    }
}

/// Waits until another one leads than was known at first, and than `asked`.
async fn replaced(leading: impl Fn() -> Option<DeviceId>, asked: DeviceId) -> DeviceId {
    let before = leading();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = leading();
        if let Some(device) = now.filter(|device| now != before && *device != asked) {
            return device;
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::time::timeout;

    use super::*;

    const ONE: DeviceId = DeviceId(1);
    const TWO: DeviceId = DeviceId(2);

    /// Whom the caller of `asked` learns of, if first the one and then the other is said to lead.
    async fn check(
        asked: DeviceId,
        first: Option<DeviceId>,
        then: Option<DeviceId>,
        expected: Option<DeviceId>,
    ) {
        let leading = Mutex::new(first);
        let replaced = replaced(|| *leading.lock(), asked);
        let election = async {
            tokio::time::sleep(2 * LOOK).await;
            *leading.lock() = then;
        };
        let both = async { tokio::join!(replaced, election).0 };
        assert_eq!(timeout(10 * LOOK, both).await.ok(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_leader_learns_of_the_next() {
        check(ONE, Some(ONE), Some(TWO), Some(TWO)).await;
        check(ONE, None, Some(TWO), Some(TWO)).await;
        // As it was, or nobody.
        check(ONE, Some(ONE), Some(ONE), None).await;
        check(ONE, Some(ONE), None, None).await;
        // Who was asked knew better than the replicas here, which follow.
        check(TWO, Some(ONE), Some(ONE), None).await;
        check(TWO, Some(ONE), Some(TWO), None).await;
    }
}
