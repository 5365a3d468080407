//! What a device counts.

use base::metrics::{Counter, Gauge, Histogram, Labels, Report};

/// The counters of one device since it was opened.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Syncs of segments.
    pub sync_duration: Histogram,
    pub chunks_written: Counter,
    pub bytes_written: Counter,
    pub bytes_read: Counter,
    /// Reads that the page cache could not answer.
    pub reads_waited: Counter,
    /// Writes that wait for a thread or a sync.
    pub write_queue: Gauge,
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

impl Metrics {
    /// Tells `to` what was counted.
    pub(crate) fn report(&self, to: &mut dyn Report, labels: Labels<'_>) {
        for (name, help, counter) in self.counters() {
            to.counter(name, help, labels, counter.get());
        }
        to.gauge(
            "martlet_device_bad_records",
            "Chunk records that are known to be damaged.",
            labels,
            self.bad_records.get(),
        );
        to.gauge(
            "martlet_device_write_queue",
            "Writes of chunks that wait for a thread or a sync.",
            labels,
            self.write_queue.get(),
        );
        to.histogram(
            "martlet_device_sync_seconds",
            "How long syncs of segments took.",
            labels,
            &self.sync_duration,
        );
        to.histogram(
            "martlet_device_index_flush_seconds",
            "How long it took to write the chunk index back.",
            labels,
            &self.index_flush_duration,
        );
    }

    fn counters(&self) -> [(&'static str, &'static str, &Counter); 9] {
        [
            (
                "martlet_device_chunks_written_total",
                "Chunks written.",
                &self.chunks_written,
            ),
            (
                "martlet_device_written_bytes_total",
                "Bytes of chunk records written, also by compaction.",
                &self.bytes_written,
            ),
            (
                "martlet_device_read_bytes_total",
                "Bytes of chunks read.",
                &self.bytes_read,
            ),
            (
                "martlet_device_reads_waited_total",
                "Reads of chunks that the page cache could not answer.",
                &self.reads_waited,
            ),
            (
                "martlet_device_scrubbed_bytes_total",
                "Bytes read and verified in the background.",
                &self.bytes_scrubbed,
            ),
            (
                "martlet_device_leftover_chunks_total",
                "Chunks deleted because nothing referred to them, as after a crash.",
                &self.leftovers,
            ),
            (
                "martlet_device_compacted_bytes_total",
                "Bytes copied out of segments that were mostly dead.",
                &self.bytes_compacted,
            ),
            (
                "martlet_device_punched_bytes_total",
                "Bytes given back to the file system as holes.",
                &self.bytes_punched,
            ),
            (
                "martlet_device_segments_removed_total",
                "Empty segments removed.",
                &self.segments_removed,
            ),
        ]
    }
}
