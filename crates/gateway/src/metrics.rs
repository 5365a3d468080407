//! Numbers about requests and connections.

use std::time::Duration;

use base::metrics::{Counter, Gauge, Histogram, Report};
use http::{Method, StatusCode};

/// The methods that are counted apart; all others are `OTHER`.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "OPTIONS", "OTHER",
];

/// Statuses from 100 to 599.
const STATUSES: usize = 500;

pub(crate) struct Numbers {
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) broken: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    methods: [OfMethod; METHODS.len()],
}

struct OfMethod {
    statuses: Box<[Counter]>,
    durations: Histogram,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            connections: Gauge::new(),
            connections_refused: Counter::new(),
            in_flight: Gauge::new(),
            broken: Counter::new(),
            received_bytes: Counter::new(),
            sent_bytes: Counter::new(),
            methods: std::array::from_fn(|_| OfMethod {
                statuses: (0..STATUSES).map(|_| Counter::new()).collect(),
                durations: Histogram::new(),
            }),
        }
    }
}

impl Numbers {
    pub(crate) fn request(&self, method: &Method, status: StatusCode, took: Duration) {
        let numbers = &self.methods[index(method)];
        let status = usize::from(status.as_u16()).saturating_sub(100);
        if let Some(counter) = numbers.statuses.get(status) {
            counter.add(1);
        }
        numbers.durations.observe(took);
    }

    pub(crate) fn report(&self, to: &mut dyn Report) {
        self.report_connections(to);
        for (name, numbers) in METHODS.iter().zip(&self.methods) {
            let mut seen = false;
            for (status, counter) in (100_u16..).zip(&numbers.statuses) {
                let value = counter.get();
                if value > 0 {
                    seen = true;
                    let labels = [("method", *name), ("status", &status.to_string())];
                    let help = "Requests answered, by method and status.";
                    to.counter("martlet_requests_total", help, &labels, value);
                }
            }
            if seen {
                let help = "Time from the end of a request's head to the end of its answer.";
                let labels = [("method", *name)];
                to.histogram("martlet_request_seconds", help, &labels, &numbers.durations);
            }
        }
    }

    fn report_connections(&self, to: &mut dyn Report) {
        let help = "Open connections.";
        to.gauge("martlet_connections", help, &[], self.connections.get());
        let help = "Connections refused because there were too many.";
        let refused = self.connections_refused.get();
        to.counter("martlet_connections_refused_total", help, &[], refused);
        let help = "Requests being handled.";
        to.gauge(
            "martlet_requests_in_flight",
            help,
            &[],
            self.in_flight.get(),
        );
        let help = "Answers broken off because their body could not be read.";
        to.counter("martlet_answers_broken_total", help, &[], self.broken.get());
        let help = "Bytes of request bodies received.";
        let received = self.received_bytes.get();
        to.counter("martlet_received_bytes_total", help, &[], received);
        let help = "Bytes of answers' bodies sent.";
        to.counter("martlet_sent_bytes_total", help, &[], self.sent_bytes.get());
    }
}

fn index(method: &Method) -> usize {
    let other = METHODS.len() - 1;
    let name = method.as_str();
    METHODS[..other]
        .iter()
        .position(|known| *known == name)
        .unwrap_or(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::metrics::Labels;

    struct Lines(Vec<String>);
    impl Report for Lines {
        fn counter(&mut self, name: &str, _: &str, labels: Labels<'_>, value: u64) {
            self.0.push(format!("{name} {labels:?} {value}"));
        }
        fn gauge(&mut self, name: &str, _: &str, _: Labels<'_>, value: i64) {
            self.0.push(format!("{name} {value}"));
        }
        fn histogram(&mut self, name: &str, _: &str, labels: Labels<'_>, value: &Histogram) {
            self.0
                .push(format!("{name} {labels:?} {:?}", value.snapshot().sum));
        }
    }

    #[test]
    fn only_what_happened_is_reported() {
        let numbers = Numbers::default();
        let took = Duration::from_micros(70);
        numbers.request(&Method::GET, StatusCode::OK, took);
        numbers.request(&Method::GET, StatusCode::OK, took);
        let brew = Method::from_bytes(b"BREW").unwrap();
        numbers.request(&brew, StatusCode::METHOD_NOT_ALLOWED, took);
        let mut lines = Lines(vec![]);
        numbers.report(&mut lines);
        let of_requests = |line: &String| line.starts_with("martlet_request");
        lines
            .0
            .retain(|line| of_requests(line) && !line.contains("in_flight"));
        assert_eq!(
            lines.0,
            [
                r#"martlet_requests_total [("method", "GET"), ("status", "200")] 2"#,
                r#"martlet_request_seconds [("method", "GET")] 140µs"#,
                r#"martlet_requests_total [("method", "OTHER"), ("status", "405")] 1"#,
                r#"martlet_request_seconds [("method", "OTHER")] 70µs"#,
            ]
        );
    }
}
