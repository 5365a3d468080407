//! What a run prints.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::args::Kind;
use super::load::Tallies;
use super::tally::{Summary, Tally};
use crate::text::{bytes, count};

/// A whole run, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    operation: &'static str,
    connections: u64,
    seconds: f64,
    /// Processor time of the load generator itself.
    client_cpu_seconds: f64,
    #[serde(flatten)]
    all: Summary,
    /// The same figures by kind of request, if there was more than one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    by_kind: BTreeMap<Kind, Summary>,
}

impl Report {
    pub(super) fn new(
        operation: &'static str,
        connections: u64,
        elapsed: Duration,
        client_cpu: Duration,
        tallies: &Tallies,
    ) -> Self {
        let mut all = Tally::default();
        for tally in tallies.values() {
            all.merge(tally);
        }
        let by_kind = match tallies.len() {
            0 | 1 => BTreeMap::new(),
            _ => {
                let kinds = tallies.iter();
                kinds
                    .map(|(kind, tally)| (*kind, tally.summary(elapsed)))
                    .collect()
            }
        };
        Self {
            operation,
            connections,
            seconds: elapsed.as_secs_f64(),
            client_cpu_seconds: client_cpu.as_secs_f64(),
            all: all.summary(elapsed),
            by_kind,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.all.is_clean()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = &self.all;
        writeln!(
            f,
            "{}: {} requests in {:.2} s over {} connections",
            self.operation,
            count(all.started),
            self.seconds,
            count(self.connections)
        )?;
        write_summary(f, all)?;
        for (kind, summary) in &self.by_kind {
            let name = format!("{kind:?}").to_lowercase();
            writeln!(f, "{name}: {} requests", count(summary.started))?;
            write_summary(f, summary)?;
        }
        write!(
            f,
            "  client    {:.2} s of processor time",
            self.client_cpu_seconds
        )
    }
}

fn write_summary(f: &mut fmt::Formatter<'_>, summary: &Summary) -> fmt::Result {
    let statuses = summary.statuses.iter();
    let statuses: Vec<_> = statuses
        .map(|(status, n)| format!("{} x {status}", count(*n)))
        .collect();
    writeln!(
        f,
        "  answered  {} ({})",
        count(summary.answered),
        statuses.join(", ")
    )?;
    if summary.unexpected > 0 {
        writeln!(
            f,
            "  WRONG     {} answers with another status than they should have",
            count(summary.unexpected)
        )?;
    }
    if summary.unanswered > 0 {
        let faults = summary.faults.iter();
        let faults: Vec<_> = faults
            .map(|(fault, n)| format!("{} x {fault:?}", count(*n)))
            .collect();
        writeln!(
            f,
            "  NO ANSWER {} ({})",
            count(summary.unanswered),
            faults.join(", ").to_lowercase()
        )?;
    }
    if summary.bodies_checked > 0 {
        writeln!(
            f,
            "  bodies    {} checked, {} wrong",
            count(summary.bodies_checked),
            count(summary.bodies_wrong)
        )?;
    }
    writeln!(
        f,
        "  rate      {:.0}/s, {}/s out, {}/s in",
        summary.answered_per_second,
        bytes_f64(summary.sent_bytes_per_second),
        bytes_f64(summary.received_bytes_per_second)
    )?;
    let latency = &summary.latency_ms;
    writeln!(
        f,
        "  latency   p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
        latency.p50, latency.p90, latency.p99, latency.p999, latency.max
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive, and a float saturates"
)]
fn bytes_f64(rate: f64) -> String {
    bytes(rate as u64)
}

#[cfg(test)]
mod tests {
    use super::super::tally::{Fault, Outcome, Sent};
    use super::*;

    fn outcome(answer: Result<u16, Fault>) -> Outcome {
        Outcome {
            answer,
            expected: answer == Ok(200),
            body: Some(answer == Ok(200)),
            took: Duration::from_millis(2),
            sent: Sent {
                bytes: 100,
                whole: true,
            },
            received_bytes: 5000,
        }
    }

    #[test]
    fn a_bad_run_says_what_was_bad() {
        let mut tally = Tally::default();
        for answer in [Ok(200), Ok(404), Err(Fault::Timeout)] {
            tally.add(&outcome(answer));
        }
        let tallies = Tallies::from([(Kind::Get, tally)]);
        let second = Duration::from_secs(1);
        let report = Report::new("get", 3, second, second, &tallies);
        assert!(!report.is_clean());
        assert_eq!(
            report.to_string(),
            "get: 3 requests in 1.00 s over 3 connections\n  \
             answered  2 (1 x 200, 1 x 404)\n  \
             WRONG     1 answers with another status than they should have\n  \
             NO ANSWER 1 (1 x timeout)\n  \
             bodies    3 checked, 2 wrong\n  \
             rate      2/s, 300 B/s out, 14.6 KiB/s in\n  \
             latency   p50 2.00 ms, p90 2.00, p99 2.00, p99.9 2.00, max 2.00\n  \
             client    1.00 s of processor time"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["statuses"]["404"], 1);
        assert_eq!(json["faults"]["timeout"], 1);
        assert!(json.get("by_kind").is_none());
    }
}
