//! A simulated node: a machine that stays, and a process on it that comes and goes.
//!
//! A process is a runtime of its own, in one thread with all others: it is driven for a few milliseconds of virtual
//! time, then the next one is. So one can stand still while the others go on, and when it dies, so does all that it
//! had begun.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base::env::{Clock, Env};
use base::{NodeId, ShardId, Timestamp};
use bytes::Bytes;
use chunks::{AllDevices, Chunks, Fence, Fenced};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::{Current, Map};
use parking_lot::Mutex;
use rpc::{CallError, Fault, Peers};
use shard::Shards;
use testkit::{SeededEntropy, SimDisk};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::disk::Disk;
use super::groups::{Groups, Outside};
use super::shared::{Call, Letter, Shared};
use super::store::{Filler, Store};
use super::{Bug, SHARDS, SIZE};
use crate::{
    CHUNKS, Cluster, Condition, Config, DeviceReport, Directory, Handler, Home, Parts, Service,
    Wires,
};

/// Goes a little too fast or too slow; its wall clock is wrong, too.
pub(super) struct NodeClock {
    /// In thousandths.
    rate: u64,
    began: Duration,
    /// When its process began, in milliseconds of the world and on the clock of its runtime.
    origin: Mutex<(u64, Option<Instant>)>,
    wrong_ms: AtomicI64,
}

impl NodeClock {
    /// What the world's clock shows, for who is in the process.
    pub(super) fn world_ms(&self) -> u64 {
        let (born, began) = *self.origin.lock();
        let alive = began.map_or(Duration::ZERO, |began| began.elapsed());
        born + u64::try_from(alive.as_millis()).expect("runs are short")
    }

    pub(super) fn set_wrong(&self, ms: i64) {
        self.wrong_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let wrong = self.wrong_ms.load(Ordering::Relaxed);
        let now = 1_800_000_000_000_i64 + i64::try_from(self.world_ms()).expect("runs are short");
        let now = u64::try_from(now + wrong).expect("it is not that wrong");
        Timestamp::from_secs(0).after(Duration::from_millis(now))
    }

    fn monotonic(&self) -> Duration {
        self.began + Duration::from_micros(self.world_ms() * self.rate)
    }
}

pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) disks: Vec<Arc<Disk>>,
    pub(super) clock: Arc<NodeClock>,
    pub(super) process: Option<Process>,
    pub(super) is_paused: bool,
    files: SimDisk,
    shared: Arc<Shared>,
}

/// What is dropped with a process, the runtime last.
pub(super) struct Process {
    pub(super) cluster: Cluster,
    pub(super) service: Arc<Service>,
    pub(super) chunks: Chunks,
    pub(super) groups: Arc<Groups>,
    pub(super) shards: Arc<Shards>,
    pub(super) map: Current,
    born: u64,
    began: Instant,
    pub(super) runtime: Runtime,
}

struct ChunkCalls(chunks::Server);

impl Handler for ChunkCalls {
    fn call(&self, call: rpc::Call) -> BoxFuture<'_, Result<Vec<Bytes>, Bytes>> {
        async move { self.0.serve(call.body).await }.boxed()
    }
}

impl Machine {
    pub(super) fn new(shared: &Arc<Shared>, id: NodeId, disks: Vec<Arc<Disk>>, map: &Map) -> Self {
        let files = SimDisk::new(64 << 20);
        let clock = NodeClock {
            rate: 970 + shared.below(60),
            began: Duration::from_secs(shared.below(1000)),
            origin: Mutex::default(),
            wrong_ms: AtomicI64::new(0),
        };
        let machine = Self {
            id,
            disks,
            clock: Arc::new(clock),
            process: None,
            is_paused: false,
            files,
            shared: shared.clone(),
        };
        let env = machine.env(0);
        env.disk
            .create_dir(Path::new("/data"))
            .expect("it has room");
        let home = Home::new(env, &["/data".into()]);
        home.keep_map(map).expect("it has room");
        machine
    }

    fn env(&self, seed: u64) -> Env {
        Env {
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(seed)),
            disk: Arc::new(self.files.clone()),
        }
    }

    /// The power goes.
    pub(super) fn crash(&mut self) {
        if self.process.take().is_none() {
            return;
        }
        self.is_paused = false;
        self.files.power_cut(self.shared.draw());
        for disk in &self.disks {
            self.shared.random(|random| disk.crash(random));
        }
    }

    pub(super) fn start(&mut self, peers: &Peers, config: Config, now: u64) {
        if self.process.is_some() {
            return;
        }
        self.shared.checks.lock().starts(self.id);
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let runtime = runtime.expect("it takes little");
        *self.clock.origin.lock() = (now, None);
        let process = runtime.block_on(async {
            let began = Instant::now();
            *self.clock.origin.lock() = (now, Some(began));
            self.begin(peers, config).await.map(|parts| (parts, began))
        });
        let ((cluster, service, chunks, groups, shards, map), began) = process.expect("it starts");
        self.process = Some(Process {
            cluster,
            service,
            chunks,
            groups,
            shards,
            map,
            born: now,
            began,
            runtime,
        });
    }

    /// As `martlet` puts a node together.
    async fn begin(&self, peers: &Peers, config: Config) -> Option<Begun> {
        let (node, shared) = (self.id, self.shared.clone());
        let env = self.env(shared.draw());
        let home = Home::new(env.clone(), &["/data".into()]);
        let map = Current::new(home.map().ok()??);
        let peers = peers.carried(Box::new(carrier(node, shared.clone())));
        let wires = Wires::new(node, map.clone(), peers.clone());
        let groups = Groups::open(shared.clone(), env.clone(), wires.clone(), &self.disks);
        wires.connect(&(groups.clone() as Arc<dyn crate::Replication>));
        let outside = Outside {
            wires,
            map: map.clone(),
            groups: groups.clone(),
        };
        let outside = Some(Arc::new(outside) as Arc<dyn shard::Peers>);
        let settings = shard::Config::default();
        let shards = Shards::open(&env, Vec::new(), SHARDS, settings, outside).await;
        let shards = Arc::new(shards.ok()?);

        let fence = Arc::new(Fence::new(map.clone()));
        let guard = guard(&shared, &fence);
        let fenced = self.disks.iter().map(|disk| {
            let store = Store {
                node,
                disk: disk.clone(),
                shared: shared.clone(),
            };
            Arc::new(Fenced::new(Arc::new(store), guard.clone()))
        });
        let server = chunks::Server::new(fenced);
        let all = AllDevices::new(
            node,
            server.here(),
            map.clone(),
            peers.clone(),
            *CHUNKS.start(),
        );
        let settings = chunks::Config::default();
        let chunks = Chunks::new(env.clone(), map.clone(), Arc::new(all), &settings);
        let filler = Filler {
            chunks: chunks.clone(),
            shared,
        };
        let cluster = Cluster::new(Parts {
            env,
            node,
            cluster: 1,
            shards: SHARDS,
            home,
            map: map.clone(),
            directory: Directory::new(),
            fence,
            control: shards.get(ShardId::CONTROL).clone(),
            replication: groups.clone(),
            peers,
            fill: Arc::new(filler),
            devices: Arc::new(reports(self.disks.clone())),
            addresses: vec![format!("10.0.0.{}:7000", node.0)],
            map_wanted: chunks.map_wanted().clone(),
            config,
        });
        let service = Service::new(cluster.clone(), Some(Arc::new(ChunkCalls(server))));
        let running = cluster.clone();
        tokio::spawn(async move { running.run(std::future::pending()).await });
        Some((cluster, Arc::new(service), chunks, groups, shards, map))
    }

    /// Lives up to this moment.
    pub(super) fn run(&self, until: u64) {
        let Some(process) = self.process.as_ref().filter(|_| !self.is_paused) else {
            return;
        };
        let until = process.began + Duration::from_millis(until - process.born);
        process
            .runtime
            .block_on(async { tokio::time::sleep_until(until).await });
    }

    /// It stood still until now: all that was due meanwhile is due at once.
    pub(super) fn resume(&mut self, now: u64) {
        self.is_paused = false;
        let Some(process) = &self.process else {
            return;
        };
        let now = process.began + Duration::from_millis(now - process.born);
        process.runtime.block_on(async {
            let late = now.saturating_duration_since(Instant::now());
            tokio::time::advance(late).await;
        });
    }
}

type Begun = (
    Cluster,
    Arc<Service>,
    Chunks,
    Arc<Groups>,
    Arc<Shards>,
    Current,
);

/// What guards the devices. With a planted bug it is told nothing.
fn guard(shared: &Shared, fence: &Arc<Fence>) -> Arc<Fence> {
    if !shared.has(Bug::EpochUnchecked) {
        return fence.clone();
    }
    let guard = Fence::new(Current::default());
    guard.open();
    Arc::new(guard)
}

fn reports(disks: Vec<Arc<Disk>>) -> impl Fn() -> Vec<DeviceReport> + Send + Sync {
    move || {
        let reports = disks.iter().map(|disk| DeviceReport {
            device: disk.id,
            bytes: SIZE,
            bytes_free: SIZE,
            condition: match disk.is_broken() {
                true => Condition::Broken,
                false => Condition::Good,
            },
        });
        reports.collect()
    }
}

/// Hands calls to the world, and waits for their answers.
fn carrier(
    from: NodeId,
    shared: Arc<Shared>,
) -> impl Fn(NodeId, rpc::Lane, u16, Vec<Bytes>, Instant) -> rpc::testing::Carried {
    move |to, lane, service, body, deadline| {
        let shared = shared.clone();
        Box::pin(async move {
            let (tell, answer) = oneshot::channel();
            let call = Call {
                from,
                to,
                lane,
                service,
                body: body.concat().into(),
                left: deadline.saturating_duration_since(Instant::now()),
                answer: tell,
            };
            shared.outbox.lock().push(Letter::Call(Box::new(call)));
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(CallError::Unknown(Fault::Closed)),
                Err(_) => Err(CallError::Unknown(Fault::Deadline)),
            }
        })
    }
}
