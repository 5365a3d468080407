//! The world: machines, what is on its way between them, and virtual time.
//!
//! Time goes in steps of some milliseconds. In each, one process after the other lives for that long; what they say to
//! each other arrives in a later step, so the order within one does not matter, and the run is the same each time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{DeviceId, NodeId, ShardId};
use bytes::Bytes;
use map::{Device, Map, NamedPolicy, Node, Policy, State};
use raft::{LogId, Membership, ReplicaId};
use rpc::{Authority, CallError, Credentials, Fault, NodeKey, Peers, Service as _};
use tokio::sync::oneshot;

use super::disk::{Disk, Stored};
use super::faults::Faults;
use super::node::Machine;
use super::shared::{Call, Letter, Shared};
use super::{Bug, SHARDS, SIZE};
use crate::wire::{self, Raise};
use crate::{Config, HealthConfig};

/// One step of time, in milliseconds.
const STEP: u64 = 5;
/// Who hears nothing on a connection gives it up.
const SILENCE: u64 = 3000;

pub(super) enum Event {
    Request(u64, Box<Call>),
    Answer(u64, Result<Bytes, CallError>),
    Start(usize),
    Resume(usize),
    Mend,
    Crash,
    Pause,
    Cut,
    Clock,
    Drain,
    Destroy,
    Clients,
}

/// A call that was not answered yet.
struct Waiting {
    from: NodeId,
    to: NodeId,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) machines: Vec<Machine>,
    /// Who does not hear whom.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Faults have ended.
    pub(super) is_calm: bool,
    /// Clients have ended, too.
    pub(super) is_quiet: bool,
    pub(super) config: Config,
    /// The register of each shard that clients use now.
    pub(super) keys: BTreeMap<ShardId, u64>,
    pub(super) next_value: u64,
    waiting: BTreeMap<u64, Waiting>,
    calls: u64,
    peers: Peers,
    events: BTreeMap<u64, Event>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    counter: u64,
}

/// Who all nodes are to TLS, which is not used.
fn credentials() -> &'static Credentials {
    static CREDENTIALS: OnceLock<Credentials> = OnceLock::new();
    CREDENTIALS.get_or_init(|| {
        let authority = Authority::new(1).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = authority.sign(NodeId(1), key.public()).unwrap();
        let certificates = authority.certificate().to_vec();
        key.certified(certificate, certificates).unwrap()
    })
}

impl World {
    /// A cluster whose first node has all that there is; the others have just joined.
    pub(super) fn new(seed: u64, bug: Option<Bug>, faults: &Faults) -> Self {
        let shared = Shared::new(seed, bug, faults.clone());
        let health = HealthConfig {
            grace: Duration::from_millis(faults.grace),
            ..HealthConfig::default()
        };
        let peers = Peers::new(credentials(), rpc::Config::default(), |_| None);
        let mut world = Self {
            now: 0,
            shared: shared.clone(),
            machines: Vec::new(),
            cut: BTreeSet::new(),
            is_calm: false,
            is_quiet: false,
            config: Config {
                health,
                ..Config::default()
            },
            keys: BTreeMap::new(),
            next_value: 1,
            waiting: BTreeMap::new(),
            calls: 0,
            peers: peers.unwrap(),
            events: BTreeMap::new(),
            queue: BinaryHeap::new(),
            counter: 0,
        };
        let mut disks = BTreeMap::new();
        for number in 1..=u32::try_from(faults.nodes).expect("few") {
            let count = 1 + shared.below(2);
            let ids = (0..count).map(|one| DeviceId(u128::from(u64::from(number) * 10 + one)));
            disks.insert(NodeId(number), ids.map(Disk::new).collect::<Vec<_>>());
        }
        let map = first_map(&disks, seed);
        found(&shared, &disks[&NodeId(1)][0], &map);
        for (id, disks) in disks {
            let machine = Machine::new(&shared, id, disks, &map);
            world.machines.push(machine);
        }
        world
    }

    pub(super) fn start(&mut self, number: usize) {
        let (config, now) = (self.config.clone(), self.now);
        self.shared.note(now ^ number as u64);
        self.machines[number].start(&self.peers, config, now);
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.counter += 1;
        self.events.insert(self.counter, event);
        self.queue.push(Reverse((self.now + delay, self.counter)));
    }

    /// A time around `mean`.
    pub(super) fn soon(&mut self, mean: u64, event: Event) {
        let delay = mean / 4 + self.shared.below(mean * 7 / 4 + 1);
        self.after(delay, event);
    }

    /// What happens now, and then a step of time.
    pub(super) fn step(&mut self) {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > self.now {
                break;
            }
            self.queue.pop();
            if let Some(event) = self.events.remove(&number) {
                self.happen(event);
            }
        }
        let until = self.now + STEP;
        for number in 0..self.machines.len() {
            self.machines[number].run(until);
            let letters = std::mem::take(&mut *self.shared.outbox.lock());
            letters.into_iter().for_each(|letter| self.send(letter));
        }
        self.now = until;
    }

    pub(super) fn machine(&self, id: NodeId) -> &Machine {
        &self.machines[id.0 as usize - 1]
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    fn delay(&self) -> u64 {
        let max = self.shared.faults.lock().delay_max;
        STEP + self.shared.below(max)
    }

    fn send(&mut self, letter: Letter) {
        let delay = self.delay();
        match letter {
            Letter::Call(mut call) => {
                self.calls += 1;
                let (number, (from, to)) = (self.calls, (call.from, call.to));
                let broken = self.shared.faults.lock().broken;
                let (unused, _) = oneshot::channel();
                let answer = std::mem::replace(&mut call.answer, unused);
                let waiting = Waiting { from, to, answer };
                self.waiting.insert(number, waiting);
                if self.is_cut(from, to) {
                    return self.lose(number);
                }
                if self.shared.chance(broken) {
                    let fault = Fault::Broken("by chance".into());
                    self.after(
                        delay * 2,
                        Event::Answer(number, Err(CallError::Unknown(fault))),
                    );
                    if self.shared.chance(500) {
                        return;
                    }
                }
                self.after(delay, Event::Request(number, call));
            }
            Letter::Answer(number, answer) => {
                let ends = self.waiting.get(&number).map(|one| (one.to, one.from));
                let Some((from, to)) = ends else { return };
                match self.is_cut(from, to) {
                    true => self.lose(number),
                    false => self.after(delay, Event::Answer(number, answer)),
                }
            }
        }
    }

    /// A call or its answer does not arrive: sooner or later that is noticed.
    fn lose(&mut self, number: u64) {
        let silence = Duration::from_millis(SILENCE);
        self.after(
            SILENCE,
            Event::Answer(number, Err(CallError::Unknown(Fault::Silent(silence)))),
        );
    }

    /// Whoever waits for a process that is gone is told so.
    pub(super) fn hang_up(&mut self, node: NodeId) {
        let mut broken = Vec::new();
        for (number, waiting) in &self.waiting {
            if waiting.to == node && !self.is_cut(node, waiting.from) {
                broken.push(*number);
            }
        }
        for number in broken {
            let (delay, fault) = (self.delay(), Fault::Broken("it is gone".into()));
            self.after(delay, Event::Answer(number, Err(CallError::Unknown(fault))));
        }
        self.waiting.retain(|_, waiting| waiting.from != node);
    }

    pub(super) fn answered(&mut self, number: u64, answer: Result<Bytes, CallError>) {
        let Some(waiting) = self.waiting.get(&number) else {
            return;
        };
        if self.machine(waiting.from).is_paused {
            return self.after(20, Event::Answer(number, answer));
        }
        self.shared.note(number);
        if let Some(waiting) = self.waiting.remove(&number) {
            // Its caller may have given up.
            let _ = waiting.answer.send(answer);
        }
    }

    /// A call arrives.
    pub(super) fn requested(&mut self, number: u64, call: Box<Call>) {
        let machine = self.machine(call.to);
        if machine.is_paused {
            // It waits in the socket.
            return self.after(20, Event::Request(number, call));
        }
        let not_sent = |fault| Event::Answer(number, Err(CallError::NotSent(fault)));
        let Some(process) = &machine.process else {
            let fault = Fault::Unreachable {
                address: call.to.to_string(),
                reason: "nobody there".into(),
            };
            return self.after(self.delay(), not_sent(fault));
        };
        if !process.service.admits(call.from) {
            return self.after(self.delay(), not_sent(Fault::Stranger));
        }
        let (service, shared) = (process.service.clone(), self.shared.clone());
        process.runtime.spawn(async move {
            let (to, of) = (call.to, call.service);
            let raise = (of == wire::FENCE).then(|| wire::decode::<Raise>(&call.body));
            let deadline = tokio::time::Instant::now() + call.left;
            let call = rpc::Call {
                from: call.from,
                lane: call.lane,
                service: of,
                body: call.body,
                deadline,
            };
            let answer = match tokio::time::timeout_at(deadline, service.call(call)).await {
                Ok(Ok(pieces)) => Ok(pieces.concat().into()),
                Ok(Err(refusal)) => Err(CallError::Refused(refusal)),
                Err(_) => Err(CallError::Unknown(Fault::Unfinished)),
            };
            if let (Some(Ok(raise)), Ok(_)) = (raise, &answer) {
                let mut checks = shared.checks.lock();
                checks.raised(to, raise.group, raise.epoch);
            }
            shared.outbox.lock().push(Letter::Answer(number, answer));
        });
    }
}

/// The map of a cluster that has just begun.
/// Everybody is in it, and in every third world some bodies are kept in fragments.
fn first_map(disks: &BTreeMap<NodeId, Vec<Arc<Disk>>>, seed: u64) -> Map {
    let first = &disks[&NodeId::FIRST];
    let mut map = Map::default().with_devices(first.iter().map(|disk| disk.id));
    for (id, disks) in disks {
        map.nodes.entry(*id).or_insert_with(Node::default);
        map.last_node = *id;
        for disk in disks {
            let device = Device {
                node: *id,
                bytes: SIZE,
                bytes_free: SIZE,
                state: State::Up,
                is_draining: false,
            };
            map.devices.insert(disk.id, device);
        }
    }
    if seed % 3 == 1 {
        map.policies.list.push(NamedPolicy {
            name: "coded".to_owned(),
            policy: Policy::Coded { data: 2, parity: 1 },
        });
    }
    map.epoch = map.epoch.next();
    map
}

/// One device has all shards, and the map is in the first.
fn found(shared: &Shared, disk: &Disk, map: &Map) {
    for shard in (0..SHARDS).map(ShardId) {
        let id = ReplicaId(shared.draw());
        let membership = Membership::alone(id, disk.id);
        let mut rows = Vec::new();
        if shard == ShardId::CONTROL {
            let row = Bytes::from_static(crate::control::MAP_ROW);
            rows.push((row, Bytes::from(map.encode())));
        }
        let base = LogId { term: 0, index: 1 };
        let mut checks = shared.checks.lock();
        checks.memberships.insert(shard, (base, membership.clone()));
        let stored = Stored {
            base,
            membership,
            rows: Arc::new(rows),
            ..Stored::new(id)
        };
        disk.put(shard, stored);
    }
}
