//! What can be set about chunks.

use crate::PIECE_BYTES;

/// Settings of [`crate::Chunks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Memory for bodies on their way in and out, over all requests; 16 MiB to 1 TiB. Three quarters
    /// are for uploads, one for reads, so that slow readers cannot keep writers out, nor the reverse.
    pub buffer_bytes: usize,
    /// What is copied in the background for all devices of this node together, in bytes per second, at least 1.
    pub repair_bytes_per_second: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buffer_bytes: 256 << 20,
            repair_bytes_per_second: 256 << 20,
        }
    }
}

/// A budget, divided.
pub(crate) struct Pieces {
    pub(crate) uploads: usize,
    pub(crate) reads: usize,
}

impl Config {
    const MIN: usize = 16 << 20;
    const MAX: usize = 1 << 40;

    /// The budget as pieces; what is out of bounds is taken as the bound.
    pub(crate) fn pieces(&self) -> Pieces {
        let all = self.buffer_bytes.clamp(Self::MIN, Self::MAX) / PIECE_BYTES;
        let reads = all / 4;
        Pieces {
            uploads: all - reads,
            reads,
        }
    }
}
