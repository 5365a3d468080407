//! What goes on without being asked: collecting garbage, removing what has expired, giving up dead
//! uploads, sweeping lists, mending copies, keeping what is read here from other nodes' collectors.
//!
//! Every shard has one task for expiry and one for the rest, since collecting waits for devices. Each
//! works in bounded rounds with a pause after each, longer when there was nothing to do. All of it
//! may stop at any point and begin again.

use std::time::Duration;

use base::ShardId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::garbage::{self, Collector};
use crate::heal::{HEAL_EVERY, Healer};
use crate::renew::RENEW_EVERY;
use crate::sweep::Sweeper;
use crate::{Error, Namespace};

/// The pause after a round that found something: requests come first.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Whoever leads a shard works on it; others look now and then whether that has become them.
const LEAD_LOOK: Duration = Duration::from_secs(1);

/// Dead uploads and leftover lines are looked for this often.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(600);

/// The background work of a namespace. Dropped, it stops at once.
pub struct Background {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Namespace {
    /// Starts the background work.
    pub fn start(&self) -> Background {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for shard in self.shard_ids() {
            tasks.spawn(self.clone().run_expirer(shard, stopped.clone()));
            tasks.spawn(self.clone().run_collector(shard, stopped.clone()));
        }
        tasks.spawn(self.clone().run_healer(stopped.clone()));
        if self.inner.config.is_shared {
            tasks.spawn(self.clone().run_renewals(stopped));
        }
        Background { tasks, stop }
    }

    async fn run_expirer(self, shard: ShardId, mut stopped: watch::Receiver<bool>) {
        loop {
            if !self.inner.shards.is_for_us(shard) {
                if !goes_on(&mut stopped, LEAD_LOOK).await {
                    return;
                }
                continue;
            }
            let pause = self.pause_after(shard, "expirer", self.expire(shard).await);
            if !goes_on(&mut stopped, pause).await {
                return;
            }
        }
    }

    async fn run_collector(self, shard: ShardId, mut stopped: watch::Receiver<bool>) {
        let clock = self.inner.env.clock.clone();
        let (mut collector, mut sweeper) = (Collector::default(), Sweeper::default());
        let mut kept_house = None;
        loop {
            if !self.inner.shards.is_for_us(shard) {
                if !goes_on(&mut stopped, LEAD_LOOK).await {
                    return;
                }
                continue;
            }
            let now = clock.monotonic();
            if kept_house.is_none_or(|then| now.saturating_sub(then) >= HOUSEKEEPING_INTERVAL) {
                kept_house = Some(now);
                self.pause_after(shard, "reaper", self.reap(shard).await);
                let swept = sweeper.round(&self, shard).await;
                self.pause_after(shard, "sweeper", swept.map(usize::from));
            }
            let round = collector.round(&self, shard).await;
            let pause = self.pause_after(shard, "collector", round);
            if !goes_on(&mut stopped, pause).await {
                return;
            }
        }
    }

    async fn run_healer(self, mut stopped: watch::Receiver<bool>) {
        let mut healer = Healer::default();
        loop {
            // A round waits for copies that are made at leisure; they go on without it.
            let found = tokio::select! {
                found = healer.round(&self) => found,
                _ = stopped.changed() => return,
            };
            let pause = if found { BUSY_PAUSE } else { HEAL_EVERY };
            if !goes_on(&mut stopped, pause).await {
                return;
            }
        }
    }

    async fn run_renewals(self, mut stopped: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.renew().await {
                self.metrics().background_errors.inc();
                tracing::warn!(%error, "bodies that are being read may be collected elsewhere");
            }
            if !goes_on(&mut stopped, RENEW_EVERY).await {
                return;
            }
        }
    }

    fn pause_after(&self, shard: ShardId, who: &str, round: Result<usize, Error>) -> Duration {
        match round {
            Ok(0) => self.inner.config.background_interval,
            Ok(_) => BUSY_PAUSE,
            Err(error) => {
                self.metrics().background_errors.inc();
                tracing::warn!(%shard, %error, "{who} will try again");
                garbage::RETRY_IN
            }
        }
    }
}

/// Waits, unless it is time to stop.
async fn goes_on(stopped: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    tokio::time::timeout(pause, stopped.changed())
        .await
        .is_err()
}

impl Background {
    /// Ends all rounds and waits until they have ended.
    pub async fn stop(mut self) {
        // Nobody listens any more if all tasks have panicked; then there is nothing to stop.
        let _ = self.stop.send(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "background work ended");
            }
        }
    }
}
