//! What a node does by its map: pure decisions, a step at a time.
//!
//! **Membership of shards.** The leader of a shard makes its Raft membership what the map says, but only when a
//! report that was sent since its reign began has been answered: then its map is at least as new as any that an
//! earlier leader can have acted on, and it undoes nothing. It reports the membership with a proof of
//! leadership that was made after it had the map of the report's epoch: so nobody with an older map can change it
//! any more.
//!
//! **Replicas** are made when a shard's leader asks for it, and destroyed when the map has no place for
//! them; not by a map that this process found on its disk, but by one that the control leader has confirmed.
//!
//! **Chunks** are taken from others only while the map is fresh ([`Config::fresh`]). Filling members of this
//! node are filled.
//!
//! What is to be done is a [`Job`]: few at a time, one about each thing, and after one that failed a pause.

mod jobs;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::{DeviceId, NodeId, ShardId};
use map::{Epoch, Fill, Map, Membership};
use shard::{Led, ReplicaId};

use crate::report::{DeviceReport, Filled, MEMBERSHIPS_MAX, Reign, Report};
use jobs::Jobs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// So long after an answered report was sent, chunks are taken from others.
    pub fresh: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(5),
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// Time passes; these are the replicas that are here, and the shards that are led here.
    Tick {
        local: Vec<(DeviceId, ShardId)>,
        led: Vec<Led>,
    },
    /// A report was answered, by the controller of this reign.
    Answered {
        round: Round,
        report: Report,
        reign: Reign,
        map: Option<Arc<Map>>,
    },
    /// A job has ended.
    Done { job: Job, end: End },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Well,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This is the newest map.
    Adopt(Arc<Map>),
    /// Whether chunks are taken from others.
    OpenFence,
    CloseFence,
    Start(Job),
}

/// Something that takes a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Unless the map has come to want it meanwhile.
    Destroy {
        device: DeviceId,
        shard: ShardId,
    },
    /// A replica without a number is to be prepared on its node first.
    Reshape {
        shard: ShardId,
        /// If it is still led in this term.
        term: u64,
        voters: Vec<(DeviceId, Option<ReplicaId>)>,
        learners: Vec<(DeviceId, Option<ReplicaId>)>,
    },
    Transfer {
        shard: ShardId,
        to: DeviceId,
    },
    /// Every node of `members` keeps older writers out first.
    Fill {
        filled: Filled,
        members: Vec<DeviceId>,
    },
}

/// A report in the making: what is to be proved for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    number: u64,
    /// When it began.
    at: Duration,
    /// Of the map that was there before anything was proved.
    epoch: Epoch,
    /// The shards to be reported, and the terms in which they are led.
    shards: BTreeMap<ShardId, u64>,
}

impl Round {
    /// The shards of which leadership is to be proved.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }
}

/// What this node knows about a shard that it leads.
#[derive(Debug)]
struct Reigned {
    term: u64,
    /// The first report after it was seen to lead.
    since: u64,
    has_heard: bool,
    /// What the controller was told.
    told: Option<Membership>,
}

/// One node.
pub struct Agent {
    node: NodeId,
    config: Config,
    map: Arc<Map>,
    /// When the last answered report was sent. None yet: this process has heard nothing.
    heard: Option<Duration>,
    is_open: bool,
    rounds: u64,
    reign: Option<Reign>,
    led: BTreeMap<ShardId, (Led, Reigned)>,
    filled: BTreeSet<Filled>,
    jobs: Jobs,
}

impl Agent {
    /// A node that starts, with the map that it remembers.
    pub fn new(node: NodeId, config: Config, map: Arc<Map>) -> Self {
        Self {
            node,
            config,
            map,
            heard: None,
            is_open: false,
            rounds: 0,
            reign: None,
            led: BTreeMap::new(),
            filled: BTreeSet::new(),
            jobs: Jobs::default(),
        }
    }

    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// Begins a report: what is to be proved for it.
    pub fn begin(&mut self, now: Duration) -> Round {
        self.rounds += 1;
        let untold = self.led.iter().filter(|(shard, (led, reigned))| {
            let needed = self.map.shards.get(shard).map_or(Epoch(0), |one| one.epoch);
            // A change that was decided by an older map may still be on its way.
            let is_calm = led.is_settled && !self.jobs.is_about(**shard);
            reigned.has_heard && is_calm && !reigned.has_told(led, needed)
        });
        let shards = untold.map(|(shard, (led, _))| (*shard, led.term));
        Round {
            number: self.rounds,
            at: now,
            epoch: self.map.epoch,
            shards: shards.take(MEMBERSHIPS_MAX).collect(),
        }
    }

    /// The report, when `proved` were proved; `led` was looked at after that.
    pub fn report(
        &self,
        round: &Round,
        proved: &BTreeSet<ShardId>,
        led: &[Led],
        addresses: Vec<String>,
        devices: Vec<DeviceReport>,
    ) -> Report {
        let is_meant = |one: &&Led| {
            proved.contains(&one.shard)
                && round.shards.get(&one.shard) == Some(&one.term)
                && one.is_settled
        };
        let told = led.iter().filter(is_meant).map(|one| {
            let membership = Membership {
                epoch: round.epoch,
                ..membership(one)
            };
            (one.shard, membership)
        });
        Report {
            epoch: self.map.epoch,
            addresses,
            devices,
            shards: told.collect(),
            filled: self.filled.iter().copied().collect(),
            ..Report::default()
        }
    }

    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Tick { local, led } => {
                self.notice(led);
                self.decide(now, &local, &mut actions);
            }
            Event::Answered {
                round,
                report,
                reign,
                map,
            } => self.answered(&round, report, reign, map, &mut actions),
            Event::Done { job, end } => {
                if let (Job::Fill { filled, .. }, End::Well) = (&job, end) {
                    self.filled.insert(*filled);
                }
                self.jobs.ended(&job, end, now);
            }
        }
        self.fence(now, &mut actions);
        actions
    }

    fn answered(
        &mut self,
        round: &Round,
        report: Report,
        reign: Reign,
        map: Option<Arc<Map>>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(map) = map.filter(|map| map.epoch > self.map.epoch) {
            self.map = map.clone();
            actions.push(Action::Adopt(map));
            self.forget_filled();
        }
        self.heard = self.heard.max(Some(round.at));
        let is_other = self.reign != Some(reign);
        self.reign = Some(reign);
        for (_, reigned) in self.led.values_mut() {
            reigned.has_heard |= reigned.since <= round.number;
            if is_other {
                reigned.told = None;
            }
        }
        for (shard, membership) in report.shards {
            if let Some((led, reigned)) = self.led.get_mut(&shard)
                && round.shards.get(&shard) == Some(&led.term)
            {
                reigned.told = Some(membership);
            }
        }
    }

    /// Looks at what is led here now.
    fn notice(&mut self, led: Vec<Led>) {
        let mut before = std::mem::take(&mut self.led);
        for led in led {
            let known = before.remove(&led.shard).map(|(_, reigned)| reigned);
            let reigned = known.filter(|reigned| reigned.term == led.term);
            let reigned = reigned.unwrap_or(Reigned {
                term: led.term,
                since: self.rounds + 1,
                has_heard: false,
                told: None,
            });
            self.led.insert(led.shard, (led, reigned));
        }
    }

    fn fence(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let fresh = self.config.fresh;
        let is_fresh = self.heard.is_some_and(|heard| now < heard + fresh);
        if is_fresh != self.is_open {
            self.is_open = is_fresh;
            actions.push(match is_fresh {
                true => Action::OpenFence,
                false => Action::CloseFence,
            });
        }
    }

    fn decide(&mut self, now: Duration, local: &[(DeviceId, ShardId)], actions: &mut Vec<Action>) {
        // Everything here is done by a map that was confirmed since this process started.
        if self.heard.is_none() {
            return;
        }
        let mut wanted = Vec::new();
        for (device, shard) in local {
            let replicas = self.map.shards.get(shard);
            if replicas.is_some_and(|one| one.devices().all(|id| id != *device)) {
                let (device, shard) = (*device, *shard);
                wanted.push(Job::Destroy { device, shard });
            }
        }
        let led = self.led.values().filter(|(_, reigned)| reigned.has_heard);
        wanted.extend(led.filter_map(|(led, _)| shards::next(&self.map, led)));
        wanted.extend(self.fills());
        let started = wanted.into_iter().filter(|job| self.jobs.start(job, now));
        actions.extend(started.map(Action::Start));
    }

    /// The members of this node that lack something.
    fn fills(&self) -> Vec<Job> {
        let mut fills: Vec<(usize, Job)> = Vec::new();
        for (id, group) in &self.map.groups {
            for member in &group.members {
                let Fill::Filling { since } = member.fill else {
                    continue;
                };
                let device = member.device;
                let (group_id, map) = (*id, &self.map);
                let is_here = map
                    .devices
                    .get(&device)
                    .is_some_and(|one| one.node == self.node);
                let filled = Filled {
                    group: group_id,
                    device,
                    since,
                };
                let to_spare = group.copies_to_spare(|id| map.is_up(id));
                if is_here
                    && let Some(to_spare) = to_spare
                    && !self.filled.contains(&filled)
                {
                    let members = group.devices().filter(|id| map.is_up(*id)).collect();
                    fills.push((to_spare, Job::Fill { filled, members }));
                }
            }
        }
        // Those first that are in the greatest danger.
        fills.sort_by_key(|(copies, _)| *copies);
        fills.into_iter().map(|(_, fill)| fill).collect()
    }

    /// What the controller knows by now, or does not want to know any more.
    fn forget_filled(&mut self) {
        let map = &self.map;
        self.filled.retain(|filled| {
            let group = map.groups.get(&filled.group);
            let mut members = group.into_iter().flat_map(|group| &group.members);
            let fill = Fill::Filling {
                since: filled.since,
            };
            members.any(|member| member.device == filled.device && member.fill == fill)
        });
    }
}

impl Reigned {
    /// Whether the controller knows the membership, by a map in which the shard was as it is.
    fn has_told(&self, led: &Led, needed: Epoch) -> bool {
        self.told.as_ref().is_some_and(|told| {
            let now = Membership {
                epoch: told.epoch,
                ..membership(led)
            };
            told.epoch >= needed && *told == now
        })
    }
}

fn membership(led: &Led) -> Membership {
    Membership {
        epoch: Epoch(0),
        voters: led.voters.keys().copied().collect(),
        learners: led.learners.keys().copied().collect(),
        ready: led.ready.clone(),
    }
}

#[cfg(test)]
mod tests;
