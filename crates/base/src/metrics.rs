//! What the layers count: plain atomics, so that counting costs a nanosecond and needs no registry.
//!
//! Each crate keeps its metrics in a struct of these, beside the code that knows them; `admin`
//! reads the structs and renders them. All orders are relaxed: a reader may see one counter a
//! moment before its neighbour, never a wrong one.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    pub fn set(&self, to: i64) {
        self.0.store(to, Relaxed);
    }

    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub fn sub(&self, by: i64) {
        self.0.fetch_sub(by, Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Counts one more until the guard is dropped, also by a cancelled task.
    pub fn enter(&self) -> Entered<'_> {
        self.add(1);
        Entered(self)
    }
}

/// See [`Gauge::enter`].
#[must_use = "dropped at once, it counts nothing"]
pub struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// The upper bound of the first bucket of every [`Histogram`]; each next bound is its double.
const FIRST_BOUND: Duration = Duration::from_micros(50);

/// How many buckets of a [`Histogram`] have an upper bound; the last of them is 52.4 s.
pub const BOUNDS: usize = 21;

/// How long things took, in fixed buckets: 50 µs, 100 µs, ... 52.4 s, and one for what took longer.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS + 1],
    sum_micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BOUNDS + 1],
            sum_micros: AtomicU64::new(0),
        }
    }

    /// The upper bounds of the buckets but the last, which has none.
    pub fn bounds() -> [Duration; BOUNDS] {
        std::array::from_fn(|i| FIRST_BOUND * (1 << i))
    }

    pub fn observe(&self, took: Duration) {
        let fits = Self::bounds().iter().position(|bound| took <= *bound);
        self.buckets[fits.unwrap_or(BOUNDS)].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed)),
            sum: Duration::from_micros(self.sum_micros.load(Relaxed)),
        }
    }
}

/// A [`Histogram`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// How many took at most the bound of the same place in [`Histogram::bounds`] and more than the
    /// bound before it; the last, how many took longer than all bounds.
    pub buckets: [u64; BOUNDS + 1],
    pub sum: Duration,
}

impl HistogramSnapshot {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The labels of a number: names and values. What a user chose is never one, so that their number
/// stays bounded and no secret gets there.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Receives the numbers of a layer, to render them. Names are complete, with the unit last
/// (`martlet_device_free_bytes`); a name may come again with other labels, then with the same kind
/// and the same help.
pub trait Report {
    fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: u64);
    fn gauge(&mut self, name: &str, help: &str, labels: Labels<'_>, value: i64);
    fn histogram(&mut self, name: &str, help: &str, labels: Labels<'_>, value: &Histogram);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new();
        for micros in [0, 50, 51, 100, 52_428_800, 52_428_801] {
            histogram.observe(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.buckets[..3], [2, 2, 0]);
        assert_eq!(snapshot.buckets[BOUNDS - 1..], [1, 1]);
        assert_eq!(snapshot.count(), 6);
        assert_eq!(snapshot.sum, Duration::from_micros(104_857_802));
    }

    #[test]
    fn a_gauge_forgets_who_left() {
        let gauge = Gauge::new();
        let inside = gauge.enter();
        assert_eq!(gauge.get(), 1);
        drop(inside);
        assert_eq!(gauge.get(), 0);
    }
}
