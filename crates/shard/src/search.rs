//! Looking for the leader of a shard, and how long.

use std::time::Duration;

use base::DeviceId;
use base::env::Env;

use crate::Error;

/// After a question that got no answer.
pub(crate) const SOON: Duration = Duration::from_millis(200);
/// A shard without a leader gets one in this time, or is out of order for longer.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two looks for the leader.
const SEARCH_PAUSE: Duration = Duration::from_millis(25);
/// A call whose answers are lost is tried again for so long: no client waits for more.
const REPEAT_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest pause between two of its tries.
const REPEAT_PAUSE_MAX: Duration = Duration::from_millis(400);

pub(crate) struct Search<'a> {
    env: &'a Env,
    /// The leader has to be found until then.
    until: Duration,
    /// Nothing is repeated after that.
    end: Duration,
    pub(crate) hint: Option<DeviceId>,
    pub(crate) tries: usize,
    /// Before the next repetition.
    pause: Duration,
}

impl<'a> Search<'a> {
    pub(crate) fn new(env: &'a Env) -> Self {
        let now = env.clock.monotonic();
        Self {
            env,
            until: now + SEARCH_TIME_MAX,
            end: now + REPEAT_TIME_MAX,
            hint: None,
            tries: 0,
            pause: SEARCH_PAUSE,
        }
    }

    pub(crate) fn is_worth_it(&self) -> bool {
        self.env.clock.monotonic() < self.until
    }

    /// The one that was asked does not lead; `hint` may.
    pub(crate) async fn on(&mut self, hint: Option<DeviceId>) -> Result<(), Error> {
        if !self.is_worth_it() {
            return Err(Error::Unavailable { retry_in: SOON });
        }
        self.tries += 1;
        // The first hint is usually right; after that somebody is being elected.
        if hint.is_none() || self.tries > 1 {
            tokio::time::sleep(SEARCH_PAUSE).await;
        }
        self.hint = hint;
        Ok(())
    }

    /// An answer was lost: what it was the answer to is to be repeated, where the shard is led then.
    pub(crate) async fn again(&mut self) -> Result<(), Error> {
        let now = self.env.clock.monotonic();
        if now >= self.end {
            return Err(Error::Unknown);
        }
        self.until = (now + SEARCH_TIME_MAX).min(self.end);
        self.tries += 1;
        self.hint = None;
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(REPEAT_PAUSE_MAX);
        Ok(())
    }
}
