//! Wall-clock time as the Swift API counts it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time, in units of 10 µs since the Unix epoch: the resolution of Swift's
/// `X-Timestamp`. Prints as Swift does, `1795189589.65132`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp(u64);

impl Timestamp {
    const PER_SECOND: u64 = 100_000;

    /// From a count of 10 µs units.
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks)
    }

    /// From whole seconds since the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(Self::PER_SECOND))
    }

    /// Units of 10 µs since the Unix epoch.
    pub const fn ticks(self) -> u64 {
        self.0
    }

    /// Seconds since the Unix epoch, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / Self::PER_SECOND
    }

    /// Seconds since the Unix epoch, rounded up: what Swift says as `Last-Modified`.
    pub const fn secs_ceil(self) -> u64 {
        self.0.div_ceil(Self::PER_SECOND)
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn millis(self) -> u64 {
        self.0 / 100
    }

    /// Microseconds within the second: 0 to 999,990, always a multiple of 10.
    pub const fn subsec_micros(self) -> u64 {
        self.0 % Self::PER_SECOND * 10
    }

    /// The next moment that can be told from this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// This moment and `by` more, cut to the resolution.
    pub fn after(self, by: Duration) -> Self {
        let ticks = u64::try_from(by.as_micros() / 10).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ticks))
    }

    /// The time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).saturating_mul(10))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}.{:05}", self.secs(), self.0 % Self::PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_swift() {
        assert_eq!(
            Timestamp::from_ticks(179_518_958_965_132).to_string(),
            "1795189589.65132"
        );
        assert_eq!(Timestamp::from_ticks(5).to_string(), "0000000000.00005");
    }

    #[test]
    fn rounds_up_only_what_is_broken() {
        assert_eq!(Timestamp::from_secs(7).secs_ceil(), 7);
        assert_eq!(Timestamp::from_secs(7).next().secs_ceil(), 8);
    }
}
