//! Memtables and tree as one ordered sequence, in which the newer hides the older.

use std::cmp::Ordering;
use std::ops::Bound;

use crate::Error;
use crate::memtable::{self, Cell};
use crate::tree::{self, Found, Row};

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    fn before(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Up => a < b,
            Self::Down => a > b,
        }
    }

    pub(super) fn is_past(self, key: &[u8], end: Bound<&[u8]>) -> bool {
        match end {
            Bound::Unbounded => false,
            Bound::Included(end) => self.before(end, key),
            Bound::Excluded(end) => !self.before(key, end),
        }
    }

    /// Whether a seek to `target` leaves `key`, where the scan is, behind.
    pub(super) fn is_ahead(self, target: &[u8], key: &[u8]) -> bool {
        match (self, target.cmp(key)) {
            (Self::Up, order) => order == Ordering::Greater,
            // Backwards, the row at the target itself is skipped, so it may be where we are.
            (Self::Down, order) => order != Ordering::Greater,
        }
    }

    /// Where a seek to `target` goes on.
    pub(super) fn resume(self, target: &[u8]) -> Bound<&[u8]> {
        match self {
            Self::Up => Bound::Included(target),
            Self::Down => Bound::Excluded(target),
        }
    }
}

/// What the newest source that knows a key says of it.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    Cell(&'a Cell),
    Stored(Found<'a>),
}

impl<'a> Seen<'a> {
    /// The row, if there is one and it is not spread over several sources.
    pub(super) fn row(self) -> Result<Option<Row<'a>>, Error> {
        match self {
            Self::Cell(Cell::Put(value)) => Ok(Some(Row::Value(value))),
            Self::Cell(Cell::Deleted | Cell::Added(_)) => Ok(None),
            Self::Stored(found) => found.check().map(Some),
        }
    }
}

/// A memtable or the tree.
enum Source<'a> {
    Memtable(memtable::Cursor<'a>),
    Tree(tree::Cursor<'a>),
}

/// A place in all sources at once.
pub(super) struct Merge<'a> {
    direction: Direction,
    /// The newest first. Two memtables and the tree at most.
    sources: Vec<Source<'a>>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(
        direction: Direction,
        memtables: impl Iterator<Item = memtable::Cursor<'a>>,
        tree: Option<tree::Cursor<'a>>,
    ) -> Self {
        let memtables = memtables.map(Source::Memtable);
        let sources = memtables.chain(tree.map(Source::Tree)).collect();
        Self { direction, sources }
    }

    pub(super) fn seek(&mut self, to: Bound<&[u8]>) -> Result<(), Error> {
        let direction = self.direction;
        self.sources
            .iter_mut()
            .try_for_each(|source| source.seek(direction, to))
    }

    /// The next key, and what its newest source says of it; `None` at the end.
    pub(super) fn first(&self) -> Option<(&[u8], Seen<'_>)> {
        let mut first: Option<(&[u8], Seen<'_>)> = None;
        for found in self.sources.iter().filter_map(Source::row) {
            if first.is_none_or(|(best, _)| self.direction.before(found.0, best)) {
                first = Some(found);
            }
        }
        first
    }

    /// Leaves the next key behind.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        let Some((first, _)) = self.first() else {
            return Ok(());
        };
        let on_it = |source: &Source<'_>| source.row().is_some_and(|(key, _)| key == first);
        let mut moves = 0u8;
        for (i, source) in self.sources.iter().enumerate() {
            moves |= u8::from(on_it(source)) << i;
        }
        for (i, source) in self.sources.iter_mut().enumerate() {
            if moves >> i & 1 == 1 {
                source.step(self.direction)?;
            }
        }
        Ok(())
    }
}

impl Source<'_> {
    fn seek(&mut self, direction: Direction, to: Bound<&[u8]>) -> Result<(), Error> {
        match (self, direction) {
            (Self::Memtable(cursor), Direction::Up) => cursor.seek(to),
            (Self::Memtable(cursor), Direction::Down) => cursor.seek_back(to),
            (Self::Tree(cursor), Direction::Up) => return cursor.seek(to),
            (Self::Tree(cursor), Direction::Down) => return cursor.seek_back(to),
        }
        Ok(())
    }

    fn step(&mut self, direction: Direction) -> Result<(), Error> {
        match (self, direction) {
            (Self::Memtable(cursor), Direction::Up) => cursor.next(),
            (Self::Memtable(cursor), Direction::Down) => cursor.prev(),
            (Self::Tree(cursor), _) => return cursor.step(),
        }
        Ok(())
    }

    fn row(&self) -> Option<(&[u8], Seen<'_>)> {
        match self {
            Self::Memtable(cursor) => {
                let (key, cell) = cursor.row()?;
                Some((key, Seen::Cell(cell)))
            }
            Self::Tree(cursor) => {
                let (key, stored) = cursor.row()?;
                Some((key, Seen::Stored(Found { key, stored })))
            }
        }
    }
}
