//! Linearizable reads of a replica that does not lead: the leader says what must have been done here first.
//!
//! All that read at a time share one small question, where each would be a call of its own to the leader's node. A replica that
//! lags, or whose leader does not answer, sends its readers on, and for a while all who come after them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Replica;
use super::lead::Elsewhere;

/// A replica that keeps up has the answer sooner; else the leader may as well be asked for the rows.
const KEEP_UP_TIME_MAX: Duration = Duration::from_millis(250);

/// A replica that lags is not asked again before.
const LAG_TIME: Duration = Duration::from_secs(1);

impl Replica {
    /// What must have been done here to answer reads that came before the call; nothing if nobody can tell.
    pub(super) async fn ask(self: &Arc<Self>) -> Option<u64> {
        let answer = {
            let mut state = self.state.lock();
            let (tell, answer) = oneshot::channel();
            state.tokens += 1;
            let token = state.tokens;
            state.asking.push((token, tell));
            let now = self.now();
            state.raft.read(now, token);
            if !state.is_leader() {
                state.raft.pump(now);
            }
            self.act(&mut state);
            answer
        };
        answer.await.ok().flatten()
    }

    /// Waits until an entry is done, or the replica is at its end.
    pub(super) async fn done_up_to(&self, index: u64) {
        let watcher = {
            let mut state = self.state.lock();
            if state.raft.applied() >= index || state.is_over {
                return;
            }
            let (tell, watcher) = oneshot::channel();
            state.watching.push((index, tell));
            watcher
        };
        let _ = watcher.await;
    }

    /// Whether it may well have what a reader wants, though it does not lead.
    pub(crate) fn keeps_up(&self) -> bool {
        let lags_until = Duration::from_micros(self.lags_until.load(Ordering::Relaxed));
        if self.signal.has_failed.load(Ordering::Acquire) || self.now() < lags_until {
            return false;
        }
        let state = self.state.lock();
        !state.is_over && state.raft.leader().is_some()
    }

    /// Waits until all that was acknowledged before the call has been done here.
    pub(super) async fn keep_up(self: &Arc<Self>) -> Result<(), Elsewhere> {
        let caught_up = timeout(KEEP_UP_TIME_MAX, async {
            let index = self.ask().await?;
            self.done_up_to(index).await;
            Some(index)
        });
        let index = caught_up.await.ok().flatten();
        let state = self.state.lock();
        if !state.is_over && index.is_some_and(|index| state.raft.applied() >= index) {
            return Ok(());
        }
        let until = (self.now() + LAG_TIME).as_micros();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.lags_until.store(until, Ordering::Relaxed);
        Err(self.elsewhere(&state))
    }
}
