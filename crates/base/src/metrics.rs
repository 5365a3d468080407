//! Numbers that a layer keeps about itself.
//!
//! A layer owns its numbers as plain fields beside the code that changes them, and tells them to
//! whoever asks through a [`Report`], under the names that `docs/ops/metrics.md` lists. Nothing is
//! registered anywhere: what is not reported costs an atomic addition and no more.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub fn set(&self, to: i64) {
        self.0.store(to, Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Counts one more until the guard is dropped, however the caller leaves.
    pub fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }
}

/// See [`Gauge::hold`].
#[derive(Debug)]
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// The upper bounds of the buckets of [`Durations`], in microseconds; one more bucket has none.
/// From what a page cache answers at once to what a client gives up on.
pub const BOUNDS_MICROS: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// How long things took: a histogram with the bounds of [`BOUNDS_MICROS`].
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Durations {
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BOUNDS_MICROS.len() + 1],
            sum_micros: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// What each bucket holds by itself, in the order of the bounds, the unbounded one last.
    pub fn counts(&self) -> [u64; BOUNDS_MICROS.len() + 1] {
        std::array::from_fn(|i| self.buckets[i].load(Relaxed))
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros.load(Relaxed))
    }
}

/// The labels of a number: names and values. A name or a value that a user chose is never a label.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Receives the numbers of a layer. Names are complete (`martlet_device_free_bytes`), with the
/// unit last; the same name may come again with other labels, then with the same kind and help.
pub trait Report {
    fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: u64);
    fn gauge(&mut self, name: &str, help: &str, labels: Labels<'_>, value: i64);
    fn durations(&mut self, name: &str, help: &str, labels: Labels<'_>, value: &Durations);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let durations = Durations::new();
        for micros in [0, 100, 101, 60_000_000, 60_000_001] {
            durations.observe(Duration::from_micros(micros));
        }
        let counts = durations.counts();
        assert_eq!((counts[0], counts[1], counts[17], counts[18]), (2, 1, 1, 1));
        assert_eq!(durations.sum(), Duration::from_micros(120_000_202));
    }

    #[test]
    fn a_gauge_is_held_until_the_guard_goes() {
        let gauge = Gauge::new();
        let (one, two) = (gauge.hold(), gauge.hold());
        assert_eq!(gauge.value(), 2);
        drop(one);
        assert_eq!(gauge.value(), 1);
        drop(two);
        assert_eq!(gauge.value(), 0);
    }
}
