//! Holds what is copied in the background to its budget, and lets clients go first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Clients are there as long as one has come within this time.
const CLIENT_TIME: Duration = Duration::from_millis(500);

/// However little the budget: a job that stands still for longer looks dead, and a group may be gone meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Pace {
    bytes_per_second: u64,
    begun: Instant,
    /// Until when what was copied uses up the budget.
    spent_until: Mutex<Instant>,
    /// When a client was served last, in milliseconds since `begun`, plus one; 0: none was.
    client: AtomicU64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_second: bytes_per_second.max(1),
            begun: now,
            spent_until: Mutex::new(now),
            client: AtomicU64::new(0),
        }
    }

    /// A client is being served.
    pub(crate) fn client(&self) {
        self.client.store(self.millis() + 1, Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn has_clients(&self) -> bool {
        let last = self.client.load(Relaxed);
        let time = u64::try_from(CLIENT_TIME.as_millis()).expect("half a second");
        last > 0 && self.millis() < last + time
    }

    /// So much was copied, in this time. Waits until the next may be.
    pub(crate) async fn spend(&self, bytes: u64, took: Duration) {
        let share = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let now = Instant::now();
        let until = {
            let mut spent = self.spent_until.lock();
            // What was not used is not saved up, but for the time that the copying itself took.
            let from = (*spent).max(now.checked_sub(took).unwrap_or(now));
            *spent = from + share.min(WAIT_MAX);
            *spent
        };
        let rest = if self.has_clients() {
            took
        } else {
            Duration::ZERO
        };
        tokio::time::sleep_until(until.max(now + rest).min(now + WAIT_MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn time(wait: impl Future<Output = ()>) -> f64 {
        let before = Instant::now();
        wait.await;
        before.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn all_jobs_share_one_budget() {
        let pace = Pace::new(1000);
        let two = async {
            tokio::join!(
                pace.spend(3000, Duration::ZERO),
                pace.spend(1000, Duration::ZERO)
            );
        };
        let took = time(two).await;
        assert!((4.0..4.1).contains(&took), "{took}");
        // The time that the copying took counts.
        tokio::time::advance(10 * SECOND).await;
        let took = time(pace.spend(3000, 2 * SECOND)).await;
        assert!((1.0..1.1).contains(&took), "{took}");
        let took = time(pace.spend(1 << 40, Duration::ZERO)).await;
        assert!(took <= 61.0, "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_go_first() {
        let pace = Pace::new(1 << 40);
        assert!(time(pace.spend(1000, 3 * SECOND)).await < 0.1);
        pace.client();
        let took = time(pace.spend(1000, 3 * SECOND)).await;
        assert!((3.0..3.1).contains(&took), "{took}");
        // It has been gone for long by now.
        assert!(time(pace.spend(1000, 3 * SECOND)).await < 0.1);
    }
}
