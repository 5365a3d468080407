//! What a device counts.

use base::metrics::{Counter, Gauge, Histogram};

/// The counters of one device since it was opened.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Syncs of segments.
    pub syncs: Counter,
    pub sync_duration: Histogram,
    pub chunks_written: Counter,
    pub bytes_written: Counter,
    pub bytes_read: Counter,
    /// Reads that the page cache could not answer.
    pub reads_waited: Counter,
    /// Writes that wait for a thread or a sync.
    pub write_queue: Gauge,
    pub index_flushes: Counter,
    pub index_flush_duration: Histogram,
    /// Records that are known to be bad: the length of [`crate::Store::bad_records`].
    pub bad_records: Gauge,
    pub bytes_scrubbed: Counter,
    /// Crash leftovers that the scrubber deleted.
    pub leftovers: Counter,
    pub bytes_compacted: Counter,
    pub bytes_punched: Counter,
    pub segments_removed: Counter,
}
