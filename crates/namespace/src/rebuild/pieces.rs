//! The chunks of one body, as their headers say where they belong.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use base::ChunkId;
use chunks::Chunk;

/// What a header says of its chunk's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub chunk: Chunk,
    /// Where in the body it begins.
    pub offset: u64,
    /// The body ends with it. False if that was not known when it was written.
    pub is_last: bool,
}

/// All that is known of a body.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// A chunk whose write failed in one group and was made again in another may be there twice, under two ids.
    by_offset: BTreeMap<u64, Vec<Piece>>,
}

/// Why the chunks are no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// There is nothing that could be read, and begins here.
    At(u64),
    /// What comes last does not say that it is the end.
    Endless(u64),
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => write!(f, "nothing that can be read begins at byte {at}"),
            Self::Endless(bytes) => write!(f, "whether {bytes} bytes are all of it is not known"),
        }
    }
}

impl Pieces {
    pub(super) fn add(&mut self, piece: Piece) {
        let others = self.by_offset.entry(piece.offset).or_default();
        if !others.iter().any(|other| other.chunk.id == piece.chunk.id) {
            others.push(piece);
        }
    }

    /// The chunks from the first to the last, without those that are bad.
    pub(super) fn chain(&self, bad: &HashSet<ChunkId>) -> Result<Vec<Chunk>, Gap> {
        let (mut chain, mut at) = (Vec::new(), 0);
        loop {
            let mut here = self.by_offset.get(&at).into_iter().flatten();
            let good = |chunk: &Chunk| chunk.bytes > 0 && !bad.contains(&chunk.id);
            let Some(piece) = here.find(|piece| good(&piece.chunk)) else {
                let is_end = self.by_offset.range(at..).next().is_none();
                return Err(match is_end && at > 0 {
                    true => Gap::Endless(at),
                    false => Gap::At(at),
                });
            };
            chain.push(piece.chunk);
            if piece.is_last {
                return Ok(chain);
            }
            at += u64::from(piece.chunk.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(id: u128, offset: u64, bytes: u32, is_last: bool) -> Piece {
        let chunk = Chunk {
            id: ChunkId(id),
            bytes,
        };
        Piece {
            chunk,
            offset,
            is_last,
        }
    }

    #[track_caller]
    fn check(pieces: &[Piece], bad: &[u128], expected: Result<&[u128], Gap>) {
        let mut all = Pieces::default();
        pieces.iter().for_each(|piece| all.add(*piece));
        let bad = bad.iter().map(|id| ChunkId(*id)).collect();
        let chain = all.chain(&bad);
        let chain = chain.map(|chain| chain.iter().map(|chunk| chunk.id.0).collect::<Vec<_>>());
        assert_eq!(chain, expected.map(<[u128]>::to_vec));
    }

    #[test]
    fn a_body_goes_from_its_first_byte_to_its_last_chunk() {
        let (a, b, c) = (
            piece(1, 0, 10, false),
            piece(2, 10, 5, false),
            piece(3, 15, 7, true),
        );
        check(&[c, a, b, a], &[], Ok(&[1, 2, 3]));
        check(&[a, c], &[], Err(Gap::At(10)));
        check(&[b, c], &[], Err(Gap::At(0)));
        check(&[a, b], &[], Err(Gap::Endless(15)));
        check(&[], &[], Err(Gap::At(0)));
        check(&[a, b, c], &[3], Err(Gap::At(15)));
    }

    #[test]
    fn of_two_chunks_in_one_place_one_that_is_good_will_do() {
        let (a, again, b) = (
            piece(1, 0, 10, false),
            piece(7, 0, 10, false),
            piece(2, 10, 5, true),
        );
        check(&[a, again, b], &[], Ok(&[1, 2]));
        check(&[a, again, b], &[1], Ok(&[7, 2]));
        check(&[a, again, b], &[1, 7], Err(Gap::At(0)));
    }
}
