//! Memory that direct I/O accepts.

use std::ops::{Deref, DerefMut};

use base::env::BLOCK_BYTES;

/// A buffer that begins on a block boundary.
pub(crate) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let memory = vec![0; len + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self { memory, start, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Whether direct I/O accepts a piece of memory.
pub(crate) fn is_aligned(piece: &[u8]) -> bool {
    piece.as_ptr().addr().is_multiple_of(BLOCK_BYTES) && piece.len().is_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_stays_aligned_when_it_moves() {
        for len in [BLOCK_BYTES, 5 * BLOCK_BYTES] {
            let buffer = Box::new(Aligned::zeroed(len));
            assert_eq!(buffer.len(), len);
            assert!(is_aligned(&buffer));
        }
    }
}
