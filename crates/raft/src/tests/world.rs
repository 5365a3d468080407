//! The world of a group: events in virtual time, and the faults among them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use fastrand::Rng;

use super::checks::Checks;
use super::node::Node;
use crate::Bug;
use crate::message::Message;
use crate::{LogId, Membership, ReplicaId};

pub(super) const MS: u64 = 1000;
pub(super) const SECOND: u64 = 1000 * MS;

/// How bad it is. Probabilities are in thousandths.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) nodes: usize,
    /// Of virtual time, with faults.
    pub(super) duration: u64,
    pub(super) lost: u32,
    pub(super) doubled: u32,
    pub(super) delay_max: u64,
    pub(super) write_max: u64,
    /// Mean time between each of these.
    pub(super) crash_every: u64,
    pub(super) pause_every: u64,
    pub(super) cut_every: u64,
    pub(super) change_every: u64,
    pub(super) flush_every: u64,
    pub(super) keep_bytes: usize,
}

impl Faults {
    pub(super) fn drawn(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5eed);
        Self {
            nodes: rng.usize(1..=6),
            duration: rng.u64(5..20) * SECOND,
            lost: rng.choice([0, 10, 100, 300]).expect("not empty"),
            doubled: rng.choice([0, 50]).expect("not empty"),
            delay_max: rng.choice([MS, 20 * MS, 200 * MS]).expect("not empty"),
            write_max: rng.choice([MS, 10 * MS, 300 * MS]).expect("not empty"),
            crash_every: rng.u64(1..8) * SECOND,
            pause_every: rng.u64(1..8) * SECOND,
            cut_every: rng.u64(1..6) * SECOND,
            change_every: rng.u64(1..6) * SECOND,
            flush_every: rng.u64(100..2000) * MS,
            keep_bytes: rng.choice([0, 1000, 100_000]).expect("not empty"),
        }
    }
}

pub(super) enum Event {
    Arrives(Box<Message<u64>>),
    /// The first write under way is done.
    Written {
        node: usize,
        life: u64,
    },
    Tick {
        node: usize,
        life: u64,
    },
    Snapshot(Box<Snapshot>),
    /// What contradicts the snapshot has been written off: it can take the state's place.
    Install(Box<Snapshot>, u64),
    /// Clients want something.
    Clients,
    Crash,
    Restart {
        node: usize,
    },
    Pause,
    Resume {
        node: usize,
    },
    Cut,
    Mend,
    Change,
    Flush,
}

pub(super) struct Snapshot {
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) term: u64,
    pub(super) base: LogId,
    pub(super) membership: Membership,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) events: BTreeMap<u64, Event>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    counter: u64,
    /// Who does not hear whom.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) checks: Checks,
    /// What clients wait for: the node that took it, and its life.
    pub(super) proposed: BTreeMap<LogId, (usize, u64)>,
    pub(super) next_value: u64,
    pub(super) bug: Option<Bug>,
    pub(super) is_calm: bool,
    /// Whether the membership is changed now and then.
    pub(super) is_changing: bool,
    trace: u64,
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<Bug>) -> Self {
        Self {
            now: 0,
            rng: Rng::with_seed(seed),
            nodes: Vec::new(),
            events: BTreeMap::new(),
            queue: BinaryHeap::new(),
            counter: 0,
            cut: BTreeSet::new(),
            checks: Checks::default(),
            proposed: BTreeMap::new(),
            next_value: 0,
            bug,
            is_calm: false,
            is_changing: true,
            trace: 0,
        }
    }

    /// A number that tells runs apart.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    pub(super) fn note(&mut self, what: u64) {
        let mixed = self.trace.rotate_left(5) ^ what ^ self.now;
        self.trace = mixed.wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.counter += 1;
        self.events.insert(self.counter, event);
        self.queue.push(Reverse((self.now + delay, self.counter)));
    }

    /// A time around `mean`.
    pub(super) fn soon(&mut self, mean: u64) -> u64 {
        self.rng.u64(mean / 4..=mean * 2)
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        let Reverse((at, number)) = self.queue.pop()?;
        self.now = self.now.max(at);
        self.events.remove(&number)
    }

    pub(super) fn number(&self, id: ReplicaId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// The newest membership that was decided.
    pub(super) fn membership(&self) -> Membership {
        let newest = self
            .checks
            .decided
            .values()
            .rev()
            .find_map(|entry| match &entry.payload {
                crate::Payload::Membership(membership) => Some(membership.clone()),
                _ => None,
            });
        newest.unwrap_or_else(|| Membership::alone(self.first().0, self.nodes[0].device))
    }

    /// The replica that the group began with.
    fn first(&self) -> (ReplicaId, LogId) {
        (self.nodes[0].id, LogId { term: 0, index: 1 })
    }
}
