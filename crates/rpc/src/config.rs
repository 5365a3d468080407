//! Bounds and times, with their reasons.

use std::time::Duration;

use crate::frame::{Hello, Purpose, VERSIONS, Verdict};

/// A kind of traffic between two nodes. Each has connections of its own, so that a megabyte of the
/// one never waits before a vote of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Raft, calls of procedures, control.
    Small,
    /// Chunks and snapshots.
    Bulk,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Small, Self::Bulk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Bulk => "bulk",
        }
    }

    pub(crate) fn purpose(self) -> Purpose {
        match self {
            Self::Small => Purpose::Small,
            Self::Bulk => Purpose::Bulk,
        }
    }
}

/// The bounds of one lane.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// Connections that a node opens to one other.
    pub connections_max: usize,
    /// Calls in flight on one connection; who comes later waits.
    pub in_flight_max: u32,
    /// The longest body of a call or an answer.
    pub body_bytes_max: u32,
    /// Memory for the bodies of all calls that this node is handling, not counting those up to
    /// [`FREE_BYTES`]. When it is used up, the node reads no further, and callers wait.
    pub handling_bytes_max: usize,
}

/// Bodies up to here are bounded by the number of calls alone, so that a heartbeat never waits for
/// memory.
pub const FREE_BYTES: usize = 4 << 10;

#[derive(Clone, Debug)]
pub struct Config {
    pub small: LaneConfig,
    pub bulk: LaneConfig,
    /// From the first packet to the other's hello.
    pub connect_timeout: Duration,
    /// A connection on which nothing was heard for so long is dead. Each side says something at
    /// least four times in it.
    pub silence: Duration,
    /// A connection that had no call for so long is closed.
    pub idle: Duration,
    /// After a failed attempt to connect, calls fail at once for so long, doubled with each failure.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How long calls in flight may go on when the listener stops.
    pub grace: Duration,
    /// Connections that a listener keeps: some five to each of a thousand nodes.
    pub connections_max: usize,
    /// Connections that have not yet shown who they are.
    pub handshakes_max: usize,
    /// From a joiner's first byte to the last byte of its answer.
    pub join_timeout: Duration,
    /// Joins that may come at once; more come one a second.
    pub joins_burst: u32,
}

/// The longest request to join, and the longest answer to it: the answer has the map in it.
pub(crate) const JOIN_BYTES_MAX: u32 = 8 << 10;
pub(crate) const JOINED_BYTES_MAX: u32 = 1 << 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            small: LaneConfig {
                connections_max: 1,
                in_flight_max: 1024,
                body_bytes_max: 1 << 20,
                handling_bytes_max: 64 << 20,
            },
            bulk: LaneConfig {
                connections_max: 4,
                in_flight_max: 16,
                body_bytes_max: 8 << 20,
                handling_bytes_max: 256 << 20,
            },
            connect_timeout: Duration::from_secs(3),
            silence: Duration::from_secs(2),
            idle: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            connections_max: 8_192,
            handshakes_max: 256,
            join_timeout: Duration::from_secs(10),
            joins_burst: 8,
        }
    }
}

impl Config {
    pub(crate) fn lane(&self, lane: Lane) -> &LaneConfig {
        match lane {
            Lane::Small => &self.small,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(crate) fn hello(&self, lane: Lane) -> Hello {
        let bounds = self.lane(lane);
        Hello {
            versions: VERSIONS,
            purpose: lane.purpose(),
            verdict: Verdict::Welcome,
            body_bytes_max: bounds.body_bytes_max,
            in_flight_max: bounds.in_flight_max,
        }
    }
}
