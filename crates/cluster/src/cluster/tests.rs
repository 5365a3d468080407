//! Several nodes in this process, with real connections on loopback and real rows, over Raft groups that are
//! pretended: one table that all nodes share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use base::{ShardId, Timestamp};
use bytes::Bytes;
use map::{Epoch, Map, Replicas, State};
use parking_lot::Mutex;
use rpc::{Credentials, Listener};
use shard::{Led, ReplicaId, Shards};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::Wires;
use crate::join::{self, Newcomer};
use crate::report::Condition;

const CLUSTER: u128 = 0xc1;
const SHARDS: u16 = 2;
/// As long as anything here may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The Raft groups of the cluster, and which nodes are alive.
#[derive(Default)]
struct Table {
    rafts: BTreeMap<ShardId, Raft>,
    replicas: BTreeMap<(DeviceId, ShardId), ReplicaId>,
    owners: BTreeMap<DeviceId, NodeId>,
    dead: BTreeSet<NodeId>,
    received: Vec<(DeviceId, ShardId, Bytes)>,
    next: u64,
}

struct Raft {
    leader: DeviceId,
    term: u64,
    voters: BTreeMap<DeviceId, ReplicaId>,
    learners: BTreeMap<DeviceId, ReplicaId>,
}

impl Table {
    fn is_alive(&self, device: DeviceId) -> bool {
        !self.dead.contains(&self.owners[&device])
    }

    /// Whoever leads and is dead is followed by one who is not.
    fn elect(&mut self) {
        let alive: BTreeSet<_> = self
            .owners
            .keys()
            .copied()
            .filter(|id| self.is_alive(*id))
            .collect();
        for raft in self.rafts.values_mut() {
            let able: Vec<_> = raft.voters.keys().filter(|id| alive.contains(id)).collect();
            if !alive.contains(&raft.leader) && able.len() > raft.voters.len() / 2 {
                raft.leader = *able[0];
                raft.term += 1;
            }
        }
    }
}

/// The Raft groups as one node sees them.
struct Seen {
    node: NodeId,
    table: Arc<Mutex<Table>>,
}

impl Seen {
    fn leads(&self, table: &Table, shard: ShardId) -> bool {
        let raft = &table.rafts[&shard];
        table.owners.get(&raft.leader) == Some(&self.node)
            && raft.voters.keys().filter(|id| table.is_alive(**id)).count() > raft.voters.len() / 2
    }
}

const NOT_NOW: shard::Error = shard::Error::Unavailable {
    retry_in: Duration::from_millis(1),
};

impl Replication for Seen {
    fn local(&self) -> Vec<(DeviceId, ShardId)> {
        let table = self.table.lock();
        let here = table.replicas.keys().copied();
        here.filter(|(id, _)| table.owners[id] == self.node)
            .collect()
    }

    fn create(
        &self,
        device: DeviceId,
        shard: ShardId,
    ) -> BoxFuture<'_, Result<ReplicaId, shard::Error>> {
        let mut table = self.table.lock();
        table.next += 1;
        let new = ReplicaId(table.next);
        let replica = *table.replicas.entry((device, shard)).or_insert(new);
        async move { Ok(replica) }.boxed()
    }

    fn destroy(&self, device: DeviceId, shard: ShardId) -> BoxFuture<'_, Result<(), shard::Error>> {
        self.table.lock().replicas.remove(&(device, shard));
        async { Ok(()) }.boxed()
    }

    fn led(&self) -> Vec<Led> {
        let mut table = self.table.lock();
        table.elect();
        let led = table
            .rafts
            .iter()
            .filter(|(shard, _)| self.leads(&table, **shard));
        let led = led.map(|(shard, raft)| Led {
            shard: *shard,
            leader: raft.leader,
            term: raft.term,
            voters: raft.voters.clone(),
            learners: raft.learners.clone(),
            ready: raft.learners.keys().copied().collect(),
            near: BTreeSet::new(),
            is_settled: true,
        });
        led.collect()
    }

    fn prove(&self, shard: ShardId) -> BoxFuture<'_, Result<(), shard::Error>> {
        let leads = self.leads(&self.table.lock(), shard);
        async move { leads.then_some(()).ok_or(NOT_NOW) }.boxed()
    }

    fn set_membership(
        &self,
        shard: ShardId,
        term: u64,
        voters: Vec<(DeviceId, ReplicaId)>,
        learners: Vec<(DeviceId, ReplicaId)>,
    ) -> BoxFuture<'_, Result<(), shard::Error>> {
        let mut table = self.table.lock();
        let can = self.leads(&table, shard) && table.rafts[&shard].term == term;
        if can {
            let raft = table.rafts.get_mut(&shard).expect("it is led");
            raft.voters = voters.into_iter().collect();
            raft.learners = learners.into_iter().collect();
        }
        async move { can.then_some(()).ok_or(NOT_NOW) }.boxed()
    }

    fn transfer(&self, shard: ShardId, to: DeviceId) -> BoxFuture<'_, Result<(), shard::Error>> {
        let mut table = self.table.lock();
        let can = table.is_alive(to);
        if can {
            let raft = table.rafts.get_mut(&shard).expect("it is led");
            (raft.leader, raft.term) = (to, raft.term + 1);
        }
        async move { can.then_some(()).ok_or(NOT_NOW) }.boxed()
    }

    fn receive(
        &self,
        device: DeviceId,
        shard: ShardId,
        message: Bytes,
    ) -> Option<(DeviceId, Bytes)> {
        self.table.lock().received.push((device, shard, message));
        None
    }

    fn receive_piece(
        &self,
        device: DeviceId,
        shard: ShardId,
        piece: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, shard::Error>> {
        let text = format!("{device} {shard} {}", piece.len());
        async move { Ok(text.into()) }.boxed()
    }

    fn answer(
        &self,
        device: DeviceId,
        shard: ShardId,
        name: String,
        call: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, shard::Error>> {
        async move {
            match name.as_str() {
                "refuse" => Err(shard::Error::OutOfSpace),
                _ => Ok(format!("{device} {shard} {name} {}", call.len()).into()),
            }
        }
        .boxed()
    }
}

struct NoFill;

impl Fill for NoFill {
    fn fill(
        &self,
        _: GroupId,
        _: DeviceId,
        _: Vec<DeviceId>,
        _: Arc<dyn Fn(u64, u64) + Send + Sync>,
    ) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn copied_bytes(&self) -> u64 {
        0
    }

    fn remove_left_behind(&self) -> BoxFuture<'_, u64> {
        async { 0 }.boxed()
    }
}

struct World {
    table: Arc<Mutex<Table>>,
    control: Shard,
    nodes: BTreeMap<NodeId, Running>,
}

struct Running {
    cluster: Cluster,
    wires: Wires,
    address: SocketAddr,
    /// What it has kept.
    home: Home,
    stop: watch::Sender<bool>,
}

fn home(number: u64) -> Home {
    let (mut env, ..) = testkit::env(number, 1 << 20);
    env.clock = Env::real().clock;
    env.disk.create_dir(Path::new("/data")).unwrap();
    Home::new(env, &["/data".into()])
}

impl World {
    /// A cluster of one node with one device.
    async fn new() -> Self {
        let env = Env::real();
        let control = Shards::volatile(&env, SHARDS).get(ShardId::CONTROL).clone();
        let mut world = Self {
            table: Arc::default(),
            control,
            nodes: BTreeMap::new(),
        };
        let device = DeviceId(1);
        {
            let mut table = world.table.lock();
            table.owners.insert(device, NodeId::FIRST);
            for shard in (0..SHARDS).map(ShardId) {
                let replica = ReplicaId(u64::from(shard.0) + 1000);
                table.replicas.insert((device, shard), replica);
                let raft = Raft {
                    leader: device,
                    term: 1,
                    voters: [(device, replica)].into(),
                    learners: BTreeMap::new(),
                };
                table.rafts.insert(shard, raft);
            }
        }
        let devices = vec![device];
        let map = world
            .control
            .execute(control::Found {
                devices,
                new: Vec::new(),
                addresses: Vec::new(),
            })
            .await
            .unwrap();
        let home = home(1);
        let credentials = join::found(&home, &world.control, CLUSTER).await.unwrap();
        // The second start is that of the same node.
        let again = join::found(&home, &world.control, CLUSTER).await.unwrap();
        assert_eq!(again.to_pem(), credentials.to_pem());
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.start(tcp, home, credentials, map);
        world
    }

    fn start(&mut self, tcp: TcpListener, home: Home, credentials: Credentials, map: Map) {
        let node = credentials.node();
        let address = tcp.local_addr().unwrap();
        let (map, directory) = (Current::new(map), Directory::new());
        let resolver = directory.clone();
        let peers = Peers::new(&credentials, rpc::Config::default(), move |id| {
            resolver.get(id)
        });
        let peers = peers.unwrap();
        let table = self.table.clone();
        let replication: Arc<dyn Replication> = Arc::new(Seen { node, table });
        let wires = Wires::new(node, map.clone(), peers.clone());
        wires.connect(&replication);
        let owners = self.table.clone();
        let devices = move || {
            let table = owners.lock();
            let here = table.owners.iter().filter(|(_, owner)| **owner == node);
            let here = here.map(|(device, _)| DeviceReport {
                device: *device,
                bytes: 1 << 40,
                bytes_free: 1 << 40,
                condition: Condition::Good,
            });
            here.collect()
        };
        let parts = Parts {
            env: Env::real(),
            node,
            cluster: CLUSTER,
            shards: SHARDS,
            home: home.clone(),
            fence: Arc::new(Fence::new(map.clone())),
            map,
            directory,
            control: self.control.clone(),
            replication,
            peers,
            fill: Arc::new(NoFill),
            devices: Arc::new(devices),
            addresses: vec![address.to_string()],
            map_wanted: Arc::default(),
            config: Config::default(),
        };
        let cluster = Cluster::new(parts);
        let service = Service::new(cluster.clone(), None);
        let listener = Listener::new(tcp, &credentials, rpc::Config::default(), service).unwrap();
        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the test is over.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let until = wait(stopped.clone());
        tokio::spawn(async move { listener.serve(until).await });
        let until = wait(stopped);
        tokio::spawn({
            let cluster = cluster.clone();
            async move { cluster.run(until).await }
        });
        let running = Running {
            cluster,
            wires,
            address,
            home,
            stop,
        };
        self.nodes.insert(node, running);
    }

    fn first(&self) -> &Running {
        &self.nodes[&NodeId::FIRST]
    }

    async fn token(&self) -> JoinToken {
        self.first().cluster.create_token(TOKEN_LIFE).await.unwrap()
    }

    /// A new process joins through a node.
    async fn join(&mut self, through: NodeId) -> NodeId {
        let token = self.token().await;
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = home(100 + self.nodes.len() as u64);
        let newcomer = newcomer(tcp.local_addr().unwrap());
        let member = ask(&home, self.nodes[&through].address, &token, &newcomer)
            .await
            .unwrap();
        assert_eq!(member.shards, SHARDS);
        let node = member.credentials.node();
        let devices = home.is_joining().unwrap().unwrap().devices;
        self.table.lock().owners.insert(devices[0], node);
        home.has_joined().unwrap();
        self.start(tcp, home, member.credentials, member.map);
        node
    }

    fn die(&mut self, node: NodeId) {
        self.table.lock().dead.insert(node);
        let dead = self.nodes.remove(&node).unwrap();
        dead.stop.send_replace(true);
    }

    /// Waits until a node sees the cluster so.
    async fn until(&self, node: NodeId, is: impl Fn(&Map) -> bool) {
        let map = &self.nodes[&node].cluster.inner.parts.map;
        let wait = async {
            while !is(&map.load()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("{node} sees {:#?}", map.get()));
    }

    async fn until_whole(&self, node: NodeId) -> Status {
        let cluster = &self.nodes[&node].cluster;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match cluster.status().await {
                Ok(status) if status.whole => return status,
                other => assert!(Instant::now() < deadline, "{other:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn newcomer(address: SocketAddr) -> Newcomer {
    Newcomer {
        addresses: vec![address.to_string()],
        zone: "cellar".to_owned(),
        bytes: vec![1 << 40],
    }
}

async fn ask(
    home: &Home,
    address: SocketAddr,
    token: &JoinToken,
    newcomer: &Newcomer,
) -> Result<join::Member, join::Error> {
    let deadline = Instant::now() + PATIENCE;
    join::join(home, address, token, newcomer.clone(), deadline).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_becomes_three_and_goes_on_without_its_first() {
    let mut world = World::new().await;
    let status = world.until_whole(NodeId::FIRST).await;
    assert_eq!(status.nodes.len(), 1);
    let second = world.join(NodeId::FIRST).await;
    // Any member lets nodes in, as soon as it has heard of them.
    world.until(second, |map| map.nodes.len() == 2).await;
    let third = world.join(second).await;
    world
        .until(NodeId::FIRST, |map| map.devices.len() == 3)
        .await;
    let is_threefold = |map: &Map| {
        let whole = |one: &Replicas| one.voters.len() == 3 && one.joining.is_empty();
        map.shards.len() == usize::from(SHARDS) && map.shards.values().all(whole)
    };
    for node in [NodeId::FIRST, second, third] {
        world.until(node, is_threefold).await;
    }
    let status = world.until_whole(third).await;
    assert_eq!((status.nodes.len(), status.shards_total), (3, 2));
    // It is in the file by now, or will be: what was kept was some map of this cluster.
    let kept = world.nodes[&third].home.map().unwrap().unwrap();
    assert!(kept.nodes.contains_key(&third));

    world.die(NodeId::FIRST);
    let is_down = |map: &Map| matches!(map.nodes[&NodeId::FIRST].state, State::Down { .. });
    world.until(second, is_down).await;
    world.until(third, is_down).await;
    let status = world.nodes[&second].cluster.status().await.unwrap();
    assert!(!status.whole);
    // What is decided is decided by somebody else now.
    let zone = "roof".to_owned();
    world.nodes[&third]
        .cluster
        .set_zone(second, zone)
        .await
        .unwrap();
    world
        .until(third, |map| map.nodes[&second].zone == "roof")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_good_token_is_told_why() {
    let world = World::new().await;
    world.until_whole(NodeId::FIRST).await;
    let address = world.first().address;
    let token = world.token().await;
    let newcomer = newcomer("127.0.0.1:1".parse().unwrap());
    let refused =
        async |home: &Home, token: &JoinToken| match ask(home, address, token, &newcomer).await {
            Err(join::Error::Declined(Declined::Refused(refusal))) => refusal,
            other => panic!("{other:?}"),
        };
    let (one, other) = (home(50), home(51));
    let expires = token.expires;
    let entropy = testkit::SeededEntropy::new(9);
    let guessed = JoinToken {
        id: token.id,
        ..JoinToken::new(&entropy, expires, token.authority)
    };
    assert_eq!(refused(&one, &guessed).await, Refusal::WrongSecret);
    let unknown = JoinToken {
        id: token.id ^ 1,
        ..token.clone()
    };
    assert_eq!(refused(&one, &unknown).await, Refusal::NoToken);
    let expired = world
        .first()
        .cluster
        .create_token(Duration::ZERO)
        .await
        .unwrap();
    let expiry = expired.expires;
    assert_eq!(refused(&one, &expired).await, Refusal::TokenExpired(expiry));
    assert!(expiry > Timestamp::from_secs(0));
    // That of another cluster: the certificate is not that of its authority, so nothing is said to it.
    let elsewhere = rpc::Authority::new(CLUSTER).unwrap();
    let foreign = JoinToken {
        authority: elsewhere.fingerprint(),
        ..token.clone()
    };
    let met = ask(&one, address, &foreign, &newcomer).await;
    assert!(
        matches!(met, Err(join::Error::Unreachable { .. })),
        "{met:?}"
    );

    let member = ask(&one, address, &token, &newcomer).await.unwrap();
    // The answer was lost: the same is answered again.
    let again = ask(&one, address, &token, &newcomer).await.unwrap();
    assert_eq!(again.credentials.node(), member.credentials.node());
    assert_eq!(again.map.nodes.len(), 2);
    // Somebody else has found the token.
    let used = refused(&other, &token).await;
    assert_eq!(used, Refusal::TokenUsed(member.credentials.node()));
    let tokens = world.first().cluster.tokens().await.unwrap();
    let used_by = tokens.iter().find(|one| one.record.id == token.id).unwrap();
    assert_eq!(used_by.used_by, Some(member.credentials.node()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pieces_and_calls_find_the_node_of_a_device() {
    let mut world = World::new().await;
    let second = world.join(NodeId::FIRST).await;
    world.until(NodeId::FIRST, |map| map.nodes.len() == 2).await;
    let device = {
        let table = world.table.lock();
        let mut owners = table.owners.iter();
        *owners.find(|(_, owner)| **owner == second).unwrap().0
    };
    let shard = ShardId(1);
    let wires = &world.first().wires;
    let piece = Bytes::from(vec![7; 2 << 20]);
    let answer = wires.send_piece(device, shard, piece).await.unwrap();
    assert_eq!(answer, format!("{device} {shard} {}", 2 << 20));
    let call = |name: &str| wires.call(device, shard, name.to_owned(), Bytes::from_static(b"xyz"));
    assert_eq!(
        call("name").await.unwrap(),
        format!("{device} {shard} name 3")
    );
    assert_eq!(call("refuse").await, Err(shard::Error::OutOfSpace));
    // To this node itself.
    let here = wires
        .call(DeviceId(1), shard, "name".to_owned(), Bytes::new())
        .await;
    assert_eq!(here.unwrap(), format!("{} {shard} name 0", DeviceId(1)));
    let nowhere = wires
        .call(DeviceId(99), shard, "name".to_owned(), Bytes::new())
        .await;
    assert!(matches!(nowhere, Err(shard::Error::Unavailable { .. })));
    let count = 3000;
    for number in 0..count {
        wires.send(device, shard, Bytes::from(format!("{number}")));
    }
    let deadline = Instant::now() + PATIENCE;
    while world.table.lock().received.len() < count {
        assert!(
            Instant::now() < deadline,
            "messages were lost without a reason"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let received: BTreeSet<_> = world.table.lock().received.iter().cloned().collect();
    assert_eq!(received.len(), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_no_control_node_any_more_is_given_a_map() {
    let mut world = World::new().await;
    let away = world.join(NodeId::FIRST).await;
    world.until(away, |map| map.nodes.len() == 2).await;
    let credentials = world.nodes[&away].home.credentials().unwrap().unwrap();
    world.die(away);
    let is_down = |map: &Map| matches!(map.nodes[&away].state, State::Down { .. });
    world.until(NodeId::FIRST, is_down).await;
    let newest = world.first().cluster.inner.parts.map.get();

    // As if the control shard had been here alone when it left.
    let mut old = Map::clone(&newest);
    old.epoch = Epoch(1);
    let own = old.devices.iter().find(|(_, one)| one.node == away);
    let control = Replicas {
        voters: vec![*own.unwrap().0],
        ..Replicas::default()
    };
    old.shards.insert(ShardId::CONTROL, control);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.table.lock().dead.remove(&away);
    world.start(tcp, home(200), credentials, old);
    world.until(away, |map| map.epoch >= newest.epoch).await;
    let is_up = |map: &Map| matches!(map.nodes[&away].state, State::Up);
    world.until(NodeId::FIRST, is_up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_is_not_let_in_any_more() {
    let mut world = World::new().await;
    let second = world.join(NodeId::FIRST).await;
    world.until(NodeId::FIRST, |map| map.nodes.len() == 2).await;
    let service = Service::new(world.first().cluster.clone(), None);
    assert!(rpc::Service::admits(&service, second));
    assert!(!rpc::Service::admits(&service, NodeId(9)));
    let part = Part::Node(second);
    world.first().cluster.drain(part, true).await.unwrap();
    world
        .until(NodeId::FIRST, |map| map.nodes[&second].is_draining)
        .await;
    let deadline = Instant::now() + PATIENCE;
    // Until everything has left it.
    while let Err(why) = world.first().cluster.remove(part, Losses::Refused).await {
        assert!(
            matches!(why, Declined::Refused(Refusal::Holds { .. })),
            "{why}"
        );
        assert!(Instant::now() < deadline, "{why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.until(NodeId::FIRST, |map| map.nodes.len() == 1).await;
    assert!(!rpc::Service::admits(&service, second));
}
