//! A cluster of the pure parts, with Raft groups, a network and time that are only pretended: nodes die, freeze, flap,
//! join and are drained, the control shard changes its leader, reports and answers are late or lost, and deposed
//! controllers go on thinking that they rule. After each event what must never happen has not happened;
//! and when the events end, everything comes to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{DeviceId, NodeId, ShardId, Timestamp};
use map::{Device, Epoch, Map, Node, State, Step};
use testkit::Random;

use crate::agent::{self, Action, Agent, End, Job, Round};
use crate::heard::Heard;
use crate::report::{Condition, DeviceReport, Reign, Report};
use crate::status::Status;
use shard::{Led, ReplicaId};

use crate::{Change, Controller, HealthConfig, Now};

const SHARDS: u16 = 5;
const SIZE: u64 = 1 << 40;
/// Half of a node's time between two reports.
const STEP: Duration = Duration::from_millis(250);

/// A Raft group as it is.
struct Raft {
    voters: BTreeMap<DeviceId, ReplicaId>,
    learners: BTreeMap<DeviceId, ReplicaId>,
    leader: Option<DeviceId>,
    term: u64,
    /// The newest map by which its membership was changed.
    changed_by: Epoch,
}

struct Host {
    is_alive: bool,
    /// It runs, but is not heard and hears nothing.
    is_cut: bool,
    agent: Agent,
    /// It thinks that it leads the control shard, in this term.
    controller: Option<(u64, Reign, Controller)>,
    /// A change that is on its way to the control shard.
    change: Option<(Reign, Change)>,
    /// With the epoch of the map by which each was decided.
    jobs: Vec<(Epoch, Job)>,
    /// The map in its file, which is not always written.
    file: Arc<Map>,
    heard: Heard,
    is_fence_open: bool,
    /// When the map was last known to be fresh.
    fresh: Option<Duration>,
}

struct World {
    random: Random,
    now: Duration,
    /// What is in the control shard.
    map: Arc<Map>,
    reign: Option<Reign>,
    rafts: BTreeMap<ShardId, Raft>,
    replicas: BTreeMap<(DeviceId, ShardId), ReplicaId>,
    hosts: BTreeMap<NodeId, Host>,
    next: u64,
    refused: usize,
    /// Controllers plan without a proof that they lead.
    is_careless: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random::new(seed),
            now: Duration::from_secs(1000),
            map: Arc::new(Map {
                last_node: NodeId(0),
                ..Map::default()
            }),
            reign: None,
            rafts: BTreeMap::new(),
            replicas: BTreeMap::new(),
            hosts: BTreeMap::new(),
            next: 0,
            refused: 0,
            is_careless: false,
        };
        let first = world.join(1);
        let device = DeviceId(u128::from(first.0) * 100);
        for shard in (0..SHARDS).map(ShardId) {
            let replica = world.draw();
            world.replicas.insert((device, shard), ReplicaId(replica));
            let raft = Raft {
                voters: [(device, ReplicaId(replica))].into(),
                learners: BTreeMap::new(),
                leader: None,
                term: 0,
                changed_by: Epoch(0),
            };
            world.rafts.insert(shard, raft);
        }
        world
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn at(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: Timestamp::from_secs(1_800_000_000).after(self.now),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Map)) {
        let mut map = Map::clone(&self.map);
        change(&mut map);
        map.epoch = map.epoch.next();
        self.map = Arc::new(map);
    }

    /// A node joins with so many devices, and starts with the map that it was given.
    fn join(&mut self, devices: u32) -> NodeId {
        let id = NodeId(self.map.last_node.0 + 1);
        self.change(|map| {
            map.last_node = id;
            map.nodes.insert(id, Node::default());
            for number in 0..devices {
                let device = Device {
                    node: id,
                    bytes: SIZE,
                    bytes_free: SIZE,
                    state: State::Up,
                    is_draining: false,
                };
                let device_id = DeviceId(u128::from(id.0 * 100 + number));
                map.devices.insert(device_id, device);
            }
        });
        let host = Host::new(id, self.map.clone());
        self.hosts.insert(id, host);
        id
    }

    fn node_of(&self, device: DeviceId) -> Option<NodeId> {
        self.map.devices.get(&device).map(|device| device.node)
    }

    fn is_reachable(&self, device: DeviceId) -> bool {
        let host = self.node_of(device).and_then(|node| self.hosts.get(&node));
        host.is_some_and(|host| host.is_alive && !host.is_cut)
    }

    fn has_quorum<'a>(&self, voters: impl Iterator<Item = &'a DeviceId>) -> bool {
        let (mut all, mut up) = (0, 0);
        for voter in voters {
            all += 1;
            up += usize::from(self.is_reachable(*voter));
        }
        up > all / 2
    }

    /// Shards without a leader get one, if they can.
    fn elect(&mut self) {
        for shard in (0..SHARDS).map(ShardId) {
            let raft = &self.rafts[&shard];
            let has_quorum = self.has_quorum(raft.voters.keys());
            let leads = raft.leader.is_some_and(|leader| self.is_reachable(leader));
            let voters = raft.voters.keys().copied();
            let able: Vec<_> = voters.filter(|id| self.is_reachable(*id)).collect();
            let raft = self.rafts.get_mut(&shard).unwrap();
            if !has_quorum {
                raft.leader = None;
            } else if !leads {
                let at = self.random.below(able.len() as u64);
                raft.leader = Some(able[usize::try_from(at).unwrap()]);
                raft.term += 1;
            }
        }
    }

    fn led_by(&self, node: NodeId) -> Vec<Led> {
        let leads = self.rafts.iter().filter(|(_, raft)| {
            let leader = raft.leader.and_then(|device| self.node_of(device));
            leader == Some(node)
        });
        let led = leads.map(|(shard, raft)| Led {
            shard: *shard,
            leader: raft.leader.expect("it leads"),
            term: raft.term,
            voters: raft.voters.clone(),
            learners: raft.learners.clone(),
            ready: raft
                .learners
                .keys()
                .chain(raft.voters.keys())
                .copied()
                .filter(|id| self.is_reachable(*id))
                .collect(),
            near: BTreeSet::new(),
            is_settled: true,
        });
        led.collect()
    }

    /// One node has its turn.
    fn turn(&mut self, node: NodeId) {
        if !self.hosts[&node].is_alive {
            return;
        }
        let led = self.led_by(node);
        let (silence, map) = (HealthConfig::default().silence, self.map.clone());
        let host = self.hosts.get_mut(&node).unwrap();
        host.heard.tick(self.now, silence, &map);
        self.rule(node, led.iter().find(|led| led.shard == ShardId::CONTROL));
        let local = self.replicas.keys().copied();
        let local = local.filter(|(device, _)| self.node_of(*device) == Some(node));
        let local = local.collect();
        let event = agent::Event::Tick { local, led };
        self.agent(node, event);
        self.report(node);
        self.work(node);
    }

    fn agent(&mut self, node: NodeId, event: agent::Event) {
        let host = self.hosts.get_mut(&node).unwrap();
        for action in host.agent.step(self.now, event) {
            match action {
                Action::Adopt(map) => {
                    assert!(map.epoch <= self.map.epoch);
                    if self.random.chance(1, 2) {
                        host.file = map;
                    }
                }
                Action::OpenFence => host.is_fence_open = true,
                Action::CloseFence => host.is_fence_open = false,
                Action::Start(job) => host.jobs.push((host.agent.map().epoch, job)),
            }
        }
    }

    /// The controller's part: it begins, ends, plans, and its changes arrive some time later.
    fn rule(&mut self, node: NodeId, led: Option<&Led>) {
        let now = self.at();
        // Who is cut off does not notice that he does not lead any more.
        let is_cut = self.hosts[&node].is_cut;
        let term = self.hosts[&node]
            .controller
            .as_ref()
            .map(|(term, ..)| *term);
        match (led, term) {
            (Some(led), term) if term != Some(led.term) => {
                let reign = Reign(self.draw());
                self.reign = Some(reign);
                let host = self.hosts.get_mut(&node).unwrap();
                let config = HealthConfig::default();
                let silence = config.silence;
                let heard = host
                    .heard
                    .testimony(now.monotonic, silence, &self.map, node);
                let controller = Controller::new(config, self.map.clone(), &heard, now);
                host.controller = Some((led.term, reign, controller));
                host.change = None;
            }
            (None, Some(_)) if !is_cut && self.random.chance(1, 2) => {
                self.hosts.get_mut(&node).unwrap().controller = None;
            }
            _ => {}
        }
        let can_prove = self.leads(node, ShardId::CONTROL) || self.is_careless;
        let host = self.hosts.get_mut(&node).unwrap();
        if let Some((_, reign, controller)) = &mut host.controller
            && can_prove
            && let Some(change) = controller.step(now, crate::Event::Tick)
        {
            host.change = Some((*reign, change));
        }
        if self.random.chance(2, 3) {
            self.deliver(node);
        }
    }

    /// A change arrives at the control shard, wherever that is led.
    fn deliver(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).unwrap();
        let has_leader = self.rafts[&ShardId::CONTROL].leader.is_some();
        if host.is_cut || !has_leader {
            return;
        }
        let Some((reign, change)) = host.change.take() else {
            return;
        };
        let now = Now {
            monotonic: self.now,
            wall: Timestamp::from_secs(1_800_000_000).after(self.now),
        };
        // As the procedure decides it.
        if self.reign == Some(reign) && self.map.epoch == change.from {
            self.map = Arc::new(self.map.after(&change.steps));
            self.check_steps(node, &change.steps);
        } else {
            self.refused += 1;
        }
        let map = self.map.clone();
        let host = self.hosts.get_mut(&node).unwrap();
        if let Some((_, _, controller)) = &mut host.controller {
            controller.step(now, crate::Event::Map(map));
            controller.step(now, crate::Event::Failed);
        }
    }

    /// Nobody is declared down by who was not heard himself.
    fn check_steps(&self, by: NodeId, steps: &[Step]) {
        for step in steps {
            if let Step::NodeState {
                node,
                state: State::Down { .. },
            } = step
            {
                assert_ne!(*node, by, "a controller that hears itself is up");
            }
        }
    }

    fn report(&mut self, node: NodeId) {
        let now = self.now;
        let host = self.hosts.get_mut(&node).unwrap();
        let round = host.agent.begin(now);
        let led = self.led_by(node);
        let is_proved = |shard: &ShardId| led.iter().any(|led| led.shard == *shard);
        let proved = round.shards().filter(is_proved).collect();
        let devices = self.map.devices.iter().filter(|(_, one)| one.node == node);
        let devices = devices.map(|(id, _)| DeviceReport {
            device: *id,
            bytes: SIZE,
            bytes_free: SIZE,
            condition: Condition::Good,
        });
        let devices = devices.collect();
        let agent = &self.hosts[&node].agent;
        let report = agent.report(&round, &proved, &led, Vec::new(), devices);
        if !self.random.chance(1, 20) {
            self.tell(node, round, report);
        }
    }

    /// A report reaches the control leader, who proves that he is, and answers.
    fn tell(&mut self, node: NodeId, round: Round, report: Report) {
        let now = self.at();
        let leader = self.rafts[&ShardId::CONTROL].leader;
        let Some(leader) = leader.and_then(|device| self.node_of(device)) else {
            return;
        };
        if self.hosts[&node].is_cut || self.hosts[&leader].is_cut {
            return;
        }
        for host in self.hosts.values_mut() {
            if host.is_alive && !host.is_cut {
                host.heard.hear(node, self.now);
            }
        }
        let map = self.map.clone();
        let Some((_, reign, controller)) = &mut self.hosts.get_mut(&leader).unwrap().controller
        else {
            return;
        };
        let reign = *reign;
        controller.step(now, crate::Event::Map(map.clone()));
        controller.step(now, crate::Event::Report(node, report.clone()));
        if self.random.chance(1, 20) {
            return;
        }
        let map = (map.epoch > report.epoch).then_some(map);
        let host = self.hosts.get_mut(&node).unwrap();
        host.fresh = Some(self.now);
        let event = agent::Event::Answered {
            round,
            report,
            reign,
            map,
        };
        self.agent(node, event);
    }

    /// Some jobs of a node come to an end.
    fn work(&mut self, node: NodeId) {
        let jobs = std::mem::take(&mut self.hosts.get_mut(&node).unwrap().jobs);
        for (epoch, job) in jobs {
            if self.random.chance(1, 3) {
                let host = self.hosts.get_mut(&node).unwrap();
                host.jobs.push((epoch, job));
                continue;
            }
            let end = match self.random.chance(9, 10) && self.does(node, epoch, &job) {
                true => End::Well,
                false => End::Failed,
            };
            self.agent(node, agent::Event::Done { job, end });
        }
    }

    fn does(&mut self, node: NodeId, by: Epoch, job: &Job) -> bool {
        let map = self.hosts[&node].agent.map().clone();
        match job {
            Job::Destroy { device, shard } => {
                let wanted = map.shards.get(shard);
                if wanted.is_none_or(|one| one.devices().any(|id| id == *device)) {
                    return false;
                }
                let gone = self.replicas.remove(&(*device, *shard));
                let voters = &self.rafts[shard].voters;
                let votes = gone.is_some_and(|gone| voters.get(device) == Some(&gone));
                assert!(!votes, "a replica of {shard} that votes was destroyed");
                true
            }
            Job::Reshape {
                shard,
                term,
                voters,
                learners,
            } => {
                self.rafts[shard].term == *term && self.reshape(node, by, *shard, voters, learners)
            }
            Job::Transfer { shard, to } => {
                let can = self.leads(node, *shard)
                    && self.is_reachable(*to)
                    && self.rafts[shard].voters.contains_key(to);
                if can {
                    let raft = self.rafts.get_mut(shard).unwrap();
                    raft.leader = Some(*to);
                    raft.term += 1;
                }
                can
            }
            Job::Fill { members, .. } => members.iter().all(|id| self.is_reachable(*id)),
        }
    }

    fn leads(&self, node: NodeId, shard: ShardId) -> bool {
        let raft = &self.rafts[&shard];
        let leader = raft.leader.and_then(|device| self.node_of(device));
        leader == Some(node) && self.has_quorum(raft.voters.keys())
    }

    fn reshape(
        &mut self,
        node: NodeId,
        by: Epoch,
        shard: ShardId,
        voters: &[(DeviceId, Option<ReplicaId>)],
        learners: &[(DeviceId, Option<ReplicaId>)],
    ) -> bool {
        let mut numbered = |all: &[(DeviceId, Option<ReplicaId>)]| {
            let mut made = BTreeMap::new();
            for (device, number) in all {
                let number = match number {
                    Some(number) => *number,
                    None => self.prepare(*device, shard)?,
                };
                made.insert(*device, number);
            }
            Some(made)
        };
        let (Some(voters), Some(learners)) = (numbered(voters), numbered(learners)) else {
            return false;
        };
        assert_ne!(voters.len(), 2, "two voters of {shard}");
        if !self.leads(node, shard) || !self.has_quorum(voters.keys()) {
            return false;
        }
        let raft = self.rafts.get_mut(&shard).unwrap();
        for (voter, replica) in &voters {
            let was = raft.voters.get(voter).or(raft.learners.get(voter));
            assert_eq!(was, Some(replica), "{voter} votes before it has learned");
        }
        assert!(by >= raft.changed_by, "{shard} goes back to an older map");
        raft.changed_by = by;
        let stays = raft.leader.is_some_and(|id| voters.contains_key(&id));
        (raft.voters, raft.learners) = (voters, learners);
        if !stays {
            raft.leader = None;
        }
        true
    }

    /// As the node of `device` answers it.
    fn prepare(&mut self, device: DeviceId, shard: ShardId) -> Option<ReplicaId> {
        if !self.is_reachable(device) {
            return None;
        }
        let node = self.node_of(device)?;
        let known = self.hosts[&node].agent.map().shards.get(&shard)?;
        if known.devices().all(|id| id != device) {
            return None;
        }
        let new = ReplicaId(self.draw());
        Some(*self.replicas.entry((device, shard)).or_insert(new))
    }

    /// What must be true at any time.
    fn check(&self) {
        for (id, host) in &self.hosts {
            if host.is_alive && host.is_fence_open {
                let fresh = host.fresh.expect("it has heard");
                // It is looked at when it has its turn.
                let limit = Duration::from_secs(5) + STEP * 2;
                assert!(self.now <= fresh + limit, "{id} has an old map");
            }
        }
        for (shard, raft) in &self.rafts {
            for (device, replica) in &raft.voters {
                let there = self.replicas.get(&(*device, *shard));
                assert_eq!(
                    there,
                    Some(replica),
                    "{shard}: {device} has lost its replica"
                );
            }
        }
    }

    fn die(&mut self, node: NodeId) {
        self.hosts.get_mut(&node).unwrap().is_alive = false;
    }

    fn start(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).unwrap();
        if !host.is_alive {
            // From the map in its file.
            *host = Host::new(node, host.file.clone());
        }
    }

    fn happen(&mut self) {
        let all: Vec<_> = self.hosts.keys().copied().collect();
        let at = self.random.below(all.len() as u64);
        let node = all[usize::try_from(at).unwrap()];
        match self.random.below(200) {
            0..4 => self.die(node),
            4..14 => self.start(node),
            14..18 => self.hosts.get_mut(&node).unwrap().is_cut = true,
            18..22 => self.hosts.get_mut(&node).unwrap().is_cut = false,
            22..26 => {
                // It comes back, and finds itself elected before it has heard anything.
                self.hosts.get_mut(&node).unwrap().is_cut = false;
                self.start(node);
                self.favour(node);
            }
            28 if all.len() > 3 => self.drain(node),
            29..32 if all.len() < 7 => {
                let devices = 1 + u32::try_from(self.random.below(2)).unwrap();
                self.join(devices);
            }
            32..36 => {
                // Somebody else is elected.
                let shard = ShardId(u16::try_from(self.random.below(u64::from(SHARDS))).unwrap());
                self.rafts.get_mut(&shard).unwrap().leader = None;
            }
            _ => {}
        }
    }

    /// A node leads all shards that it can lead.
    fn favour(&mut self, node: NodeId) {
        for shard in (0..SHARDS).map(ShardId) {
            let voters: Vec<_> = self.rafts[&shard].voters.keys().copied().collect();
            let mut here = voters.iter().filter(|id| self.node_of(**id) == Some(node));
            if let Some(device) = here.next().copied()
                && self.has_quorum(voters.iter())
            {
                let raft = self.rafts.get_mut(&shard).unwrap();
                raft.leader = Some(device);
                raft.term += 1;
            }
        }
    }

    fn drain(&mut self, node: NodeId) {
        let mut others = self.map.nodes.iter().filter(|(id, _)| **id != node);
        if others.any(|(_, node)| !node.is_draining) {
            self.change(|map| map.nodes.get_mut(&node).unwrap().is_draining ^= true);
        }
    }

    fn pass(&mut self) {
        self.now += STEP;
        self.elect();
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.turn(node);
        }
        self.check();
    }

    fn status(&self) -> Option<Status> {
        let leader = self.rafts[&ShardId::CONTROL].leader?;
        let host = &self.hosts[&self.node_of(leader)?];
        let (_, _, controller) = host.controller.as_ref()?;
        Some(Status::of(
            NodeId::FIRST,
            controller.map(),
            controller.observed(),
            controller.copying(),
            SHARDS,
        ))
    }

    /// What is called whole, is.
    fn check_whole(&self) {
        for (shard, raft) in &self.rafts {
            let replicas = &self.map.shards[shard];
            let wanted: BTreeSet<_> = replicas.devices().collect();
            let voters: BTreeSet<_> = raft.voters.keys().copied().collect();
            assert_eq!(voters, wanted, "{shard}");
            assert!(
                raft.learners.is_empty() && replicas.joining.is_empty(),
                "{shard}"
            );
            assert!(voters.iter().all(|id| self.map.is_up(*id)), "{shard}");
        }
        let width = self
            .map
            .devices
            .keys()
            .filter(|id| !self.map.is_draining(**id));
        let width = width.count().min(3);
        for (id, group) in &self.map.groups {
            let up = group.full().filter(|one| self.map.is_up(*one)).count();
            assert!(up == group.members.len() && up >= width, "{id}: {group:?}");
        }
    }

    /// Waits until everything is as it should be, with all nodes up.
    fn settle(&mut self, seed: u64) {
        const ROUNDS_MAX: usize = 20_000;
        for host in self.hosts.values_mut() {
            host.is_cut = false;
        }
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.start(node);
        }
        // What has nowhere to go keeps a node from being emptied.
        let staying = |map: &Map| {
            map.devices
                .keys()
                .filter(|id| !map.is_draining(**id))
                .count()
        };
        while staying(&self.map) < self.map.devices.len().min(3) {
            self.change(|map| {
                let mut drained = map.nodes.values_mut().filter(|node| node.is_draining);
                drained.next().expect("one is drained").is_draining = false;
            });
        }
        let mut calm = 0;
        for _ in 0..ROUNDS_MAX {
            let before = self.map.epoch;
            self.pass();
            let is_whole = self.status().is_some_and(|status| status.whole);
            calm = if is_whole && self.map.epoch == before {
                calm + 1
            } else {
                0
            };
            if is_whole {
                self.check_whole();
            }
            if calm == 40 {
                return;
            }
        }
        panic!("seed {seed}: no rest: {:#?}", self.status());
    }
}

impl Host {
    fn new(node: NodeId, map: Arc<Map>) -> Self {
        Self {
            is_alive: true,
            is_cut: false,
            file: map.clone(),
            agent: Agent::new(node, agent::Config::default(), map),
            controller: None,
            change: None,
            jobs: Vec::new(),
            heard: Heard::default(),
            is_fence_open: false,
            fresh: None,
        }
    }
}

fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let one = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let count = std::env::var("SEEDS").map_or(default, |seeds| seeds.parse().unwrap());
    let range = one.map_or(0..count, |seed: u64| seed..seed + 1);
    range.inspect(|seed| eprintln!("SEED={seed}"))
}

#[test]
fn whatever_happens_the_map_comes_to_rest_and_no_replica_is_lost() {
    for seed in seeds(20) {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.happen();
            world.pass();
        }
        world.settle(seed);
    }
}

#[test]
fn one_node_becomes_three_and_all_is_threefold() {
    for seed in seeds(3) {
        let mut world = World::new(seed);
        world.settle(seed);
        world.join(1);
        world.join(1);
        world.settle(seed);
        let status = world.status().unwrap();
        assert!(status.whole, "{status:?}");
        for replicas in world.map.shards.values() {
            assert_eq!(replicas.voters.len(), 3);
        }
    }
}

/// A controller is cut off, hears nobody, and thinks that everybody else is down. When it is reached again its
/// change goes to the control shard, which has another controller by then.
#[test]
fn a_deposed_controller_changes_nothing() {
    let mut world = World::new(1);
    world.join(1);
    world.join(1);
    world.settle(1);
    world.is_careless = true;
    let leader = world.rafts[&ShardId::CONTROL].leader.unwrap();
    let old = world.node_of(leader).unwrap();
    world.hosts.get_mut(&old).unwrap().is_cut = true;
    for _ in 0..20 {
        world.pass();
    }
    let (reign, change) = world.hosts[&old]
        .change
        .clone()
        .expect("it would change the map");
    assert_ne!(world.reign, Some(reign));
    let declares = |step: &Step| matches!(step, Step::NodeState { node, .. } if *node != old);
    assert!(change.steps.iter().any(declares), "{change:?}");
    // As soon as it can, it says what it thinks; on the newest map even.
    let epoch = world.map.epoch;
    let host = world.hosts.get_mut(&old).unwrap();
    host.is_cut = false;
    host.change.as_mut().unwrap().1.from = epoch;
    let refused = world.refused;
    world.deliver(old);
    assert_eq!((world.map.epoch, world.refused), (epoch, refused + 1));
    world.settle(1);
}
