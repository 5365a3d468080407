//! What the shards of a device count.

use base::metrics::{Counter, Histogram, Labels, Report};

use crate::host::Host;
use crate::replica::Stand;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// From the latches to the answer.
    pub(crate) commit_duration: Histogram,
    /// Raft entries: one for each procedure that changes something.
    pub(crate) entries: Counter,
    /// Calls that were tried again, and had been done.
    pub(crate) recalled: Counter,
    /// Times that a replica stood for election; of one that has gone, too.
    pub(crate) elections: Counter,
    /// Procedures that waited for memory.
    pub(crate) waits: Counter,
    pub(crate) flush_duration: Histogram,
    pub(crate) flushed_bytes: Counter,
}

impl Host {
    pub(crate) fn report(&self, to: &mut dyn Report) {
        let device = self.device().id().to_string();
        let labels = &[("device", &*device)];
        self.report_shards(to, labels);
        self.report_replicas(to, labels);
        self.report_log(to, labels);
    }

    fn report_shards(&self, to: &mut dyn Report, labels: Labels<'_>) {
        let metrics = self.metrics();
        to.histogram(
            "martlet_shard_commit_duration_seconds",
            "time from the latches of a procedure to its answer",
            labels,
            &metrics.commit_duration,
        );
        to.histogram(
            "martlet_shard_flush_duration_seconds",
            "time of a flush of the memtables into the tree",
            labels,
            &metrics.flush_duration,
        );
        let counters = [
            ("entries_total", "Raft entries proposed", &metrics.entries),
            (
                "recalled_total",
                "repeated calls that had been done",
                &metrics.recalled,
            ),
            (
                "waits_total",
                "procedures that waited for memory",
                &metrics.waits,
            ),
            (
                "flushed_bytes_total",
                "memtables flushed",
                &metrics.flushed_bytes,
            ),
        ];
        for (name, help, counter) in counters {
            to.counter(
                &format!("martlet_shard_{name}"),
                help,
                labels,
                counter.get(),
            );
        }
        let gauges = [
            (
                "memtable_bytes",
                "active memtables",
                self.budget().active_bytes(),
            ),
            ("tree_bytes", "file of the tree", self.tree().file_bytes()),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            to.gauge(&format!("martlet_shard_{name}"), help, labels, value);
        }
    }

    fn report_replicas(&self, to: &mut dyn Report, labels: Labels<'_>) {
        let stands: Vec<_> = self.replicas().iter().map(|one| one.stand()).collect();
        let count = |is: fn(&Stand) -> bool| stands.iter().filter(|one| is(one)).count() as u64;
        let behind = stands.iter().map(|one| one.behind).max();
        let gauges = [
            ("replicas", "replicas of shards", count(|_| true)),
            ("led", "replicas that lead", count(|one| one.leads)),
            (
                "leaderless",
                "replicas that know no leader",
                count(|one| !one.has_leader),
            ),
            (
                "behind_entries",
                "entries that a member of a shard led here lacks, at most",
                behind.unwrap_or_default(),
            ),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            to.gauge(&format!("martlet_shard_{name}"), help, labels, value);
        }
        to.counter(
            "martlet_shard_elections_total",
            "times that a replica stood for election",
            labels,
            self.metrics().elections.get(),
        );
    }

    fn report_log(&self, to: &mut dyn Report, labels: Labels<'_>) {
        let log = self.log().metrics();
        to.histogram(
            "martlet_log_write_duration_seconds",
            "time of a durable write of one batch to the log",
            labels,
            &log.write_duration,
        );
        let counters = [
            ("batches_total", "durable writes to the log", &log.batches),
            ("records_total", "records written to the log", &log.records),
            ("bytes_total", "bytes written to the log", &log.bytes),
        ];
        for (name, help, counter) in counters {
            to.counter(&format!("martlet_log_{name}"), help, labels, counter.get());
        }
        to.gauge(
            "martlet_log_queue",
            "appends that wait",
            labels,
            log.queue.get(),
        );
        to.gauge(
            "martlet_log_files",
            "log files that are needed",
            labels,
            log.files.get(),
        );
    }
}
