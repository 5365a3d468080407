//! Gives space back to the file system: punches holes, removes empty segments.
//!
//! **Invariant:** a hole is punched and a segment removed only after the index that no longer
//! points there is durable.
//!
//! A hole costs milliseconds on some file systems. So neighbours become one hole, and each flush
//! punches only so many: the next write of the index does not wait for a thousand others.

use std::io::{self, ErrorKind};

use base::env::Open;
use tracing::info;

use super::Shared;
use super::ledger::Batch;
use super::record::Place;
use super::segment::RECORDS_AT;
use crate::Error;

/// A smaller hole is not worth its extent: compaction gets it.
const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// At a few milliseconds each, a flush takes no more than a few hundred for them.
const HOLES_PER_FLUSH: usize = 64;

/// Dead records to remember; what is forgotten beyond that is left to compaction.
const DEAD_MAX: usize = 1_000_000;

/// Dead blocks that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hole {
    segment: u64,
    from: u64,
    to: u64,
}

impl Hole {
    pub(crate) fn of(place: &Place) -> Self {
        Self {
            segment: place.segment,
            from: place.offset,
            to: place.end(),
        }
    }

    fn bytes(&self) -> u64 {
        self.to - self.from
    }
}

/// Whether there is more to punch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    More,
}

/// Holes that are still to be punched, in order.
#[derive(Default)]
pub(crate) struct Holes {
    all: Vec<Hole>,
}

impl Holes {
    /// Adds dead records, joins neighbours, and forgets what is too small.
    fn add(&mut self, dead: impl Iterator<Item = Hole>) {
        let room = DEAD_MAX.saturating_sub(self.all.len());
        self.all.extend(dead.take(room));
        self.all.sort_unstable();
        self.all.dedup_by(|next, hole| {
            let joins = (next.segment, next.from) == (hole.segment, hole.to);
            if joins {
                hole.to = next.to;
            }
            joins
        });
        self.all.retain(|hole| hole.bytes() >= HOLE_BYTES_MIN);
    }

    /// Takes the first few.
    fn take(&mut self, max: usize) -> Vec<Hole> {
        let rest = self.all.split_off(self.all.len().min(max));
        std::mem::replace(&mut self.all, rest)
    }
}

impl Shared {
    /// Gives back what a batch has freed that is durable now, or a part of it.
    pub(crate) fn reclaim(&self, batch: &Batch) -> Result<Left, Error> {
        self.remove_segments(&batch.doomed)?;
        let freed = batch.chunks.values().flat_map(|change| &change.freed);
        let (holes, left) = {
            let mut holes = self.holes.lock();
            holes.add(freed.map(Hole::of));
            (holes.take(HOLES_PER_FLUSH), holes.all.len())
        };
        for hole in &holes {
            self.punch(hole)?;
        }
        Ok(match left {
            0 => Left::Nothing,
            _ => Left::More,
        })
    }

    fn remove_segments(&self, doomed: &[u64]) -> Result<(), Error> {
        if doomed.is_empty() {
            return Ok(());
        }
        for segment in doomed {
            self.files.forget(*segment);
            match self.env.disk.remove(&self.files.path(*segment)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    let what = format!("removing segment {segment}");
                    return Err(self.health.write_failed(&what, &error));
                }
                _ => {}
            }
        }
        if let Err(error) = self.env.disk.sync_dir(&self.dir) {
            self.health
                .fail("syncing the directory of segments", &error);
            self.health.check_write()?;
        }
        let mut ledger = self.ledger.lock();
        for segment in doomed {
            ledger.removed(*segment);
            self.metrics.segments_removed.inc();
            info!(device = %self.device, segment, "empty segment removed");
        }
        Ok(())
    }

    /// Gives dead blocks back to the file system, if they are worth a hole. For whoever holds the
    /// `flushing` lock, so that the file is not removed meanwhile.
    pub(crate) fn punch(&self, hole: &Hole) -> Result<(), Error> {
        let Hole { segment, from, .. } = *hole;
        debug_assert!(from >= RECORDS_AT, "the head is no record");
        let exists = self.ledger.lock().segment(segment).is_some();
        if hole.bytes() < HOLE_BYTES_MIN || !exists {
            return Ok(());
        }
        match self.punch_file(hole) {
            Ok(()) => {
                self.metrics.bytes_punched.add(hole.bytes());
                self.ledger.lock().punched(segment, hole.bytes());
                Ok(())
            }
            // A hole may split an extent and need a block for that: compaction gets it.
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            Err(error) => {
                let what = format!("punching segment {segment} at {from}");
                Err(self.health.write_failed(&what, &error))
            }
        }
    }

    fn punch_file(&self, hole: &Hole) -> io::Result<()> {
        let path = self.files.path(hole.segment);
        let file = self.env.disk.open(&path, Open::Write)?;
        file.punch(hole.from, hole.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(segment: u64, from: u64, to: u64) -> Hole {
        let kib = 1024;
        Hole {
            segment,
            from: from * kib,
            to: to * kib,
        }
    }

    #[test]
    fn neighbours_become_one_hole_and_crumbs_are_left() {
        let mut holes = Holes::default();
        let dead = [
            hole(2, 100, 200),
            hole(1, 60, 100),
            hole(1, 20, 60),
            hole(1, 104, 140),
            hole(3, 8, 72),
        ];
        holes.add(dead.into_iter());
        assert_eq!(
            holes.all,
            [hole(1, 20, 100), hole(2, 100, 200), hole(3, 8, 72)]
        );
        holes.add([hole(2, 200, 204), hole(1, 140, 203)].into_iter());
        assert_eq!(holes.take(2), [hole(1, 20, 100), hole(2, 100, 204)]);
        assert_eq!(holes.take(2), [hole(3, 8, 72)]);
        assert_eq!(holes.take(2), []);
    }
}
