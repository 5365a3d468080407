//! Holds a background job to its rate, pauses it, and ends it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub(crate) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct State {
    paused: bool,
    stopped: bool,
    /// A rest is over early.
    woken: bool,
}

/// Whether a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a job that does not look never ends"]
pub(crate) enum Go {
    On,
    Stop,
}

impl Pace {
    /// Waits as long as `bytes` take at this rate, and while the job is paused.
    pub(crate) fn spend(&self, bytes: u64, bytes_per_second: u64) -> Go {
        let seconds = bytes as f64 / bytes_per_second as f64;
        self.wait(Duration::from_secs_f64(seconds), false)
    }

    /// Waits for `time` or until somebody wakes the job, and while it is paused.
    pub(crate) fn rest(&self, time: Duration) -> Go {
        self.wait(time, true)
    }

    fn wait(&self, time: Duration, wakes: bool) -> Go {
        let mut state = self.state.lock();
        let over = state.stopped || wakes && state.woken;
        if !over {
            // Woken too early by a pause, the job is a little faster than it should be.
            self.changed.wait_for(&mut state, time);
        }
        while state.paused && !state.stopped {
            self.changed.wait(&mut state);
        }
        state.woken &= !wakes;
        match state.stopped {
            true => Go::Stop,
            false => Go::On,
        }
    }

    /// Ends a rest.
    pub(crate) fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_all();
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.state.lock().paused = paused;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn a_rest_ends_early_and_a_stop_ends_everything() {
        let pace = Pace::default();
        pace.wake();
        assert_eq!(pace.rest(LONG), Go::On);
        pace.stop();
        assert_eq!(pace.rest(LONG), Go::Stop);
        assert_eq!(pace.spend(1 << 40, 1), Go::Stop);
    }

    #[test]
    fn a_paused_job_waits() {
        let pace = Pace::default();
        pace.set_paused(true);
        std::thread::scope(|scope| {
            let job = scope.spawn(|| pace.spend(0, 1));
            assert!(!job.is_finished());
            pace.set_paused(false);
            assert_eq!(job.join().unwrap(), Go::On);
        });
    }
}
