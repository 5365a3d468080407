//! Who is down, by when they were last heard.
//!
//! Somebody silent for [`Config::silence`] is down, and after [`Config::grace`] out. Who comes back must
//! have been heard without a gap for as many seconds as follow from how often it fell in the last ten
//! minutes: 1, 2, 4 and so on, at most 60; so that what flaps does not make everybody move things to and fro.
//!
//! Silence is measured by the monotonic clock, and of somebody of whom nothing is known from when it is noticed on:
//! who has only begun to listen has heard nobody, and that says nothing. The grace time is measured by the wall clock,
//! because it outlives whoever measures it: since when somebody is down is in the map.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base::Timestamp;
use map::State;

/// The time, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub monotonic: Duration,
    pub wall: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who says nothing for so long is down: four reports that did not come.
    pub silence: Duration,
    /// Who is down for so long is out, and what it held is made anew elsewhere; 1 s to 30 days.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(2),
            grace: Duration::from_secs(600),
        }
    }
}

/// Falls are held against somebody for so long.
const MEMORY: Duration = Duration::from_secs(600);

/// More than these make no wait longer.
const FALLS_MAX: usize = 8;

const WAIT_MAX: Duration = Duration::from_secs(60);

/// When several were last heard: nodes, or devices.
pub(crate) struct Health<K> {
    config: Config,
    /// When we began to listen anew, if ever.
    begun: Duration,
    records: BTreeMap<K, Record>,
}

#[derive(Default)]
struct Record {
    /// When it was last heard, and since when without a gap.
    heard: Option<(Duration, Duration)>,
    /// It says itself that it is of no use.
    is_broken: bool,
    falls: VecDeque<Duration>,
    /// When it appeared.
    begun: Duration,
}

impl<K: Ord + Copy> Health<K> {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            begun: Duration::ZERO,
            records: BTreeMap::new(),
        }
    }

    /// Begins to listen anew: what was not heard before now says nothing.
    pub(crate) fn listen(&mut self, now: Duration) {
        self.begun = now;
    }

    /// Somebody has appeared, and has one silence to say something.
    pub(crate) fn notice(&mut self, who: K, now: Duration) {
        self.record(who, now);
    }

    pub(crate) fn hear(&mut self, who: K, now: Duration) {
        let silence = self.config.silence;
        let record = self.record(who, now);
        let since = match record.heard {
            Some((last, since)) if now < last + silence && !record.is_broken => since,
            Some(_) | None => now,
        };
        record.heard = Some((now, since));
        record.is_broken = false;
    }

    /// It is there and says that it cannot be used.
    pub(crate) fn hear_broken(&mut self, who: K, now: Duration) {
        self.record(who, now).is_broken = true;
    }

    /// Forgets everybody but these.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&K) -> bool) {
        self.records.retain(|who, _| is_known(who));
    }

    fn record(&mut self, who: K, now: Duration) -> &mut Record {
        let record = || Record {
            begun: now,
            ..Record::default()
        };
        self.records.entry(who).or_insert_with(record)
    }

    /// Whether nothing good was heard for too long.
    pub(crate) fn is_silent(&self, who: K, now: Duration) -> bool {
        let record = self.records.get(&who);
        let last = record.map_or(self.begun, |record| {
            let last = record.heard.map_or(record.begun, |(last, _)| last);
            last.max(self.begun)
        });
        record.is_some_and(|record| record.is_broken) || now >= last + self.config.silence
    }

    /// What is to be said of somebody of whom `before` was said.
    pub(crate) fn judge(&mut self, who: K, before: State, now: Now) -> State {
        self.notice(who, now.monotonic);
        let is_silent = self.is_silent(who, now.monotonic);
        let grace = self.config.grace;
        let record = self.record(who, now.monotonic);
        match (before, is_silent) {
            (State::Up, false) => State::Up,
            (State::Up, true) => {
                record.falls.push_back(now.monotonic);
                if record.falls.len() > FALLS_MAX {
                    record.falls.pop_front();
                }
                State::Down { since: now.wall }
            }
            (State::Down { .. } | State::Out, false) if record.is_back(now.monotonic) => State::Up,
            (State::Out, _) => State::Out,
            // The clock went back: else it would never be out.
            (State::Down { since }, _) if since > now.wall => State::Down { since: now.wall },
            (State::Down { since }, true) if now.wall.since(since) >= grace => State::Out,
            (State::Down { since }, _) => State::Down { since },
        }
    }
}

impl Record {
    /// Whether it was heard for long enough to be trusted again.
    fn is_back(&mut self, now: Duration) -> bool {
        self.falls.retain(|fall| now < *fall + MEMORY);
        let wait = wait(self.falls.len());
        self.heard.is_some_and(|(_, since)| now >= since + wait)
    }
}

/// How long somebody must be heard who fell so often. Of a fall that is not remembered the map knows.
fn wait(falls: usize) -> Duration {
    let doubled = u32::try_from(falls.max(1) - 1).expect("few are remembered");
    WAIT_MAX.min(Duration::from_secs(1) * 2_u32.pow(doubled))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000;
    const WALL: u64 = 1_800_000_000;

    /// Seconds since the start, by both clocks.
    fn at(secs: f64) -> Now {
        let passed = Duration::from_secs_f64(secs);
        Now {
            monotonic: Duration::from_secs(START) + passed,
            wall: Timestamp::from_secs(WALL).after(passed),
        }
    }

    fn down(secs: f64) -> State {
        State::Down {
            since: at(secs).wall,
        }
    }

    fn health() -> Health<u8> {
        Health::new(Config::default())
    }

    impl Health<u8> {
        /// Reports twice a second, and what is thought of it at the end.
        fn hear_for(&mut self, from: f64, to: f64, mut state: State) -> State {
            let mut time = from;
            while time <= to {
                self.hear(1, at(time).monotonic);
                state = self.judge(1, state, at(time));
                time += 0.5;
            }
            state
        }
    }

    #[test]
    fn who_is_silent_for_two_seconds_is_down_and_after_the_grace_time_out() {
        let mut health = health();
        health.hear(1, at(1.0).monotonic);
        assert_eq!(health.judge(1, State::Up, at(2.9)), State::Up);
        assert_eq!(health.judge(1, State::Up, at(3.0)), down(3.0));
        assert_eq!(health.judge(1, down(3.0), at(602.9)), down(3.0));
        assert_eq!(health.judge(1, down(3.0), at(603.0)), State::Out);
        assert_eq!(health.judge(1, State::Out, at(9_999.0)), State::Out);
    }

    #[test]
    fn who_has_only_begun_to_listen_waits_one_silence_for_everybody() {
        let mut health = health();
        assert_eq!(health.judge(1, State::Up, at(1.9)), State::Up);
        // One that appeared later has its own time.
        assert_eq!(health.judge(1, State::Up, at(2.0)), State::Up);
        assert_eq!(health.judge(1, State::Up, at(3.9)), down(3.9));
        let mut new = self::health();
        assert!(new.is_silent(2, at(2.0).monotonic));
        // Who was down is not up because nobody has listened.
        let before = State::Down {
            since: Timestamp::from_secs(WALL - 5),
        };
        assert_eq!(new.judge(1, before, at(0.1)), before);
        assert_eq!(new.judge(1, State::Out, at(0.1)), State::Out);
    }

    #[test]
    fn who_comes_back_must_stay_for_a_second() {
        let mut health = health();
        health.hear(1, at(0.0).monotonic);
        assert_eq!(health.judge(1, State::Up, at(2.0)), down(2.0));
        assert_eq!(health.hear_for(5.0, 5.5, down(2.0)), down(2.0));
        assert_eq!(health.hear_for(6.0, 6.0, down(2.0)), State::Up);
        assert_eq!(self::health().hear_for(5.0, 6.0, State::Out), State::Up);
    }

    #[test]
    fn who_flaps_waits_twice_as_long_each_time() {
        let mut health = health();
        let mut time = 0.0;
        for wait in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] {
            health.hear(1, at(time).monotonic);
            let fell = time + 2.0;
            assert_eq!(health.judge(1, State::Up, at(fell)), down(fell));
            let back = fell + 1.0;
            let almost = health.hear_for(back, back + wait - 0.5, down(fell));
            assert_eq!(almost, down(fell), "after {wait} s");
            time = back + wait;
            assert_eq!(health.hear_for(time, time, down(fell)), State::Up);
        }
        // All is forgotten in the end.
        let later = time + 700.0;
        health.hear_for(time, later, State::Up);
        assert_eq!(
            health.judge(1, State::Up, at(later + 2.0)),
            down(later + 2.0)
        );
        let back = health.hear_for(later + 3.0, later + 4.0, down(later + 2.0));
        assert_eq!(back, State::Up);
    }

    #[test]
    fn a_gap_begins_the_wait_anew() {
        let mut health = health();
        assert_eq!(health.judge(1, State::Up, at(2.0)), State::Up);
        assert_eq!(health.judge(1, State::Up, at(4.0)), down(4.0));
        health.hear(1, at(5.0).monotonic);
        health.hear(1, at(7.5).monotonic);
        assert_eq!(health.judge(1, down(4.0), at(7.6)), down(4.0));
        assert_eq!(health.hear_for(8.0, 8.5, down(4.0)), State::Up);
    }

    #[test]
    fn who_is_broken_is_down_at_once() {
        let mut health = health();
        health.hear(1, at(0.0).monotonic);
        health.hear_broken(1, at(0.5).monotonic);
        assert_eq!(health.judge(1, State::Up, at(0.5)), down(0.5));
        assert_eq!(health.hear_for(1.0, 1.5, down(0.5)), down(0.5));
        assert_eq!(health.hear_for(2.0, 2.0, down(0.5)), State::Up);
    }

    #[test]
    fn who_has_not_listened_begins_anew() {
        let mut health = health();
        health.hear(1, at(0.0).monotonic);
        health.listen(at(9.0).monotonic);
        assert_eq!(health.judge(1, State::Up, at(10.9)), State::Up);
        assert_eq!(health.judge(1, State::Up, at(11.0)), down(11.0));
    }

    #[test]
    fn a_wall_clock_that_jumps_does_no_harm() {
        let mut health = health();
        let future = down(10_000.0);
        assert_eq!(health.judge(1, future, at(3.0)), down(3.0));
        // Forward: out early, but only who is silent.
        health.hear(1, at(3.5).monotonic);
        let jumped = Now {
            wall: at(5_000.0).wall,
            ..at(3.6)
        };
        assert_eq!(health.judge(1, down(3.0), jumped), down(3.0));
        assert_eq!(health.judge(1, State::Up, jumped), State::Up);
    }
}
