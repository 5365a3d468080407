//! Manifests: the chunks of a body, in order, 20 bytes each.
//!
//! A short manifest lies in its object's row. A long one is cut into parts, each a row of its own
//! that is found by the offset of its first byte in the body; they are written while the body still
//! comes in, so that an upload needs little memory whatever its size.

use std::ops::Range;

use base::ChunkId;
use chunks::{Chunk, Span};

use crate::Error;

/// The longest manifest in an object's row: 1 GiB of body in chunks of 4 MiB. Short in tests.
pub(crate) const INLINE_CHUNKS_MAX: usize = if cfg!(test) { 4 } else { 256 };

/// The chunks of one part: 4 GiB of body in 20 KiB. Few in tests.
pub(crate) const PART_CHUNKS_MAX: usize = if cfg!(test) { 8 } else { 1024 };

/// The id, big-endian, and the length of the chunk, big-endian.
const ENTRY_BYTES: usize = 16 + 4;

/// Writes `chunks` down.
pub(crate) fn encode(chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(chunks.len() * ENTRY_BYTES);
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.id.0.to_be_bytes());
        bytes.extend_from_slice(&chunk.bytes.to_be_bytes());
    }
    bytes
}

/// A manifest, or a part of one, as it lies in a row.
#[derive(Clone, Copy)]
pub(crate) struct Manifest<'a>(&'a [[u8; ENTRY_BYTES]]);

impl<'a> Manifest<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let (entries, rest) = bytes.as_chunks();
        if rest.is_empty() {
            Ok(Self(entries))
        } else {
            let len = bytes.len();
            Err(Error::Damaged(format!("a manifest of {len} bytes")))
        }
    }

    pub(crate) fn chunks(self) -> impl Iterator<Item = Chunk> + 'a {
        self.0.iter().map(|entry| {
            let (id, bytes) = entry.split_at(16);
            Chunk {
                id: ChunkId(u128::from_be_bytes(id.try_into().expect("16 bytes"))),
                bytes: u32::from_be_bytes(bytes.try_into().expect("4 bytes")),
            }
        })
    }

    pub(crate) fn bytes(self) -> u64 {
        self.chunks().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// What of the chunks lies in `range`, where the first chunk begins at `offset`.
    pub(crate) fn spans(self, offset: u64, range: Range<u64>) -> impl Iterator<Item = Span> + 'a {
        let mut at = offset;
        self.chunks().filter_map(move |chunk| {
            let start = at;
            at += u64::from(chunk.bytes);
            let within = range.start.max(start)..range.end.min(at);
            let inside = |point: u64| u32::try_from(point - start).expect("inside the chunk");
            (within.start < within.end).then(|| Span {
                chunk,
                range: inside(within.start)..inside(within.end),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(lens: &[u32]) -> Vec<Chunk> {
        let ids = (1..).map(ChunkId);
        let chunks = ids.zip(lens).map(|(id, bytes)| Chunk { id, bytes: *bytes });
        chunks.collect()
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let chunks = chunks(&[4 << 20, 7]);
        let bytes = encode(&chunks);
        let manifest = Manifest::decode(&bytes).unwrap();
        assert_eq!(manifest.chunks().collect::<Vec<_>>(), chunks);
        assert_eq!(manifest.bytes(), (4 << 20) + 7);
        assert!(Manifest::decode(&bytes[1..]).is_err());
    }

    #[test]
    fn spans_cover_the_range_and_nothing_else() {
        let bytes = encode(&chunks(&[10, 20, 5]));
        let manifest = Manifest::decode(&bytes).unwrap();
        let check = |range, expected: &[(u128, Range<u32>)]| {
            let spans = manifest.spans(100, range);
            let spans: Vec<_> = spans.map(|span| (span.chunk.id.0, span.range)).collect();
            assert_eq!(spans, expected);
        };
        check(100..135, &[(1, 0..10), (2, 0..20), (3, 0..5)]);
        check(0..1000, &[(1, 0..10), (2, 0..20), (3, 0..5)]);
        check(109..111, &[(1, 9..10), (2, 0..1)]);
        check(130..131, &[(3, 0..1)]);
        check(135..200, &[]);
        check(120..120, &[]);
    }
}
