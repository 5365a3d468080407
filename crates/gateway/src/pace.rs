//! When a client is too slow.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Judges a peer by what it moves while we wait for it: at least `bytes_min` in each `window` of
/// waiting. The time that we take ourselves does not count.
#[derive(Debug)]
pub(crate) struct Pace {
    window: Duration,
    bytes_min: u64,
    waited: Duration,
    moved: u64,
    waiting_since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(window: Duration, bytes_min: u64) -> Self {
        Self {
            window,
            bytes_min,
            waited: Duration::ZERO,
            moved: 0,
            waiting_since: None,
        }
    }

    /// We wait for the peer. Returns when to judge it, if it does not move before.
    pub(crate) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        since + self.window.saturating_sub(self.waited)
    }

    /// The peer moved.
    pub(crate) fn moved(&mut self, now: Instant, bytes: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now - since;
        }
        self.moved = self.moved.saturating_add(bytes);
    }

    /// The window may be over: whether the peer was too slow in it. If not, the next one begins.
    pub(crate) fn is_too_slow(&mut self, now: Instant) -> bool {
        let pending = self
            .waiting_since
            .map_or(Duration::ZERO, |since| now - since);
        if self.waited + pending < self.window {
            return false;
        }
        let slow = self.moved < self.bytes_min;
        self.waited = Duration::ZERO;
        self.moved = 0;
        self.waiting_since = self.waiting_since.map(|_| now);
        slow
    }
}

/// A timer that costs nothing until it is waited for, and little when it is put off: it is moved
/// forward only when it rings.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `due` has come. Wakes the task then, if not before.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<Instant> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= due {
                return Poll::Ready(now);
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow() {
        let start = Instant::now();
        let mut pace = Pace::new(secs(60), 600);
        for second in 0..59 {
            pace.wait(start + secs(second));
            pace.moved(start + secs(second + 1), 1);
        }
        let due = pace.wait(start + secs(59));
        assert_eq!(due, start + secs(60));
        assert!(pace.is_too_slow(due));
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_time_does_not_count() {
        let start = Instant::now();
        let mut pace = Pace::new(secs(60), 600);
        pace.wait(start);
        pace.moved(start + secs(1), 1);
        // An hour of ours passes.
        let due = pace.wait(start + secs(3600));
        assert_eq!(due, start + secs(3600 + 59));
        assert!(!pace.is_too_slow(start + secs(3600 + 58)));
    }

    #[tokio::test(start_paused = true)]
    async fn enough_begins_a_new_window() {
        let start = Instant::now();
        let mut pace = Pace::new(secs(60), 600);
        pace.wait(start);
        pace.moved(start + secs(30), 600);
        let due = pace.wait(start + secs(30));
        assert!(!pace.is_too_slow(due));
        let due = pace.wait(due);
        assert_eq!(due, start + secs(120));
        assert!(pace.is_too_slow(due));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_can_be_put_off_and_brought_forward() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        for (first, then) in [(10, 20), (50, 30)] {
            std::future::poll_fn(|cx| {
                assert!(alarm.poll(cx, start + secs(first)).is_pending());
                Poll::Ready(())
            })
            .await;
            let rang = std::future::poll_fn(|cx| alarm.poll(cx, start + secs(then))).await;
            assert_eq!(rang, start + secs(then));
        }
    }
}
