//! Bodies that can be checked without being remembered: their bytes follow from the object's name,
//! its size and a seed.
//!
//! A body is 16 bytes that no other name has, then a walk over one shared pattern of pseudo-random
//! bytes from a place that the name gives. Sending needs no copy, checking is a `memcmp`. The
//! pattern's length is a prime, so that frames, chunks and sectors that change places do not match.

/// The smallest prime above 1 MiB.
const PATTERN_BYTES: usize = 1_048_583;

/// The longest slice that a body gives at a time: the pattern is stored with its beginning once
/// more behind its end.
pub(super) const SLICE_BYTES_MAX: usize = 256 << 10;

const MARK_BYTES: usize = 16;

/// The bytes that all bodies of one seed are cut from.
pub(super) struct Pattern {
    seed: u64,
    bytes: Box<[u8]>,
}

impl Pattern {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(PATTERN_BYTES + SLICE_BYTES_MAX);
        while bytes.len() < PATTERN_BYTES {
            bytes.extend_from_slice(&split_mix(&mut state).to_le_bytes());
        }
        bytes.truncate(PATTERN_BYTES);
        bytes.extend_from_within(..SLICE_BYTES_MAX);
        Self {
            seed,
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// The body of the object of that name, if it has `len` bytes.
    pub(super) fn body(&self, name: &str, len: u64) -> Body<'_> {
        // FNV-1a to gather the name, SplitMix64 to spread it.
        let mut state = name.bytes().fold(self.seed ^ len, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mark = [0; MARK_BYTES];
        mark[..8].copy_from_slice(&split_mix(&mut state).to_le_bytes());
        mark[8..].copy_from_slice(&split_mix(&mut state).to_le_bytes());
        let start = split_mix(&mut state) % PATTERN_BYTES as u64;
        Body {
            pattern: &self.bytes,
            mark,
            start,
            len,
        }
    }
}

/// What an object holds.
pub(super) struct Body<'a> {
    pattern: &'a [u8],
    mark: [u8; MARK_BYTES],
    start: u64,
    pub(super) len: u64,
}

impl Body<'_> {
    /// Some of the bytes from `position` on; none at the end.
    pub(super) fn slice(&self, position: u64) -> &[u8] {
        let left = index(self.len.saturating_sub(position));
        if position < MARK_BYTES as u64 {
            let mark = &self.mark[index(position)..];
            return &mark[..mark.len().min(left)];
        }
        let place = index((self.start + position) % PATTERN_BYTES as u64);
        &self.pattern[place..place + left.min(SLICE_BYTES_MAX)]
    }

    /// Whether `bytes` are what the body holds at `position`.
    pub(super) fn matches(&self, mut position: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.slice(position);
            let len = expected.len().min(bytes.len());
            if len == 0 || expected[..len] != bytes[..len] {
                return false;
            }
            position += len as u64;
            bytes = &bytes[len..];
        }
        true
    }
}

/// Saturates: what is beyond the address space is cut to the longest slice anyway.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The next number of Vigna's SplitMix64.
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &Body<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match body.slice(bytes.len() as u64) {
                [] => return bytes,
                slice => bytes.extend_from_slice(slice),
            }
        }
    }

    #[test]
    fn a_body_has_its_length_and_matches_itself_from_anywhere() {
        let pattern = Pattern::new(1);
        for len in [0, 1, 15, 16, 17, 4096, 3_000_000] {
            let body = pattern.body("o", len);
            let bytes = whole(&body);
            assert_eq!(bytes.len() as u64, len);
            for from in [0, 7, 16, 4095, 1_048_583] {
                if let Some(rest) = bytes.get(from..) {
                    assert!(body.matches(from as u64, rest));
                }
            }
        }
    }

    #[test]
    fn any_other_byte_length_name_or_seed_differs() {
        let pattern = Pattern::new(1);
        let body = pattern.body("o", 5000);
        let mut bytes = whole(&body);
        assert!(!body.matches(0, &[&bytes[..], b"x"].concat()));
        assert!(!pattern.body("p", 5000).matches(0, &bytes));
        assert!(!pattern.body("o", 5001).matches(0, &bytes));
        assert!(!Pattern::new(2).body("o", 5000).matches(0, &bytes));
        bytes[4999] ^= 1;
        assert!(!body.matches(0, &bytes));
    }

    #[test]
    fn chunks_that_change_places_do_not_match() {
        const CHUNK: u64 = 4 << 20;
        let pattern = Pattern::new(1);
        let body = pattern.body("o", 3 * CHUNK);
        let second = body.slice(CHUNK).to_vec();
        assert!(!body.matches(2 * CHUNK, &second));
    }
}
