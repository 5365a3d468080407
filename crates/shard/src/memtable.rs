//! What was committed and is not yet in the B-tree: an ordered map in memory, with versions.
//!
//! One writer, the shard's applier, adds the rows of the Raft entries that were decided together under the
//! log index of the last one and then publishes that; any number of readers look at the map as it was
//! at a number that had been published. Nothing is ever removed: a whole memtable is dropped once
//! the B-tree has it.
//!
//! Sketch: one skip-list node a key, about 150 B and the row; a further version of the key costs
//! 48 B and no search. So a counter that changes with each write stays one node.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use parking_lot::RwLock;

use crate::batch::Effect;

/// What a memtable knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Put(Bytes),
    Deleted,
    /// All that was added to the counter within this memtable.
    Added(i64),
}

/// The position of a change in the shard's history: the index of its Raft entry, or of a later one that
/// became visible together with it.
pub(crate) type Seq = u64;

#[derive(Default)]
pub(crate) struct Memtable {
    rows: SkipMap<Bytes, Versions>,
    bytes: AtomicU64,
}

/// The versions of one key, the newest last.
#[derive(Default)]
struct Versions(RwLock<Vec<(Seq, Cell)>>);

impl Versions {
    fn at(&self, seq: Seq) -> Option<Cell> {
        let versions = self.0.read();
        let (_, cell) = versions.iter().rev().find(|(made, _)| *made <= seq)?;
        Some(cell.clone())
    }

    /// Adds a version, or replaces the one of the same entry.
    fn push(&self, seq: Seq, cell: Cell) {
        let mut versions = self.0.write();
        match versions.last_mut() {
            Some((newest, old)) if *newest == seq => *old = cell,
            _ => add_version(&mut versions, seq, cell),
        }
    }

    fn add(&self, seq: Seq, by: i64) {
        let mut versions = self.0.write();
        match versions.last_mut() {
            Some((newest, Cell::Added(sum))) if *newest == seq => *sum = sum.wrapping_add(by),
            Some((_, Cell::Added(sum))) => {
                let sum = sum.wrapping_add(by);
                add_version(&mut versions, seq, Cell::Added(sum));
            }
            _ => add_version(&mut versions, seq, Cell::Added(by)),
        }
    }
}

fn add_version(versions: &mut Vec<(Seq, Cell)>, seq: Seq, cell: Cell) {
    if versions.is_empty() {
        // Most rows are written once.
        versions.reserve_exact(1);
    }
    versions.push((seq, cell));
}

/// What a row costs beside its bytes.
const ROW_BYTES: usize = 150;
const VERSION_BYTES: usize = 48;

impl Memtable {
    /// Adds the effects of the entry `seq`, which must be newer than every entry before it. Nobody
    /// sees them until readers are told to read at `seq`.
    pub(crate) fn apply(&self, seq: Seq, effects: impl IntoIterator<Item = Effect>) {
        let mut sums: HashMap<Bytes, i64> = HashMap::new();
        for effect in effects {
            match effect {
                Effect::Put(key, value) => {
                    self.charge(VERSION_BYTES + value.len());
                    self.versions(key, |versions| versions.push(seq, Cell::Put(value)));
                }
                Effect::Delete(key) => {
                    self.charge(VERSION_BYTES);
                    self.versions(key, |versions| versions.push(seq, Cell::Deleted));
                }
                // A batch for each of many writers adds to the same few counters.
                Effect::Add(key, by) => {
                    let sum = sums.entry(key).or_default();
                    *sum = sum.wrapping_add(by);
                }
            }
        }
        for (key, by) in sums {
            self.charge(VERSION_BYTES);
            self.versions(key, |versions| versions.add(seq, by));
        }
    }

    fn versions(&self, key: Bytes, change: impl FnOnce(&Versions)) {
        let key_bytes = key.len();
        let entry = self.rows.get_or_insert_with(key, || {
            self.charge(ROW_BYTES + key_bytes);
            Versions::default()
        });
        change(entry.value());
    }

    fn charge(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The memory that the rows take, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What a reader at `seq` sees of `key`; `None` if the memtable knows nothing of it.
    pub(crate) fn get(&self, key: &[u8], seq: Seq) -> Option<Cell> {
        self.rows.get(key)?.value().at(seq)
    }

    /// A cursor of a reader at `seq`.
    pub(crate) fn cursor(&self, seq: Seq) -> Cursor<'_> {
        Cursor {
            memtable: self,
            seq,
            at: None,
        }
    }
}

/// A place in a memtable.
pub(crate) struct Cursor<'a> {
    memtable: &'a Memtable,
    seq: Seq,
    at: Option<(Entry<'a, Bytes, Versions>, Cell)>,
}

impl Cursor<'_> {
    /// Goes to the first key at or after `from`.
    pub(crate) fn seek(&mut self, from: Bound<&[u8]>) {
        self.at = None;
        self.settle(self.memtable.rows.lower_bound(from), Entry::next);
    }

    /// Goes to the last key at or before `to`.
    pub(crate) fn seek_back(&mut self, to: Bound<&[u8]>) {
        self.at = None;
        self.settle(self.memtable.rows.upper_bound(to), Entry::prev);
    }

    pub(crate) fn next(&mut self) {
        let next = self.at.take().and_then(|(entry, _)| entry.next());
        self.settle(next, Entry::next);
    }

    pub(crate) fn prev(&mut self) {
        let prev = self.at.take().and_then(|(entry, _)| entry.prev());
        self.settle(prev, Entry::prev);
    }

    /// Where the cursor is; `None` past the end.
    pub(crate) fn row(&self) -> Option<(&[u8], &Cell)> {
        let (entry, cell) = self.at.as_ref()?;
        Some((entry.key(), cell))
    }
}

impl<'a> Cursor<'a> {
    /// Stops at `entry` or at the first one further on that the reader can see.
    fn settle(
        &mut self,
        mut entry: Option<Entry<'a, Bytes, Versions>>,
        step: impl Fn(&Entry<'a, Bytes, Versions>) -> Option<Entry<'a, Bytes, Versions>>,
    ) {
        while let Some(found) = entry {
            if let Some(cell) = found.value().at(self.seq) {
                self.at = Some((found, cell));
                return;
            }
            entry = step(&found);
        }
    }
}
