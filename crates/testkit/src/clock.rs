//! A clock that stands still until it is told to move.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use base::env::Clock;
use parking_lot::Mutex;

/// A simulated clock; clones are the same clock. Starts on 2026-11-20.
#[derive(Clone)]
pub struct SimClock {
    now: Arc<Mutex<(Timestamp, Duration)>>,
}

impl Default for SimClock {
    fn default() -> Self {
        let start = (Timestamp::from_secs(1_795_132_800), Duration::ZERO);
        Self {
            now: Arc::new(Mutex::new(start)),
        }
    }
}

impl SimClock {
    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        *now = (now.0.after(by), now.1 + by);
    }

    /// Sets the wall clock, also backwards; the monotonic clock goes on.
    pub fn set(&self, wall: Timestamp) {
        self.now.lock().0 = wall;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.now.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wall_clock_jumps() {
        let clock = SimClock::default();
        clock.advance(Duration::from_secs(5));
        clock.set(Timestamp::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_secs(1));
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
    }
}
