//! Erasure coding: a chunk becomes fragments, and fragments become those that are missing. Pure.
//!
//! The first `data` fragments are the chunk itself, cut into parts of equal length; only the last of them may be
//! shorter, and is padded with zeros for the code, not on disk. So what is there is read without computing anything. The
//! others are of full length, computed by Reed and Solomon's code in GF(2^16).
//!
//! The code works on [`WORD_BYTES`] at the same place of all fragments, and on no others: so any range of a missing
//! fragment is made of the same range of `data` others, and nobody reads a whole chunk for 4 KiB.

use std::ops::Range;

use bytes::Bytes;
use map::Policy;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

/// What the code computes at once: ranges that are computed begin and end at multiples of it.
pub(crate) const WORD_BYTES: u32 = 64;

/// Fragments are whole blocks of a disk, so that they are written from where they lie in memory.
const BLOCK_BYTES: u32 = 4096;

/// A fragment has at least so many blocks: each costs another for its header, and a read of its own.
const BLOCKS_MIN: u32 = 8;

/// How many fragments a chunk is cut into, and how many are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) data: u8,
    pub(crate) parity: u8,
}

impl Code {
    /// `None` for whole copies.
    pub(crate) fn of(policy: Policy) -> Option<Self> {
        match policy {
            Policy::Replicated { .. } => None,
            Policy::Coded { data, parity } => Some(Self { data, parity }),
        }
    }

    fn width(self) -> u8 {
        self.data + self.parity
    }

    /// The least that a chunk has; what is smaller would be mostly padding.
    pub(crate) fn chunk_bytes_min(self) -> u32 {
        // With a block less than the number of fragments, rounding could leave nothing for the last.
        let data = u32::from(self.data);
        data * BLOCKS_MIN.max(data) * BLOCK_BYTES
    }

    /// The length of all fragments but the last that holds data.
    fn fragment_bytes(self, chunk_bytes: u32) -> u32 {
        let part = chunk_bytes.div_ceil(u32::from(self.data.max(1)));
        part.next_multiple_of(BLOCK_BYTES)
    }

    /// How long a fragment is on disk.
    pub(crate) fn bytes_of(self, chunk_bytes: u32, index: u8) -> u32 {
        let bytes = self.fragment_bytes(chunk_bytes);
        match index < self.data {
            true => chunk_bytes
                .saturating_sub(u32::from(index) * bytes)
                .min(bytes),
            false => bytes,
        }
    }

    /// The parts of the fragments that together are this part of the chunk.
    pub(crate) fn parts(self, chunk_bytes: u32, range: Range<u32>) -> Vec<(u8, Range<u32>)> {
        let bytes = self.fragment_bytes(chunk_bytes);
        let parts = (0..self.data).map(|index| {
            let start = u32::from(index) * bytes;
            let part = range.start.max(start)..range.end.min(start + bytes);
            (
                index,
                part.start.saturating_sub(start)..part.end.saturating_sub(start),
            )
        });
        parts.filter(|(_, part)| !part.is_empty()).collect()
    }

    /// All fragments of a chunk that is long enough. Those that hold data refer to the payload.
    pub(crate) fn cut(self, payload: &[Bytes]) -> Vec<Vec<Bytes>> {
        let bytes: usize = payload.iter().map(Bytes::len).sum();
        let chunk_bytes = u32::try_from(bytes).expect("a chunk is at most 4 MiB");
        let fragment_bytes = size(self.fragment_bytes(chunk_bytes));
        let mut rest = payload.iter().cloned();
        let mut piece = Bytes::new();
        let mut fragments: Vec<Vec<Bytes>> = (0..self.data)
            .map(|_| {
                let (mut fragment, mut room) = (Vec::new(), fragment_bytes);
                while room > 0 {
                    if piece.is_empty() {
                        let Some(next) = rest.next() else { break };
                        piece = next;
                        continue;
                    }
                    let part = piece.split_to(piece.len().min(room));
                    room -= part.len();
                    fragment.push(part);
                }
                fragment
            })
            .collect();
        let mut encoder = self.encoder(fragment_bytes);
        for fragment in &fragments {
            let whole = padded(fragment, fragment_bytes);
            encoder
                .add_original_shard(whole)
                .expect("as many as the code has");
        }
        let encoded = encoder.encode().expect("all fragments are there");
        let parity = encoded
            .recovery_iter()
            .map(|parity| vec![Bytes::copy_from_slice(parity)]);
        fragments.extend(parity);
        debug_assert_eq!(fragments.len(), usize::from(self.width()));
        fragments
    }

    /// Computes `bytes` of a fragment from what `data` others have in the same range, which begins and ends at a
    /// multiple of [`WORD_BYTES`]. What a given one lacks at its end is zeros.
    pub(crate) fn make(self, index: u8, given: &[(u8, Bytes)], bytes: usize) -> Bytes {
        let originals = usize::from(self.data);
        let mut data: Vec<Option<Vec<u8>>> = vec![None; originals];
        let mut decoder = ReedSolomonDecoder::new(originals, usize::from(self.parity), bytes)
            .expect("the policy is one that the code has");
        for (given, content) in given {
            let content = padded(std::slice::from_ref(content), bytes);
            let place = usize::from(*given);
            let added = match place.checked_sub(originals) {
                None => decoder.add_original_shard(place, &content),
                Some(place) => decoder.add_recovery_shard(place, &content),
            };
            added.expect("different fragments of the code");
            if let Some(slot) = data.get_mut(place) {
                *slot = Some(content);
            }
        }
        let decoded = decoder.decode().expect("as many as are needed");
        if index < self.data {
            let made = decoded.restored_original(usize::from(index));
            return Bytes::copy_from_slice(made.expect("it was not given"));
        }
        let mut encoder = self.encoder(bytes);
        for (place, content) in data.iter().enumerate() {
            let content = match content {
                Some(content) => content,
                None => decoded.restored_original(place).expect("it was not given"),
            };
            encoder
                .add_original_shard(content)
                .expect("as many as the code has");
        }
        let encoded = encoder.encode().expect("all fragments are there");
        let made = encoded.recovery(usize::from(index - self.data));
        Bytes::copy_from_slice(made.expect("the code has it"))
    }

    fn encoder(self, bytes: usize) -> ReedSolomonEncoder {
        ReedSolomonEncoder::new(usize::from(self.data), usize::from(self.parity), bytes)
            .expect("the policy is one that the code has")
    }
}

/// How long the record of a fragment is to be.
pub fn fragment_bytes(fragment: &device::Fragment) -> u32 {
    let code = Code {
        data: fragment.data,
        parity: fragment.parity,
    };
    code.bytes_of(fragment.chunk_bytes, fragment.index)
}

/// These pieces in one, and zeros to its end.
fn padded(pieces: &[Bytes], bytes: usize) -> Vec<u8> {
    let mut whole = Vec::with_capacity(bytes);
    for piece in pieces {
        whole.extend_from_slice(piece);
    }
    whole.resize(bytes, 0);
    whole
}

fn size(n: u32) -> usize {
    usize::try_from(n).expect("32 bits fit")
}

#[cfg(test)]
mod tests {
    use base::checksum::crc32c;
    use proptest::prelude::*;
    use testkit::Random;

    use super::*;
    use crate::{CHUNK_BYTES_MAX, PIECE_BYTES};

    fn code(data: u8, parity: u8) -> Code {
        Code { data, parity }
    }

    fn payload(bytes: usize) -> Vec<Bytes> {
        let whole = Bytes::from(Random::new(bytes as u64).bytes(bytes));
        let cuts = (0..bytes).step_by(PIECE_BYTES);
        cuts.map(|at| whole.slice(at..bytes.min(at + PIECE_BYTES)))
            .collect()
    }

    fn fragments(code: Code, bytes: usize) -> Vec<Bytes> {
        let cut = code.cut(&payload(bytes));
        cut.into_iter()
            .map(|fragment| fragment.concat().into())
            .collect()
    }

    /// All ways to take `count` of `of`.
    fn choices(of: u8, count: usize) -> Vec<Vec<u8>> {
        let all = 0..1_u32 << of;
        let all = all.filter(|bits| bits.count_ones() as usize == count);
        all.map(|bits| (0..of).filter(|place| bits >> place & 1 == 1).collect())
            .collect()
    }

    #[test]
    fn any_fragment_is_made_of_any_that_are_enough() {
        for (data, parity) in [(2, 1), (4, 2), (3, 3), (6, 1)] {
            let code = code(data, parity);
            let bytes = code.chunk_bytes_min() as usize + 12_345;
            let all = fragments(code, bytes);
            let whole = size(code.fragment_bytes(u32::try_from(bytes).unwrap()));
            for choice in choices(code.width(), usize::from(data)) {
                let given: Vec<_> = choice
                    .iter()
                    .map(|i| (*i, all[usize::from(*i)].clone()))
                    .collect();
                for missing in (0..code.width()).filter(|index| !choice.contains(index)) {
                    let made = code.make(missing, &given, whole);
                    let (made, rest) = made.split_at(all[usize::from(missing)].len());
                    assert!(made == all[usize::from(missing)], "{missing} of {choice:?}");
                    assert!(rest.iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn the_first_fragments_are_the_chunk_and_none_is_empty() {
        for data in 2..=map::DATA_MAX {
            let code = code(data, 1);
            for bytes in [
                code.chunk_bytes_min(),
                code.chunk_bytes_min() + 1,
                u32::try_from(CHUNK_BYTES_MAX).unwrap(),
            ] {
                let all = fragments(code, bytes as usize);
                assert!(all[..usize::from(data)].concat() == payload(bytes as usize).concat());
                for (index, fragment) in (0..).zip(&all) {
                    assert_eq!(fragment.len(), code.bytes_of(bytes, index) as usize);
                    assert!(!fragment.is_empty(), "{index} of {bytes} in {data}");
                }
            }
        }
    }

    /// What was written must be read for ever, whatever becomes of the crate that computes it.
    #[test]
    fn the_code_stays() {
        let all = fragments(code(4, 2), 200_000);
        let sums: Vec<_> = all[4..].iter().map(|parity| crc32c(parity)).collect();
        assert_eq!(sums, [3_216_837_024, 571_719_103]);
    }

    proptest! {
        #[test]
        fn a_range_is_its_parts(data in 2..=16_u8, bytes in 1_000_000..4_194_304_u32, start: prop::sample::Index, len: prop::sample::Index) {
            let code = code(data, 2);
            let start = u32::try_from(start.index(bytes as usize)).unwrap();
            let end = start + 1 + u32::try_from(len.index((bytes - start) as usize)).unwrap();
            let mut at = start;
            for (index, part) in code.parts(bytes, start..end) {
                let before = u32::from(index) * code.fragment_bytes(bytes);
                prop_assert_eq!(before + part.start, at);
                prop_assert!(part.end <= code.bytes_of(bytes, index));
                at = before + part.end;
            }
            prop_assert_eq!(at, end);
        }

        /// A range of a fragment needs nothing but the same range of the others.
        #[test]
        fn a_range_is_made_of_the_same_range(seed: u64) {
            let code = code(3, 2);
            let mut random = Random::new(seed);
            let all = fragments(code, 300_000);
            let (index, words) = (u8::try_from(random.below(5)).unwrap(), 102_400 / 64);
            let start = random.below(words);
            let end = start + 1 + random.below(words - start);
            let at = |words: u64| usize::try_from(words * 64).unwrap();
            let (start, end) = (at(start), at(end));
            let part = |one: &Bytes| one.slice(start.min(one.len())..end.min(one.len()));
            let given: Vec<_> = (0..5).filter(|i| *i != index).take(3).map(|i| (i, part(&all[usize::from(i)]))).collect();
            let made = code.make(index, &given, end - start);
            let expected = part(&all[usize::from(index)]);
            prop_assert!(made[..expected.len()] == expected);
        }
    }
}
