//! What the layers count, under the names that `docs/ops/metrics.md` lists.
//!
//! Gateway, shards and devices name their own numbers; those of the layers between are plain structs,
//! named here.

use base::metrics::Report;
use chunks::Chunks;
use namespace::{Backlog, Metrics};

/// Memory for bodies in flight.
pub(super) fn chunks(to: &mut dyn Report, chunks: &Chunks) {
    let buffers = chunks.buffers();
    let metrics = chunks.metrics();
    let help = "Memory for bodies in flight.";
    let free = "Memory for bodies in flight that is free.";
    for (way, total, unused) in [
        ("in", buffers.upload_bytes, buffers.upload_bytes_free),
        ("out", buffers.read_bytes, buffers.read_bytes_free),
    ] {
        let mut out = Labelled {
            to: &mut *to,
            label: ("way", way),
        };
        out.amount("martlet_buffer_bytes", help, total);
        out.amount("martlet_buffer_free_bytes", free, unused);
    }
    let waits = i64::try_from(buffers.upload_waits).unwrap_or(i64::MAX);
    let help = "Requests that wait for memory.";
    to.gauge("martlet_buffer_waits", help, &[("way", "in")], waits);
    to.gauge(
        "martlet_buffer_waits",
        help,
        &[("way", "out")],
        metrics.read_waits.get(),
    );
    let help = "Chunks that ended early because memory was short.";
    let value = metrics.chunks_cut_short.get();
    to.counter("martlet_chunks_cut_short_total", help, &[], value);
    let help = "Chunks whose write failed on one group and was tried on another.";
    to.counter(
        "martlet_chunks_moved_total",
        help,
        &[],
        metrics.writes_moved.get(),
    );
    let help = "Reads that asked a second device because the first was slow.";
    let value = metrics.reads_hedged.get();
    to.counter("martlet_chunk_reads_hedged_total", help, &[], value);
    let help = "Copies of chunks that were found to be bad or missing.";
    let value = metrics.copies_bad.get();
    to.counter("martlet_chunk_copies_bad_total", help, &[], value);
    let help = "Of them, those that were replaced from a good copy.";
    let value = metrics.copies_repaired.get();
    to.counter("martlet_chunk_copies_repaired_total", help, &[], value);
    let help = "Copies removed from disks that left their groups.";
    let value = metrics.copies_left_removed.get();
    to.counter("martlet_chunk_copies_left_removed_total", help, &[], value);
    let help = "Chunks on this server's disks of which no good copy is left.";
    let lost = i64::try_from(chunks.lost().len()).unwrap_or(i64::MAX);
    to.gauge("martlet_chunks_without_copy", help, &[], lost);
    let help = "Chunks of abandoned uploads that wait to be deleted.";
    to.gauge(
        "martlet_discards_queued",
        help,
        &[],
        metrics.discards_queued.get(),
    );
    let help = "Chunks of abandoned uploads that were left to the scrubber.";
    to.counter(
        "martlet_discards_left_total",
        help,
        &[],
        metrics.discards_left.get(),
    );
}

/// What is copied to new members of groups.
pub(super) fn filled(to: &mut dyn Report, metrics: &chunks::Metrics) {
    let help = "Chunks copied to new members of their groups.";
    to.counter(
        "martlet_chunks_filled_total",
        help,
        &[],
        metrics.chunks_filled.get(),
    );
    let help = "Bytes of chunks copied to new members of their groups.";
    to.counter(
        "martlet_chunks_filled_bytes_total",
        help,
        &[],
        metrics.filled_bytes.get(),
    );
    let help = "Parts of fragments that were computed from others.";
    to.counter(
        "martlet_fragments_made_total",
        help,
        &[],
        metrics.fragments_made.get(),
    );
    let help = "Chunks of which no good copy was found for a new member.";
    let value = metrics.chunks_lost.get();
    to.counter("martlet_chunks_lost_total", help, &[], value);
}

/// Objects, and what waits to be deleted; `None` if that could not be found out.
pub(super) fn namespace(to: &mut dyn Report, metrics: &Metrics, backlog: Option<Backlog>) {
    if let Some(backlog) = backlog {
        let amount = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let help = "Deleted bodies that wait for the collector.";
        to.gauge(
            "martlet_garbage_bodies",
            help,
            &[],
            amount(backlog.garbage_bodies),
        );
        let help = "Bytes of deleted bodies that wait for the collector.";
        to.gauge(
            "martlet_garbage_bytes",
            help,
            &[],
            amount(backlog.garbage_bytes),
        );
    }
    let m = metrics;
    to.gauge(
        "martlet_uploads",
        "Bodies on their way in.",
        &[],
        m.uploads.get(),
    );
    let help = "Objects that the expirer removed.";
    to.counter(
        "martlet_objects_expired_total",
        help,
        &[],
        m.objects_expired.get(),
    );
    let help = "Expired objects that wait to be removed.";
    to.gauge("martlet_expiry_backlog", help, &[], m.expiry_backlog.get());
    let help = "Deleted bodies that the collector removed.";
    to.counter(
        "martlet_bodies_collected_total",
        help,
        &[],
        m.bodies_collected.get(),
    );
    let help = "Chunks that the collector removed.";
    to.counter(
        "martlet_chunks_collected_total",
        help,
        &[],
        m.chunks_collected.get(),
    );
    let help = "Rounds of background work that failed and were put off.";
    to.counter(
        "martlet_background_errors_total",
        help,
        &[],
        m.background_errors.get(),
    );
    let help = "Abandoned uploads whose parts were removed.";
    to.counter(
        "martlet_uploads_reaped_total",
        help,
        &[],
        m.uploads_reaped.get(),
    );
}

/// What the kernel knows of this process; what it does not say is left out.
pub(super) fn process(to: &mut dyn Report) {
    const PAGE_BYTES: i64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<i64>().ok());
    if let Some(pages) = pages {
        let help = "Memory of the process that is resident.";
        to.gauge(
            "martlet_process_resident_bytes",
            help,
            &[],
            pages * PAGE_BYTES,
        );
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(entries.count()).unwrap_or(i64::MAX);
        to.gauge(
            "martlet_process_open_files",
            "Files and sockets that are open.",
            &[],
            open,
        );
    }
}

/// Reports under one label.
struct Labelled<'a> {
    to: &'a mut dyn Report,
    label: (&'a str, &'a str),
}

impl Labelled<'_> {
    fn amount(&mut self, name: &str, help: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.to.gauge(name, help, &[self.label], value);
    }
}
