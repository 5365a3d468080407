//! Memory that starts on a block boundary, as direct I/O wants it, without `unsafe`: a larger
//! vector of which only the aligned part is used.

use base::env::BLOCK_BYTES;

pub(super) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    pub(super) fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self { memory, start }
    }

    pub(super) fn capacity(&self) -> usize {
        self.memory.len() - BLOCK_BYTES
    }

    /// The first `bytes` of the buffer; it grows if it is smaller, and shrinks to `usual` if it is
    /// larger than that and needs not be.
    pub(super) fn take(&mut self, bytes: usize, usual: usize) -> &mut [u8] {
        if self.capacity() < bytes || self.capacity() > usual.max(bytes) {
            *self = Self::new(usual.max(bytes));
        }
        &mut self.memory[self.start..self.start + bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_shrinks_and_stays_aligned() {
        let mut buffer = AlignedBuffer::new(BLOCK_BYTES);
        for blocks in [1, 9, 2] {
            let taken = buffer.take(blocks * BLOCK_BYTES, 4 * BLOCK_BYTES);
            assert_eq!(taken.len(), blocks * BLOCK_BYTES);
            assert_eq!(taken.as_ptr().align_offset(BLOCK_BYTES), 0);
        }
        assert_eq!(buffer.capacity(), 4 * BLOCK_BYTES);
    }
}
