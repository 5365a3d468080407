//! What chunks count.

use base::metrics::{Counter, Gauge};

/// The counters of [`crate::Chunks`] since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    pub chunks_written: Counter,
    /// Chunks that ended before 4 MiB because the upload budget was used up.
    pub chunks_cut_short: Counter,
    /// Writes that failed on one group and were tried on another.
    pub writes_moved: Counter,
    /// Reads that a second device was asked for because the first was slow.
    pub reads_hedged: Counter,
    /// Parts of fragments that were computed from others, for readers and for members.
    pub fragments_made: Counter,
    /// Copies that a read found to be bad or missing, while another was good.
    pub copies_bad: Counter,
    /// Those of them that were replaced.
    pub copies_repaired: Counter,
    /// Copies that devices which left their groups no longer keep.
    pub copies_left_removed: Counter,
    /// Chunks that were copied to a new member of their group, and their bytes.
    pub chunks_filled: Counter,
    pub filled_bytes: Counter,
    /// Chunks of which no good copy was found for a new member.
    pub chunks_lost: Counter,
    /// Reads that wait for their share of the budget now.
    pub read_waits: Gauge,
    /// Chunks of abandoned uploads that wait to be deleted.
    pub discards_queued: Gauge,
    /// Chunks of abandoned uploads that were left to the scrubber, because the queue was full or
    /// their group could not be reached.
    pub discards_left: Counter,
}

/// How much of the buffer budget there is and is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub upload_bytes: u64,
    pub upload_bytes_free: u64,
    /// Uploads that wait for memory now.
    pub upload_waits: u64,
    pub read_bytes: u64,
    pub read_bytes_free: u64,
}
