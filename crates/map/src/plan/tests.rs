//! A cluster in which everything happens in any order: nodes come, go, flap and are emptied, learn of maps
//! late, lead shards, fill groups and write chunks by maps that are old. After each event nothing may be
//! lost; and when the events end, everything must come to rest where it should be.

use base::{NodeId, Timestamp};
use testkit::Random;

use super::*;
use crate::{Device, Fill, NamedPolicy, Node, Policy, Replicas, State, WIDTH};

const SHARDS: u16 = 12;

/// A Raft group as it is, whatever the map says.
#[derive(Default)]
struct Raft {
    voters: BTreeSet<DeviceId>,
    learners: BTreeSet<DeviceId>,
    ready: BTreeSet<DeviceId>,
    /// The node that leads, and whether it has heard from the controller since.
    leader: Option<(NodeId, bool)>,
}

struct World {
    random: Random,
    map: Map,
    observed: Observed,
    /// The map that each node knows; none before it has heard from the controller.
    known: BTreeMap<NodeId, Map>,
    alive: BTreeSet<NodeId>,
    rafts: BTreeMap<ShardId, Raft>,
    /// Reports that have not arrived yet.
    late: Vec<(ShardId, Membership)>,
    /// Where the acknowledged chunks are, and which fragment each device has.
    chunks: BTreeMap<GroupId, Vec<BTreeMap<DeviceId, u8>>>,
    /// Epochs that devices learned from a filling member.
    fences: BTreeMap<(DeviceId, GroupId), Epoch>,
    steps: usize,
    /// Members that were added, replicas that joined.
    copies: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let map = Map {
            last_node: NodeId(0),
            ..Map::default()
        };
        Self {
            random: Random::new(seed),
            map,
            observed: Observed::default(),
            known: BTreeMap::new(),
            alive: BTreeSet::new(),
            rafts: BTreeMap::new(),
            late: Vec::new(),
            chunks: BTreeMap::new(),
            fences: BTreeMap::new(),
            steps: 0,
            copies: 0,
        }
    }

    fn one_of<T: Copy>(&mut self, all: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<_> = all.into_iter().collect();
        let at = self.random.below(all.len().max(1) as u64);
        all.get(usize::try_from(at).unwrap()).copied()
    }

    fn change(&mut self, change: impl FnOnce(&mut Map)) {
        change(&mut self.map);
        self.map.epoch = self.map.epoch.next();
    }

    /// Groups of these kinds are made as soon as there are devices enough.
    fn add_policies(&mut self) {
        for (data, parity) in [(2, 1), (4, 2)] {
            let policy = Policy::Coded { data, parity };
            let name = policy.to_string();
            self.map.policies.list.push(NamedPolicy { name, policy });
        }
    }

    /// A node comes with its devices; the first founds the shards.
    fn join(&mut self, zone: &str, devices: &[u64]) -> NodeId {
        let id = NodeId(self.map.last_node.0 + 1);
        let first = u128::from(id.0) * 100;
        let ids: Vec<_> = (0..devices.len())
            .map(|i| DeviceId(first + i as u128))
            .collect();
        if id == NodeId::FIRST {
            for shard in 0..SHARDS {
                let voter = ids[usize::from(shard) % ids.len()];
                let raft = Raft {
                    voters: [voter].into(),
                    ..Raft::default()
                };
                self.rafts.insert(ShardId(shard), raft);
            }
        }
        let node = Node {
            zone: zone.to_owned(),
            ..Node::default()
        };
        self.change(|map| {
            map.last_node = id;
            map.nodes.insert(id, node);
            for (device, bytes) in ids.iter().zip(devices) {
                let device_of = Device {
                    node: id,
                    bytes: *bytes,
                    bytes_free: *bytes,
                    state: State::Up,
                    is_draining: false,
                };
                map.devices.insert(*device, device_of);
            }
        });
        self.alive.insert(id);
        id
    }

    fn set(&mut self, node: NodeId, state: State) {
        self.change(|map| map.nodes.get_mut(&node).unwrap().state = state);
    }

    fn node_of(&self, device: DeviceId) -> NodeId {
        self.map.devices[&device].node
    }

    fn is_alive(&self, device: DeviceId) -> bool {
        self.alive.contains(&self.node_of(device))
    }

    /// A node dies; sooner or later the controller sees it.
    fn die(&mut self, node: NodeId) {
        self.alive.remove(&node);
        self.known.remove(&node);
        for raft in self.rafts.values_mut() {
            raft.leader = raft.leader.filter(|(leader, _)| *leader != node);
        }
        let map = &self.map;
        self.fences
            .retain(|(device, _), _| map.devices[device].node != node);
    }

    /// The controller learns who is alive.
    fn detect(&mut self) {
        let since = Timestamp::from_secs(1);
        let nodes: Vec<_> = self
            .map
            .nodes
            .iter()
            .map(|(id, node)| (*id, node.state))
            .collect();
        for (id, state) in nodes {
            match (self.alive.contains(&id), state) {
                (true, State::Down { .. } | State::Out) => self.set(id, State::Up),
                (false, State::Up) => self.set(id, State::Down { since }),
                _ => {}
            }
        }
    }

    /// A node hears from the controller.
    fn hear(&mut self, node: NodeId) {
        self.known.insert(node, self.map.clone());
        for raft in self.rafts.values_mut() {
            if let Some((leader, has_heard)) = &mut raft.leader {
                *has_heard |= *leader == node;
            }
        }
    }

    /// A shard elects somebody, if it can.
    fn elect(&mut self, shard: ShardId) {
        let voters = self.rafts[&shard].voters.clone();
        let alive: Vec<_> = voters
            .iter()
            .copied()
            .filter(|id| self.is_alive(*id))
            .collect();
        let leader = match alive.len() > voters.len() / 2 {
            true => self
                .one_of(alive)
                .map(|device| (self.node_of(device), false)),
            false => None,
        };
        self.rafts.get_mut(&shard).unwrap().leader = leader;
    }

    /// The leader of a shard makes the membership what its map says, and reports it.
    fn reconcile(&mut self, shard: ShardId) {
        let voters = &self.rafts[&shard].voters;
        let alive = voters.iter().filter(|id| self.is_alive(**id)).count();
        let has_quorum = alive > voters.len() / 2;
        let Some((leader, true)) = self.rafts[&shard].leader else {
            return self.elect(shard);
        };
        if !has_quorum || !self.alive.contains(&leader) {
            return self.elect(shard);
        }
        let known = &self.known[&leader];
        let is_alive: BTreeSet<_> = self
            .map
            .devices
            .keys()
            .copied()
            .filter(|id| self.is_alive(*id))
            .collect();
        let raft = self.rafts.get_mut(&shard).unwrap();
        if let Some(replicas) = known.shards.get(&shard) {
            let wanted: BTreeSet<_> = replicas.voters.iter().copied().collect();
            let new: Vec<_> = wanted.difference(&raft.voters).copied().collect();
            if raft.voters == wanted {
                raft.learners = replicas.joining.iter().copied().collect();
                raft.ready.retain(|id| raft.learners.contains(id));
            } else if new.iter().all(|id| raft.ready.contains(id)) {
                let alive = wanted.intersection(&is_alive).count();
                if alive > wanted.len() / 2 {
                    assert_ne!(wanted.len(), 2, "{shard} with two voters");
                    raft.voters = wanted;
                    raft.learners.clear();
                    raft.ready.clear();
                }
            }
            let caught_up = raft.learners.intersection(&is_alive);
            raft.ready.extend(caught_up);
        }
        let report = Membership {
            epoch: known.epoch,
            voters: raft.voters.clone(),
            learners: raft.learners.clone(),
            ready: raft.ready.clone(),
        };
        self.late.push((shard, report));
    }

    /// A report arrives, not in the order of sending.
    fn deliver(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = self.random.below(self.late.len() as u64);
        let (shard, report) = self.late.swap_remove(usize::try_from(at).unwrap());
        let known = self
            .observed
            .shards
            .entry(shard)
            .or_insert_with(|| report.clone());
        if known.epoch <= report.epoch {
            *known = report;
        }
    }

    /// A filling member takes what a full one has.
    fn fill(&mut self) {
        let Some(node) = self.one_of(self.known.keys().copied().collect::<Vec<_>>()) else {
            return;
        };
        let known = self.known[&node].clone();
        for (id, group) in &known.groups {
            for member in &group.members {
                let Fill::Filling { since } = member.fill else {
                    continue;
                };
                if known.devices[&member.device].node != node {
                    continue;
                }
                let full: Vec<_> = group.full().filter(|id| self.is_alive(*id)).collect();
                if group.copies_to_spare(|id| self.is_alive(id)).is_none() {
                    continue;
                }
                let source = self.one_of(full).expect("there are enough copies");
                let fence = self.fences.entry((source, *id)).or_default();
                *fence = since.max(*fence);
                for holders in self.chunks.entry(*id).or_default() {
                    if holders.contains_key(&source) {
                        holders.insert(member.device, member.index);
                    }
                }
                self.observed.filled.insert((*id, member.device, since));
            }
        }
    }

    /// Somebody writes a chunk, by the map that it knows.
    fn write(&mut self) {
        let Some(node) = self.one_of(self.known.keys().copied().collect::<Vec<_>>()) else {
            return;
        };
        let kinds = self.known[&node].policies.kinds();
        let policy = self.one_of(kinds).expect("there is the standard one");
        let (known, draw) = (&self.known[&node], self.random.u64());
        let free = |_| Some(1);
        let Some(id) = known.place(policy, free, &[], draw) else {
            return;
        };
        let group = &known.groups[&id];
        let accepts = |device: DeviceId| {
            let Some(map) = self.known.get(&self.node_of(device)) else {
                return false;
            };
            let of_map = map.groups.get(&id).map(|group| group.epoch);
            let of_fill = self.fences.get(&(device, id)).copied();
            self.is_alive(device) && of_map.max(of_fill).unwrap_or_default() <= group.epoch
        };
        if group.devices().all(accepts) {
            let members = group.members.iter();
            let holders = members.map(|one| (one.device, one.index)).collect();
            self.chunks.entry(id).or_default().push(holders);
        }
    }

    fn plan(&mut self) {
        let steps = next_steps(&self.map, &self.observed);
        if steps.is_empty() {
            return;
        }
        self.check_steps(&steps);
        self.steps += 1;
        self.copies += steps
            .iter()
            .filter(|step| matches!(step, Step::Add { .. } | Step::Join { .. }))
            .count();
        self.map = self.map.after(&steps);
        self.check();
    }

    fn check_steps(&self, steps: &[Step]) {
        assert!(steps.len() <= STEPS_MAX + 4 * MOVES_MAX, "{}", steps.len());
        let (mut shards, mut groups) = (BTreeSet::new(), BTreeMap::new());
        let old_is_spare = |group: &GroupId| self.map.groups[group].is_spare;
        for step in steps {
            match step {
                Step::Join { shard, .. } => drop(shards.insert(*shard)),
                Step::Vote { shard, .. } | Step::Left { shard } | Step::Lead { shard, .. } => {
                    assert!(shards.insert(*shard), "{steps:?}");
                }
                Step::Drop { group, device } => {
                    let old = &self.map.groups[group];
                    let members = old.members.iter();
                    let its = members.clone().find(|one| one.device == *device).unwrap();
                    let mut others = members.filter(|one| {
                        one.index == its.index && one.device != *device && one.fill == Fill::Full
                    });
                    let left = others.any(|one| self.map.is_up(one.device));
                    assert!(left || its.fill != Fill::Full, "{step} of {old:?}");
                    assert_ne!(groups.insert(*group, "drop"), Some("add"));
                }
                Step::Add { group, .. } => {
                    let before = groups.insert(*group, "add");
                    assert!(before.is_none() || old_is_spare(group), "{steps:?}");
                }
                _ => {}
            }
        }
    }

    /// What must be true at any time.
    fn check(&self) {
        let no_twins = |devices: Vec<DeviceId>| {
            let set: BTreeSet<_> = devices.iter().collect();
            set.len() == devices.len()
        };
        for (id, group) in &self.map.groups {
            assert!(no_twins(group.devices().collect()), "{id}: {group:?}");
            assert!(group.full().next().is_some(), "{id}: {group:?}");
            if let Policy::Coded { .. } = group.policy {
                let width = group.policy.width();
                assert_eq!(group.copies(|_| true), width, "{id}: {group:?}");
            }
            for holders in self.chunks.get(id).into_iter().flatten() {
                for member in group.full_members() {
                    let has = holders.get(&member.device);
                    assert_eq!(has, Some(&member.index), "{id}: a chunk on {member:?}");
                }
            }
        }
        for (id, replicas) in &self.map.shards {
            assert!(no_twins(replicas.devices().collect()), "{id}: {replicas:?}");
            assert_ne!(replicas.voters.len(), 2, "{id}: {replicas:?}");
            // Whoever is not in the map deletes its replica.
            for voter in &self.rafts[id].voters {
                assert!(replicas.devices().any(|one| one == *voter), "{id}: {voter}");
            }
        }
    }

    /// Something happens.
    fn step(&mut self) {
        let all: Vec<_> = self.map.nodes.keys().copied().collect();
        let node = self.one_of(all.clone()).expect("there is a node");
        match self.random.below(100) {
            0..2 => self.die(node),
            2..6 => drop(self.alive.insert(node)),
            6 if self.map.nodes[&node].state != State::Up && !self.alive.contains(&node) => {
                self.set(node, State::Out);
            }
            7 if self.alive.len() > 3 => {
                self.change(|map| map.nodes.get_mut(&node).unwrap().is_draining ^= true);
            }
            8 if all.len() < 9 => {
                let zone = ["", "a", "b", "c"][usize::try_from(self.random.below(4)).unwrap()];
                let sizes: Vec<_> = (0..=self.random.below(3)).map(|_| 1 << 40).collect();
                self.join(zone, &sizes);
            }
            // Another controller, who remembers nothing.
            9 => self.observed = Observed::default(),
            10..13 => self.detect(),
            13..30 if self.alive.contains(&node) => self.hear(node),
            30..50 => {
                let shard = self.random.below(u64::from(SHARDS));
                self.reconcile(ShardId(u16::try_from(shard).unwrap()));
            }
            50..65 => self.deliver(),
            65..73 => self.fill(),
            73..90 => self.write(),
            _ => self.plan(),
        }
        self.check();
    }

    /// Everybody who is alive does what there is to do, until nothing is left.
    fn settle(&mut self) {
        const ROUNDS_MAX: usize = 2000;
        let mut calm = 0;
        for _ in 0..ROUNDS_MAX {
            let before = self.steps;
            self.detect();
            self.alive
                .clone()
                .into_iter()
                .for_each(|node| self.hear(node));
            (0..SHARDS).for_each(|shard| self.reconcile(ShardId(shard)));
            while !self.late.is_empty() {
                self.deliver();
            }
            (0..4 * self.alive.len()).for_each(|_| self.fill());
            self.write();
            self.plan();
            calm = if self.steps == before { calm + 1 } else { 0 };
            if calm == 10 {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds");
    }

    /// What must be true when there is nothing left to do and everybody is up.
    fn check_rest(&self) {
        let sites = Sites::of(&self.map);
        let width = usize::from(WIDTH).min(sites.staying);
        let staying = |id: DeviceId| sites.is_staying(id);
        for (id, group) in &self.map.groups {
            let width = match group.policy {
                Policy::Replicated { .. } => width,
                // There is no place to go for those that are to leave.
                Policy::Coded { .. } if group.policy.width() > sites.staying => continue,
                Policy::Coded { .. } => group.policy.width(),
            };
            let best = sites.best_closeness(width);
            let full: Vec<_> = group.full().collect();
            assert_eq!(
                (full.len(), group.members.len()),
                (width, width),
                "{id}: {group:?}"
            );
            assert!(full.iter().all(|id| staying(*id)), "{id}: {group:?}");
            assert_eq!(sites.closeness(&full), best, "{id}: {group:?}");
        }
        let best = sites.best_closeness(width);
        for (id, replicas) in &self.map.shards {
            let devices: Vec<_> = replicas.devices().collect();
            assert_eq!(devices, replicas.voters, "{id}");
            // Where there are no three devices any more, the third goes on voting wherever it is.
            if width == usize::from(WIDTH) {
                assert!(devices.iter().all(|id| staying(*id)), "{id}: {replicas:?}");
                assert_eq!(devices.len(), width, "{id}: {replicas:?}");
                assert_eq!(sites.closeness(&devices), best, "{id}: {replicas:?}");
            }
        }
        assert_eq!(self.map.shards.len(), usize::from(SHARDS));
    }

    /// How many groups, replicas of shards, and led shards the busiest and the idlest have.
    fn spread(&self) -> [(usize, usize); 3] {
        let groups = |device: DeviceId| {
            let all = self.map.groups.values();
            all.filter(|group| group.is_member(device)).count()
        };
        let shards = |device: DeviceId| {
            let mut all = self.map.shards.values().flat_map(Replicas::devices);
            all.by_ref().filter(|one| *one == device).count()
        };
        let leads = |node: NodeId| {
            let all = self.map.shards.values();
            all.filter(|one| self.node_of(one.voters[0]) == node)
                .count()
        };
        let devices = || self.map.devices.keys().copied();
        let range =
            |counts: Vec<usize>| (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        [
            range(devices().map(groups).collect()),
            range(devices().map(shards).collect()),
            range(self.map.nodes.keys().copied().map(leads).collect()),
        ]
    }
}

fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let one = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let count = std::env::var("SEEDS").map_or(default, |seeds| seeds.parse().unwrap());
    let range = one.map_or(0..count, |seed: u64| seed..seed + 1);
    range.inspect(|seed| eprintln!("SEED={seed}"))
}

#[test]
fn whatever_happens_nothing_is_lost_and_all_comes_to_rest() {
    for seed in seeds(20) {
        let mut world = World::new(seed);
        if seed % 2 == 1 {
            world.add_policies();
        }
        let sizes = vec![1 << 40; 1 + usize::try_from(world.random.below(3)).unwrap()];
        world.join("", &sizes);
        for _ in 0..2000 {
            world.step();
        }
        world.alive = world.map.nodes.keys().copied().collect();
        world.settle();
        world.check_rest();
    }
}

/// A cluster of equal nodes, come to rest.
fn at_rest(nodes: usize, devices: usize, zones: &[&str]) -> World {
    let mut world = World::new(nodes as u64);
    for node in 0..nodes {
        world.join(zones[node % zones.len()], &vec![1 << 40; devices]);
    }
    world.settle();
    world.check_rest();
    world
}

#[track_caller]
fn check_spread(world: &World, expected: [(usize, usize); 3]) {
    for ((low, high), (low_min, high_max)) in world.spread().into_iter().zip(expected) {
        assert!(
            low >= low_min && high <= high_max,
            "{:?} beyond {expected:?}",
            world.spread()
        );
    }
}

#[test]
fn equal_devices_have_equal_shares() {
    // Groups of a device, shards of a device, led shards of a node.
    check_spread(&at_rest(1, 1, &[""]), [(6, 6), (12, 12), (12, 12)]);
    check_spread(&at_rest(1, 3, &[""]), [(16, 16), (12, 12), (12, 12)]);
    check_spread(&at_rest(3, 1, &[""]), [(16, 16), (12, 12), (4, 4)]);
    check_spread(&at_rest(5, 2, &[""]), [(15, 18), (3, 5), (2, 3)]);
    check_spread(&at_rest(6, 2, &["a", "b", "c"]), [(15, 17), (2, 4), (1, 3)]);
}

#[test]
fn a_larger_device_has_a_larger_share() {
    let mut world = World::new(0);
    for bytes in [1, 1, 2, 4, 4, 4] {
        world.join("", &[bytes << 40]);
    }
    world.settle();
    let groups = |node: u128| {
        let all = world.map.groups.values();
        all.filter(|group| group.is_member(DeviceId(node * 100)))
            .count()
    };
    // 96 memberships for 16 TiB.
    let share: Vec<_> = (1..=6).map(groups).collect();
    for (got, expected) in share.iter().zip([6, 6, 12, 24, 24, 24]) {
        assert!(got.abs_diff(expected) <= 2, "{share:?}");
    }
}

#[test]
fn growing_moves_no_more_than_the_share_of_the_new() {
    let mut world = at_rest(3, 1, &[""]);
    for nodes in 4..=9 {
        let before = (world.copies, world.map.groups.len());
        world.join("", &[1 << 40]);
        world.settle();
        world.check_rest();
        let copies = world.copies - before.0;
        // The new device's groups, as far as they are not new, and its shards.
        let share = GROUPS_PER_DEVICE + usize::from(SHARDS) * 3 / nodes;
        assert!(
            copies <= share + 3,
            "{copies} for {share} with {nodes} nodes"
        );
    }
}

#[test]
fn chunks_can_be_written_as_soon_as_a_node_of_three_is_down() {
    let mut world = at_rest(3, 2, &[""]);
    let any = |_| Some(1);
    let ordinary = world.map.place(Map::POLICY, any, &[], 0).unwrap();
    assert!(!world.map.groups[&ordinary].is_spare);
    for _ in 0..3 {
        world.die(NodeId(2));
        world.detect();
        assert_eq!(world.map.place(Map::POLICY, any, &[], 0), None);
        world.plan();
        let spare = world.map.place(Map::POLICY, any, &[], 0).unwrap();
        assert!(world.map.groups[&spare].is_spare);
        world.alive.insert(NodeId(2));
        world.settle();
        world.check_rest();
    }
    // The spare groups of the first time were used again.
    let spare = world.map.groups.values().filter(|group| group.is_spare);
    assert!(spare.count() <= 1);
}

#[test]
fn groups_of_fragments_are_made_when_there_are_devices_enough() {
    let mut world = World::new(1);
    world.add_policies();
    let of_width = |world: &World, width: usize| {
        let groups = world.map.groups.values();
        let coded = groups.filter(|group| group.policy.needed() > 1);
        coded.filter(|group| group.members.len() == width).count()
    };
    for nodes in 1..=6 {
        world.join("", &[1 << 40]);
        world.settle();
        world.check_rest();
        let has = (of_width(&world, 3) > 0, of_width(&world, 6) > 0);
        assert_eq!(has, (nodes >= 3, nodes >= 6), "with {nodes}");
    }
    // Each fragment of each group on a node of its own, and all devices alike.
    check_spread(&world, [(46, 50), (5, 7), (2, 2)]);
}

#[test]
fn a_node_that_is_out_comes_back_empty() {
    let mut world = at_rest(4, 1, &[""]);
    world.die(NodeId(2));
    world.detect();
    world.settle();
    let held = |world: &World| {
        let groups = world.map.groups.values();
        let groups = groups
            .filter(|group| group.is_member(DeviceId(200)))
            .count();
        let shards = world.map.shards.values();
        groups
            + shards
                .filter(|one| one.devices().any(|id| id == DeviceId(200)))
                .count()
    };
    let before = held(&world);
    assert!(before > 0);
    world.set(NodeId(2), State::Out);
    world.settle();
    assert_eq!(held(&world), 0);
    world.alive.insert(NodeId(2));
    world.settle();
    world.check_rest();
    assert!(
        held(&world).abs_diff(before) <= 3,
        "{} of {before}",
        held(&world)
    );
}

/// A device is chosen for a replica and breaks before that is made: the shard's membership never becomes what the
/// map says.
#[test]
fn nobody_waits_for_a_replica_on_a_device_that_is_out() {
    let [voter, other, broken] = [100, 200, 300].map(DeviceId);
    let shard = ShardId(1);
    let mut map = at_rest(4, 1, &[""]).map;
    let replicas = Replicas {
        epoch: map.epoch,
        voters: vec![voter],
        joining: vec![other, broken],
        leaving: Vec::new(),
    };
    map.shards = [(shard, replicas)].into();
    map.devices.get_mut(&broken).unwrap().state = State::Out;
    let seen = Membership {
        epoch: map.epoch,
        voters: [voter].into(),
        learners: BTreeSet::new(),
        ready: BTreeSet::new(),
    };
    let observed = Observed {
        shards: [(shard, seen)].into(),
        ..Observed::default()
    };
    let given_up = Step::Vote {
        shard,
        voters: vec![voter],
    };
    assert!(next_steps(&map, &observed).contains(&given_up));
}
