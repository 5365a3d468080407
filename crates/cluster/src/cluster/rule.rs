//! The controller's driver: it runs where the control shard is led.

use std::sync::Arc;
use std::time::Duration;

use base::{NodeId, ShardId};
use map::{Epoch, Map, Step};
use shard::Execution;

use super::{Cluster, Parts, declined};
use crate::control::{Advance, ReadMap, Refusal, Seize};
use crate::report::{Answer, Reign, Report};
use crate::status::Status;
use crate::wire::Declined;
use crate::{Change, Controller, Event};

const TICK: Duration = Duration::from_millis(250);

/// A quorum that takes longer is none for now.
const PROOF_TIME_MAX: Duration = Duration::from_millis(500);

/// Changes in one go: then there is a look at the clock and the leadership again.
const CHANGES_MAX: usize = 8;

/// This node as the controller.
pub(super) struct Rule {
    term: u64,
    reign: Reign,
    controller: Controller,
}

impl Cluster {
    pub(super) async fn rule(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(why) = self.rule_once().await {
                tracing::debug!(%why, "the controller waits");
            }
        }
    }

    /// Proves that this node leads, and makes the changes that are wanted.
    async fn rule_once(&self) -> Result<(), Declined> {
        let silence = self.inner.parts.config.health.silence;
        let map = self.inner.parts.map.get();
        self.inner
            .heard
            .lock()
            .tick(self.now().monotonic, silence, &map);
        let Some(term) = self.control_term() else {
            if self.inner.rule.lock().take().is_some() {
                tracing::info!("this node is not the controller any more");
            }
            return Ok(());
        };
        self.prove_control().await?;
        if self.inner.rule.lock().as_ref().map(|rule| rule.term) != Some(term) {
            self.seize(term).await?;
        }
        for _ in 0..CHANGES_MAX {
            let now = self.now();
            let wanted = {
                let mut rule = self.inner.rule.lock();
                let Some(rule) = rule.as_mut() else {
                    return Ok(());
                };
                let change = rule.controller.step(now, Event::Tick);
                change.map(|change| (rule.reign, change))
            };
            let Some((reign, change)) = wanted else {
                return Ok(());
            };
            self.advance(reign, change).await?;
        }
        Ok(())
    }

    /// The term in which this node leads the control shard, if it thinks so.
    fn control_term(&self) -> Option<u64> {
        let led = self.inner.parts.replication.led();
        let control = led.iter().find(|led| led.shard == ShardId::CONTROL);
        control.map(|led| led.term)
    }

    async fn prove_control(&self) -> Result<(), Declined> {
        let proof = self.inner.parts.replication.prove(ShardId::CONTROL);
        match tokio::time::timeout(PROOF_TIME_MAX, proof).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Declined::NotLeading),
        }
    }

    /// Becomes the controller: changes of all others are refused from now on.
    async fn seize(&self, term: u64) -> Result<(), Declined> {
        let reign = Reign(self.inner.parts.env.entropy.u64());
        let map = self.execute(Seize { reign }).await?;
        tracing::info!(term, epoch = %map.epoch, "this node is the controller");
        let health = self.inner.parts.config.health;
        let now = self.now();
        let heard = {
            let heard = self.inner.heard.lock();
            heard.testimony(now.monotonic, health.silence, &map, self.inner.parts.node)
        };
        let controller = Controller::new(health, Arc::new(map), &heard, now);
        *self.inner.rule.lock() = Some(Rule {
            term,
            reign,
            controller,
        });
        Ok(())
    }

    async fn advance(&self, reign: Reign, change: Change) -> Result<(), Declined> {
        let Change { from, steps } = change;
        for step in &steps {
            let epoch = from.next();
            match step {
                Step::Space { .. } => tracing::debug!(%epoch, %step, "the map changes"),
                _ => tracing::info!(%epoch, %step, "the map changes"),
            }
        }
        let advance = Advance { reign, from, steps };
        match self.inner.parts.control.execute(advance).await {
            Ok(map) => {
                self.tell(reign, Event::Map(Arc::new(map)));
                Ok(())
            }
            Err(Execution::Refused(Refusal::Deposed)) => {
                // There may be another reign of this node already, which is not meant.
                let mut rule = self.inner.rule.lock();
                if rule.as_ref().is_some_and(|rule| rule.reign == reign) {
                    *rule = None;
                }
                Err(Declined::NotLeading)
            }
            Err(error) => {
                // The map may be another one, whatever became of the change.
                let read = self.read_map(from).await;
                if let Ok(Some(map)) = read {
                    self.tell(reign, Event::Map(Arc::new(map)));
                }
                self.tell(reign, Event::Failed);
                match error {
                    Execution::Refused(Refusal::Overtaken(_)) => Ok(()),
                    other => Err(declined(other)),
                }
            }
        }
    }

    fn tell(&self, reign: Reign, event: Event) {
        let now = self.now();
        let mut rule = self.inner.rule.lock();
        if let Some(rule) = rule.as_mut().filter(|rule| rule.reign == reign) {
            rule.controller.step(now, event);
        }
    }

    /// The map in the control shard if it is newer than `known`.
    async fn read_map(&self, known: Epoch) -> Result<Option<Map>, Declined> {
        let row = self.inner.parts.control.query(ReadMap { known }).await;
        let row = row.map_err(declined)?;
        let map = row.map(|row| Map::decode(&row)).transpose();
        map.map_err(|bad| Declined::Refused(Refusal::Damaged(bad.to_string())))
    }

    /// Takes a report, and answers it after a proof that this node leads and with the newest map.
    pub(super) async fn hear(&self, from: NodeId, report: Report) -> Result<Answer, Declined> {
        self.inner.heard.lock().hear(from, self.now().monotonic);
        let known = report.epoch;
        let (reign, map) = self.ruling().await?;
        self.tell(reign, Event::Report(from, report));
        Ok(Answer::new(reign, known, &map))
    }

    /// How the cluster is, as the controller sees it.
    pub(super) async fn answer_status(&self) -> Result<Status, Declined> {
        let (reign, _) = self.ruling().await?;
        let rule = self.inner.rule.lock();
        let rule = rule.as_ref().filter(|rule| rule.reign == reign);
        let controller = &rule.ok_or(Declined::NotLeading)?.controller;
        let (map, observed) = (controller.map(), controller.observed());
        let Parts { node, shards, .. } = &self.inner.parts;
        Ok(Status::of(
            *node,
            map,
            observed,
            controller.copying(),
            *shards,
        ))
    }

    /// Proves that this node is the controller. Gives its reign and the newest map.
    pub(super) async fn ruling(&self) -> Result<(Reign, Arc<Map>), Declined> {
        let before = {
            let rule = self.inner.rule.lock();
            let rule = rule.as_ref();
            rule.map(|rule| (rule.reign, rule.term, rule.controller.map().clone()))
        };
        let (reign, term, known) = before.ok_or(Declined::NotLeading)?;
        if self.control_term() != Some(term) {
            return Err(Declined::NotLeading);
        }
        self.prove_control().await?;
        let map = match self.read_map(known.epoch).await? {
            Some(map) => {
                let map = Arc::new(map);
                self.tell(reign, Event::Map(map.clone()));
                map
            }
            None => known,
        };
        Ok((reign, map))
    }
}
