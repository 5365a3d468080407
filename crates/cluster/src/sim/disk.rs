//! What outlives a process: the devices of a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{ChunkId, DeviceId, GroupId, ShardId};
use bytes::Bytes;
use chunks::Storage as _;
use chunks::testing::MemoryDevice;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use raft::{Ballot, Data, Entry, LogId, Membership, Persist, ReplicaId};
use testkit::Random;

/// What an entry says: a call of a procedure, which each replica runs by itself. In production it is what the call comes
/// to; that is the business of `shard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: Arc<str>,
    pub(super) call: Bytes,
}

impl Data for Command {
    fn bytes(&self) -> usize {
        self.call.len()
    }
}

/// All rows of a shard.
pub(super) type Rows = Vec<(Bytes, Bytes)>;

/// A replica as it is on its device.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) id: Option<ReplicaId>,
    pub(super) ballot: Ballot,
    pub(super) entries: BTreeMap<u64, Entry<Command>>,
    /// The state: all up to here is done.
    pub(super) base: LogId,
    pub(super) membership: Membership,
    pub(super) rows: Arc<Rows>,
    /// Writes under way, in order.
    pub(super) pending: VecDeque<Persist<Command>>,
}

impl Stored {
    pub(super) fn new(id: ReplicaId) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    pub(super) fn write(&mut self, write: Persist<Command>) {
        if let Some(ballot) = write.ballot {
            self.ballot = ballot;
        }
        let first = write.entries.first().map(|first| first.id.index);
        if let Some(cut) = write.cut.or(first) {
            self.entries.split_off(&cut);
        }
        let entries = write.entries.into_iter();
        self.entries
            .extend(entries.map(|entry| (entry.id.index, entry)));
    }

    /// The entries behind the state. What lies behind a gap is older than a snapshot.
    pub(super) fn tail(&self) -> VecDeque<Entry<Command>> {
        let next = self.base.index + 1;
        let after = self.entries.range(next..).zip(next..);
        let tail = after.take_while(|((index, _), expected)| *index == expected);
        tail.map(|((_, entry), _)| entry.clone()).collect()
    }
}

/// What something comes to that waits for nothing outside of it.
pub(super) fn at_once<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    // Devices in memory give way to others now and then.
    let mut polls = (0..100).map(|_| work.as_mut().now_or_never());
    polls.find_map(|done| done).expect("it waits for nothing")
}

/// A device. It may break, for ever.
pub(super) struct Disk {
    pub(super) id: DeviceId,
    pub(super) chunks: MemoryDevice,
    state: Mutex<DiskState>,
}

#[derive(Default)]
struct DiskState {
    is_broken: bool,
    replicas: BTreeMap<ShardId, Stored>,
}

impl Disk {
    pub(super) fn new(id: DeviceId) -> Arc<Self> {
        Arc::new(Self {
            id,
            chunks: MemoryDevice::new(id),
            state: Mutex::default(),
        })
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().is_broken
    }

    pub(super) fn break_down(&self) {
        self.state.lock().is_broken = true;
        self.chunks.set_free_bytes(None);
    }

    pub(super) fn shards(&self) -> Vec<ShardId> {
        self.state.lock().replicas.keys().copied().collect()
    }

    pub(super) fn put(&self, shard: ShardId, stored: Stored) {
        self.state.lock().replicas.insert(shard, stored);
    }

    pub(super) fn remove(&self, shard: ShardId) {
        self.state.lock().replicas.remove(&shard);
    }

    /// Looks at what is there of this life of the replica.
    pub(super) fn with<T>(
        &self,
        shard: ShardId,
        id: ReplicaId,
        look: impl FnOnce(&mut Stored) -> T,
    ) -> Option<T> {
        let mut state = self.state.lock();
        let stored = state.replicas.get_mut(&shard)?;
        (stored.id == Some(id)).then(|| look(stored))
    }

    pub(super) fn id_of(&self, shard: ShardId) -> Option<ReplicaId> {
        self.state.lock().replicas.get(&shard)?.id
    }

    /// The chunks of a group that are here.
    pub(super) fn listed(&self, group: GroupId) -> Vec<ChunkId> {
        at_once(self.chunks.list(group, None)).unwrap_or_default()
    }

    pub(super) fn has(&self, chunk: ChunkId) -> bool {
        at_once(self.chunks.describe(chunk)).is_ok()
    }

    /// Which fragment of a chunk is here.
    pub(super) fn index_of(&self, chunk: ChunkId) -> Option<u8> {
        let described = at_once(self.chunks.describe(chunk));
        described.ok()?.label.index()
    }

    /// The power goes: some of the writes under way are done, the others are not.
    pub(super) fn crash(&self, random: &mut Random) {
        for stored in self.state.lock().replicas.values_mut() {
            let count = stored.pending.len() as u64;
            let done = usize::try_from(random.below(count + 1)).expect("few are under way");
            let pending = std::mem::take(&mut stored.pending);
            for write in pending.into_iter().take(done) {
                stored.write(write);
            }
        }
    }
}
