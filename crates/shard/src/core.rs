//! The state of one shard on this node: memtables over the tree.
//!
//! One applier adds entries to the active memtable and publishes their number; views read at a
//! number that was published. A flush freezes the active memtable, writes it into the tree and then
//! drops it:
//!
//! | | memtables of a view | tree of a view |
//! | --- | --- | --- |
//! | before the freeze | active | commit n |
//! | frozen | active, frozen | commit n |
//! | committed | active | commit n + 1 |
//! | dropped | active | commit n + 1 |
//!
//! A view takes the memtables, then the tree's newest commit, and then looks whether the memtables
//! are still the same; so no entry is missed and none is seen twice, which matters to counters.
//! Whether the frozen memtable is in the tree already, the number of the tree's commit says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use base::{ShardId, Timestamp};
use bytes::Bytes;
use heed::RwTxn;
use parking_lot::Mutex;
use raft::LogId;

use crate::memtable::{Cell, Memtable, Seq};
use crate::replica::Memo;
use crate::tree::{Database, Row, Tree, row};
use crate::view::{TreeView, View};
use crate::{Batch, Error};

pub(crate) struct Core {
    id: ShardId,
    /// `None` for a shard in memory alone.
    tree: Option<(Arc<Tree>, Database<'static>)>,
    tables: ArcSwap<Tables>,
    /// Everything up to here is in the tables, and readers may see it.
    published: AtomicU64,
    /// Held while something is applied, frozen or replaced.
    applied: Mutex<Memo>,
    /// The newest time that a procedure was given, in ticks.
    newest: AtomicU64,
}

/// The memtables of a shard.
struct Tables {
    active: Arc<Memtable>,
    frozen: Option<Frozen>,
    /// From this commit of the tree on these tables are the wrong ones: the shard is being
    /// replaced.
    replaced_by: usize,
}

/// A memtable on its way into the tree.
struct Frozen {
    memtable: Arc<Memtable>,
    /// The shard as of this memtable.
    memo: Memo,
    /// The tree's commit that holds it.
    included: Arc<AtomicUsize>,
}

/// Not yet in any commit.
const NEVER: usize = usize::MAX;

impl Core {
    pub(crate) fn new(id: ShardId, tree: Option<Arc<Tree>>) -> Result<Self, Error> {
        let memo = match &tree {
            Some(tree) => tree.memo(&*tree.read()?, id)?,
            None => Memo::first(raft::ReplicaId(1), base::DeviceId(0)),
        };
        Ok(Self {
            id,
            tree: tree.map(|tree| {
                let database = tree.database(id);
                (tree, database)
            }),
            tables: ArcSwap::from_pointee(Tables::new()),
            published: AtomicU64::new(memo.applied.index),
            newest: AtomicU64::new(memo.time),
            applied: Mutex::new(memo),
        })
    }

    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    /// A time later than any that was given before, and not before `now`.
    pub(crate) fn tick(&self, now: Timestamp) -> Timestamp {
        let later = |newest: u64| now.ticks().max(newest + 1);
        let before = self
            .newest
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| {
                Some(later(newest))
            })
            .expect("there always is a later time");
        Timestamp::from_ticks(later(before))
    }

    pub(crate) fn newest_time(&self) -> u64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// The last entry that was applied.
    pub(crate) fn position(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// The shard as of the last entry that was applied.
    pub(crate) fn memo(&self) -> Memo {
        self.applied.lock().clone()
    }

    /// The shard as the tree has it.
    fn memo_in_tree(&self) -> Result<Option<Memo>, Error> {
        match &self.tree {
            Some((tree, _)) => tree.memo(&*tree.read()?, self.id).map(Some),
            None => Ok(None),
        }
    }

    /// Applies the batches of some entries, the last of which is the one that `memo` has as applied after
    /// `change`: readers see all of them or none. Returns by how much the memtable grew.
    pub(crate) fn apply<'a>(
        &self,
        batches: impl Iterator<Item = &'a Bytes>,
        change: impl FnOnce(&mut Memo),
    ) -> Result<u64, Error> {
        let mut effects = Vec::new();
        for batch in batches {
            Batch::decode(batch.clone(), &mut effects)?;
        }
        let mut memo = self.applied.lock();
        change(&mut memo);
        self.newest.fetch_max(memo.time, Ordering::Relaxed);
        let seq: Seq = memo.applied.index;
        let tables = self.tables.load();
        let before = tables.active.bytes();
        tables.active.apply(seq, effects);
        let grown = tables.active.bytes() - before;
        self.published.store(seq, Ordering::Release);
        Ok(grown)
    }

    /// The shard as of now: everything that was applied before the call.
    pub(crate) fn view(&self) -> Result<View, Error> {
        loop {
            let tables = self.tables.load_full();
            let seq = self.published.load(Ordering::Acquire);
            let mut memtables = vec![tables.active.clone()];
            let Some((tree, database)) = &self.tree else {
                return Ok(View::new(seq, memtables, None));
            };
            let reader = tree.read()?;
            if let Some(frozen) = &tables.frozen
                && reader.id() < frozen.included.load(Ordering::Acquire)
            {
                memtables.push(frozen.memtable.clone());
            }
            if reader.id() >= tables.replaced_by {
                // In a moment there are other tables.
                std::thread::yield_now();
            } else if Arc::ptr_eq(&tables, &self.tables.load()) {
                let tree = TreeView::new(*database, reader);
                return Ok(View::new(seq, memtables, Some(tree)));
            }
        }
    }

    /// What the active memtable takes.
    pub(crate) fn memtable_bytes(&self) -> u64 {
        self.tables.load().active.bytes()
    }

    /// Freezes the active memtable, to be written by the tree's commit `id`; a memtable that is
    /// frozen since a flush that failed is written first. Returns whether there is one to write,
    /// and the bytes by which the active one shrank.
    pub(crate) fn freeze(&self, id: usize) -> Option<u64> {
        let memo = self.applied.lock();
        let tables = self.tables.load();
        if let Some(frozen) = &tables.frozen {
            frozen.included.store(id, Ordering::Release);
            return Some(0);
        }
        // An entry without effects leaves the memtable empty.
        let same = |stored: Option<Memo>| stored.as_ref() == Some(&*memo);
        if tables.active.is_empty() && self.memo_in_tree().is_ok_and(same) {
            return None;
        }
        self.tables.store(Arc::new(Tables {
            active: Arc::default(),
            frozen: Some(Frozen {
                memtable: tables.active.clone(),
                memo: memo.clone(),
                included: Arc::new(AtomicUsize::new(id)),
            }),
            replaced_by: NEVER,
        }));
        Some(tables.active.bytes())
    }

    /// Writes the frozen memtable, in order, and what belongs to it.
    pub(crate) fn write_frozen(&self, txn: &mut RwTxn) -> Result<(), heed::Error> {
        let tables = self.tables.load();
        let (Some(frozen), Some((tree, database))) = (&tables.frozen, &self.tree) else {
            return Ok(());
        };
        let mut cursor = frozen.memtable.cursor(Seq::MAX);
        cursor.seek(std::ops::Bound::Unbounded);
        while let Some((key, cell)) = cursor.row() {
            match cell {
                Cell::Put(value) => row::put(database, txn, key, Row::Value(value))?,
                Cell::Deleted => {
                    database.delete(txn, key)?;
                }
                Cell::Added(by) => fold(database, txn, key, *by)?,
            }
            cursor.next();
        }
        tree.put_memo(txn, self.id, &frozen.memo)
    }

    /// The commit failed: the frozen memtable stays until a later one.
    pub(crate) fn not_written(&self) {
        if let Some(frozen) = &self.tables.load().frozen {
            frozen.included.store(NEVER, Ordering::Release);
        }
    }

    /// The commit succeeded: the frozen memtable goes. Returns the bytes that it took, and up to where the
    /// tree has the shard now.
    pub(crate) fn written(&self) -> Option<(u64, LogId)> {
        let _applied = self.applied.lock();
        let tables = self.tables.load();
        let frozen = tables.frozen.as_ref()?;
        self.tables.store(Arc::new(Tables {
            active: tables.active.clone(),
            frozen: None,
            replaced_by: NEVER,
        }));
        Some((frozen.memtable.bytes(), frozen.memo.applied))
    }

    /// Replaces the whole shard by what the tree's commit `id` will hold; `commit` makes it. Returns
    /// the bytes of the memtables that went.
    pub(crate) fn replace(
        &self,
        id: usize,
        memo: Memo,
        commit: impl FnOnce() -> Result<(), heed::Error>,
    ) -> Result<u64, heed::Error> {
        let mut applied = self.applied.lock();
        let tables = self.tables.load_full();
        let set = |replaced_by| {
            self.tables.store(Arc::new(Tables {
                active: tables.active.clone(),
                frozen: tables.frozen.as_ref().map(Frozen::again),
                replaced_by,
            }));
        };
        set(id);
        if let Err(error) = commit() {
            set(NEVER);
            return Err(error);
        }
        self.newest.fetch_max(memo.time, Ordering::Relaxed);
        self.published.store(memo.applied.index, Ordering::Release);
        *applied = memo;
        self.tables.store(Arc::new(Tables::new()));
        let frozen = tables.frozen.as_ref().map_or(0, |f| f.memtable.bytes());
        Ok(tables.active.bytes() + frozen)
    }
}

/// Adds to the sum in the tree. One that is damaged stays so: whoever reads it is told.
fn fold(database: &Database<'_>, txn: &mut RwTxn, key: &[u8], by: i64) -> Result<(), heed::Error> {
    let sum = match row::get(database, txn, key) {
        Ok(None) => by,
        Ok(Some(Row::Counter(sum))) => sum.wrapping_add(by),
        Ok(Some(Row::Value(_))) | Err(_) => {
            let key = key.escape_ascii();
            tracing::error!(%key, "a counter in the tree is damaged");
            return Ok(());
        }
    };
    if sum == 0 {
        database.delete(txn, key)?;
        return Ok(());
    }
    row::put(database, txn, key, Row::Counter(sum))
}

impl Tables {
    fn new() -> Self {
        Self {
            active: Arc::default(),
            frozen: None,
            replaced_by: NEVER,
        }
    }
}

impl Frozen {
    fn again(&self) -> Self {
        Self {
            memtable: self.memtable.clone(),
            memo: self.memo.clone(),
            included: self.included.clone(),
        }
    }
}
