//! A device in memory that fails when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use base::{ChunkId, ContainerId, DeviceId, GroupId, Version};
use bytes::Bytes;
use device::{Error, Label, Owner};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Epoch;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Description, LIST_MAX, Storage, StorageError};

/// A whole chunk of somebody's object.
pub fn label(object: &str) -> Label {
    let owner = Owner {
        account: "a".into(),
        container: "c".into(),
        container_id: ContainerId(1),
        object: object.into(),
        version: Version(100_000),
    };
    owner.into()
}

/// Keeps chunks in a map. Every operation may be told to fail, and the space to end.
pub struct MemoryDevice {
    id: DeviceId,
    state: Mutex<State>,
    /// A write has begun.
    begun: Notify,
    released: Notify,
}

struct State {
    chunks: BTreeMap<ChunkId, (Label, Bytes)>,
    free_bytes: Option<u64>,
    write_error: Option<Error>,
    read_error: Option<Error>,
    delete_error: Option<Error>,
    reads_hang: bool,
    writes_hang: bool,
    rotten: BTreeSet<ChunkId>,
}

impl MemoryDevice {
    pub fn new(id: DeviceId) -> Self {
        Self {
            id,
            state: Mutex::new(State {
                chunks: BTreeMap::new(),
                free_bytes: Some(1 << 40),
                write_error: None,
                read_error: None,
                delete_error: None,
                reads_hang: false,
                writes_hang: false,
                rotten: BTreeSet::new(),
            }),
            begun: Notify::new(),
            released: Notify::new(),
        }
    }

    /// What it says of its space from now on; `None`: out of service.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.state.lock().free_bytes = free_bytes;
    }

    /// Writes fail with this from now on.
    pub fn fail_writes(&self, error: Option<Error>) {
        self.state.lock().write_error = error;
    }

    /// Reads fail with this from now on.
    pub fn fail_reads(&self, error: Option<Error>) {
        self.state.lock().read_error = error;
    }

    /// Reads and lists are not answered from now on, until [`MemoryDevice::release`].
    pub fn hang_reads(&self) {
        self.state.lock().reads_hang = true;
    }

    /// Writes and deletes are not answered from now on, until [`MemoryDevice::release`].
    pub fn hang_writes(&self) {
        self.state.lock().writes_hang = true;
    }

    /// Waits for the next write, or for one that has begun since the last time.
    pub async fn write_begun(&self) {
        self.begun.notified().await;
    }

    /// What hangs goes on.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.reads_hang = false;
        state.writes_hang = false;
        self.released.notify_waiters();
    }

    /// Waits while `hangs`.
    async fn turn(&self, hangs: impl Fn(&State) -> bool) {
        tokio::task::yield_now().await;
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            if !hangs(&self.state.lock()) {
                return;
            }
            released.await;
        }
    }

    /// The copy of this chunk is bad from now on.
    pub fn rot(&self, id: ChunkId) {
        self.state.lock().rotten.insert(id);
    }

    /// Deletes fail with this from now on.
    pub fn fail_deletes(&self, error: Option<Error>) {
        self.state.lock().delete_error = error;
    }

    /// All chunks with what they are, and their lengths.
    pub fn chunks(&self) -> Vec<(ChunkId, Label, u32)> {
        let state = self.state.lock();
        let chunks = state.chunks.iter();
        chunks
            .map(|(id, (label, bytes))| {
                let bytes = u32::try_from(bytes.len()).expect("a chunk is at most 4 MiB");
                (*id, label.clone(), bytes)
            })
            .collect()
    }

    /// Puts a chunk there that nobody wrote, or takes one away behind everybody's back.
    pub fn set(&self, id: ChunkId, chunk: Option<(Label, Bytes)>) {
        let mut state = self.state.lock();
        match chunk {
            Some(chunk) => state.chunks.insert(id, chunk),
            None => state.chunks.remove(&id),
        };
    }
}

fn outcome(error: &Option<Error>) -> Result<(), StorageError> {
    match error {
        Some(error) => Err(error.clone().into()),
        None => Ok(()),
    }
}

impl Storage for MemoryDevice {
    fn id(&self) -> DeviceId {
        self.id
    }

    fn free_bytes(&self) -> Option<u64> {
        self.state.lock().free_bytes
    }

    fn write<'a>(
        &'a self,
        _epoch: Epoch,
        id: ChunkId,
        label: &'a Label,
        payload: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            self.begun.notify_one();
            self.turn(|state| state.writes_hang).await;
            let mut state = self.state.lock();
            outcome(&state.write_error)?;
            let chunk = (label.clone(), Bytes::from(payload.concat()));
            let before = state.chunks.insert(id, chunk.clone());
            assert!(
                before.is_none_or(|before| before.0.index() != label.index() || before == chunk),
                "chunk {id} is changed"
            );
            // Written anew, it lies elsewhere.
            state.rotten.remove(&id);
            Ok(())
        }
        .boxed()
    }

    fn read(
        &self,
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> BoxFuture<'_, Result<Bytes, StorageError>> {
        async move {
            self.turn(|state| state.reads_hang).await;
            let state = self.state.lock();
            outcome(&state.read_error)?;
            if state.rotten.contains(&id) {
                return Err(StorageError::Damaged("rot".into()));
            }
            let (label, bytes) = state.chunks.get(&id).ok_or(StorageError::Missing)?;
            if label.index() != index {
                return Err(StorageError::Damaged("another fragment".into()));
            }
            let range = range.start as usize..range.end as usize;
            if range.is_empty() || range.end > bytes.len() || range.len() > device::READ_BYTES_MAX {
                return Err(Error::invalid(format!("reading {range:?}")).into());
            }
            Ok(bytes.slice(range))
        }
        .boxed()
    }

    fn delete<'a>(&'a self, ids: &'a [ChunkId]) -> BoxFuture<'a, Result<(), StorageError>> {
        async move {
            self.turn(|state| state.writes_hang).await;
            let mut state = self.state.lock();
            outcome(&state.delete_error)?;
            for id in ids {
                state.chunks.remove(id);
            }
            Ok(())
        }
        .boxed()
    }

    fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
    ) -> BoxFuture<'_, Result<Vec<ChunkId>, StorageError>> {
        async move {
            self.turn(|state| state.reads_hang).await;
            let state = self.state.lock();
            outcome(&state.read_error)?;
            let chunks = state.chunks.keys().copied();
            let chunks = chunks.filter(|id| id.group() == group && Some(*id) > after);
            Ok(chunks.take(LIST_MAX).collect())
        }
        .boxed()
    }

    fn describe(&self, id: ChunkId) -> BoxFuture<'_, Result<Description, StorageError>> {
        async move {
            self.turn(|state| state.reads_hang).await;
            let state = self.state.lock();
            outcome(&state.read_error)?;
            let (label, bytes) = state.chunks.get(&id).ok_or(StorageError::Missing)?;
            Ok(Description {
                label: label.clone(),
                bytes: u32::try_from(bytes.len()).expect("a chunk is at most 4 MiB"),
            })
        }
        .boxed()
    }

    /// What is rotten is known at once.
    fn bad(&self) -> Vec<(ChunkId, String)> {
        let state = self.state.lock();
        let bad = state
            .rotten
            .iter()
            .filter(|id| state.chunks.contains_key(id));
        bad.map(|id| (*id, "rot".to_owned())).collect()
    }
}
