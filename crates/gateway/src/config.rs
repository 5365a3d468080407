//! What an operator may set.

use std::time::Duration;

use serde::Deserialize;

/// Bounds of the gateway. Times are in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// More connections than this are answered 503 and closed.
    pub connections_max: usize,
    /// From the first byte of a request's head to its last; and from the beginning of a connection to
    /// its first byte.
    pub head_timeout_s: u64,
    /// Between requests on a connection.
    pub idle_timeout_s: u64,
    /// How long a client may keep us waiting for its body, or for taking ours, before it is judged
    /// by `body_rate_min_bytes_per_s`.
    pub body_timeout_s: u64,
    /// The least rate of a body, either way, over `body_timeout_s` of waiting.
    pub body_rate_min_bytes_per_s: u64,
    /// How long requests in flight may go on after the server was told to stop.
    pub shutdown_grace_s: u64,
    pub access_log: AccessLog,
}

/// Which requests get a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    Off,
    /// Those that the server or the connection failed: 408, 499 and 5xx.
    Failures,
    All,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            head_timeout_s: 10,
            idle_timeout_s: 60,
            body_timeout_s: 60,
            body_rate_min_bytes_per_s: 256,
            shutdown_grace_s: 30,
            access_log: AccessLog::Failures,
        }
    }
}

impl Config {
    pub(crate) fn head_timeout(&self) -> Duration {
        Duration::from_secs(self.head_timeout_s)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_s)
    }

    /// What has to move during [`Config::body_timeout`] of waiting.
    pub(crate) fn body_bytes_min(&self) -> u64 {
        self.body_rate_min_bytes_per_s
            .saturating_mul(self.body_timeout_s)
            .max(1)
    }
}
