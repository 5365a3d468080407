//! One simulated node: a replica, its disk and its clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::DeviceId;
use fastrand::Rng;

use crate::raft::{Config, Persist, Raft, Start};
use crate::{Ballot, Data, Entry, LogId, Membership, Payload, ReplicaId};

impl Data for u64 {
    fn bytes(&self) -> usize {
        100
    }
}

/// What outlives a crash.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) ballot: Ballot,
    pub(super) entries: BTreeMap<u64, Entry<u64>>,
    /// The state: all up to here is done.
    pub(super) base: LogId,
    pub(super) membership: Membership,
}

impl Disk {
    pub(super) fn write(&mut self, write: &Persist<u64>) {
        if let Some(ballot) = write.ballot {
            self.ballot = ballot;
        }
        let cut = write
            .cut
            .or(write.entries.first().map(|first| first.id.index));
        if let Some(cut) = cut {
            self.entries.split_off(&cut);
        }
        for entry in &write.entries {
            self.entries.insert(entry.id.index, entry.clone());
        }
    }
}

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) device: DeviceId,
    pub(super) disk: Disk,
    /// Nothing while it is down.
    pub(super) raft: Option<Raft<u64>>,
    /// Writes under way, in order.
    pub(super) writing: VecDeque<Persist<u64>>,
    /// The state in memory is as of this entry, and has this membership.
    pub(super) state: (LogId, Membership),
    pub(super) is_paused: bool,
    /// How fast its clock goes, in thousandths, and what it showed at first.
    pub(super) rate: u64,
    pub(super) epoch: u64,
    /// A snapshot is taking the state's place: nothing else is done.
    pub(super) is_installing: bool,
    /// Snapshots that it is sending.
    pub(super) sending: Vec<ReplicaId>,
    /// Counts its starts: what was under way before one is void.
    pub(super) life: u64,
    /// The life that has a timer.
    pub(super) timer_of: u64,
}

impl Node {
    pub(super) fn new(number: usize, rng: &mut Rng) -> Self {
        Self {
            id: ReplicaId(rng.u64(1..) | 1),
            device: DeviceId(number as u128),
            disk: Disk::default(),
            raft: None,
            writing: VecDeque::new(),
            state: Default::default(),
            is_paused: false,
            rate: rng.u64(970..1030),
            epoch: rng.u64(0..1_000_000),
            is_installing: false,
            sending: Vec::new(),
            life: 0,
            timer_of: 0,
        }
    }

    pub(super) fn life_has_no_timer(&self) -> bool {
        self.timer_of != self.life
    }

    /// What its clock shows.
    pub(super) fn clock(&self, now: u64) -> Duration {
        Duration::from_micros(self.epoch + now * self.rate / 1000)
    }

    pub(super) fn start(&mut self, now: u64, bug: Option<crate::Bug>) {
        let after = self.disk.entries.range(self.disk.base.index + 1..);
        let mut entries: VecDeque<_> = VecDeque::new();
        for (index, entry) in after {
            // The entries of a log have no gaps; what lies behind one is older than a snapshot.
            if *index != self.disk.base.index + 1 + entries.len() as u64 {
                break;
            }
            entries.push_back(entry.clone());
        }
        self.state = (self.disk.base, self.disk.membership.clone());
        let mut raft = Raft::new(
            config(),
            Start {
                id: self.id,
                ballot: self.disk.ballot,
                base: self.disk.base,
                membership: self.disk.membership.clone(),
                entries,
                seed: self.id.0 ^ now,
                now: self.clock(now),
            },
        );
        if let Some(bug) = bug {
            raft.plant(bug);
        }
        self.raft = Some(raft);
        self.life += 1;
    }

    /// The power goes: some of the writes under way are done, the others are not.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let done = rng.usize(0..=self.writing.len());
        for write in self.writing.drain(..).take(done) {
            self.disk.write(&write);
        }
        self.raft = None;
        self.is_installing = false;
        self.sending.clear();
        self.life += 1;
    }

    /// Another life, that has promised nothing.
    pub(super) fn wipe(&mut self, rng: &mut Rng) {
        self.id = ReplicaId(rng.u64(1..) | 1);
        self.disk = Disk::default();
        self.writing.clear();
        self.raft = None;
        self.is_installing = false;
        self.sending.clear();
        self.life += 1;
    }

    /// The state becomes durable.
    pub(super) fn flush(&mut self, keep_bytes: usize) {
        let Some(raft) = self.raft.as_mut().filter(|_| !self.is_installing) else {
            return;
        };
        self.disk.base = self.state.0;
        self.disk.membership = self.state.1.clone();
        let gone = raft.compact(self.state.0.index, keep_bytes);
        self.disk.entries.retain(|index, _| *index > gone);
    }

    pub(super) fn apply(&mut self, entry: &Entry<u64>) {
        self.state.0 = entry.id;
        if let Payload::Membership(membership) = &entry.payload {
            self.state.1 = membership.clone();
        }
    }
}

pub(super) fn config() -> Config {
    Config {
        append_bytes: 1000,
        ..Config::default()
    }
}
