//! Compaction: copies what is left in a segment that is mostly dead, so that its file can go.
//!
//! Large dead records are holes already and cost nothing; this is for the small ones, and for files
//! that are little more than holes. The copy is durable before the ledger points to it, and the
//! old segment goes only when the durable index points to nothing in it: whatever happens in
//! between, one good copy is known.
//!
//! A record that is bad is not copied: its segment stays until the record is deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use base::env::Open;
use tracing::{debug, info, warn};

use super::ledger::{Known, Segment};
use super::pace::Go;
use super::record::{Place, Record, record_bytes};
use super::segment::RECORDS_AT;
use super::walk::{Walk, check_payload};
use super::{CHUNK_BYTES_MAX, Shared};
use crate::Error;
use crate::aligned::Aligned;
use base::env::BLOCK_BYTES;

/// How often the segments are looked at.
const INTERVAL: Duration = Duration::from_secs(30);

/// Segments that could not be emptied, with the chunks that they held then: not tried again before
/// that changes.
pub(crate) type Stuck = BTreeMap<u64, u64>;

/// The segment that gives back most for what must be copied, if any is worth it: in which at least
/// half of what it occupies is dead, or seven eighths of which are holes.
pub(crate) fn pick(segments: &[Segment], stuck: &Stuck) -> Option<u64> {
    let worth = |segment: &&Segment| {
        let row = &segment.row;
        let used = row.end.saturating_sub(RECORDS_AT);
        let occupied = used.saturating_sub(row.punched_bytes);
        let dead = occupied.saturating_sub(row.live_bytes);
        let mostly_dead = dead > 0 && dead >= row.live_bytes;
        let mostly_holes = row.live_bytes < used / 8;
        segment.is_at_rest()
            && row.live_chunks > 0
            && stuck.get(&segment.number) != Some(&row.live_chunks)
            && (mostly_dead || mostly_holes)
    };
    let all = segments.iter().filter(worth);
    all.min_by_key(|segment| segment.row.live_bytes)
        .map(|segment| segment.number)
}

impl Shared {
    /// What the compaction thread does until it is stopped.
    pub(crate) fn compact_forever(&self) {
        let mut stuck = Stuck::new();
        loop {
            while let Some(number) = self.next_to_compact(&stuck) {
                match self.compact(number) {
                    Ok(Go::On) => {}
                    Ok(Go::Stop) => return,
                    Err(error) => {
                        debug!(device = %self.device, number, %error, "compaction gave up");
                        break;
                    }
                }
                // What was not moved now will not be moved in the next minute either.
                let left = self.ledger.lock().segment(number);
                let left = left.map_or(0, |left| left.row.live_chunks);
                stuck.insert(number, left);
            }
            if self.compaction.rest(INTERVAL) == Go::Stop {
                return;
            }
        }
    }

    fn next_to_compact(&self, stuck: &Stuck) -> Option<u64> {
        self.health.check_write().ok()?;
        let segments = self.ledger.lock().segments();
        pick(&segments, stuck)
    }

    /// Moves all chunks out of a segment that is at rest.
    pub(crate) fn compact(&self, number: u64) -> Result<Go, Error> {
        let (segment, site) = {
            let ledger = self.ledger.lock();
            (ledger.segment(number), ledger.site(self.device, number))
        };
        let (Some(segment), Some(site)) = (segment, site) else {
            return Ok(Go::On);
        };
        let path = self.files.path(number);
        let what = |error| Error::io(format!("reading segment {number}"), error);
        let file = self.env.disk.open(&path, Open::ReadDirect).map_err(what)?;
        let mut buffer = Aligned::zeroed(CHUNK_BYTES_MAX);
        let mut walk = Walk::new(&*file, site, RECORDS_AT, segment.row.end);
        let mut moved = 0_u64;
        while let Some((place, header)) = walk.next().map_err(what)? {
            if !self.begin_move(&place, header.id()) {
                continue;
            }
            let record = header.to_record();
            let outcome = match check_payload(&*file, &place, &header, &mut buffer) {
                Ok(()) => self.copy(&record, place, &buffer),
                Err(wrong) => {
                    self.ledger.lock().give_up_move(record.id);
                    self.call_bad(record.id, &place, &wrong);
                    continue;
                }
            };
            outcome?;
            moved += place.record_bytes();
            let rate = self.settings.config.compact_bytes_per_second;
            if self.compaction.spend(place.record_bytes(), rate) == Go::Stop {
                return Ok(Go::Stop);
            }
        }
        info!(device = %self.device, segment = number, moved, "segment compacted");
        self.flusher.request();
        Ok(Go::On)
    }

    /// Marks the chunk as moving, if this is where it lies.
    fn begin_move(&self, place: &Place, id: base::ChunkId) -> bool {
        let mut ledger = self.ledger.lock();
        let current = match ledger.lookup(id) {
            Known::At(current) => Some(current),
            Known::Deleted => None,
            Known::AskIndex => self.index.get(id).unwrap_or(None),
        };
        let here = current == Some(*place);
        if here {
            ledger.begin_move(id);
        }
        here
    }

    fn copy(&self, record: &Record, from: Place, buffer: &[u8]) -> Result<(), Error> {
        let bytes = record_bytes(record.payload_bytes);
        let payload = usize::try_from(bytes).expect("a record is small") - BLOCK_BYTES;
        let moved = self.move_record(record, from, &buffer[..payload]);
        match &moved {
            Ok(()) => self.metrics.bytes_compacted.add(bytes),
            Err(Error::Full) => {
                warn!(device = %self.device, "no space to compact: delete something");
            }
            Err(_) => {}
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::{SegmentRow, Stage};

    const MIB: u64 = 1 << 20;

    /// A sealed segment with 64 MiB of records.
    fn segment(number: u64, live_bytes: u64, punched_bytes: u64) -> Segment {
        let end = RECORDS_AT + 64 * MIB;
        let row = SegmentRow {
            salt: 0,
            stage: Stage::Sealed,
            end,
            indexed_to: end,
            live_bytes,
            live_chunks: live_bytes.div_ceil(MIB),
            punched_bytes,
        };
        Segment {
            number,
            row,
            settled_to: end,
        }
    }

    #[test]
    fn what_gives_most_for_least_is_first() {
        let pick = |segments: &[Segment]| pick(segments, &Stuck::new());
        assert_eq!(pick(&[]), None);
        let full = segment(1, 64 * MIB, 0);
        let holes = segment(2, 20 * MIB, 44 * MIB);
        let half = segment(3, 32 * MIB, 0);
        let dead = segment(4, 10 * MIB, 0);
        let sparse = segment(5, 7 * MIB, 57 * MIB);
        let empty = segment(6, 0, 64 * MIB);
        assert_eq!(pick(&[full, holes, empty]), None);
        assert_eq!(pick(&[full, holes, half]), Some(3));
        assert_eq!(pick(&[half, dead]), Some(4));
        assert_eq!(pick(&[half, dead, sparse]), Some(5));
    }

    #[test]
    fn what_may_still_grow_is_left_alone() {
        let mut open = segment(1, 10 * MIB, 0);
        open.row.stage = Stage::Open;
        let mut in_flight = segment(2, 10 * MIB, 0);
        in_flight.settled_to -= MIB;
        assert_eq!(pick(&[open, in_flight], &Stuck::new()), None);
    }

    #[test]
    fn a_segment_that_could_not_be_emptied_waits_for_a_change() {
        let all = [segment(1, 10 * MIB, 0)];
        assert_eq!(pick(&all, &Stuck::from([(1, 10)])), None);
        assert_eq!(pick(&all, &Stuck::from([(1, 11)])), Some(1));
    }
}
