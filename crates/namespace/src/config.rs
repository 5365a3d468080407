//! What can be set about the namespace.

use std::time::Duration;

/// Settings of [`crate::Namespace`]. Every value may change from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub chunks: chunks::Config,
    /// Bodies up to this size are kept with the metadata: one fsync instead of two, but copied when
    /// the B-tree is written. At most 64 KiB.
    pub inline_bytes_max: usize,
    /// How long a deleted body stays: longer than any request takes from looking an object up to
    /// beginning to read it. Bodies that are being read stay as long as that takes.
    pub garbage_delay: Duration,
    /// How long an expired object can still be reached by who asks for expired ones. It is hidden
    /// from everybody else, and counted until it is removed.
    pub expiry_delay: Duration,
    /// The pause after a round of background work that found nothing to do.
    pub background_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            chunks: chunks::Config::default(),
            inline_bytes_max: 16 * 1024,
            garbage_delay: Duration::from_secs(5),
            expiry_delay: Duration::from_secs(60),
            background_interval: Duration::from_secs(1),
        }
    }
}

impl Config {
    pub(crate) fn inline_bytes_max(&self) -> usize {
        self.inline_bytes_max.min(64 * 1024)
    }
}
