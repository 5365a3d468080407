//! What a start does: asks the index what each segment holds, and reads from the segments what the
//! index has not learned before the last stop or crash.
//!
//! Of new chunks only headers are read. A record whose payload was torn by a power cut was never acknowledged:
//! nobody refers to it, reads of it fail, and the scrubber removes it. If the index is damaged it
//! is made again from all segments: then chunks that were deleted, but too small for a hole, are
//! back until the scrubber asks their owners.

use std::collections::BTreeMap;
use std::path::Path;

use base::DeviceId;
use base::env::{Disk, Env, File, Open};
use tracing::{error, info, warn};

use super::CHUNK_BYTES_MAX;
use super::active::{Active, Current};
use super::index::{Index, SegmentRow, Stage};
use super::ledger::{Known, Ledger};
use super::record::{Header, Place, Site};
use super::segment::{Head, RECORDS_AT, Read, file_name, number_of};
use super::walk::{Walk, check_payload};
use crate::aligned::Aligned;
use crate::{Error, lmdb};

/// A segment with less room than this is not worth going on with.
const ROOM_BYTES_MIN: u64 = 5 << 20;

/// What a start found.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) ledger: Ledger,
    pub(crate) active: Active,
}

/// Opens the index of a device, or makes a new one if it is damaged.
pub(crate) fn open_index(dir: &Path, map_bytes: usize) -> Result<Index, Error> {
    let what = || format!("opening the chunk index in {}", dir.display());
    match Index::open(dir, map_bytes) {
        Err(damaged) if lmdb::is_corrupt(&damaged) => {
            let dir = dir.display().to_string();
            warn!(dir, %damaged, "the chunk index is damaged: making it again from the segments");
        }
        other => return other.map_err(|error| Error::io(what(), lmdb::into_io(error))),
    }
    lmdb::remove(dir).map_err(|error| Error::io(what(), error))?;
    Index::open(dir, map_bytes).map_err(|error| Error::io(what(), lmdb::into_io(error)))
}

/// Brings the books up to date. `dir` is the directory of segments.
pub(crate) fn recover(
    env: &Env,
    device: DeviceId,
    dir: &Path,
    index: Index,
) -> Result<Recovered, Error> {
    let disk = &*env.disk;
    let rows = index
        .segments()
        .map_err(|error| Error::io("reading the chunk index", lmdb::into_io(error)))?;
    let files = list(disk, dir)?;
    for number in rows.keys().filter(|number| !files.contains(number)) {
        let row = &rows[number];
        if row.stage != Stage::Doomed && row.live_chunks > 0 {
            let chunks = row.live_chunks;
            error!(%device, segment = number, chunks, "a segment is missing, and its chunks with it");
        }
    }
    let mut start = Start {
        disk,
        device,
        dir,
        index: &index,
        ledger: Ledger::default(),
        current: None,
    };
    for number in &files {
        start.take(*number, rows.get(number))?;
    }
    start.forget_gone(&rows, &files);
    let Start {
        ledger, current, ..
    } = start;
    let last = files.iter().chain(rows.keys()).max();
    let active = Active {
        current,
        next: last.map_or(1, |last| last + 1),
    };
    Ok(Recovered {
        index,
        ledger,
        active,
    })
}

/// The numbers of the segments in `dir`, ascending.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, Error> {
    let what = |error| Error::io(format!("listing {}", dir.display()), error);
    let names = disk.list(dir).map_err(what)?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Whether a record that the index has not learned takes the place of what is known of its chunk.
///
/// A second record of a chunk is a copy by compaction. If the power went while it was written, only
/// the first is good: so this one counts only if all of it is.
pub(crate) fn is_newer(
    file: &dyn File,
    place: &Place,
    header: &Header<'_>,
    known: Option<Place>,
    buffer: &mut Aligned,
) -> bool {
    match known {
        Some(known) if known != *place => check_payload(file, place, header, buffer).is_ok(),
        _ => true,
    }
}

/// Whether a segment without a head holds nothing at all.
fn is_blank(file: &dyn File) -> std::io::Result<bool> {
    // Nothing was ever written with this salt: so nothing but zeros is recognised.
    let nowhere = Site {
        device: DeviceId(0),
        segment: 0,
        salt: 0,
    };
    let mut walk = Walk::new(file, nowhere, RECORDS_AT, file.len()?.max(RECORDS_AT));
    while walk.next()?.is_some() {}
    Ok(walk.used_end() == RECORDS_AT && walk.unreadable() == 0)
}

struct Start<'a> {
    disk: &'a dyn Disk,
    device: DeviceId,
    dir: &'a Path,
    index: &'a Index,
    ledger: Ledger,
    current: Option<Current>,
}

impl Start<'_> {
    /// Takes one segment into the books.
    fn take(&mut self, number: u64, row: Option<&SegmentRow>) -> Result<(), Error> {
        match row {
            Some(row) if row.stage != Stage::Open && row.indexed_to == row.end => {
                self.ledger.add_segment(number, *row);
                Ok(())
            }
            Some(row) => self.scan(number, row.salt, *row),
            None => {
                let Some(salt) = self.salt_of(number)? else {
                    return Ok(());
                };
                self.scan(number, salt, SegmentRow::open(salt))
            }
        }
    }

    /// The salt of a segment that the index does not know; `None` if it cannot be used.
    fn salt_of(&self, number: u64) -> Result<Option<u128>, Error> {
        let path = self.dir.join(file_name(number));
        let what = |error| Error::io(format!("reading {}", path.display()), error);
        let file = self.disk.open(&path, Open::ReadDirect).map_err(what)?;
        match Head::read(&*file, self.device, number).map_err(what)? {
            Read::Head(head) => Ok(Some(head.site.salt)),
            Read::Blank if is_blank(&*file).map_err(what)? => {
                // Made, and cut off before its head was durable: so nothing in it was acknowledged.
                self.disk.remove(&path).map_err(what)?;
                Ok(None)
            }
            Read::Blank | Read::Unknown => {
                error!(device = %self.device, segment = number, "both heads of a segment are damaged: its chunks cannot be read");
                Ok(None)
            }
        }
    }

    /// Reads the tail of a segment that the index has not learned.
    fn scan(&mut self, number: u64, salt: u128, mut row: SegmentRow) -> Result<(), Error> {
        let site = Site {
            device: self.device,
            segment: number,
            salt,
        };
        let path = self.dir.join(file_name(number));
        let what = |error| Error::io(format!("reading {}", path.display()), error);
        let file = self.disk.open(&path, Open::Direct).map_err(what)?;
        let len = file.len().map_err(what)?;
        let mut walk = Walk::new(&*file, site, row.indexed_to, len);
        let mut buffer = Aligned::zeroed(CHUNK_BYTES_MAX);
        row.end = row.indexed_to;
        self.ledger.add_segment(number, row);
        let mut found = 0_u64;
        while let Some((place, header)) = walk.next().map_err(what)? {
            let id = header.id();
            let old = match self.ledger.lookup(id) {
                Known::At(old) => Some(old),
                Known::Deleted => None,
                Known::AskIndex => self.index.get(id).unwrap_or(None),
            };
            if is_newer(&*file, &place, &header, old, &mut buffer) {
                self.ledger.put(id, place, old);
            }
            found += 1;
        }
        let end = walk.used_end().max(row.indexed_to);
        self.ledger.grow(number, end);
        if found > 0 || walk.unreadable() > 0 {
            // What was found may have been written and never synced. The index will rely on it.
            file.sync().map_err(what)?;
            let unreadable = walk.unreadable();
            info!(device = %self.device, segment = number, found, unreadable, "segment recovered");
        }
        if row.stage == Stage::Open {
            self.go_on_with(Current { site, file, len }, end);
        }
        Ok(())
    }

    /// Goes on with the last segment that has room; all others are sealed.
    fn go_on_with(&mut self, segment: Current, end: u64) {
        if segment.len < end + ROOM_BYTES_MIN {
            self.ledger.seal(segment.site.segment);
        } else if let Some(before) = self.current.replace(segment) {
            self.ledger.seal(before.site.segment);
        }
    }

    /// Drops what the index says of segments that were removed on purpose.
    fn forget_gone(&mut self, rows: &BTreeMap<u64, SegmentRow>, files: &[u64]) {
        for (number, row) in rows {
            if row.stage == Stage::Doomed && !files.contains(number) {
                self.ledger.add_segment(*number, *row);
                self.ledger.removed(*number);
            }
        }
    }
}
