//! Scrubbing: reads everything in the background, at a bounded rate, and past the page cache.
//!
//! Each record is verified whole. What is bad is reported. A record that is older than a day is
//! shown to its owner's shard, and only if that says clearly that nothing refers to the chunk, the
//! chunk is deleted: its commit never came, or a crash came between the commit and the garbage
//! collector. A record that the index does not know is shown as well: the answer "yes" means that the index has
//! lost a row, and puts it back; the answer "no" gives its blocks back.

use std::collections::{BTreeMap, HashSet};
use std::io;

use base::ChunkId;
use base::env::{File, Open};
use tracing::{info, warn};

use super::ledger::Segment;
use super::pace::Go;
use super::reclaim::Hole;
use super::record::{HEADER_BYTES, Header, Place, Record, Site};
use super::segment::RECORDS_AT;
use super::walk::{Walk, check_payload};
use super::{CHUNK_BYTES_MAX, Owner, Shared};
use crate::Error;
use crate::aligned::Aligned;

/// What the shard of a chunk's owner says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referenced {
    Yes,
    /// Nothing refers to the chunk, and nothing ever will.
    No,
    /// Nobody can say now: the chunk stays.
    Unknown,
}

/// Asks the shard of a chunk's owner.
pub(crate) type Ask<'a> = &'a dyn Fn(ChunkId, Owner) -> Referenced;

/// Rows of the index that are looked at in one transaction.
const PAGE_ROWS: usize = 4096;

impl Shared {
    /// What the scrub thread does until it is stopped.
    pub(crate) fn scrub_forever(&self, ask: Ask<'_>) {
        loop {
            if self.health.check_write().is_ok() && self.scrub(ask) == Go::Stop {
                return;
            }
            if self.scrubbing.rest(self.settings.config.scrub_interval) == Go::Stop {
                return;
            }
        }
    }

    /// Scrubs all segments once.
    pub(crate) fn scrub(&self, ask: Ask<'_>) -> Go {
        let segments = self.ledger.lock().segments();
        for segment in segments {
            let number = segment.number;
            match self.scrub_segment(&segment, ask) {
                Ok(Go::On) => {}
                Ok(Go::Stop) => return Go::Stop,
                // It was removed meanwhile.
                Err(_) if self.ledger.lock().segment(number).is_none() => {}
                Err(error) => {
                    warn!(device = %self.device, segment = number, %error, "segment not scrubbed");
                }
            }
        }
        self.flusher.request();
        info!(device = %self.device, bad = self.bad.list().len(), "scrub done");
        Go::On
    }

    fn scrub_segment(&self, segment: &Segment, ask: Ask<'_>) -> Result<Go, Error> {
        let number = segment.number;
        let what = |error| Error::io(format!("reading segment {number}"), error);
        let site = self.ledger.lock().site(self.device, number);
        let site = site.ok_or(Error::NotFound)?;
        let path = self.files.path(number);
        let file = self.env.disk.open(&path, Open::ReadDirect).map_err(what)?;
        let mut buffer = Aligned::zeroed(CHUNK_BYTES_MAX);
        let mut walk = Walk::new(&*file, site, RECORDS_AT, segment.settled_to);
        let mut seen = HashSet::new();
        while let Some((place, header)) = walk.next().map_err(what)? {
            let wrong = check_payload(&*file, &place, &header, &mut buffer).err();
            let record = header.to_record();
            self.metrics.bytes_scrubbed.add(place.record_bytes());
            if self.look_at(&record, &place, wrong, ask) {
                seen.insert(place.offset);
            }
            let rate = self.settings.config.scrub_bytes_per_second;
            if self.scrubbing.spend(place.record_bytes(), rate) == Go::Stop {
                return Ok(Go::Stop);
            }
        }
        if walk.unreadable() > 0 {
            let blocks = walk.unreadable();
            warn!(device = %self.device, segment = number, blocks, "some blocks cannot be read");
        }
        // Neither those that were written since, nor those that were deleted since.
        let now = self.ledger.lock().segment(number);
        let now = now.map_or(0, |now| now.row.live_chunks);
        if now.min(segment.row.live_chunks) > seen.len() as u64 {
            self.look_for_missing(&site, &*file, segment.settled_to, &seen)?;
        }
        Ok(Go::On)
    }

    /// Judges one record; answers whether it is where the index says that its chunk lies.
    fn look_at(&self, record: &Record, place: &Place, wrong: Option<String>, ask: Ask<'_>) -> bool {
        match (self.find(record.id), wrong) {
            (Ok(Some(current)), wrong) if current == *place => {
                self.judge_known(record, place, wrong, ask);
                true
            }
            // A copy that compaction left behind.
            (Ok(Some(_)), _) => {
                self.punch_unknown(record.id, place);
                false
            }
            (_, None) => {
                self.judge_unknown(record, place, ask);
                false
            }
            // A torn write, or the rest of something deleted.
            (_, Some(_)) => false,
        }
    }

    fn judge_known(&self, record: &Record, place: &Place, wrong: Option<String>, ask: Ask<'_>) {
        let old = self.is_old(record);
        let referenced = match old || wrong.is_some() {
            true => ask(record.id, record.label.owner.clone()),
            false => Referenced::Yes,
        };
        match (referenced, wrong) {
            (Referenced::No, _) if old => {
                if self.delete(record.id, Some(*place)).unwrap_or(false) {
                    self.metrics.leftovers.inc();
                }
            }
            // A write that a power cut tore. It will be old some day.
            (Referenced::No, Some(_)) => {}
            (_, Some(wrong)) => self.call_bad(record.id, place, &wrong),
            (_, None) => self.bad.clear(&self.metrics, record.id),
        }
    }

    /// A good record that the index does not know.
    fn judge_unknown(&self, record: &Record, place: &Place, ask: Ask<'_>) {
        if !self.is_old(record) {
            return;
        }
        match ask(record.id, record.label.owner.clone()) {
            Referenced::Yes => {
                let _one = self.flushing.lock();
                let mut ledger = self.ledger.lock();
                // Asked again under the lock, and of the index itself: a deletion that is on its
                // way there is no loss.
                let lost = !matches!(self.index.get(record.id), Ok(Some(_)));
                if lost && ledger.restore(record.id, *place) {
                    warn!(device = %self.device, chunk = %record.id, "the index had lost a chunk");
                }
            }
            Referenced::No => self.punch_unknown(record.id, place),
            Referenced::Unknown => {}
        }
    }

    /// Gives the blocks of a record back to which not even the durable index points.
    fn punch_unknown(&self, id: ChunkId, place: &Place) {
        let _one = self.flushing.lock();
        let current = self.find(id);
        let durable = self.index.get(id);
        let unknown = |found: &Result<Option<Place>, Error>| {
            found.as_ref().is_ok_and(|found| *found != Some(*place))
        };
        if unknown(&current) && unknown(&durable) {
            // If it fails, the device has said so.
            let _ = self.punch(&Hole::of(place));
        }
    }

    fn is_old(&self, record: &Record) -> bool {
        self.env.clock.now().since(record.written) >= self.settings.config.leftover_age
    }

    /// Reports a record, unless its chunk has left it meanwhile.
    pub(crate) fn call_bad(&self, id: ChunkId, place: &Place, wrong: &str) {
        if matches!(self.find(id), Ok(Some(current)) if current == *place) {
            self.bad
                .report(self.device, &self.metrics, id, place, wrong);
        }
    }

    /// Fewer chunks were seen in a segment than are booked there: finds those whose headers are
    /// not to be recognised any more.
    fn look_for_missing(
        &self,
        site: &Site,
        file: &dyn File,
        walked_to: u64,
        seen: &HashSet<u64>,
    ) -> Result<(), Error> {
        for (id, place) in self.rows_of(site.segment)? {
            if seen.contains(&place.offset) || place.offset >= walked_to {
                continue;
            }
            if let Err(wrong) = read_header(file, site, id, &place) {
                self.call_bad(id, &place, &wrong);
            }
        }
        Ok(())
    }

    /// All chunks of a segment, as the durable index knows them.
    fn rows_of(&self, segment: u64) -> Result<BTreeMap<ChunkId, Place>, Error> {
        let what = |error| Error::io("reading the chunk index", crate::lmdb::into_io(error));
        let (mut all, mut after) = (BTreeMap::new(), None);
        loop {
            let page = self.index.page(after, PAGE_ROWS).map_err(what)?;
            let Some((last, _)) = page.last() else {
                return Ok(all);
            };
            after = Some(*last);
            let rows = page
                .into_iter()
                .filter_map(|(id, place)| Some((id, place?)));
            all.extend(rows.filter(|(_, place)| place.segment == segment));
        }
    }
}

/// Reads the header of a chunk from where it should be.
pub(crate) fn read_header(
    file: &dyn File,
    site: &Site,
    id: ChunkId,
    place: &Place,
) -> Result<Record, String> {
    let mut block = Aligned::zeroed(HEADER_BYTES);
    let read: io::Result<usize> = file.read_at(&mut block, place.offset);
    read.map_err(|error| error.to_string())?;
    match Header::decode(&block, site, place.offset) {
        Some(header) if header.id() == id => Ok(header.to_record()),
        Some(_) => Err("another record is in its place".into()),
        None => Err("checksum mismatch in the header".into()),
    }
}
