//! Reading chunks.
//!
//! Sketch of one read: where the chunk lies, from the ledger or the index; header and frames by one
//! system call without leaving the caller's thread, if the page cache has them; else the same on a
//! thread of the blocking pool. Then header and frames are verified, always. Nothing is locked meanwhile: if
//! what was read is wrong, the chunk may have been moved or deleted under our hands, so its place is
//! looked up again before anybody calls it bad.

use std::io::{self, ErrorKind};
use std::ops::Range;

use base::{ChunkId, GroupId};
use bytes::Bytes;

use super::buffers::Buffer;
use super::ledger::Known;
use super::record::{HEADER_BYTES, Header, Place, Site};
use super::scrub::read_header;
use super::{FRAME_BYTES, Label, READ_BYTES_MAX, Shared, Store, index};
use crate::Error;

/// Reads that wait for the disk, each on a thread. More only makes a queue inside the kernel.
pub(crate) const WAITING_READS_MAX: usize = 32;

/// A chunk that moves as fast as we look for it would be a bug.
const LOOKS_MAX: usize = 8;

impl Store {
    /// Reads `range` of the payload of a chunk, or of its fragment with this `index`: verified, in one piece. The range is not empty, at most
    /// [`READ_BYTES_MAX`] long, and inside the payload. Cheapest at multiples of [`FRAME_BYTES`],
    /// since whole frames are read and verified. The memory is recycled when the answer is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`] if this copy cannot be read or is wrong.
    pub async fn read(
        &self,
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> Result<Bytes, Error> {
        let shared = &self.shared;
        let mut seen: Option<(Place, String)> = None;
        for _ in 0..LOOKS_MAX {
            let place = shared.find(id)?.ok_or(Error::NotFound)?;
            if let Some((before, wrong)) = seen.filter(|(before, _)| *before == place) {
                return Err(shared.bad_read(id, &before, &wrong));
            }
            let span = Span::new(place, &range)?;
            let site = shared.ledger.lock().site(shared.device, place.segment);
            let Some(site) = site else {
                seen = Some((place, "the segment is missing".into()));
                continue;
            };
            match self.read_span(&span).await? {
                Err(error) => seen = Some((place, error.to_string())),
                Ok(buffer) => match span.check(id, index, &site, &buffer) {
                    Err(wrong) => seen = Some((place, wrong)),
                    Ok(()) => {
                        shared
                            .metrics
                            .bytes_read
                            .add(u64::from(range.end - range.start));
                        return Ok(Bytes::from_owner(buffer).slice(span.answer));
                    }
                },
            }
        }
        Err(Error::damaged(format!(
            "chunk {id} does not stay in one place"
        )))
    }

    /// Whether the chunk exists; says nothing about the state of its bytes.
    pub fn contains(&self, id: ChunkId) -> Result<bool, Error> {
        Ok(self.shared.find(id)?.is_some())
    }

    /// The first `max` chunks of a group behind `after`, in ascending order: those that the index knows,
    /// so [`Store::flush`] comes first.
    pub async fn list(
        &self,
        group: GroupId,
        after: Option<ChunkId>,
        max: usize,
    ) -> Result<Vec<ChunkId>, Error> {
        let before_first = ChunkId::new(group, 0, 0).0.checked_sub(1).map(ChunkId);
        let after = after.max(before_first);
        let rows = self.wait(move |shared| shared.index.page(after, max));
        let rows = rows.await?.map_err(index::read_failed)?;
        let ids = rows.into_iter().map(|(id, _)| id);
        Ok(ids.take_while(|id| id.group() == group).collect())
    }

    /// The first `max` chunks of all groups behind `after`, in ascending order, with the lengths of their payloads:
    /// those that the index knows, so [`Store::flush`] comes first.
    pub async fn list_all(
        &self,
        after: Option<ChunkId>,
        max: usize,
    ) -> Result<Vec<(ChunkId, u32)>, Error> {
        let rows = self.wait(move |shared| shared.index.page(after, max));
        let rows = rows.await?.map_err(index::read_failed)?;
        // One whose row is damaged is there, and cannot be read: the scrubber sees to it.
        let known = rows.into_iter().map(|(id, place)| {
            let bytes = place.map_or(0, |place| place.payload_bytes);
            (id, bytes)
        });
        Ok(known.collect())
    }

    /// What the chunk is, and how long its payload is. Its header is read and verified,
    /// its payload is not.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn describe(&self, id: ChunkId) -> Result<(Label, u32), Error> {
        self.wait(move |shared| shared.describe(id)).await?
    }

    /// Waits for the disk on a thread.
    async fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.shared.read_slots.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Closed)?;
        let shared = self.shared.clone();
        let waited = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&shared)
        });
        waited.await.map_err(|_| Error::Closed)
    }

    /// Reads what the span needs; the inner error is the disk's.
    async fn read_span(&self, span: &Span) -> Result<io::Result<Buffer>, Error> {
        let shared = &self.shared;
        let mut buffer = shared.buffers.take(span.payload.len());
        if let Some(file) = shared.files.opened(span.place.segment) {
            match span.fill(&mut buffer, |memory, at| file.read_cached_at(memory, at)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Ok(read.map(|()| buffer)),
            }
        }
        shared.metrics.reads_waited.inc();
        let permit = shared.read_slots.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Error::Closed)?;
        let (store, span) = (self.clone(), span.clone());
        let waited = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let file = store.shared.files.open(span.place.segment)?;
            span.fill(&mut buffer, |memory, at| file.read_at(memory, at))?;
            Ok(buffer)
        });
        waited.await.map_err(|_| Error::Closed)
    }
}

impl Shared {
    /// Where the chunk lies.
    pub(crate) fn find(&self, id: ChunkId) -> Result<Option<Place>, Error> {
        let known = self.ledger.lock().lookup(id);
        match known {
            Known::At(place) => Ok(Some(place)),
            Known::Deleted => Ok(None),
            Known::AskIndex => self.index.get(id),
        }
    }

    fn describe(&self, id: ChunkId) -> Result<(Label, u32), Error> {
        let mut seen: Option<(Place, String)> = None;
        for _ in 0..LOOKS_MAX {
            let place = self.find(id)?.ok_or(Error::NotFound)?;
            if let Some((before, wrong)) = seen.filter(|(before, _)| *before == place) {
                return Err(self.bad_read(id, &before, &wrong));
            }
            let site = self.ledger.lock().site(self.device, place.segment);
            let header = match site {
                None => Err("the segment is missing".to_owned()),
                Some(site) => self.files.open(place.segment).map_or_else(
                    |error| Err(error.to_string()),
                    |file| read_header(&*file, &site, id, &place),
                ),
            };
            match header {
                Ok(record) => return Ok((record.label, record.payload_bytes)),
                Err(wrong) => seen = Some((place, wrong)),
            }
        }
        Err(Error::damaged(format!(
            "chunk {id} does not stay in one place"
        )))
    }

    fn bad_read(&self, id: ChunkId, place: &Place, wrong: &str) -> Error {
        self.bad
            .report(self.device, &self.metrics, id, place, wrong);
        let (segment, offset) = (place.segment, place.offset);
        Error::damaged(format!(
            "reading segment {segment} at {offset} on {}: {wrong}",
            self.device
        ))
    }
}

/// What one read touches.
#[derive(Clone, Debug)]
struct Span {
    place: Place,
    first_frame: usize,
    /// The whole frames, as a range of the payload.
    payload: Range<usize>,
    /// The answer, as a range of the buffer.
    answer: Range<usize>,
}

impl Span {
    fn new(place: Place, range: &Range<u32>) -> Result<Self, Error> {
        let size = |n: u32| usize::try_from(n).expect("32 bits fit");
        let (start, end, len) = (
            size(range.start),
            size(range.end),
            size(place.payload_bytes),
        );
        if start >= end || end > len || end - start > READ_BYTES_MAX {
            return Err(Error::invalid(format!(
                "reading {start}..{end} of a chunk of {len} bytes"
            )));
        }
        let first_frame = start / FRAME_BYTES;
        let from = first_frame * FRAME_BYTES;
        let to = end.next_multiple_of(FRAME_BYTES).min(len);
        Ok(Self {
            place,
            first_frame,
            payload: from..to,
            answer: HEADER_BYTES + start - from..HEADER_BYTES + end - from,
        })
    }

    /// Reads the header and the frames, by one call if they are neighbours.
    fn fill(
        &self,
        buffer: &mut Buffer,
        read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let end = HEADER_BYTES + self.payload.len();
        let read_all = |memory: &mut [u8], at| match read(memory, at)? {
            n if n == memory.len() => Ok(()),
            _ => Err(io::Error::from(ErrorKind::UnexpectedEof)),
        };
        if self.first_frame == 0 {
            return read_all(&mut buffer.memory[..end], self.place.offset);
        }
        read_all(&mut buffer.memory[..HEADER_BYTES], self.place.offset)?;
        let frames_at = self.place.offset + (HEADER_BYTES + self.payload.start) as u64;
        read_all(&mut buffer.memory[HEADER_BYTES..end], frames_at)
    }

    /// Checks that this is the chunk, and that its bytes are right; says what is wrong.
    fn check(
        &self,
        id: ChunkId,
        index: Option<u8>,
        site: &Site,
        buffer: &Buffer,
    ) -> Result<(), String> {
        let (header, frames) = buffer.memory.split_at(HEADER_BYTES);
        let header = Header::decode(header, site, self.place.offset)
            .ok_or("checksum mismatch in the header")?;
        if (header.id(), header.payload_bytes()) != (id, self.place.payload_bytes) {
            return Err("another record is in its place".into());
        }
        if header.fragment().map(|fragment| fragment.index) != index {
            return Err("another fragment of the chunk is in its place".into());
        }
        let checked = header.check_frames(self.first_frame, &frames[..self.payload.len()]);
        checked.map_err(|frame| {
            let at = frame * FRAME_BYTES;
            format!("checksum mismatch in the payload's frame at {at}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u32 = 128 * 1024;

    fn span(payload_bytes: u32, range: Range<u32>) -> Result<(Range<usize>, Range<usize>), Error> {
        let place = Place {
            segment: 1,
            offset: 8192,
            payload_bytes,
        };
        Span::new(place, &range).map(|span| (span.payload, span.answer))
    }

    #[test]
    fn whole_frames_are_read_around_a_range() {
        const H: usize = HEADER_BYTES;
        for (payload_bytes, range, payload, answer) in [
            (10, 0..10, 0..10, H..H + 10),
            (10, 3..4, 0..10, H + 3..H + 4),
            (3 * FRAME, FRAME..FRAME + 1, 131_072..262_144, H..H + 1),
            (
                FRAME + 5,
                FRAME - 1..FRAME + 1,
                0..131_077,
                H + 131_071..H + 131_073,
            ),
        ] {
            let got = span(payload_bytes, range.clone()).unwrap();
            assert_eq!(got, (payload, answer), "{range:?} of {payload_bytes}");
        }
    }

    #[test]
    fn what_is_outside_the_payload_is_refused() {
        let max = u32::try_from(READ_BYTES_MAX).unwrap();
        span(4 * max, 5..5 + max).unwrap();
        for (payload_bytes, range) in [
            (10, 0..11),
            (10, 5..5),
            #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
            (10, 6..5),
            (4 * max, 5..6 + max),
        ] {
            let refused = span(payload_bytes, range.clone());
            assert!(matches!(refused, Err(Error::Invalid(_))), "{range:?}");
        }
    }
}
