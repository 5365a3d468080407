//! What must hold whatever happens, and all that anybody outside has seen.

use std::collections::BTreeMap;

use base::{ChunkId, DeviceId, GroupId, NodeId, ShardId};
use bytes::Bytes;
use map::Epoch;
use raft::{Entry, LogId, Membership, Payload, ReplicaId};
use testkit::linearizable::{self, Operation};

use super::disk::Command;

/// A register: in which shard, and which.
pub(super) type Register = (ShardId, u64);

/// What has become of a chunk that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Held(Bytes),
    /// It is being deleted: some have it and others do not.
    Doomed,
    Gone,
}

#[derive(Default)]
pub(super) struct Checks {
    /// What went wrong first.
    pub(super) broken: Option<String>,
    /// The entries that some replica has done: every other one must do the same.
    decided: BTreeMap<(ShardId, u64), Entry<Command>>,
    leaders: BTreeMap<(ShardId, u64), ReplicaId>,
    /// The newest that was decided.
    pub(super) memberships: BTreeMap<ShardId, (LogId, Membership)>,
    pub(super) registers: BTreeMap<Register, Vec<Operation>>,
    pub(super) chunks: BTreeMap<ChunkId, Fate>,
    /// What the nodes have confirmed in this life: they keep out older writers.
    raised: BTreeMap<(NodeId, GroupId), Epoch>,
    pub(super) counts: Counts,
}

/// That something happens at all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) puts: u64,
    pub(super) gets: u64,
    pub(super) chunks: u64,
    pub(super) reads: u64,
    pub(super) deletes: u64,
    pub(super) fills: u64,
    pub(super) snapshots: u64,
    pub(super) destroyed: u64,
    pub(super) left: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        for (all, one) in self.each().into_iter().zip({ other }.each()) {
            *all += *one;
        }
    }

    /// Whether there is something that never happened.
    pub(super) fn lacks_something(mut self) -> bool {
        self.each().iter().any(|count| **count == 0)
    }

    fn each(&mut self) -> [&mut u64; 9] {
        let Self {
            puts,
            gets,
            chunks,
            reads,
            deletes,
            fills,
            snapshots,
            destroyed,
            left,
        } = self;
        [
            puts, gets, chunks, reads, deletes, fills, snapshots, destroyed, left,
        ]
    }
}

impl Checks {
    pub(super) fn complain(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }

    pub(super) fn applied(&mut self, shard: ShardId, by: ReplicaId, entry: &Entry<Command>) {
        let key = (shard, entry.id.index);
        let decided = self.decided.entry(key).or_insert_with(|| entry.clone());
        if decided != entry {
            let why = format!("{shard}: {by} does {entry:?}, another one did {decided:?}");
            return self.complain(why);
        }
        if let Payload::Membership(membership) = &entry.payload {
            let newest = self.memberships.entry(shard).or_default();
            if entry.id >= newest.0 {
                *newest = (entry.id, membership.clone());
            }
        }
    }

    pub(super) fn leads(&mut self, shard: ShardId, replica: ReplicaId, term: u64) {
        let leader = *self.leaders.entry((shard, term)).or_insert(replica);
        if leader != replica {
            self.complain(format!("{shard}: {leader} and {replica} lead in {term}"));
        }
    }

    /// A replica is about to be destroyed.
    pub(super) fn destroys(&mut self, shard: ShardId, device: DeviceId, replica: ReplicaId) {
        self.counts.destroyed += 1;
        let newest = self.memberships.get(&shard);
        if newest.is_some_and(|(_, membership)| membership.is_voter(replica)) {
            self.complain(format!(
                "{shard}: {replica} on {device} votes and is destroyed"
            ));
        }
    }

    /// A node begins a new life.
    pub(super) fn starts(&mut self, node: NodeId) {
        self.raised.retain(|(other, _), _| *other != node);
    }

    pub(super) fn raised(&mut self, node: NodeId, group: GroupId, epoch: Epoch) {
        let raised = self.raised.entry((node, group)).or_default();
        *raised = (*raised).max(epoch);
    }

    /// A node lets a write through to its device.
    pub(super) fn writes(&mut self, node: NodeId, chunk: ChunkId, epoch: Epoch) {
        let raised = self.raised.get(&(node, chunk.group()));
        if raised.is_some_and(|raised| epoch < *raised) {
            self.complain(format!("{node}: a late write of {chunk}, of epoch {epoch}"));
        }
    }

    pub(super) fn write_acknowledged(&mut self, chunk: ChunkId, body: Bytes) {
        self.counts.chunks += 1;
        if self.chunks.insert(chunk, Fate::Held(body)).is_some() {
            self.complain(format!("{chunk} was written twice"));
        }
    }

    pub(super) fn chunk_read(&mut self, chunk: ChunkId, read: &Bytes) {
        self.counts.reads += 1;
        if let Some(Fate::Held(body)) = self.chunks.get(&chunk)
            && body != read
        {
            self.complain(format!("{chunk} has other bytes"));
        }
    }

    /// Every register's history has an explanation, and what was asked after `peace` was answered.
    pub(super) fn check_registers(&mut self, peace: u64) {
        let mut broken = Vec::new();
        for (register, history) in &self.registers {
            let mut last = history.iter().filter(|one| one.from >= peace);
            if last.any(|one| one.answer.is_none()) {
                broken.push(format!("{register:?} is not read through every node"));
            }
            match linearizable::check(history) {
                Ok(()) | Err(linearizable::Error::TooHard) => {}
                Err(error) => broken.push(format!("{register:?}: {error}: {history:?}")),
            }
        }
        broken.into_iter().for_each(|why| self.complain(why));
    }
}
