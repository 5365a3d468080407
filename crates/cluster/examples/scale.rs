//! What a cluster of so many nodes costs to hold together: `cargo run --release -p cluster --example scale [nodes..]`.
//!
//! The map is made by the planner, as if all nodes did at once what it says; a large one is laid out evenly by this
//! program instead, since that takes the planner minutes. Then the parts that depend on the size of the map are measured,
//! one at a time, in one thread. docs/scale.md has the figures.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, NodeId, ShardId, Timestamp};
use cluster::{
    Answer, Condition, Controller, DeviceReport, Event, HealthConfig, Now, Reign, Report,
};
use map::{Device, Fill, Group, Map, Membership, Node, Observed, Replicas, State, next_steps};

const DEVICES_PER_NODE: u32 = 4;
const SHARDS: u16 = 256;
const DEVICE_BYTES: u64 = 16 << 40;
const PLANNED_NODES_MAX: u32 = 100;
/// How often each node reports.
const REPORTS_PER_SECOND: usize = 2;

fn main() {
    let asked: Vec<u32> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let sizes = match asked.as_slice() {
        [] => &[10, 100, 1000],
        asked => asked,
    };
    for nodes in sizes {
        measure(*nodes);
    }
}

fn measure(nodes: u32) {
    let bench = Bench { env: Env::real() };
    println!("{nodes} nodes, {DEVICES_PER_NODE} devices each, {SHARDS} shards");
    let map = match nodes > PLANNED_NODES_MAX {
        true => laid_out(nodes),
        false => bench.plan(nodes),
    };
    bench.map(&map);
    bench.reports(nodes, &map);
    println!();
}

struct Bench {
    env: Env,
}

impl Bench {
    /// The time of `act`, the shortest of some.
    fn time<T>(&self, mut act: impl FnMut() -> T) -> Duration {
        const TIMES: usize = 5;
        let clock = &self.env.clock;
        let times = (0..TIMES).map(|_| {
            let start = clock.monotonic();
            black_box(act());
            clock.monotonic() - start
        });
        times.min().unwrap_or_default()
    }

    /// Has everything placed.
    fn plan(&self, nodes: u32) -> Map {
        let clock = &self.env.clock;
        let mut map = empty(nodes);
        let (mut plans, mut slowest) = (0, Duration::ZERO);
        let start = clock.monotonic();
        loop {
            let observed = obedient(&map);
            let began = clock.monotonic();
            let steps = next_steps(&map, &observed);
            slowest = slowest.max(clock.monotonic() - began);
            if steps.is_empty() {
                break;
            }
            map = map.after(&steps);
            plans += 1;
        }
        let took = clock.monotonic() - start;
        println!(
            "  placing everything: {plans} changes of the map, {took:.1?}; slowest plan {slowest:.1?}"
        );
        map
    }

    fn map(&self, map: &Map) {
        let bytes = map.encode();
        let encode = self.time(|| map.encode());
        let decode = self.time(|| Map::decode(&bytes));
        let idle = self.time(|| next_steps(map, &obedient(map)));
        let place = self.time(|| map.place(Map::POLICY, |_| Some(DEVICE_BYTES), &[], 1 << 60));
        println!("  map: {} groups, {} bytes", map.groups.len(), bytes.len());
        println!("  map: {} bytes of memory", memory(map));
        println!("  map: {encode:.1?} to encode, {decode:.1?} to decode");
        let steps = next_steps(map, &obedient(map)).len();
        println!("  a plan: {idle:.1?}, {steps} steps");
        println!("  choosing a group for a chunk: {place:.1?}");
    }

    /// What nodes say when nothing happens, and what the control leader does with it.
    fn reports(&self, nodes: u32, map: &Map) {
        let map = Arc::new(map.clone());
        let report = |node| Report {
            epoch: map.epoch,
            addresses: map.nodes[&node].addresses.clone(),
            devices: devices(node).map(good).collect(),
            ..Report::default()
        };
        let reports: Vec<_> = (1..=nodes)
            .map(|id| (NodeId(id), report(NodeId(id))))
            .collect();
        let size =
            |bytes: Result<Vec<u8>, postcard::Error>| bytes.expect("it can be written").len();
        let asked = size(postcard::to_allocvec(&reports[0].1));
        let answer = Answer::new(Reign(u64::MAX), map.epoch, &map);
        let answered = size(postcard::to_allocvec(&answer));
        let messages = 2 * REPORTS_PER_SECOND * reports.len();
        let bytes = (asked + answered) * REPORTS_PER_SECOND * reports.len();
        println!("  a report has {asked} bytes, its answer {answered}");
        println!("  the control leader: {messages} messages and {bytes} bytes a second");

        let now = Now {
            monotonic: Duration::from_secs(1000),
            wall: Timestamp::from_secs(1_800_000_000),
        };
        let new = || Controller::new(HealthConfig::default(), map.clone(), &BTreeMap::new(), now);
        let mut controller = new();
        let hear = self.time(|| {
            for (node, report) in &reports {
                controller.step(now, Event::Report(*node, report.clone()));
            }
        });
        let tick = self.time(|| new().step(now, Event::Tick));
        println!(
            "  the controller: {hear:.1?} for all reports, {tick:.1?} for a look at everything"
        );
    }
}

fn devices(node: NodeId) -> impl Iterator<Item = DeviceId> {
    // Ids are random and of full length, as real ones.
    let id = move |number| u128::from(node.0 * DEVICES_PER_NODE + number);
    (0..DEVICES_PER_NODE).map(move |number| {
        DeviceId(id(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    })
}

fn good(device: DeviceId) -> DeviceReport {
    DeviceReport {
        device,
        bytes: DEVICE_BYTES,
        bytes_free: DEVICE_BYTES,
        condition: Condition::Good,
    }
}

/// So many nodes that have just joined the first one, which has all shards.
fn empty(nodes: u32) -> Map {
    let mut map = Map {
        last_node: NodeId(nodes),
        ..Map::default()
    };
    for id in (1..=nodes).map(NodeId) {
        let node = Node {
            addresses: vec![format!("10.0.{}.{}:7000", id.0 / 250, id.0 % 250)],
            ..Node::default()
        };
        map.nodes.insert(id, node);
        for device in devices(id) {
            let of_node = Device {
                node: id,
                bytes: DEVICE_BYTES,
                bytes_free: DEVICE_BYTES,
                state: State::Up,
                is_draining: false,
            };
            map.devices.insert(device, of_node);
        }
    }
    let first = devices(NodeId(1)).next().expect("a node has devices");
    for shard in (0..SHARDS).map(ShardId) {
        let replicas = Replicas {
            voters: vec![first],
            ..Replicas::default()
        };
        map.shards.insert(shard, replicas);
    }
    map
}

/// All shards and groups on three nodes each, and as many on each device.
fn laid_out(nodes: u32) -> Map {
    /// As the planner makes.
    const GROUPS_PER_DEVICE: usize = 16;
    let mut map = empty(nodes);
    map.epoch = map.epoch.next();
    // One device of each node after the other, so that neighbours are on different nodes.
    let all = (0..DEVICES_PER_NODE).flat_map(|number| {
        let nodes = (1..=nodes).map(NodeId);
        nodes.filter_map(move |node| devices(node).nth(usize::try_from(number).ok()?))
    });
    let all: Vec<_> = all.collect();
    let three = |number: usize| -> Vec<_> {
        let places = (0..3).map(|place| (3 * number + place) % all.len());
        places.map(|place| all[place]).collect()
    };
    for number in 0..(GROUPS_PER_DEVICE * all.len()).div_ceil(3) {
        let group = map.next_group();
        let made = Group::new(Map::POLICY, map.epoch, &three(number), false);
        map.groups.insert(group, made);
    }
    for (number, replicas) in map.shards.values_mut().enumerate() {
        replicas.voters = three(number);
    }
    map
}

/// What is reported when all that the map says has been done.
fn obedient(map: &Map) -> Observed {
    let mut observed = Observed::default();
    for (shard, replicas) in &map.shards {
        let joining: BTreeSet<_> = replicas.joining.iter().copied().collect();
        let membership = Membership {
            epoch: map.epoch,
            voters: replicas.voters.iter().copied().collect(),
            learners: joining.clone(),
            ready: joining,
        };
        observed.shards.insert(*shard, membership);
    }
    for (id, group) in &map.groups {
        for member in &group.members {
            if let Fill::Filling { since } = member.fill {
                observed.filled.insert((*id, member.device, since));
            }
        }
    }
    observed
}

/// By how much the process grows with each copy of the map.
fn memory(map: &Map) -> u64 {
    const COPIES: u64 = 32;
    let before = resident_bytes();
    let copies: Vec<_> = (0..COPIES).map(|_| black_box(map.clone())).collect();
    let after = resident_bytes();
    drop(copies);
    after.saturating_sub(before) / COPIES
}

fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * PAGE_BYTES
}
