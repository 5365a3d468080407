//! Reading: a consistent snapshot of one shard.

mod merge;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::memtable::{Cell, Memtable, Seq};
use crate::tree::{Cursor, Database, Reader, Row, row};
use merge::{Direction, Merge, Seen};

/// A consistent snapshot of one shard.
pub struct View {
    seq: Seq,
    /// The newest first.
    memtables: Vec<Arc<Memtable>>,
    tree: Option<TreeView>,
}

/// One shard's rows in the tree.
pub(crate) struct TreeView {
    database: Database<'static>,
    reader: Reader,
}

/// What a scan does next.
pub enum Scan {
    Next,
    /// Go on at the first row at or after this key (below this key, backwards), which must lie
    /// ahead: a scan never turns round.
    Seek(Vec<u8>),
    Stop,
}

/// Receives everything that a shard holds.
pub type EachRow<'a> = &'a mut dyn FnMut(&[u8], Result<Row<'_>, Error>);

/// As [`EachRow`], until it breaks off.
type WhileRows<'a> = &'a mut dyn FnMut(&[u8], Result<Row<'_>, Error>) -> ControlFlow<()>;

impl View {
    pub(crate) fn new(seq: Seq, memtables: Vec<Arc<Memtable>>, tree: Option<TreeView>) -> Self {
        Self {
            seq,
            memtables,
            tree,
        }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for memtable in &self.memtables {
            match memtable.get(key, self.seq) {
                Some(Cell::Put(value)) => return Ok(Some(value)),
                Some(Cell::Deleted) => return Ok(None),
                Some(Cell::Added(_)) => return Err(unlike(key, "counter", "row")),
                None => {}
            }
        }
        match self.stored(key)? {
            Some(Row::Value(value)) => Ok(Some(row::copied(value))),
            Some(Row::Counter(_)) => Err(unlike(key, "counter", "row")),
            None => Ok(None),
        }
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
        self.visit_rows(Direction::Up, from, to, each)
    }

    /// As [`View::scan`], in descending order: from `to` down to `from`. A [`Scan::Seek`] goes to
    /// the first row below its key.
    pub fn scan_back(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        self.visit_rows(Direction::Down, to, from, each)
    }

    /// The value of a counter: the sum of all that was added to it, 0 if nothing was.
    pub fn counter(&self, key: &[u8]) -> Result<i64, Error> {
        let mut sum = match self.stored(key)? {
            Some(Row::Counter(sum)) => sum,
            Some(Row::Value(_)) => return Err(unlike(key, "row", "counter")),
            None => 0,
        };
        for memtable in &self.memtables {
            match memtable.get(key, self.seq) {
                Some(Cell::Added(by)) => sum = sum.wrapping_add(by),
                Some(Cell::Put(_) | Cell::Deleted) => return Err(unlike(key, "row", "counter")),
                None => {}
            }
        }
        Ok(sum)
    }

    fn stored(&self, key: &[u8]) -> Result<Option<Row<'_>>, Error> {
        match &self.tree {
            Some(tree) => row::get(&tree.database, &tree.reader, key),
            None => Ok(None),
        }
    }

    /// Visits the rows from `start` on in the given direction until `end`.
    fn visit_rows(
        &self,
        direction: Direction,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Scan,
    ) -> Result<(), Error> {
        let mut merge = self.merge(direction);
        merge.seek(start)?;
        while let Some((key, seen)) = merge.first() {
            if direction.is_past(key, end) {
                return Ok(());
            }
            let then = match seen.row()? {
                Some(Row::Value(value)) => each(key, value),
                Some(Row::Counter(_)) | None => Scan::Next,
            };
            match then {
                Scan::Stop => return Ok(()),
                Scan::Seek(target) if direction.is_ahead(&target, key) => {
                    merge.seek(direction.resume(&target))?;
                }
                Scan::Next | Scan::Seek(_) => merge.step()?,
            }
        }
        Ok(())
    }

    /// The last entry of the shard's log that is in it.
    pub(crate) fn position(&self) -> u64 {
        self.seq
    }

    /// Visits everything, counters too, in ascending order; what is damaged as well.
    pub(crate) fn visit_all(&self, each: EachRow<'_>) -> Result<(), Error> {
        self.visit_behind(&[], &mut |key, row| {
            each(key, row);
            ControlFlow::Continue(())
        })
    }

    /// As [`View::visit_all`], what has a key behind `after`, until `each` breaks off.
    pub(crate) fn visit_behind(&self, after: &[u8], each: WhileRows<'_>) -> Result<(), Error> {
        let mut merge = self.merge(Direction::Up);
        merge.seek(match after {
            [] => Bound::Unbounded,
            after => Bound::Excluded(after),
        })?;
        while let Some((key, seen)) = merge.first() {
            let then = match seen {
                // Its sum may be spread over all sources.
                Seen::Cell(Cell::Added(_)) => match self.counter(key) {
                    Ok(0) => ControlFlow::Continue(()),
                    sum => each(key, sum.map(Row::Counter)),
                },
                _ => match seen.row() {
                    Ok(None) => ControlFlow::Continue(()),
                    Ok(Some(row)) => each(key, Ok(row)),
                    Err(error) => each(key, Err(error)),
                },
            };
            if then.is_break() {
                return Ok(());
            }
            merge.step()?;
        }
        Ok(())
    }

    fn merge(&self, direction: Direction) -> Merge<'_> {
        let memtables = self.memtables.iter().map(|m| m.cursor(self.seq));
        let tree = self.tree.as_ref();
        let tree = tree.map(|tree| Cursor::new(tree.database, &tree.reader));
        Merge::new(direction, memtables, tree)
    }
}

impl TreeView {
    pub(crate) fn new(database: Database<'static>, reader: Reader) -> Self {
        Self { database, reader }
    }
}

fn unlike(key: &[u8], is: &str, wanted: &str) -> Error {
    Error::Damaged(format!("{} is a {is}, not a {wanted}", key.escape_ascii()))
}
