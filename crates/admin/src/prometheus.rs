//! Prometheus' text format, version 0.0.4.
//!
//! Written here rather than taken from a crate: the numbers are plain atomics that the layers own, and
//! all that is left to do is to print them, which is shorter than to register them a second time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use base::metrics::{Histogram, Labels, Report};

/// Gathers numbers and prints them, all of one name together.
#[derive(Default)]
pub struct Prometheus {
    families: BTreeMap<String, Family>,
}

struct Family {
    kind: &'static str,
    help: String,
    samples: String,
}

impl Prometheus {
    /// The page that a scrape gets.
    pub fn render(&self) -> String {
        let mut page = String::new();
        for (name, family) in &self.families {
            let Family {
                kind,
                help,
                samples,
            } = family;
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            line(&mut page, format_args!("# HELP {name} {help}"));
            line(&mut page, format_args!("# TYPE {name} {kind}"));
            page.push_str(samples);
        }
        page
    }

    fn samples(&mut self, name: &str, help: &str, kind: &'static str) -> &mut String {
        let family = self
            .families
            .entry(name.to_owned())
            .or_insert_with(|| Family {
                kind,
                help: help.to_owned(),
                samples: String::new(),
            });
        assert_eq!(family.kind, kind, "{name} is of one kind");
        &mut family.samples
    }
}

impl Report for Prometheus {
    fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: u64) {
        let samples = self.samples(name, help, "counter");
        line(samples, format_args!("{name}{} {value}", braces(labels)));
    }

    fn gauge(&mut self, name: &str, help: &str, labels: Labels<'_>, value: i64) {
        let samples = self.samples(name, help, "gauge");
        line(samples, format_args!("{name}{} {value}", braces(labels)));
    }

    fn histogram(&mut self, name: &str, help: &str, labels: Labels<'_>, value: &Histogram) {
        let samples = self.samples(name, help, "histogram");
        let snapshot = value.snapshot();
        let bounds = Histogram::bounds();
        let bounds = bounds.iter().map(Some).chain([None]);
        let mut so_far = 0;
        for (bound, count) in bounds.zip(snapshot.buckets) {
            so_far += count;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
            let labels = [labels, &[("le", bound.as_str())]].concat();
            line(
                samples,
                format_args!("{name}_bucket{} {so_far}", braces(&labels)),
            );
        }
        let labels = braces(labels);
        line(
            samples,
            format_args!("{name}_sum{labels} {}", seconds(snapshot.sum)),
        );
        line(samples, format_args!("{name}_count{labels} {so_far}"));
    }
}

fn line(to: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(to, "{text}").expect("a String takes all");
}

fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

fn braces(labels: Labels<'_>) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs = labels.iter().map(|(name, value)| {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_one_name_stands_together() {
        let mut page = Prometheus::default();
        page.counter("m_total", "What\nhappened.", &[("a", "x\"\\\n")], 1);
        page.gauge("m_now", "Now.", &[], -2);
        page.counter("m_total", "What\nhappened.", &[("a", "y"), ("b", "z")], 3);
        assert_eq!(
            page.render(),
            "# HELP m_now Now.\n\
             # TYPE m_now gauge\n\
             m_now -2\n\
             # HELP m_total What\\nhappened.\n\
             # TYPE m_total counter\n\
             m_total{a=\"x\\\"\\\\\\n\"} 1\n\
             m_total{a=\"y\",b=\"z\"} 3\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let histogram = Histogram::new();
        for micros in [40, 60, 70, 3_600_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut page = Prometheus::default();
        page.histogram("h_seconds", "How long.", &[("m", "GET")], &histogram);
        let page = page.render();
        let expected = [
            "h_seconds_bucket{m=\"GET\",le=\"0.00005\"} 1",
            "h_seconds_bucket{m=\"GET\",le=\"0.0001\"} 3",
            "h_seconds_bucket{m=\"GET\",le=\"52.4288\"} 3",
            "h_seconds_bucket{m=\"GET\",le=\"+Inf\"} 4",
            "h_seconds_sum{m=\"GET\"} 3600.00017",
            "h_seconds_count{m=\"GET\"} 4",
        ];
        for line in expected {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
