//! The Raft groups of a simulated node, as membership wants them; as `martlet` does it in production.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Current;
use parking_lot::Mutex;
use raft::LogId;
use shard::{Error, Led, ReplicaId};
use tokio::time::sleep;

use super::disk::{Disk, Rows, Stored};
use super::replica::{NOT_NOW, Replica};
use super::shared::{Mail, Shared};
use crate::{Replication, Wires};

const CHANGE_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Groups {
    pub(super) shared: Arc<Shared>,
    pub(super) env: Env,
    pub(super) wires: Wires,
    pub(super) disks: BTreeMap<DeviceId, Arc<Disk>>,
    replicas: Mutex<BTreeMap<(ShardId, DeviceId), Arc<Replica>>>,
}

impl Groups {
    /// Opens all replicas that are on the devices.
    pub(super) fn open(
        shared: Arc<Shared>,
        env: Env,
        wires: Wires,
        disks: &[Arc<Disk>],
    ) -> Arc<Self> {
        let groups = Arc::new(Self {
            shared,
            env,
            wires,
            disks: disks.iter().map(|disk| (disk.id, disk.clone())).collect(),
            replicas: Mutex::default(),
        });
        for disk in disks.iter().filter(|disk| !disk.is_broken()) {
            for shard in disk.shards() {
                groups.begin(disk, shard);
            }
        }
        groups
    }

    fn begin(&self, disk: &Arc<Disk>, shard: ShardId) {
        let started = Replica::start(&self.shared, &self.env, &self.wires, disk, shard);
        if let Some(replica) = started {
            self.replicas.lock().insert((shard, disk.id), replica);
        }
    }

    fn get(&self, shard: ShardId, device: DeviceId) -> Option<Arc<Replica>> {
        self.replicas.lock().get(&(shard, device)).cloned()
    }

    fn of(&self, shard: ShardId) -> Vec<Arc<Replica>> {
        let replicas = self.replicas.lock();
        let here = replicas.range((shard, DeviceId(0))..=(shard, DeviceId(u128::MAX)));
        here.map(|(_, replica)| replica.clone()).collect()
    }

    /// What the replicas of the control shard have here, and up to where.
    pub(super) fn control_rows(&self) -> Vec<(LogId, Arc<Rows>)> {
        let here = self.of(ShardId::CONTROL);
        here.iter().map(|replica| replica.all_rows()).collect()
    }

    pub(super) fn leads(&self, shard: ShardId) -> bool {
        self.leading(shard).is_some()
    }

    /// The replica that leads here.
    fn leading(&self, shard: ShardId) -> Option<Arc<Replica>> {
        let mut here = self.of(shard).into_iter();
        here.find(|replica| replica.term().is_some())
    }

    /// Waits until these are the voters, and nothing is under way.
    async fn changed(&self, shard: ShardId, voters: &[DeviceId]) -> bool {
        let until = self.env.clock.monotonic() + CHANGE_TIME_MAX;
        while self.env.clock.monotonic() < until {
            let led = self.led().into_iter().find(|led| led.shard == shard);
            let Some(led) = led else { return false };
            if led.is_settled && led.voters.keys().eq(voters) {
                return true;
            }
            sleep(LOOK).await;
        }
        false
    }
}

impl Replication for Groups {
    fn local(&self) -> Vec<(DeviceId, ShardId)> {
        let replicas = self.replicas.lock();
        replicas.keys().map(|(shard, id)| (*id, *shard)).collect()
    }

    fn create(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<ReplicaId, Error>> {
        async move {
            if let Some(replica) = self.get(shard, device) {
                return Ok(replica.id);
            }
            let disk = self.disks.get(&device).ok_or(NOT_NOW)?;
            sleep(self.shared.write_time()).await;
            if disk.is_broken() {
                return Err(NOT_NOW);
            }
            let id = ReplicaId(self.shared.draw());
            disk.put(shard, Stored::new(id));
            self.begin(disk, shard);
            Ok(id)
        }
        .boxed()
    }

    fn destroy(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let disk = self.disks.get(&device).ok_or(NOT_NOW)?;
            if disk.is_broken() {
                return Err(NOT_NOW);
            }
            let gone = self.replicas.lock().remove(&(shard, device));
            let Some(replica) = gone else {
                return Ok(());
            };
            let checks = &self.shared.checks;
            checks.lock().destroys(shard, device, replica.id);
            replica.stop();
            sleep(self.shared.write_time()).await;
            disk.remove(shard);
            Ok(())
        }
        .boxed()
    }

    fn led(&self) -> Vec<Led> {
        let all: Vec<_> = self.replicas.lock().values().cloned().collect();
        all.iter().filter_map(|replica| replica.led()).collect()
    }

    fn prove(&self, shard: ShardId) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.leading(shard).ok_or(NOT_NOW)?.prove().await }.boxed()
    }

    fn set_membership(
        &self,
        shard: ShardId,
        term: u64,
        voters: Vec<(DeviceId, ReplicaId)>,
        learners: Vec<(DeviceId, ReplicaId)>,
    ) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let leader = self.leading(shard).ok_or(NOT_NOW)?;
            let mut wanted: Vec<_> = voters.iter().map(|(device, _)| *device).collect();
            wanted.sort_unstable();
            let has_begun = leader.change(term, &voters, &learners);
            match has_begun && self.changed(shard, &wanted).await {
                true => Ok(()),
                false => Err(NOT_NOW),
            }
        }
        .boxed()
    }

    fn transfer(&self, shard: ShardId, to: DeviceId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let has_begun = self
                .leading(shard)
                .is_some_and(|leader| leader.transfer(to));
            has_begun.then_some(()).ok_or(NOT_NOW)
        }
        .boxed()
    }

    fn receive(
        &self,
        device: DeviceId,
        shard: ShardId,
        message: Bytes,
    ) -> Option<(DeviceId, Bytes)> {
        let mail = self.shared.open(&message);
        if let (Some(replica), Some(Mail::Message(from, message))) = (self.get(shard, device), mail)
        {
            replica.receive(from, *message);
        }
        None
    }

    fn receive_piece(
        &self,
        device: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let replica = self.get(shard, device).ok_or(NOT_NOW)?;
            let Some(Mail::Snapshot(snapshot)) = self.shared.open(&piece) else {
                return Err(NOT_NOW);
            };
            // To its end, whether or not its sender still waits.
            let installed = tokio::spawn(async move { replica.install(*snapshot).await });
            installed.await.unwrap_or(Err(NOT_NOW))
        }
        .boxed()
    }

    fn answer(
        &self,
        device: DeviceId,
        shard: ShardId,
        name: String,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let here = self.leading(shard).or_else(|| self.get(shard, device));
            here.ok_or(NOT_NOW)?.answer(&name, call).await
        }
        .boxed()
    }
}

/// How a node reaches shards: all of them by its wires, also those that it has.
pub(super) struct Outside {
    pub(super) wires: Wires,
    pub(super) map: Current,
    pub(super) groups: Arc<Groups>,
}

impl shard::Peers for Outside {
    fn send(&self, to: DeviceId, shard: ShardId, message: Bytes) {
        self.wires.send(to, shard, message);
    }

    fn send_piece(
        &self,
        to: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        self.wires.send_piece(to, shard, piece)
    }

    fn call(
        &self,
        to: DeviceId,
        shard: ShardId,
        name: &'static str,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Error>> {
        self.wires.call(to, shard, name.to_owned(), call)
    }

    /// Those of whom a replica here knows that they lead come first.
    fn replicas(&self, shard: ShardId) -> Vec<DeviceId> {
        let map = self.map.load();
        let mut all: Vec<_> = match map.shards.get(&shard) {
            Some(replicas) => replicas.devices().collect(),
            None => map.devices.keys().copied().collect(),
        };
        let leaders: Vec<_> = self
            .groups
            .of(shard)
            .iter()
            .filter_map(|one| one.leader())
            .collect();
        all.sort_by_key(|id| !leaders.contains(id));
        all
    }
}
