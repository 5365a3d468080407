//! The segment that grows.
//!
//! Its file is allocated before its first record, and its name is durable: so writing a record
//! neither grows the file nor can it run out of space, and a sync has little to do. A new segment
//! takes what is free above the reserve, if a full-sized one no longer fits.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use base::env::{File, Open};

use super::Shared;
use super::record::Site;
use super::segment::{Head, RECORDS_AT};
use crate::Error;

const MIB: u64 = 1 << 20;

/// Smaller ones are not worth a file. Holds the longest record.
const SEGMENT_BYTES_MIN: u64 = 8 * MIB;

/// The segment that grows, if there is one, and the number of the next.
pub(crate) struct Active {
    pub(crate) current: Option<Current>,
    pub(crate) next: u64,
}

#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) site: Site,
    pub(crate) file: Arc<dyn File>,
    pub(crate) len: u64,
}

/// Room for one record. Whoever has it must settle it with the ledger.
pub(crate) struct Room {
    pub(crate) site: Site,
    pub(crate) file: Arc<dyn File>,
    pub(crate) offset: u64,
}

/// Who wants room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Leaves the reserve alone.
    NewChunk,
    /// Gives more back than it takes, so it may use half of the reserve.
    Compaction,
}

impl Shared {
    /// Reserves room for a record, in a new segment if need be.
    pub(crate) fn reserve(&self, bytes: u64, purpose: For) -> Result<Room, Error> {
        let mut active = self.active.lock();
        if let Some(room) = self.reserve_in(active.current.as_ref(), bytes) {
            return Ok(room);
        }
        let new = self.create_segment(active.next, purpose)?;
        active.next += 1;
        let mut ledger = self.ledger.lock();
        ledger.add_new_segment(new.site.segment, new.site.salt);
        drop(ledger);
        if let Some(full) = active.current.replace(new.clone()) {
            self.seal(&full)?;
        }
        let room = self.reserve_in(Some(&new), bytes);
        Ok(room.expect("a new segment holds the longest record"))
    }

    /// Nothing more goes into this segment: gives back what no record fitted into.
    fn seal(&self, full: &Current) -> Result<(), Error> {
        let segment = full.site.segment;
        // All writes that are still in flight are before the end.
        let end = self.ledger.lock().seal(segment);
        let trimmed = full.file.truncate(end);
        trimmed.map_err(|error| {
            let what = format!("trimming segment {segment}");
            self.health.write_failed(&what, &error)
        })
    }

    fn reserve_in(&self, current: Option<&Current>, bytes: u64) -> Option<Room> {
        let current = current?;
        let segment = current.site.segment;
        let offset = self.ledger.lock().reserve(segment, bytes, current.len)?;
        Some(Room {
            site: current.site,
            file: current.file.clone(),
            offset,
        })
    }

    fn create_segment(&self, number: u64, purpose: For) -> Result<Current, Error> {
        let what = || format!("making segment {number}");
        let floor = match purpose {
            For::NewChunk => self.settings.reserve_bytes,
            For::Compaction => self.settings.reserve_bytes / 2,
        };
        let space = self.env.disk.space(&self.dir);
        let space = space.map_err(|error| self.health.write_failed(&what(), &error))?;
        let room = space.free_bytes.saturating_sub(floor) / MIB * MIB;
        let len = room.min(self.settings.segment_bytes);
        if len < SEGMENT_BYTES_MIN {
            self.compaction.wake();
            return Err(Error::Full);
        }
        let mut salt = [0; 16];
        self.env.entropy.fill(&mut salt);
        let site = Site {
            device: self.device,
            segment: number,
            salt: u128::from_le_bytes(salt),
        };
        match self.create_file(site, len) {
            Ok(file) => Ok(Current { site, file, len }),
            Err(error) => {
                let refused = self.health.write_failed(&what(), &error);
                if matches!(refused, Error::Full) {
                    // What was allocated is needed more than ever. If this fails too, the next
                    // start removes the blank segment.
                    let _ = self.env.disk.remove(&self.files.path(number));
                }
                Err(refused)
            }
        }
    }

    fn create_file(&self, site: Site, len: u64) -> io::Result<Arc<dyn File>> {
        let head = Head {
            site,
            created: self.env.clock.now(),
        };
        let path = self.files.path(site.segment);
        let file = self.env.disk.open(&path, Open::Direct)?;
        file.allocate(len)?;
        file.write_at(&[IoSlice::new(&head.encode())], 0)?;
        // A sync that finds no space has not lost what a client was told, but nothing can be said
        // about the disk after it.
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => io::Error::other(error),
            _ => error,
        };
        file.sync().map_err(failed)?;
        self.env.disk.sync_dir(&self.dir).map_err(failed)?;
        Ok(file)
    }

    /// What the growing segment still takes.
    pub(crate) fn room_left(&self) -> u64 {
        let active = self.active.lock();
        let Some(current) = &active.current else {
            return 0;
        };
        let segment = self.ledger.lock().segment(current.site.segment);
        let end = segment.map_or(RECORDS_AT, |segment| segment.row.end);
        current.len.saturating_sub(end)
    }
}
