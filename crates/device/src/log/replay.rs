//! Reading a log from its files: where it ends, and whether it is whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::{BLOCK_BYTES, Disk, File, Open};
use bytes::Bytes;

use super::Record;
use super::files::Slot;
use super::format::{self, BATCH_HEADER_BYTES, BatchHeader, FileHeader, HEADER_BYTES, HeaderBlock};
use crate::Error;

/// A log file as it was found.
pub(super) struct Found {
    pub(super) slot: Slot,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// `None` if the file was being made when the power went.
    pub(super) header: Option<FileHeader>,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Which of the files.
    pub(super) file: usize,
    pub(super) offset: u64,
    /// Of the next batch.
    pub(super) sequence: u64,
}

/// Finds the log files in `dir` and reads their headers.
pub(super) fn find(disk: &dyn Disk, dir: &Path) -> Result<Vec<Found>, Error> {
    let doing = |what: &str, path: &Path| format!("{what} {}", path.display());
    let names = disk
        .list(dir)
        .map_err(|error| Error::io(doing("listing", dir), error))?;
    let mut found = Vec::new();
    for name in names {
        let Some(number) = Slot::number_in(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let read = |path: &Path| {
            let file = disk.open(path, Open::Read)?;
            let mut head = vec![0; 2 * BLOCK_BYTES];
            file.read_at(&mut head, 0)?;
            Ok((file.len()?, file, head))
        };
        let (bytes, file, head) =
            read(&path).map_err(|error| Error::io(doing("reading", &path), error))?;
        let header = read_header(&path, &head, bytes)?;
        found.push(Found {
            slot: Slot { number, bytes },
            path,
            file,
            header,
        });
    }
    Ok(found)
}

/// Reads the two copies of a file header.
fn read_header(path: &Path, head: &[u8], bytes: u64) -> Result<Option<FileHeader>, Error> {
    let path = path.display();
    let copies = [0, BLOCK_BYTES].map(|at| HeaderBlock::decode(&head[at..at + BLOCK_BYTES]));
    let header = match copies {
        [HeaderBlock::Foreign(version), _] | [_, HeaderBlock::Foreign(version)] => {
            return Err(Error::foreign(format!(
                "{path} has log format {version}, which this program does not know"
            )));
        }
        [HeaderBlock::Valid(a), HeaderBlock::Valid(b)] if a.sequence < b.sequence => b,
        [HeaderBlock::Valid(header), _] | [_, HeaderBlock::Valid(header)] => header,
        [_, HeaderBlock::Blank] => return Ok(None),
        [_, HeaderBlock::Bad] => {
            return Err(Error::damaged(format!("{path}: both headers are damaged")));
        }
    };
    if header.file_bytes != bytes {
        let expected = header.file_bytes;
        return Err(Error::damaged(format!(
            "{path} has {bytes} B instead of {expected}"
        )));
    }
    Ok(Some(header))
}

/// Reads the log in `files`, which must be in order, without gaps and not empty; gives every record
/// to `visit` with the number of its file.
///
/// # Errors
/// [`Error::Damaged`] if a batch is bad and a good one follows; and what `visit` says.
pub(super) fn replay(
    files: &[Found],
    visit: &mut dyn FnMut(usize, Record) -> Result<(), Error>,
) -> Result<End, Error> {
    let mut end: Option<End> = None;
    for (i, file) in files.iter().enumerate() {
        let reader = Reader::new(file);
        let Some(first) = reader.batch_at(HEADER_BYTES, None)? else {
            break;
        };
        let expected = end.map_or(first.header.sequence, |end| end.sequence);
        if first.header.sequence != expected {
            // Reported below: it follows a batch that is bad or missing.
            break;
        }
        let mut batch = Some(first);
        let mut at = End {
            file: i,
            offset: HEADER_BYTES,
            sequence: expected,
        };
        while let Some(good) = batch {
            at.offset += good.padded_bytes();
            at.sequence += 1;
            for record in good.records {
                visit(i, record)?;
            }
            batch = reader.batch_at(at.offset, Some(at.sequence))?;
        }
        end = Some(at);
    }
    let end = end.unwrap_or(End {
        file: 0,
        offset: HEADER_BYTES,
        sequence: 1,
    });
    refuse_later_batches(files, end)?;
    Ok(end)
}

/// A good batch at or after the end means that something before it is bad.
fn refuse_later_batches(files: &[Found], end: End) -> Result<(), Error> {
    for (i, file) in files.iter().enumerate().skip(end.file) {
        let from = if i == end.file {
            end.offset
        } else {
            HEADER_BYTES
        };
        if let Some(offset) = Reader::new(file).find_batch(from, end.sequence)? {
            let broken = &files[end.file].path;
            return Err(Error::damaged(format!(
                "the log is damaged: batch {} at {} of {} is bad, yet a later one is good at \
                 {offset} of {}",
                end.sequence,
                end.offset,
                broken.display(),
                file.path.display(),
            )));
        }
    }
    Ok(())
}

struct Batch {
    header: BatchHeader,
    records: Vec<Record>,
}

impl Batch {
    fn padded_bytes(&self) -> u64 {
        self.header.bytes().next_multiple_of(BLOCK_BYTES) as u64
    }
}

/// Reads batches of one file.
struct Reader<'a> {
    found: &'a Found,
    header: FileHeader,
}

impl<'a> Reader<'a> {
    fn new(found: &'a Found) -> Self {
        let header = found.header.expect("files without header are not read");
        Self { found, header }
    }

    /// The batch at `offset`, if it is whole and, if given, has the `expected` sequence.
    fn batch_at(&self, offset: u64, expected: Option<u64>) -> Result<Option<Batch>, Error> {
        let mut head = [0; BATCH_HEADER_BYTES];
        if self.read(&mut head, offset)? < head.len() {
            return Ok(None);
        }
        let Some(header) = self.plausible(&head, offset) else {
            return Ok(None);
        };
        if expected.is_some_and(|expected| header.sequence != expected) {
            return Ok(None);
        }
        let mut whole = vec![0; header.bytes()];
        if self.read(&mut whole, offset)? < whole.len() || !header.verify(&whole, self.header.salt)
        {
            return Ok(None);
        }
        let payload = Bytes::from(whole).slice(BATCH_HEADER_BYTES..);
        let records = format::decode_records(&header, payload).ok_or_else(|| {
            let path = self.found.path.display();
            Error::damaged(format!("{path}: batch at {offset} has impossible records"))
        })?;
        Ok(Some(Batch { header, records }))
    }

    /// Looks for a good batch with `sequence` or a later one, block by block from `offset` on.
    fn find_batch(&self, mut offset: u64, sequence: u64) -> Result<Option<u64>, Error> {
        const PIECE_BYTES: usize = 1 << 20;

        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let bytes = self.read(&mut piece, offset)?;
            if bytes < BATCH_HEADER_BYTES {
                return Ok(None);
            }
            for block in (0..bytes - BATCH_HEADER_BYTES + 1).step_by(BLOCK_BYTES) {
                let at = offset + block as u64;
                let head = &piece[block..block + BATCH_HEADER_BYTES];
                let later = |header: BatchHeader| header.sequence >= sequence;
                if self.plausible(head, at).is_some_and(later) && self.batch_at(at, None)?.is_some()
                {
                    return Ok(Some(at));
                }
            }
            offset += bytes as u64;
        }
    }

    /// The batch header in `head`, if it is of this use of the file and fits it.
    fn plausible(&self, head: &[u8], offset: u64) -> Option<BatchHeader> {
        let header = BatchHeader::decode(head)?;
        let fits = offset + header.bytes() as u64 <= self.header.file_bytes;
        (fits && header.file == self.header.sequence).then_some(header)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let read = self.found.file.read_at(buffer, offset);
        read.map_err(|error| {
            let path = self.found.path.display();
            Error::io(format!("reading {path} at {offset}"), error)
        })
    }
}
