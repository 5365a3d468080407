//! The durable part of the index: an LMDB environment with two databases.
//!
//! `chunks` maps a chunk to its place, `segments` keeps what the ledger knows of each segment. One
//! transaction changes both, so they always agree. The index only ever lags behind the segments,
//! and can be made again from them. LMDB has no checksums, so every row has one of its own.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use base::{ChunkId, checksum};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database};

use super::record::{Place, field};
use super::segment::RECORDS_AT;
use crate::Error;
use crate::lmdb::{self, Access, Lmdb};

type Rows = Database<'static, Bytes, Bytes>;

pub(crate) struct Index {
    env: Lmdb,
    chunks: Rows,
    segments: Rows,
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// May still grow.
    Open,
    /// Will not grow.
    Sealed,
    /// Nothing in it is needed: the file may be removed, and may already be gone.
    Doomed,
}

/// What the index knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) salt: u128,
    pub(crate) stage: Stage,
    /// The end of the last record.
    pub(crate) end: u64,
    /// Every record before this is in the index, or was deleted.
    pub(crate) indexed_to: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_chunks: u64,
    pub(crate) punched_bytes: u64,
}

impl SegmentRow {
    /// Of a segment of which nothing is known but its salt.
    pub(crate) fn open(salt: u128) -> Self {
        Self {
            salt,
            stage: Stage::Open,
            end: RECORDS_AT,
            indexed_to: RECORDS_AT,
            live_bytes: 0,
            live_chunks: 0,
            punched_bytes: 0,
        }
    }
}

/// A page of rows, in ascending order. A damaged row has no place.
pub(crate) type Page = Vec<(ChunkId, Option<Place>)>;

impl Index {
    /// Opens the index in `dir` and makes what is missing of it. All of its pages are read first: a damaged
    /// one would end the process when it is written to.
    pub(crate) fn open(dir: &Path, map_bytes: usize) -> Result<Self, heed::Error> {
        lmdb::verify(dir).map_err(heed::Error::Io)?;
        let env = lmdb::open(dir, Access::ReadWrite, map_bytes, 2)?;
        let txn = env.write_txn()?;
        let (chunks, segments) = env
            .create_databases_and_commit(txn, |open, txn| {
                let chunks = open.create_database(txn, Some("chunks"))?;
                let segments = open.create_database(txn, Some("segments"))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((chunks, segments)))
            })?
            .unwrap_commit();
        Ok(Self {
            env,
            chunks,
            segments,
        })
    }

    /// Opens the index in `dir` without touching it; `None` if there is none.
    pub(crate) fn open_read_only(dir: &Path) -> Result<Option<Self>, heed::Error> {
        if !dir.join("data.mdb").exists() {
            return Ok(None);
        }
        // LMDB takes the size of the file where that is more.
        let env = lmdb::open(dir, Access::ReadOnly, 1 << 20, 2)?;
        let txn = env.read_txn()?;
        let opened = env
            .open_databases_and_commit(txn, |open, txn| {
                let chunks = open.open_database(txn, Some("chunks"))?;
                let segments = open.open_database(txn, Some("segments"))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((chunks, segments)))
            })?
            .unwrap_commit();
        Ok(match opened {
            (Some(chunks), Some(segments)) => Some(Self {
                env,
                chunks,
                segments,
            }),
            _ => None,
        })
    }

    /// Where the chunk lies, as of the last commit.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its row is.
    pub(crate) fn get(&self, id: ChunkId) -> Result<Option<Place>, Error> {
        let key = id.0.to_be_bytes();
        let row = || {
            let txn = self.env.read_txn()?;
            let row = self.chunks.get(&txn, &key)?;
            Ok(row.map(|row| decode_place(&key, row)))
        };
        match row().map_err(read_failed)? {
            None => Ok(None),
            Some(Some(place)) => Ok(Some(place)),
            Some(None) => Err(Error::damaged(format!("the index row of {id} is damaged"))),
        }
    }

    /// All segments; a damaged row is left out: its segment is then read from the start.
    pub(crate) fn segments(&self) -> Result<BTreeMap<u64, SegmentRow>, heed::Error> {
        let txn = self.env.read_txn()?;
        let mut all = BTreeMap::new();
        for row in self.segments.iter(&txn)? {
            let (key, row) = row?;
            if let (Ok(number), Some(row)) = (key.try_into(), decode_segment(key, row)) {
                all.insert(u64::from_be_bytes(number), row);
            }
        }
        Ok(all)
    }

    /// The first rows behind `after`, at most `max`: a page at a time, so that no transaction is
    /// held for long.
    pub(crate) fn page(&self, after: Option<ChunkId>, max: usize) -> Result<Page, heed::Error> {
        let txn = self.env.read_txn()?;
        let after = after.map(|id| id.0.to_be_bytes());
        let from = match &after {
            Some(key) => Bound::Excluded(key.as_slice()),
            None => Bound::Unbounded,
        };
        let rows = self.chunks.range(&txn, &(from, Bound::Unbounded))?;
        rows.take(max)
            .map(|row| {
                let (key, row) = row?;
                let id = key.try_into().map(u128::from_be_bytes).unwrap_or_default();
                Ok((ChunkId(id), decode_place(key, row)))
            })
            .collect()
    }

    /// Writes all changes in one durable transaction. `chunks` are in ascending order: what has no
    /// place, or no row, is removed.
    pub(crate) fn commit<'a>(
        &self,
        chunks: impl Iterator<Item = (&'a ChunkId, Option<Place>)>,
        segments: &[(u64, Option<SegmentRow>)],
    ) -> Result<(), heed::Error> {
        let mut txn = self.env.write_txn()?;
        for (id, place) in chunks {
            let key = id.0.to_be_bytes();
            match place {
                Some(place) => self
                    .chunks
                    .put(&mut txn, &key, &encode_place(&key, &place))?,
                None => drop(self.chunks.delete(&mut txn, &key)?),
            }
        }
        for (number, row) in segments {
            let key = number.to_be_bytes();
            match row {
                Some(row) => {
                    let row = encode_segment(&key, row);
                    self.segments.put(&mut txn, &key, &row)?;
                }
                None => drop(self.segments.delete(&mut txn, &key)?),
            }
        }
        txn.commit()
    }
}

pub(crate) fn read_failed(error: heed::Error) -> Error {
    match lmdb::is_corrupt(&error) {
        true => Error::damaged(format!("the chunk index is damaged: {error}")),
        false => Error::io("reading the chunk index", lmdb::into_io(error)),
    }
}

const PLACE_BYTES: usize = 24;

fn encode_place(key: &[u8], place: &Place) -> [u8; PLACE_BYTES] {
    let mut row = [0; PLACE_BYTES];
    row[..8].copy_from_slice(&place.segment.to_le_bytes());
    row[8..16].copy_from_slice(&place.offset.to_le_bytes());
    row[16..20].copy_from_slice(&place.payload_bytes.to_le_bytes());
    let crc = checksum::crc32c_of(&[key, &row[..20]]);
    row[20..].copy_from_slice(&crc.to_le_bytes());
    row
}

fn decode_place(key: &[u8], row: &[u8]) -> Option<Place> {
    let crc = |row: &[u8]| checksum::crc32c_of(&[key, &row[..20]]).to_le_bytes();
    if row.len() != PLACE_BYTES || row[20..] != crc(row) {
        return None;
    }
    Some(Place {
        segment: u64::from_le_bytes(field(row, 0)),
        offset: u64::from_le_bytes(field(row, 8)),
        payload_bytes: u32::from_le_bytes(field(row, 16)),
    })
}

const SEGMENT_BYTES: usize = 64;

fn encode_segment(key: &[u8], segment: &SegmentRow) -> [u8; SEGMENT_BYTES] {
    let mut row = [0; SEGMENT_BYTES];
    row[..16].copy_from_slice(&segment.salt.to_le_bytes());
    let numbers = [
        segment.end,
        segment.indexed_to,
        segment.live_bytes,
        segment.live_chunks,
        segment.punched_bytes,
    ];
    for (place, number) in row[16..56].chunks_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    row[56] = match segment.stage {
        Stage::Open => 0,
        Stage::Sealed => 1,
        Stage::Doomed => 2,
    };
    let crc = checksum::crc32c_of(&[key, &row[..60]]);
    row[60..].copy_from_slice(&crc.to_le_bytes());
    row
}

fn decode_segment(key: &[u8], row: &[u8]) -> Option<SegmentRow> {
    let crc = |row: &[u8]| checksum::crc32c_of(&[key, &row[..60]]).to_le_bytes();
    if row.len() != SEGMENT_BYTES || row[60..] != crc(row) {
        return None;
    }
    let number = |i: usize| u64::from_le_bytes(field(row, 16 + 8 * i));
    Some(SegmentRow {
        salt: u128::from_le_bytes(field(row, 0)),
        stage: match row[56] {
            0 => Stage::Open,
            1 => Stage::Sealed,
            2 => Stage::Doomed,
            _ => return None,
        },
        end: number(0),
        indexed_to: number(1),
        live_bytes: number(2),
        live_chunks: number(3),
        punched_bytes: number(4),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP_BYTES: usize = 1 << 24;

    fn place(offset: u64) -> Place {
        Place {
            segment: 3,
            offset,
            payload_bytes: 77,
        }
    }

    const SEGMENT: SegmentRow = SegmentRow {
        salt: 9,
        stage: Stage::Sealed,
        end: 1 << 20,
        indexed_to: 1 << 19,
        live_bytes: 4096,
        live_chunks: 1,
        punched_bytes: 5,
    };

    #[test]
    fn the_format_stays() {
        crate::golden::check("index-chunk-1.txt", &encode_place(&[1; 16], &place(8192)));
        crate::golden::check("index-segment-1.txt", &encode_segment(&[1; 8], &SEGMENT));
    }

    #[test]
    fn what_was_committed_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let rows = [
            (ChunkId(1), Some(place(8192))),
            (ChunkId(2), Some(place(0))),
        ];
        let index = Index::open(dir.path(), MAP_BYTES).unwrap();
        let all = rows.iter().map(|(id, place)| (id, *place));
        index.commit(all, &[(3, Some(SEGMENT))]).unwrap();
        let gone = [(ChunkId(2), None)];
        index
            .commit(gone.iter().map(|(id, place)| (id, *place)), &[(4, None)])
            .unwrap();
        drop(index);

        let index = Index::open_read_only(dir.path()).unwrap().unwrap();
        assert_eq!(index.get(ChunkId(1)).unwrap(), Some(place(8192)));
        assert_eq!(index.get(ChunkId(2)).unwrap(), None);
        assert_eq!(index.segments().unwrap(), BTreeMap::from([(3, SEGMENT)]));
        assert_eq!(index.page(None, 10).unwrap(), rows[..1]);
        assert_eq!(index.page(Some(ChunkId(1)), 10).unwrap(), []);
    }

    #[test]
    fn a_missing_index_is_no_error_to_a_reader() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Index::open_read_only(dir.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_seen() {
        let key = [1; 16];
        let row = encode_place(&key, &place(4096));
        assert_eq!(decode_place(&key, &row), Some(place(4096)));
        assert_eq!(decode_place(&[2; 16], &row), None);
        for bit in 0..PLACE_BYTES * 8 {
            let mut bad = row;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_place(&key, &bad), None, "bit {bit}");
        }
        let row = encode_segment(&key, &SEGMENT);
        assert_eq!(decode_segment(&key, &row), Some(SEGMENT));
        for bit in 0..SEGMENT_BYTES * 8 {
            let mut bad = row;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_segment(&key, &bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_full_map_is_a_full_disk() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 16 * 4096).unwrap();
        let rows: Vec<_> = (0..10_000).map(|i| (ChunkId(i), Some(place(0)))).collect();
        let full = index.commit(rows.iter().map(|(id, place)| (id, *place)), &[]);
        let full = lmdb::into_io(full.unwrap_err());
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(
            index.get(ChunkId(1)).unwrap(),
            None,
            "nothing of it happened"
        );
        index
            .commit(rows[..9].iter().map(|(id, place)| (id, *place)), &[])
            .unwrap();
    }
}
