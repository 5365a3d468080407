//! What can be set about a device, with units, bounds and the values chosen when nothing is.

use std::time::Duration;

use crate::Error;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Settings of a device. Every value may change from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The size of a new segment file; 8 MiB to 1 GiB. `None`: a sixteenth of the file system,
    /// at most 256 MiB.
    pub segment_bytes: Option<u64>,
    /// Chunks are refused when less than this would be left free on the file system; at most half
    /// of it. It is for the log, the B-tree and deletes. `None`: 4 %, between 32 MiB and 8 GiB.
    pub reserve_bytes: Option<u64>,
    /// Threads that write chunks; 1 to 64. More than the disk can do at once gain nothing.
    pub write_threads: usize,
    /// The chunk index is written back this often; 10 ms to 60 s. A start after a crash reads what
    /// was written since.
    pub index_flush_interval: Duration,
    /// The most that the chunk index may grow to, and so much address space; 256 KiB to 1 TiB.
    /// `None`: a 64th of the file system, at least 1 GiB, several times what it can need.
    pub index_bytes_max: Option<u64>,
    /// How fast the scrubber reads; 64 KiB/s to 1 GiB/s.
    pub scrub_bytes_per_second: u64,
    /// The pause between the end of a scrub and the next start; at most a year.
    pub scrub_interval: Duration,
    /// How fast compaction copies; 64 KiB/s to 1 GiB/s.
    pub compact_bytes_per_second: u64,
    /// A chunk to which nothing refers is a crash leftover when it is older than this; at least a
    /// minute, since uploads write chunks long before they commit.
    pub leftover_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: None,
            reserve_bytes: None,
            write_threads: 4,
            index_flush_interval: Duration::from_secs(5),
            index_bytes_max: None,
            scrub_bytes_per_second: 16 * MIB,
            scrub_interval: Duration::from_secs(6 * 3600),
            compact_bytes_per_second: 32 * MIB,
            leftover_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// A [`Config`] with every value decided for a file system of known size.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) index_bytes_max: usize,
    pub(crate) config: Config,
}

impl Config {
    /// # Errors
    /// [`Error::Invalid`] names the first value that is out of its bounds.
    pub(crate) fn settle(self, total_bytes: u64) -> Result<Settings, Error> {
        let segment_bytes = self
            .segment_bytes
            .unwrap_or((total_bytes / 16).clamp(16 * MIB, 256 * MIB));
        let reserve_bytes = self
            .reserve_bytes
            .unwrap_or((total_bytes / 25).clamp(32 * MIB, 8 * GIB));
        let index_bytes_max = self
            .index_bytes_max
            .unwrap_or((total_bytes / 64).clamp(GIB, 1024 * GIB));
        let rate = 64 * 1024..=GIB;
        let year = Duration::from_secs(366 * 24 * 3600);
        let all = [
            ("segment_bytes", (8 * MIB..=GIB).contains(&segment_bytes)),
            ("reserve_bytes", reserve_bytes <= total_bytes / 2),
            ("write_threads", (1..=64).contains(&self.write_threads)),
            (
                "index_flush_interval",
                (Duration::from_millis(10)..=Duration::from_secs(60))
                    .contains(&self.index_flush_interval),
            ),
            (
                "index_bytes_max",
                (256 * 1024..=1024 * GIB).contains(&index_bytes_max),
            ),
            (
                "scrub_bytes_per_second",
                rate.contains(&self.scrub_bytes_per_second),
            ),
            ("scrub_interval", self.scrub_interval <= year),
            (
                "compact_bytes_per_second",
                rate.contains(&self.compact_bytes_per_second),
            ),
            ("leftover_age", self.leftover_age >= Duration::from_secs(60)),
        ];
        if let Some((name, _)) = all.iter().find(|(_, fits)| !fits) {
            return Err(Error::invalid(format!("device: {name} is out of bounds")));
        }
        Ok(Settings {
            segment_bytes: segment_bytes / MIB * MIB,
            reserve_bytes,
            // LMDB wants whole pages.
            index_bytes_max: usize::try_from(index_bytes_max / 4096 * 4096).unwrap_or(usize::MAX),
            config: self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_system_gets_small_segments() {
        let settings = Config::default().settle(320 * MIB).unwrap();
        assert_eq!(settings.segment_bytes, 20 * MIB);
        assert_eq!(settings.reserve_bytes, 32 * MIB);
    }

    #[test]
    fn a_large_one_gets_large_ones() {
        let settings = Config::default().settle(10_000 * GIB).unwrap();
        assert_eq!(settings.segment_bytes, 256 * MIB);
        assert_eq!(settings.reserve_bytes, 8 * GIB);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let config = Config {
            write_threads: 0,
            ..Config::default()
        };
        let refused = config.settle(GIB).unwrap_err().to_string();
        assert_eq!(refused, "device: write_threads is out of bounds");
    }
}
