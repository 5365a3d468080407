//! Walks over a segment from record to record.
//!
//! Records begin on block boundaries, so behind a hole, a torn write or a damaged header the walk
//! looks at every block until it recognises the next header. It reads past the page cache: it wants
//! to see the disk, and leave the cache to those who use it.

use std::io;

use base::env::{BLOCK_BYTES, File};

use super::FRAME_BYTES;
use super::record::{HEADER_BYTES, Header, Place, Site};
use crate::aligned::Aligned;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Blocks that cannot be read are skipped, but a disk that can hardly be read at all is not worth
/// hours of retries.
const UNREADABLE_MAX: u64 = 256;

/// How much is read ahead in search of headers.
const WINDOW_BYTES: usize = 64 * 1024;

pub(crate) struct Walk<'a> {
    file: &'a dyn File,
    site: Site,
    at: u64,
    end: u64,
    window: Aligned,
    window_at: u64,
    window_len: usize,
    /// The end of the last block that is not zeros.
    used_end: u64,
    unreadable: u64,
}

impl<'a> Walk<'a> {
    /// Walks from `from` to `end`, both multiples of a block.
    pub(crate) fn new(file: &'a dyn File, site: Site, from: u64, end: u64) -> Self {
        Self {
            file,
            site,
            at: from,
            end,
            window: Aligned::zeroed(WINDOW_BYTES),
            window_at: 0,
            window_len: 0,
            used_end: from,
            unreadable: 0,
        }
    }

    /// The next record, if there is one.
    ///
    /// # Errors
    /// When too many blocks cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<(Place, Header<'_>)>> {
        while self.at < self.end {
            let offset = self.at;
            self.at += BLOCK;
            let Some(start) = self.load(offset)? else {
                continue;
            };
            let block = &self.window[start..start + HEADER_BYTES];
            let Some(header) = Header::decode(block, &self.site, offset) else {
                if block.iter().any(|byte| *byte != 0) {
                    self.used_end = offset + BLOCK;
                }
                continue;
            };
            let place = Place {
                segment: self.site.segment,
                offset,
                payload_bytes: header.payload_bytes(),
            };
            self.at = place.end();
            self.used_end = place.end();
            let block = &self.window[start..start + HEADER_BYTES];
            return Ok(Some((place, Header::again(block))));
        }
        Ok(None)
    }

    /// The end of the last record, or of anything else that is not zeros.
    pub(crate) fn used_end(&self) -> u64 {
        self.used_end
    }

    /// How many blocks could not be read.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Brings the block at `offset` into the window; answers where it begins there, or `None` if
    /// it cannot be read.
    fn load(&mut self, offset: u64) -> io::Result<Option<usize>> {
        let within = offset.checked_sub(self.window_at);
        let within = within.and_then(|at| usize::try_from(at).ok());
        if let Some(start) = within
            && start + BLOCK_BYTES <= self.window_len
        {
            return Ok(Some(start));
        }
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        for len in [WINDOW_BYTES.min(left), BLOCK_BYTES] {
            self.window_at = offset;
            self.window_len = 0;
            match self.file.read_at(&mut self.window[..len], offset) {
                Ok(read) if read >= BLOCK_BYTES => {
                    self.window_len = read;
                    return Ok(Some(0));
                }
                // The file is shorter than it should be.
                Ok(_) => return Ok(None),
                Err(error) if len == BLOCK_BYTES => {
                    self.unreadable += 1;
                    if self.unreadable > UNREADABLE_MAX {
                        return Err(error);
                    }
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// Reads the whole payload of a record into `buffer` and checks it; answers what is wrong.
pub(crate) fn check_payload(
    file: &dyn File,
    place: &Place,
    header: &Header<'_>,
    buffer: &mut Aligned,
) -> Result<(), String> {
    let len = usize::try_from(place.payload_bytes).expect("32 bits fit");
    let padded = len.next_multiple_of(BLOCK_BYTES);
    let offset = place.offset + HEADER_BYTES as u64;
    match file.read_at(&mut buffer[..padded], offset) {
        Err(error) => Err(error.to_string()),
        Ok(read) if read < len => Err("the file ends too early".into()),
        Ok(_) => header.check_frames(0, &buffer[..len]).map_err(|frame| {
            let at = frame * FRAME_BYTES;
            format!("checksum mismatch in the payload's frame at {at}")
        }),
    }
}
