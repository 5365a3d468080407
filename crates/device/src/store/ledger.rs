//! What the index does not hold yet, and how full each segment is. Pure: the I/O is elsewhere.
//!
//! The ledger is the newest truth: a lookup asks it first and the index only if it knows nothing.
//! [`Ledger::freeze`] takes all changes as one batch for the index; when that is durable,
//! [`Ledger::flushed`] forgets them, and if it failed, [`Ledger::thaw`] takes them back.
//!
//! A recovery scan starts where the index says that a segment is indexed to, and it would find a chunk again
//! that lies behind this point and was deleted. So a deletion is held back until every place where
//! the chunk ever lay is before the mark; writes before it are in flight for milliseconds only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use base::{ChunkId, DeviceId};

use super::index::{SegmentRow, Stage};
use super::record::{Place, Site};

#[derive(Default)]
pub(crate) struct Ledger {
    segments: BTreeMap<u64, Tally>,
    changed: Changes,
    /// What the index is being told just now.
    flushing: Arc<Changes>,
    /// Chunks that compaction is copying.
    moving: HashSet<ChunkId>,
    /// Counts deletions, so that each can be waited for.
    deletions: u64,
    /// What was written since the last freeze: so much a recovery would have to scan.
    unflushed_bytes: u64,
}

pub(crate) type Changes = BTreeMap<ChunkId, Change>;

/// What the index has to learn about a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Where it lies now; `None` if it was deleted.
    pub(crate) now: Option<Place>,
    /// Where it lay before: free once the index has learned it.
    pub(crate) freed: Vec<Place>,
    /// The number of its deletion.
    deletion: u64,
}

struct Tally {
    row: SegmentRow,
    /// Where records begin that are being written.
    in_flight: BTreeSet<u64>,
    /// Whether the index knows less than `row`.
    changed: bool,
    /// The file is gone: the row may go too.
    removed: bool,
}

/// What the ledger knows about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    At(Place),
    Deleted,
    /// Nothing: what the index says is true.
    AskIndex,
}

/// All changes at one moment, for the index.
pub(crate) struct Batch {
    pub(crate) chunks: Arc<Changes>,
    pub(crate) segments: Vec<(u64, Option<SegmentRow>)>,
    /// Segments whose files may go once the batch is durable.
    pub(crate) doomed: Vec<u64>,
    /// When the batch is durable, so are all deletions up to this one.
    pub(crate) deletions: u64,
    /// Whether some deletions had to wait for the next batch.
    pub(crate) held: bool,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.segments.is_empty() && self.doomed.is_empty()
    }
}

/// A segment that may be worth compacting, or is to be scrubbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) row: SegmentRow,
    /// Everything before this was written or given up.
    pub(crate) settled_to: u64,
}

impl Ledger {
    /// Takes a segment into the books.
    pub(crate) fn add_segment(&mut self, number: u64, row: SegmentRow) {
        let tally = Tally {
            row,
            in_flight: BTreeSet::new(),
            changed: true,
            removed: false,
        };
        self.segments.insert(number, tally);
    }

    /// A segment that has just been made.
    pub(crate) fn add_new_segment(&mut self, number: u64, salt: u128) {
        self.add_segment(number, SegmentRow::open(salt));
    }

    /// No more room is reserved in this segment; answers where it ends.
    pub(crate) fn seal(&mut self, number: u64) -> u64 {
        let tally = self.segments.get_mut(&number).expect("a segment in use");
        tally.row.stage = Stage::Sealed;
        tally.changed = true;
        tally.row.end
    }

    /// A recovery has found that the segment is used up to `end`.
    pub(crate) fn grow(&mut self, number: u64, end: u64) {
        let tally = self.segments.get_mut(&number).expect("a segment in use");
        tally.row.end = end;
        tally.changed = true;
    }

    /// Reserves room for a record of `bytes` in a segment whose file has `len`.
    pub(crate) fn reserve(&mut self, number: u64, bytes: u64, len: u64) -> Option<u64> {
        let tally = self.segments.get_mut(&number).expect("a segment in use");
        let offset = tally.row.end;
        if offset + bytes > len {
            return None;
        }
        tally.row.end += bytes;
        tally.in_flight.insert(offset);
        tally.changed = true;
        Some(offset)
    }

    /// The record at this place is durable, or will never be.
    pub(crate) fn settle(&mut self, place: &Place) {
        if let Some(tally) = self.segments.get_mut(&place.segment) {
            tally.in_flight.remove(&place.offset);
            // The mark may have moved, and deletions that waited for it rely on the index knowing.
            tally.changed = true;
        }
    }

    pub(crate) fn lookup(&self, id: ChunkId) -> Known {
        let change = self.changed.get(&id).or_else(|| self.flushing.get(&id));
        match change {
            None => Known::AskIndex,
            Some(Change { now: None, .. }) => Known::Deleted,
            Some(Change { now: Some(at), .. }) => Known::At(*at),
        }
    }

    /// The chunk lies at `place` now; before, as [`Ledger::lookup`] or the index says, at `old`.
    pub(crate) fn put(&mut self, id: ChunkId, place: Place, old: Option<Place>) {
        let change = self.changed.entry(id).or_default();
        change.now = Some(place);
        change.freed.extend(old.filter(|old| *old != place));
        if old != Some(place) {
            self.count(&place, 1);
            self.unflushed_bytes += place.record_bytes();
            if let Some(old) = old {
                self.count(&old, -1);
            }
        }
    }

    /// The chunk, which lies at `old`, is deleted.
    pub(crate) fn delete(&mut self, id: ChunkId, old: Place) {
        self.deletions += 1;
        let change = self.changed.entry(id).or_default();
        change.now = None;
        change.freed.push(old);
        change.deletion = self.deletions;
        self.count(&old, -1);
    }

    /// Begins to move a chunk: its deletion will wait for [`Ledger::end_move`].
    pub(crate) fn begin_move(&mut self, id: ChunkId) {
        self.moving.insert(id);
    }

    /// Ends a move: the copy at `to` is durable. `current` is where the chunk lies, before the move
    /// counts; if it still is `from`, it lies at `to` from now on.
    pub(crate) fn end_move(&mut self, id: ChunkId, current: Option<Place>, from: Place, to: Place) {
        self.moving.remove(&id);
        if current == Some(from) {
            self.put(id, to, current);
        } else if let Some(change) = self.changed.get_mut(&id) {
            // Deleted meanwhile. The copy is garbage, which a recovery must not find either.
            change.freed.push(to);
        }
    }

    /// Ends a move that made no copy.
    pub(crate) fn give_up_move(&mut self, id: ChunkId) {
        self.moving.remove(&id);
    }

    /// The index has lost a chunk that is booked and lies here; answers whether the ledger did not
    /// know better.
    pub(crate) fn restore(&mut self, id: ChunkId, place: Place) -> bool {
        let lost = self.lookup(id) == Known::AskIndex;
        if lost {
            self.changed.entry(id).or_default().now = Some(place);
        }
        lost
    }

    fn count(&mut self, place: &Place, chunks: i64) {
        let Some(tally) = self.segments.get_mut(&place.segment) else {
            return;
        };
        let bytes = place.record_bytes();
        let row = &mut tally.row;
        row.live_chunks = row.live_chunks.saturating_add_signed(chunks);
        row.live_bytes = match chunks > 0 {
            true => row.live_bytes + bytes,
            false => row.live_bytes.saturating_sub(bytes),
        };
        tally.changed = true;
    }

    /// Blocks of dead records in this segment were given back.
    pub(crate) fn punched(&mut self, segment: u64, bytes: u64) {
        if let Some(tally) = self.segments.get_mut(&segment) {
            tally.row.punched_bytes += bytes;
            tally.changed = true;
        }
    }

    /// The file of a doomed segment is gone, durably.
    pub(crate) fn removed(&mut self, number: u64) {
        if let Some(tally) = self.segments.get_mut(&number) {
            tally.removed = true;
            tally.changed = true;
        }
    }

    /// Takes all changes that the index may learn now.
    pub(crate) fn freeze(&mut self) -> Batch {
        assert!(self.flushing.is_empty(), "one flush at a time");
        let mut changed = std::mem::take(&mut self.changed);
        let held: Changes = changed
            .extract_if(.., |id, c| self.must_wait(*id, c))
            .collect();
        let deletions = match held.values().map(|change| change.deletion).min() {
            Some(first) => first - 1,
            None => self.deletions,
        };
        self.doom(&held);
        let batch = Batch {
            chunks: Arc::new(changed),
            segments: self.changed_rows(),
            doomed: self.doomed(),
            deletions,
            held: !held.is_empty(),
        };
        self.changed = held;
        self.flushing = batch.chunks.clone();
        self.unflushed_bytes = 0;
        batch
    }

    /// Whether a recovery might find a deleted chunk again if the index forgot it now.
    fn must_wait(&self, id: ChunkId, change: &Change) -> bool {
        let unsettled = |place: &Place| {
            let tally = self.segments.get(&place.segment);
            tally.is_some_and(|tally| place.offset >= tally.settled_to())
        };
        change.now.is_none() && (self.moving.contains(&id) || change.freed.iter().any(unsettled))
    }

    /// Gives up the sealed segments in which nothing is left.
    fn doom(&mut self, held: &Changes) {
        let needed: BTreeSet<u64> = held
            .values()
            .flat_map(|change| change.freed.iter().map(|place| place.segment))
            .collect();
        for (number, tally) in &mut self.segments {
            let empty = tally.row.live_chunks == 0 && tally.in_flight.is_empty();
            if empty && tally.row.stage == Stage::Sealed && !needed.contains(number) {
                tally.row.stage = Stage::Doomed;
                tally.changed = true;
            }
        }
    }

    fn doomed(&self) -> Vec<u64> {
        let doomed = |tally: &Tally| tally.row.stage == Stage::Doomed && !tally.removed;
        let all = self.segments.iter();
        all.filter(|(_, tally)| doomed(tally))
            .map(|(number, _)| *number)
            .collect()
    }

    fn changed_rows(&mut self) -> Vec<(u64, Option<SegmentRow>)> {
        let changed = self.segments.iter_mut().filter(|(_, tally)| tally.changed);
        changed
            .map(|(number, tally)| {
                tally.changed = false;
                tally.row.indexed_to = tally.settled_to();
                (*number, (!tally.removed).then_some(tally.row))
            })
            .collect()
    }

    /// The batch is durable.
    pub(crate) fn flushed(&mut self, batch: &Batch) {
        self.flushing = Arc::default();
        for (number, row) in &batch.segments {
            if row.is_none() {
                self.segments.remove(number);
            }
        }
    }

    /// The batch failed: its changes wait for the next, behind what happened since.
    pub(crate) fn thaw(&mut self, batch: Batch) {
        self.flushing = Arc::default();
        for (number, _) in &batch.segments {
            if let Some(tally) = self.segments.get_mut(number) {
                tally.changed = true;
            }
        }
        for (id, change) in batch.chunks.iter() {
            match self.changed.get_mut(id) {
                Some(newer) => newer.freed.extend(&change.freed),
                None => {
                    self.changed.insert(*id, change.clone());
                }
            }
        }
    }

    /// How many changes the index does not know.
    pub(crate) fn pending(&self) -> usize {
        self.changed.len() + self.flushing.len()
    }

    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    /// The number of the last deletion.
    pub(crate) fn deletions(&self) -> u64 {
        self.deletions
    }

    /// What a header in this segment starts its checksum from; `None` if there is no such segment.
    pub(crate) fn site(&self, device: DeviceId, segment: u64) -> Option<Site> {
        let tally = self.segments.get(&segment).filter(|tally| !tally.removed)?;
        Some(Site {
            device,
            segment,
            salt: tally.row.salt,
        })
    }

    pub(crate) fn segment(&self, number: u64) -> Option<Segment> {
        let tally = self.segments.get(&number).filter(|tally| !tally.removed)?;
        Some(Segment {
            number,
            row: tally.row,
            settled_to: tally.settled_to(),
        })
    }

    /// All segments that have a file, in the order of their making.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.segments
            .keys()
            .filter_map(|number| self.segment(*number))
            .collect()
    }
}

impl Segment {
    /// Whether nothing will ever be written to it again.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.row.stage == Stage::Sealed && self.settled_to == self.row.end
    }
}

impl Tally {
    fn settled_to(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.row.end)
    }
}

#[cfg(test)]
mod tests;
