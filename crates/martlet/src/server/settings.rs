//! The server's settings as each layer wants them.

use crate::config::Config;

/// Of the admin address: an operator, a scraper, and a few scripts.
const ADMIN_CONNECTIONS_MAX: usize = 256;

impl Config {
    pub(super) fn gateway(&self) -> gateway::Config {
        gateway::Config {
            connections_max: self.connections_max,
            head_timeout_s: self.head_timeout.as_secs(),
            idle_timeout_s: self.idle_timeout.as_secs(),
            body_timeout_s: self.body_timeout.as_secs(),
            body_rate_min_bytes_per_s: self.body_bytes_per_second_min,
            shutdown_grace_s: self.shutdown_grace.as_secs(),
            access_log: match self.access_log.as_str() {
                "off" => gateway::AccessLog::Off,
                "all" => gateway::AccessLog::All,
                _ => gateway::AccessLog::Failures,
            },
        }
    }

    pub(super) fn admin_gateway(&self) -> gateway::Config {
        gateway::Config {
            connections_max: ADMIN_CONNECTIONS_MAX,
            ..self.gateway()
        }
    }

    pub(super) fn swift(&self) -> swift::Config {
        swift::Config {
            public_url: self.public_url.clone(),
            token_lifetime_s: self.token_lifetime.as_secs(),
            ..swift::Config::default()
        }
    }

    pub(super) fn namespace(&self) -> namespace::Config {
        namespace::Config {
            chunks: chunks::Config {
                buffer_bytes: self.buffer_bytes,
                repair_bytes_per_second: self.repair_bytes_per_second,
            },
            inline_bytes_max: self.inline_bytes_max,
            garbage_delay: self.garbage_delay,
            expiry_delay: self.expiry_delay,
            ..namespace::Config::default()
        }
    }

    pub(super) fn cluster(&self) -> cluster::Config {
        cluster::Config {
            health: cluster::HealthConfig {
                grace: self.out_after,
                ..cluster::HealthConfig::default()
            },
            ..cluster::Config::default()
        }
    }

    pub(super) fn shard(&self) -> shard::Config {
        shard::Config {
            memtable_bytes: self.memtable_bytes,
            flush_interval: self.flush_interval,
            log_file_bytes: self.log_file_bytes,
        }
    }

    pub(super) fn device(&self) -> device::Config {
        device::Config {
            segment_bytes: self.segment_bytes,
            reserve_bytes: self.reserve_bytes,
            write_threads: self.write_threads,
            index_flush_interval: self.index_flush_interval,
            scrub_bytes_per_second: self.scrub_bytes_per_second,
            scrub_interval: self.scrub_interval,
            compact_bytes_per_second: self.compact_bytes_per_second,
            leftover_age: self.leftover_age,
            ..device::Config::default()
        }
    }
}
