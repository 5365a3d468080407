//! What can be set about the namespace.

use std::time::Duration;

use base::NodeId;

use crate::renew::RENEWED_FOR;

/// Settings of [`crate::Namespace`]. Every value may change from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub chunks: chunks::Config,
    /// The node that this is. Its number is in the versions of the bodies that come in through it.
    pub node: NodeId,
    /// Whether other nodes use the same shards: then what this one remembers of users and accounts is
    /// read again after a second, and readers and collectors of several nodes agree through the shards.
    pub is_shared: bool,
    /// Bodies up to this size are kept with the metadata: one fsync instead of two, but copied when
    /// the B-tree is written. At most 64 KiB.
    pub inline_bytes_max: usize,
    /// How long a deleted body stays: longer than any request takes from looking an object up to
    /// beginning to read it. Bodies that are being read stay as long as that takes. With other nodes at
    /// least 20 s.
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
            node: NodeId::FIRST,
            is_shared: false,
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

    /// How long garbage is let be that nobody has asked for.
    pub(crate) fn garbage_delay(&self) -> Duration {
        match self.is_shared {
            true => self.garbage_delay.max(RENEWED_FOR),
            false => self.garbage_delay,
        }
    }
}
