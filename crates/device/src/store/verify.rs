//! Looks at every record of a device that nobody has open, and changes nothing.
//!
//! Sketch: one pass over the tails that the index has not learned, headers only; one pass over all
//! segments, everything; one pass over the index. In memory is what the tails hold, and one bit for
//! each 4 KiB of the segments: 32 MiB for 1 TiB.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::env::{BLOCK_BYTES, Env, Open};
use base::{ChunkId, DeviceId, Timestamp};

use super::index::{Index, SegmentRow, Stage};
use super::record::{Place, Site};
use super::scrub::read_header;
use super::segment::{Head, RECORDS_AT, Read, file_name};
use super::walk::{Walk, check_payload};
use super::{CHUNK_BYTES_MAX, Label, recover};
use crate::aligned::Aligned;
use crate::{Error, lmdb};

/// Something that an offline verification has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Record(FoundRecord),
    /// The index points to a record that is not there: the chunk is lost.
    Missing {
        chunk: ChunkId,
        segment: u64,
        offset: u64,
        wrong: String,
    },
    /// A segment cannot be read, or not all of it.
    BadSegment {
        segment: u64,
        wrong: String,
    },
    /// The index cannot be read. The next start makes it again.
    BadIndex {
        wrong: String,
    },
}

/// A record with a good header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    pub chunk: ChunkId,
    pub label: Label,
    pub payload_bytes: u32,
    pub written: Timestamp,
    pub segment: u64,
    pub offset: u64,
    /// Whether the chunk exists, or would after the next start. Else the record is left over.
    pub live: bool,
    /// What is wrong with the payload. A live one that nothing refers to was torn by a power cut,
    /// and is no damage.
    pub wrong: Option<String>,
}

struct Offline<'a> {
    env: &'a Env,
    device: DeviceId,
    dir: PathBuf,
    index: Option<Index>,
    rows: BTreeMap<u64, SegmentRow>,
    /// Chunks that the index has not learned yet.
    tails: BTreeMap<ChunkId, Place>,
    /// For each segment and block, whether a record begins there that the index points to.
    seen: BTreeMap<u64, Vec<u64>>,
    each: &'a mut dyn FnMut(Finding),
}

/// Tells `each` about every record of the device in `dir`, and what is damaged.
pub(crate) fn verify(
    env: &Env,
    dir: &Path,
    device: DeviceId,
    each: &mut dyn FnMut(Finding),
) -> Result<(), Error> {
    let mut offline = Offline {
        env,
        device,
        dir: dir.join("segments"),
        index: None,
        rows: BTreeMap::new(),
        tails: BTreeMap::new(),
        seen: BTreeMap::new(),
        each,
    };
    offline.open_index(&dir.join("index"));
    let segments = match recover::list(&*env.disk, &offline.dir) {
        // Formatted, and never opened.
        Err(_) if !offline.has_segments()? => Vec::new(),
        other => other?,
    };
    let segments: Vec<_> = segments
        .into_iter()
        .filter_map(|number| offline.site(number).transpose())
        .collect::<Result<_, _>>()?;
    for site in &segments {
        offline.read_tail(site)?;
    }
    for site in &segments {
        offline.read_all(site)?;
    }
    offline.look_for_missing(&segments)
}

impl Offline<'_> {
    fn open_index(&mut self, dir: &Path) {
        let opened = Index::open_read_only(dir);
        let read = opened.and_then(|index| {
            self.rows = match &index {
                Some(index) => index.segments()?,
                None => BTreeMap::new(),
            };
            self.index = index;
            Ok(())
        });
        if let Err(error) = read {
            let wrong = error.to_string();
            (self.each)(Finding::BadIndex { wrong });
        }
    }

    fn has_segments(&self) -> Result<bool, Error> {
        let parent = self.dir.parent().unwrap_or(&self.dir);
        let names = self.env.disk.list(parent);
        let names = names.map_err(|error| Error::io("listing the device", error))?;
        Ok(names.iter().any(|name| name == "segments"))
    }

    /// What headers in this segment start their checksums from; `None` if there can be none.
    fn site(&mut self, segment: u64) -> Result<Option<Site>, Error> {
        let row = self.rows.get(&segment);
        if row.is_some_and(|row| row.stage == Stage::Doomed) {
            return Ok(None);
        }
        let file = self.open(segment)?;
        let what = |error| Error::io(format!("reading segment {segment}"), error);
        let head = Head::read(&*file, self.device, segment).map_err(what)?;
        let salt = match (head, row) {
            (Read::Head(head), _) => Some(head.site.salt),
            (_, Some(row)) => Some(row.salt),
            (Read::Blank, None) => None,
            (Read::Unknown, None) => {
                let wrong = "both heads are damaged".into();
                (self.each)(Finding::BadSegment { segment, wrong });
                None
            }
        };
        let device = self.device;
        Ok(salt.map(|salt| Site {
            device,
            segment,
            salt,
        }))
    }

    fn open(&self, segment: u64) -> Result<std::sync::Arc<dyn base::env::File>, Error> {
        let path = self.dir.join(file_name(segment));
        let file = self.env.disk.open(&path, Open::ReadDirect);
        file.map_err(|error| Error::io(format!("opening segment {segment}"), error))
    }

    /// Finds what a start would take into the index.
    fn read_tail(&mut self, site: &Site) -> Result<(), Error> {
        let from = self
            .rows
            .get(&site.segment)
            .map_or(RECORDS_AT, |row| row.indexed_to);
        let file = self.open(site.segment)?;
        let what = |error| Error::io(format!("reading segment {}", site.segment), error);
        let end = file.len().map_err(what)? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut walk = Walk::new(&*file, *site, from, end);
        // What cannot be read is reported by the pass over everything.
        let mut buffer = Aligned::zeroed(CHUNK_BYTES_MAX);
        while let Ok(Some((place, header))) = walk.next() {
            let id = header.id();
            let indexed = || self.index.as_ref()?.get(id).ok()?;
            let known = self.tails.get(&id).copied().or_else(indexed);
            if recover::is_newer(&*file, &place, &header, known, &mut buffer) {
                self.tails.insert(id, place);
            }
        }
        Ok(())
    }

    fn read_all(&mut self, site: &Site) -> Result<(), Error> {
        let segment = site.segment;
        let file = self.open(segment)?;
        let what = |error| Error::io(format!("reading segment {segment}"), error);
        let end = file.len().map_err(what)? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut buffer = Aligned::zeroed(CHUNK_BYTES_MAX);
        let mut walk = Walk::new(&*file, *site, RECORDS_AT, end);
        let outcome = loop {
            let (place, header) = match walk.next() {
                Ok(Some(found)) => found,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let wrong = check_payload(&*file, &place, &header, &mut buffer).err();
            let record = header.to_record();
            let live = self.is_live(record.id, &place);
            (self.each)(Finding::Record(FoundRecord {
                chunk: record.id,
                label: record.label,
                payload_bytes: record.payload_bytes,
                written: record.written,
                segment,
                offset: place.offset,
                live,
                wrong,
            }));
        };
        let wrong = match outcome {
            Err(error) => Some(error.to_string()),
            Ok(()) if walk.unreadable() > 0 => {
                Some(format!("{} blocks cannot be read", walk.unreadable()))
            }
            Ok(()) => None,
        };
        if let Some(wrong) = wrong {
            (self.each)(Finding::BadSegment { segment, wrong });
        }
        Ok(())
    }

    /// Whether the chunk lies here, or would after the next start.
    fn is_live(&mut self, id: ChunkId, place: &Place) -> bool {
        if let Some(tail) = self.tails.get(&id) {
            return tail == place;
        }
        let indexed = self.index.as_ref().map(|index| index.get(id));
        let live = matches!(indexed, Some(Ok(Some(at))) if at == *place);
        if live {
            let (word, bit) = bit_of(place);
            let seen = self.seen.entry(place.segment).or_default();
            seen.resize(seen.len().max(word + 1), 0);
            seen[word] |= bit;
        }
        live
    }

    fn was_seen(&self, place: &Place) -> bool {
        let (word, bit) = bit_of(place);
        let seen = self.seen.get(&place.segment);
        seen.and_then(|seen| seen.get(word))
            .is_some_and(|seen| seen & bit != 0)
    }

    /// Looks for chunks of the index that no record was found for.
    fn look_for_missing(&mut self, segments: &[Site]) -> Result<(), Error> {
        let Some(index) = self.index.take() else {
            return Ok(());
        };
        let mut after = None;
        loop {
            let page = match index.page(after, 4096) {
                Ok(page) => page,
                Err(error) => {
                    let wrong = lmdb::into_io(error).to_string();
                    (self.each)(Finding::BadIndex { wrong });
                    return Ok(());
                }
            };
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (id, place) in page {
                match place {
                    Some(place) if !self.was_seen(&place) && !self.tails.contains_key(&id) => {
                        self.look_for(segments, id, &place)?;
                    }
                    Some(_) => {}
                    None => {
                        let wrong = format!("the row of chunk {id} is damaged");
                        (self.each)(Finding::BadIndex { wrong });
                    }
                }
            }
        }
    }

    fn look_for(&mut self, segments: &[Site], id: ChunkId, place: &Place) -> Result<(), Error> {
        let at = segments.binary_search_by_key(&place.segment, |site| site.segment);
        let outcome = match at {
            Err(_) => Err("the segment is missing".into()),
            Ok(at) => {
                let file = self.open(place.segment)?;
                read_header(&*file, &segments[at], id, place).map(drop)
            }
        };
        if let Err(wrong) = outcome {
            (self.each)(Finding::Missing {
                chunk: id,
                segment: place.segment,
                offset: place.offset,
                wrong,
            });
        }
        Ok(())
    }
}

fn bit_of(place: &Place) -> (usize, u64) {
    let block = place.offset / BLOCK_BYTES as u64;
    let word = usize::try_from(block / 64).expect("64-bit");
    (word, 1 << (block % 64))
}
