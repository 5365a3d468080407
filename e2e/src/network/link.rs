//! What happens to packets from one host to another.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// How good the way from one host to another is; the way back is another link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Of a hundred packets.
    pub lost: u8,
    pub delay: Duration,
    /// At most so much more, each packet for itself: so they overtake each other.
    pub jitter: Duration,
    pub bytes_per_second: Option<u64>,
}

impl Link {
    /// Nothing passes.
    pub const CUT: Self = Self {
        lost: 100,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        bytes_per_second: None,
    };
}

/// What queues longer than this at a link's rate is dropped.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// A link, and until when it is busy.
pub(super) struct State {
    link: Link,
    busy_until: Option<Instant>,
}

impl From<Link> for State {
    fn from(link: Link) -> Self {
        Self {
            link,
            busy_until: None,
        }
    }
}

impl State {
    /// When a packet that is sent now arrives; nothing if it is lost.
    pub(super) fn arrival(
        &mut self,
        bytes: usize,
        now: Instant,
        random: &mut Rng,
    ) -> Option<Instant> {
        if random.u8(0..100) < self.link.lost {
            return None;
        }
        let mut sent = now;
        if let Some(rate) = self.link.bytes_per_second {
            let begins = self.busy_until.map_or(now, |until| until.max(now));
            if begins - now > QUEUE_MAX {
                return None;
            }
            sent = begins + Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate);
            self.busy_until = Some(sent);
        }
        Some(sent + self.link.delay + self.link.jitter.mul_f64(random.f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` packets of 1,000 bytes that are sent at once arrives.
    fn arrivals(link: Link, count: usize) -> Vec<Option<Duration>> {
        let (mut state, now, mut random) = (State::from(link), Instant::now(), Rng::with_seed(1));
        let arrival = |_| state.arrival(1000, now, &mut random);
        let arrivals = (0..count).map(arrival);
        arrivals.map(|at| Some(at? - now)).collect()
    }

    const MS: fn(u64) -> Option<Duration> = |ms| Some(Duration::from_millis(ms));

    #[test]
    fn a_cut_link_loses_all_and_a_good_one_nothing() {
        assert_eq!(arrivals(Link::CUT, 2), [None, None]);
        assert_eq!(arrivals(Link::default(), 2), [MS(0), MS(0)]);
    }

    #[test]
    fn a_bad_link_loses_some() {
        let link = Link {
            lost: 30,
            ..Link::default()
        };
        let lost = arrivals(link, 1000)
            .iter()
            .filter(|at| at.is_none())
            .count();
        assert!((200..400).contains(&lost), "{lost}");
    }

    #[test]
    fn a_long_link_delays() {
        let link = Link {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(10),
            ..Link::default()
        };
        let arrivals = arrivals(link, 100);
        assert!(arrivals.iter().all(|at| *at >= MS(20) && *at <= MS(30)));
        assert!(!arrivals.is_sorted());
    }

    #[test]
    fn a_slow_link_queues_and_then_drops() {
        let link = Link {
            bytes_per_second: Some(10_000),
            ..Link::default()
        };
        let arrivals = arrivals(link, 9);
        assert_eq!(
            arrivals[..6],
            [MS(100), MS(200), MS(300), MS(400), MS(500), MS(600)]
        );
        assert_eq!(arrivals[6..], [None, None, None]);
    }
}
