//! The agent's driver: what it decides is begun, and twice a second it reports.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::ShardId;
use futures_util::future::join_all;
use map::Map;

use super::Cluster;
use crate::agent::{Action, Event, Round};
use crate::copying::Progress;
use crate::report::Report;

const TICK: Duration = Duration::from_millis(250);
const REPORT: Duration = Duration::from_millis(500);

/// After each report, also while somebody waits for a newer map.
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// A shard that is not proved by then is not in this report: the report itself must not wait.
const PROOFS_TIME_MAX: Duration = Duration::from_millis(200);

impl Cluster {
    pub(super) async fn follow(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let replication = &self.inner.parts.replication;
            let (local, led) = (replication.local(), replication.led());
            self.agent(Event::Tick { local, led }).await;
        }
    }

    pub(super) async fn report(&self) {
        let mut ticks = tokio::time::interval(REPORT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = self.inner.parts.map_wanted.notified() => {}
            }
            self.report_once().await;
            tokio::time::sleep(REPORT_PAUSE).await;
        }
    }

    async fn report_once(&self) {
        let parts = &self.inner.parts;
        let round = {
            let now = self.now().monotonic;
            self.inner.agent.lock().begin(now)
        };
        let proved = self.prove(&round).await;
        let led = parts.replication.led();
        let (addresses, devices) = (parts.addresses.clone(), (parts.devices)());
        let report = {
            let agent = self.inner.agent.lock();
            let report = agent.report(&round, &proved, &led, addresses, devices);
            Report {
                copied_bytes: parts.fill.copied_bytes(),
                fills: self.fills(),
                ..report
            }
        };
        let metrics = &self.inner.metrics;
        let asked = self.now().monotonic;
        match self.ask_report(&report).await {
            Ok((reign, map)) => {
                let answered = self.now().monotonic;
                metrics
                    .report_duration
                    .observe(answered.saturating_sub(asked));
                *self.inner.answered.lock() = answered;
                let map = map.map(Arc::new);
                let event = Event::Answered {
                    round,
                    report,
                    reign,
                    map,
                };
                self.agent(event).await;
            }
            Err(error) => {
                metrics.reports_failed.inc();
                tracing::debug!(%error, "the report was not answered");
                self.find_way().await;
            }
        }
    }

    fn fills(&self) -> Vec<Progress> {
        let fills = self.inner.fills.lock();
        let fills = fills
            .iter()
            .map(|((group, device), (done, total))| Progress {
                group: *group,
                device: *device,
                done: *done,
                total: *total,
            });
        fills.collect()
    }

    /// The shards of which it is proved that this node leads them.
    async fn prove(&self, round: &Round) -> BTreeSet<ShardId> {
        let proofs = round.shards().map(|shard| async move {
            let proof = self.inner.parts.replication.prove(shard);
            let proof = tokio::time::timeout(PROOFS_TIME_MAX, proof).await;
            matches!(proof, Ok(Ok(()))).then_some(shard)
        });
        join_all(proofs).await.into_iter().flatten().collect()
    }

    /// Tells the agent what has happened, and does what it decides.
    pub(super) async fn agent(&self, event: Event) {
        let actions = {
            let now = self.now().monotonic;
            self.inner.agent.lock().step(now, event)
        };
        for action in actions {
            match action {
                Action::Adopt(map) => self.adopt(map).await,
                Action::OpenFence => self.inner.parts.fence.open(),
                Action::CloseFence => self.inner.parts.fence.close(),
                Action::Start(job) => self.start(job),
            }
        }
    }

    /// A newer map: it is used at once, and remembered.
    pub(super) async fn adopt(&self, map: Arc<Map>) {
        let parts = &self.inner.parts;
        let before = parts.map.get();
        if !parts.map.advance(Map::clone(&map)) {
            return;
        }
        tracing::debug!(epoch = %map.epoch, "a newer map");
        for gone in before.nodes.keys().filter(|id| !map.nodes.contains_key(id)) {
            parts.peers.forget(*gone);
        }
        parts.directory.learn(&map).await;
        let cluster = self.clone();
        tokio::spawn(async move { cluster.keep_map().await });
    }

    /// Writes the newest map there is.
    async fn keep_map(&self) {
        let _turn = self.inner.file.lock().await;
        let (home, map) = (self.inner.parts.home.clone(), self.inner.parts.map.get());
        let kept = blocking(move || home.keep_map(&map)).await;
        match kept {
            Ok(Ok(())) => {}
            // It is written again with the next change; a start finds an older one, and is told.
            Ok(Err(error)) => tracing::warn!(%error, "the map could not be kept"),
            Err(error) => tracing::warn!(%error, "the map could not be kept"),
        }
    }
}

/// Does what waits for a disk where nobody else waits for it.
#[cfg(not(test))]
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// The disks of tests answer at once, and what happens in a simulation must not depend on a thread.
#[cfg(test)]
async fn blocking<T>(work: impl FnOnce() -> T) -> Result<T, tokio::task::JoinError> {
    Ok(work())
}
