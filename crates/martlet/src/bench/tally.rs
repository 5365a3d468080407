//! What was sent, what came back, and how long it took: counted exactly.
//!
//! **Invariant:** every request that was started is either answered or unanswered.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// No connection could be made.
    Connect,
    /// The connection ended in the middle of the request or the answer.
    Closed,
    /// The answer took longer than `--timeout`.
    Timeout,
    /// What came back was not HTTP.
    Protocol,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) answer: Result<u16, Fault>,
    /// Whether the status is the one that the operation should have.
    pub(super) expected: bool,
    /// Whether the body was the right one; `None` if there was nothing to compare it with.
    pub(super) body: Option<bool>,
    pub(super) took: Duration,
    pub(super) sent: Sent,
    pub(super) received_bytes: u64,
}

/// How much of a request left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    /// To its last byte.
    pub(super) whole: bool,
}

/// The sum of many outcomes.
#[derive(Clone)]
pub(super) struct Tally {
    started: u64,
    sent: u64,
    expected: u64,
    statuses: BTreeMap<u16, u64>,
    faults: BTreeMap<Fault, u64>,
    bodies_checked: u64,
    bodies_wrong: u64,
    sent_bytes: u64,
    received_bytes: u64,
    /// Of answered requests, in microseconds.
    latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        /// An hour: no request may take longer.
        const MICROS_MAX: u64 = 3_600_000_000;
        /// Percentiles are right to one part in a thousand.
        const DIGITS: u8 = 3;
        Self {
            started: 0,
            sent: 0,
            expected: 0,
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            bodies_checked: 0,
            bodies_wrong: 0,
            sent_bytes: 0,
            received_bytes: 0,
            latency: Histogram::new_with_max(MICROS_MAX, DIGITS).expect("the bounds are sane"),
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.started += 1;
        self.sent += u64::from(outcome.sent.whole);
        self.sent_bytes += outcome.sent.bytes;
        self.received_bytes += outcome.received_bytes;
        self.expected += u64::from(outcome.expected);
        if let Some(right) = outcome.body {
            self.bodies_checked += 1;
            self.bodies_wrong += u64::from(!right);
        }
        match outcome.answer {
            Ok(status) => {
                *self.statuses.entry(status).or_default() += 1;
                let micros = u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
            }
            Err(fault) => *self.faults.entry(fault).or_default() += 1,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.started += other.started;
        self.sent += other.sent;
        self.expected += other.expected;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.bodies_checked += other.bodies_checked;
        self.bodies_wrong += other.bodies_wrong;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
    }

    /// The figures, for a run that took `elapsed`.
    pub(super) fn summary(&self, elapsed: Duration) -> Summary {
        let answered: u64 = self.statuses.values().sum();
        let unanswered: u64 = self.faults.values().sum();
        assert_eq!(
            self.started,
            answered + unanswered,
            "every request ends one way"
        );
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        Summary {
            started: self.started,
            sent: self.sent,
            answered,
            expected: self.expected,
            unexpected: answered - self.expected,
            unanswered,
            statuses: self.statuses.clone(),
            faults: self.faults.clone(),
            bodies_checked: self.bodies_checked,
            bodies_wrong: self.bodies_wrong,
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            answered_per_second: answered as f64 / seconds,
            sent_bytes_per_second: self.sent_bytes as f64 / seconds,
            received_bytes_per_second: self.received_bytes as f64 / seconds,
            latency_ms: self.latency_ms(),
        }
    }

    fn latency_ms(&self) -> Latency {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| millis(self.latency.value_at_quantile(quantile));
        Latency {
            min: millis(if self.latency.is_empty() {
                0
            } else {
                self.latency.min()
            }),
            mean: self.latency.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(self.latency.max()),
        }
    }
}

/// The figures of a run, as `--json` prints them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// Requests of which at least one byte was to be sent.
    pub(super) started: u64,
    /// Requests that were handed to the network to their last byte.
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// Answers with the status that the operation should have.
    pub(super) expected: u64,
    pub(super) unexpected: u64,
    pub(super) unanswered: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Why requests were not answered.
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) bodies_checked: u64,
    pub(super) bodies_wrong: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) answered_per_second: f64,
    pub(super) sent_bytes_per_second: f64,
    pub(super) received_bytes_per_second: f64,
    /// Of answered requests, from the first byte sent to the last received.
    pub(super) latency_ms: Latency,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Summary {
    /// Whether everything was answered as it should be.
    pub(super) fn is_clean(&self) -> bool {
        self.unexpected == 0 && self.unanswered == 0 && self.bodies_wrong == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(answer: Result<u16, Fault>, micros: u64) -> Outcome {
        Outcome {
            answer,
            expected: answer == Ok(200),
            body: answer.ok().map(|status| status == 200),
            took: Duration::from_micros(micros),
            sent: Sent {
                bytes: 10,
                whole: answer.is_ok(),
            },
            received_bytes: 5,
        }
    }

    #[test]
    fn every_request_is_counted_once() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.add(&outcome(Ok(200), 1000));
        one.add(&outcome(Ok(404), 2000));
        two.add(&outcome(Err(Fault::Timeout), 9_000_000));
        two.add(&outcome(Ok(200), 3000));
        one.merge(&two);
        let summary = one.summary(Duration::from_secs(2));
        assert_eq!((summary.started, summary.sent), (4, 3));
        assert_eq!((summary.answered, summary.unanswered), (3, 1));
        assert_eq!((summary.expected, summary.unexpected), (2, 1));
        assert_eq!(summary.statuses, BTreeMap::from([(200, 2), (404, 1)]));
        assert_eq!(summary.faults, BTreeMap::from([(Fault::Timeout, 1)]));
        assert_eq!((summary.bodies_checked, summary.bodies_wrong), (3, 1));
        assert_eq!((summary.sent_bytes, summary.received_bytes), (40, 20));
        assert!((summary.answered_per_second - 1.5).abs() < 1e-9);
        assert!(!summary.is_clean());
    }

    #[test]
    fn percentiles_are_of_answers_alone() {
        let mut tally = Tally::default();
        for millis in 1..=1000 {
            tally.add(&outcome(Ok(200), millis * 1000));
        }
        tally.add(&outcome(Err(Fault::Closed), 3_600_000_000));
        let latency = tally.summary(Duration::from_secs(1)).latency_ms;
        let near = |found: f64, expected: f64| (found - expected).abs() <= expected / 500.0;
        assert!(near(latency.p50, 500.0) && near(latency.p99, 990.0) && near(latency.max, 1000.0));
        assert!(near(latency.min, 1.0) && near(latency.mean, 500.5));
    }

    #[test]
    fn nothing_gives_zeros() {
        let summary = Tally::default().summary(Duration::ZERO);
        assert_eq!((summary.started, summary.latency_ms.max), (0, 0.0));
        assert!(summary.is_clean());
    }
}
