//! Reading: a consistent snapshot of one shard.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::memtable::{Cell, Cursor, Memtable, Seq};

/// A consistent snapshot of one shard.
pub struct View {
    /// The newest first.
    pub(crate) memtables: Vec<Arc<Memtable>>,
    pub(crate) seq: Seq,
}

/// What a scan does next.
pub enum Scan {
    Next,
    /// Go on at the first row at or after this key (below this key, backwards), which must lie
    /// ahead: a scan never turns round.
    Seek(Vec<u8>),
    Stop,
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl View {
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for memtable in &self.memtables {
            match memtable.get(key, self.seq) {
                Some(Cell::Put(value)) => return Ok(Some(value)),
                Some(Cell::Deleted) => return Ok(None),
                Some(Cell::Added(_)) => return Err(not_a_row(key)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Calls `each` with the rows between the bounds in ascending order of keys until it answers
    /// [`Scan::Stop`] or [`Scan::Seek`]s elsewhere. Costs nothing for what a seek skips. Counters
    /// are not rows: scans pass over them.
    pub fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        self.merge(Direction::Up, from, to, each)
    }

    /// As [`View::scan`], in descending order: from `to` down to `from`. A [`Scan::Seek`] goes to
    /// the first row below its key.
    pub fn scan_back(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        self.merge(Direction::Down, to, from, each)
    }

    /// The value of a counter: the sum of all that was added to it, 0 if nothing was.
    pub fn counter(&self, key: &[u8]) -> Result<i64, Error> {
        let mut sum = 0i64;
        for memtable in &self.memtables {
            match memtable.get(key, self.seq) {
                Some(Cell::Added(by)) => sum = sum.wrapping_add(by),
                Some(Cell::Put(_) | Cell::Deleted) => return Err(not_a_counter(key)),
                None => {}
            }
        }
        Ok(sum)
    }

    /// Visits the rows from `start` on in the given direction until `end`.
    fn merge(
        &self,
        direction: Direction,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        let mut cursors: Vec<_> = self.memtables.iter().map(|m| m.cursor(self.seq)).collect();
        for cursor in &mut cursors {
            direction.seek(cursor, start);
        }
        while let Some(first) = direction.first(&cursors) {
            let (key, cell) = cursors[first].row().expect("the first cursor is on a row");
            if direction.is_past(key, end) {
                return Ok(());
            }
            let then = match cell {
                Cell::Put(value) => each(key, value),
                Cell::Deleted | Cell::Added(_) => Scan::Next,
            };
            match then {
                Scan::Stop => return Ok(()),
                Scan::Seek(target) if direction.is_ahead(&target, key) => {
                    let start = direction.resume(&target);
                    for cursor in &mut cursors {
                        direction.seek(cursor, start);
                    }
                }
                Scan::Next | Scan::Seek(_) => direction.step(&mut cursors, first),
            }
        }
        Ok(())
    }
}

impl Direction {
    fn seek(self, cursor: &mut Cursor<'_>, start: Bound<&[u8]>) {
        match self {
            Self::Up => cursor.seek(start),
            Self::Down => cursor.seek_back(start),
        }
    }

    /// The cursor that is on the next key; of several, that of the newest source.
    fn first(self, cursors: &[Cursor<'_>]) -> Option<usize> {
        let mut first: Option<(usize, &[u8])> = None;
        for (i, cursor) in cursors.iter().enumerate() {
            let Some((key, _)) = cursor.row() else {
                continue;
            };
            if first.is_none_or(|(_, best)| self.before(key, best)) {
                first = Some((i, key));
            }
        }
        first.map(|(i, _)| i)
    }

    /// Moves every cursor that is on the key of `cursors[first]`.
    fn step(self, cursors: &mut [Cursor<'_>], first: usize) {
        let (key, _) = cursors[first].row().expect("the first cursor is on a row");
        let on_key = |cursor: &Cursor<'_>| cursor.row().is_some_and(|(other, _)| other == key);
        let moves: Vec<bool> = cursors.iter().map(on_key).collect();
        for (cursor, _) in cursors.iter_mut().zip(moves).filter(|(_, moves)| *moves) {
            match self {
                Self::Up => cursor.next(),
                Self::Down => cursor.prev(),
            }
        }
    }

    fn before(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Up => a < b,
            Self::Down => a > b,
        }
    }

    fn is_past(self, key: &[u8], end: Bound<&[u8]>) -> bool {
        match end {
            Bound::Unbounded => false,
            Bound::Included(end) => self.before(end, key),
            Bound::Excluded(end) => !self.before(key, end),
        }
    }

    /// Whether a seek to `target` leaves `key`, where the scan is, behind.
    fn is_ahead(self, target: &[u8], key: &[u8]) -> bool {
        match (self, target.cmp(key)) {
            (Self::Up, order) => order == Ordering::Greater,
            // Backwards, the row at the target itself is skipped, so it may be where we are.
            (Self::Down, order) => order != Ordering::Greater,
        }
    }

    fn resume(self, target: &[u8]) -> Bound<&[u8]> {
        match self {
            Self::Up => Bound::Included(target),
            Self::Down => Bound::Excluded(target),
        }
    }
}

fn not_a_row(key: &[u8]) -> Error {
    Error::Damaged(format!("{} is a counter", key.escape_ascii()))
}

fn not_a_counter(key: &[u8]) -> Error {
    Error::Damaged(format!("{} is a row and no counter", key.escape_ascii()))
}
