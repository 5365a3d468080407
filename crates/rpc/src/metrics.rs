//! What callers and listeners count.

use std::sync::Arc;

use base::metrics::{Counter, Gauge, Histogram, Report};
use bytes::Bytes;

use crate::config::Lane;
use crate::error::CallError;

/// A caller's side of one lane, over all peers.
#[derive(Debug, Default)]
pub(crate) struct OfLane {
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connects: Counter,
    pub(crate) connects_failed: Counter,
    /// From the call to its place in a connection's queue.
    pub(crate) wait: Histogram,
    /// From the call to its answer.
    pub(crate) duration: Histogram,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    answered: Counter,
    refused: Counter,
    not_sent: Counter,
    unknown: Counter,
    late: Counter,
}

impl OfLane {
    pub(crate) fn ended(&self, result: &Result<Bytes, CallError>) {
        let counter = match result {
            Ok(_) => &self.answered,
            Err(error) if error.is_deadline() => &self.late,
            Err(CallError::Refused(_)) => &self.refused,
            Err(CallError::NotSent(_)) => &self.not_sent,
            Err(CallError::Unknown(_)) => &self.unknown,
        };
        counter.inc();
    }
}

#[derive(Debug, Default)]
pub(crate) struct Calling {
    small: Arc<OfLane>,
    bulk: Arc<OfLane>,
}

impl Calling {
    pub(crate) fn lane(&self, lane: Lane) -> &Arc<OfLane> {
        match lane {
            Lane::Small => &self.small,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(crate) fn report(&self, to: &mut dyn Report) {
        for lane in Lane::ALL {
            let of = self.lane(lane);
            let outcomes = [
                ("answered", &of.answered),
                ("refused", &of.refused),
                ("not_sent", &of.not_sent),
                ("unknown", &of.unknown),
                ("deadline", &of.late),
            ];
            for (outcome, counter) in outcomes {
                let labels = [("lane", lane.name()), ("outcome", outcome)];
                let help = "calls to other nodes, by how they ended";
                to.counter("martlet_rpc_calls_total", help, &labels, counter.get());
            }
            let labels = [("lane", lane.name())];
            let counters = [
                ("sent_bytes_total", "bodies of calls sent", &of.sent_bytes),
                (
                    "received_bytes_total",
                    "bodies of answers received",
                    &of.received_bytes,
                ),
                (
                    "connects_total",
                    "connections made to other nodes",
                    &of.connects,
                ),
                (
                    "connects_failed_total",
                    "attempts that failed",
                    &of.connects_failed,
                ),
            ];
            for (name, help, counter) in counters {
                to.counter(&format!("martlet_rpc_{name}"), help, &labels, counter.get());
            }
            let gauges = [
                ("in_flight", "calls to other nodes in flight", &of.in_flight),
                (
                    "connections",
                    "open connections to other nodes",
                    &of.connections,
                ),
            ];
            for (name, help, gauge) in gauges {
                to.gauge(&format!("martlet_rpc_{name}"), help, &labels, gauge.get());
            }
            let histograms = [
                ("call_seconds", "from a call to its answer", &of.duration),
                (
                    "wait_seconds",
                    "from a call to its place in a queue",
                    &of.wait,
                ),
            ];
            for (name, help, histogram) in histograms {
                to.histogram(&format!("martlet_rpc_{name}"), help, &labels, histogram);
            }
        }
    }
}

/// A listener's side.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    pub(crate) connections: Gauge,
    /// Connections that ended before they reached a handler.
    pub(crate) refused: Counter,
    pub(crate) joins: Counter,
    pub(crate) small: Handling,
    pub(crate) bulk: Handling,
}

/// A listener's side of one lane.
#[derive(Debug, Default)]
pub(crate) struct Handling {
    pub(crate) calls: Counter,
    pub(crate) in_flight: Gauge,
    /// Times that reading waited for memory.
    pub(crate) waits: Counter,
}

impl Listening {
    pub(crate) fn lane(&self, lane: Lane) -> &Handling {
        match lane {
            Lane::Small => &self.small,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(crate) fn report(&self, to: &mut dyn Report) {
        let help = "open connections from other nodes";
        let connections = self.connections.get();
        to.gauge("martlet_rpc_server_connections", help, &[], connections);
        let counters = [
            (
                "refused_total",
                "connections refused before a handler was reached",
                &self.refused,
            ),
            ("joins_total", "requests to join handled", &self.joins),
        ];
        for (name, help, counter) in counters {
            let name = format!("martlet_rpc_server_{name}");
            to.counter(&name, help, &[], counter.get());
        }
        for lane in Lane::ALL {
            let (of, labels) = (self.lane(lane), [("lane", lane.name())]);
            let help = "calls of other nodes taken";
            to.counter(
                "martlet_rpc_server_calls_total",
                help,
                &labels,
                of.calls.get(),
            );
            let help = "calls of other nodes being handled";
            to.gauge(
                "martlet_rpc_server_in_flight",
                help,
                &labels,
                of.in_flight.get(),
            );
            let help = "times that reading waited for memory";
            to.counter(
                "martlet_rpc_server_waits_total",
                help,
                &labels,
                of.waits.get(),
            );
        }
    }
}
