//! Where the replicas of shards are to be: on three devices, or on one where there are not three.
//!
//! A shard is changed only when its leader has reported that it is as the map says. A replica is copied to
//! a device first and votes when it has caught up; all that become voters do so in one change, so that
//! there are never two voters. Whoever leaves keeps what it has until the others go on without it.

use std::collections::{BTreeMap, BTreeSet};

use base::{DeviceId, NodeId, ShardId};

use super::sites::Kind;
use super::{MOVES_MAX, Membership, Plan, STEPS_MAX};
use crate::{Replicas, Step, WIDTH};

impl Membership {
    /// Whether it is what the map says.
    pub fn is(&self, replicas: &Replicas) -> bool {
        let set = |devices: &[DeviceId]| devices.iter().copied().collect::<BTreeSet<_>>();
        self.epoch >= replicas.epoch
            && self.voters == set(&replicas.voters)
            && self.learners == set(&replicas.joining)
    }
}

impl Plan<'_> {
    /// What must be done for each shard by itself.
    pub(super) fn settle_shards(&mut self) {
        let map = self.map;
        let voters = |shard: &ShardId| {
            let voters = map.shards.get(shard).map(|replicas| replicas.voters.iter());
            voters.map(|voters| voters.filter(|id| self.sites.is_up(**id)).count())
        };
        let mut order: Vec<_> = self.observed.shards.iter().collect();
        order.sort_by_key(|(shard, _)| (voters(shard), **shard));
        for (shard, seen) in order {
            if self.is_long() {
                return;
            }
            let steps = match map.shards.get(shard) {
                None => vec![Step::Found {
                    shard: *shard,
                    voters: seen.voters.iter().copied().collect(),
                }],
                Some(replicas) if self.is_in_vain(replicas) => {
                    let voters = replicas.voters.clone();
                    vec![Step::Vote {
                        shard: *shard,
                        voters,
                    }]
                }
                Some(replicas) if seen.is(replicas) => self.settle(*shard, replicas, seen),
                Some(_) => Vec::new(),
            };
            if !steps.is_empty() {
                self.touched.shards.insert(*shard);
                self.steps.extend(steps);
            }
        }
    }

    /// Notes where all shards will be when those that join have become voters.
    pub(super) fn count_shards(&mut self) {
        let map = self.map;
        for replicas in map.shards.values() {
            for device in replicas.voters.iter().chain(&replicas.joining) {
                self.sites.change(*device, |site| site.shards += 1);
            }
            for device in &replicas.joining {
                self.sites.change(*device, |site| site.joining += 1);
            }
        }
        for (shard, replicas) in &map.shards {
            let mut stay = [&replicas.voters[..], &replicas.joining].concat();
            let width = usize::from(WIDTH);
            let wanted = if stay.len() >= width { width } else { 1 };
            let (among, spare) = (stay.clone(), stay.len().saturating_sub(wanted));
            for device in self.sites.trim(Kind::Shard, &mut stay, &among, spare) {
                self.sites.change(device, |site| site.shards -= 1);
            }
            self.electorates.insert(*shard, stay);
        }
    }

    /// Whether a device that joins cannot stay. It may be gone before a replica was made on it: then its shard never
    /// becomes what the map says, and nobody must wait for that. Who joins has no say, so all can go at any time.
    fn is_in_vain(&self, replicas: &Replicas) -> bool {
        let mut joining = replicas.joining.iter();
        replicas.leaving.is_empty() && joining.any(|device| !self.sites.is_staying(*device))
    }

    fn settle(&mut self, shard: ShardId, replicas: &Replicas, seen: &Membership) -> Vec<Step> {
        let Replicas {
            voters,
            joining,
            leaving,
            ..
        } = replicas;
        if !leaving.is_empty() {
            return vec![Step::Left { shard }];
        }
        if joining.is_empty() {
            return self.repair(shard, voters);
        }
        let is_ready = |device| seen.ready.contains(device) && self.sites.is_up(*device);
        let after = self.electorates[&shard].clone();
        let has_quorum = self.has_quorum(voters) && self.has_quorum(&after);
        match joining.iter().all(is_ready) && has_quorum {
            true => vec![Step::Vote {
                shard,
                voters: after,
            }],
            false => Vec::new(),
        }
    }

    fn has_quorum(&self, voters: &[DeviceId]) -> bool {
        let up = voters.iter().filter(|device| self.sites.is_up(**device));
        up.count() > voters.len() / 2
    }

    /// Replaces voters that cannot stay, and makes three of one.
    fn repair(&mut self, shard: ShardId, voters: &[DeviceId]) -> Vec<Step> {
        let width = usize::from(WIDTH);
        let wanted = match self.sites.staying >= width {
            true => width,
            false => 1,
        };
        let wanted = wanted.max(voters.len());
        let staying = voters
            .iter()
            .filter(|id| self.sites.is_staying(**id))
            .count();
        let mut all = voters.to_vec();
        for _ in staying..wanted {
            all.extend(self.sites.pick(Kind::Shard, &all, shard.0.into()));
        }
        let is_lost = staying == 0 && voters.len() == 1;
        if all.len() < wanted {
            // Not yet three, and never two. But the only one may move.
            all.truncate(voters.len() + usize::from(is_lost));
        }
        let joining = all.split_off(voters.len().min(all.len()));
        for device in &joining {
            self.sites.change(*device, |site| site.joining += 1);
            self.sites.change(*device, |site| site.shards += 1);
        }
        let join = |device| Step::Join { shard, device };
        joining.into_iter().map(join).collect()
    }

    /// Moves replicas from full devices to empty ones, and leaders from busy nodes to idle ones.
    pub(super) fn spread_shards(&mut self) {
        let map = self.map;
        let calm = map.shards.iter().filter(|(shard, _)| self.is_calm(**shard));
        let mut calm: BTreeMap<ShardId, &[DeviceId]> = calm
            .map(|(shard, replicas)| (*shard, &replicas.voters[..]))
            .collect();
        self.part_shards(&mut calm);
        for to in self.sites.emptiest(Kind::Shard, MOVES_MAX) {
            let wide = calm.iter().filter(|(_, voters)| voters.len() > 1);
            let able = wide.filter_map(|(shard, voters)| {
                let from = self.sites.fuller(Kind::Shard, voters, to)?;
                Some((self.sites.load(Kind::Shard, from), *shard))
            });
            if let Some((_, shard)) = able.max() {
                let voters = calm.remove(&shard).expect("it was among them");
                self.move_shard(shard, voters, to);
            }
        }
        self.spread_leaders(&calm);
    }

    /// Whether all replicas are up and stay where they are.
    fn is_calm(&self, shard: ShardId) -> bool {
        let (map, seen) = (self.map, self.observed.shards.get(&shard));
        let is_steady = |replicas: &Replicas| {
            let mut voters = replicas.voters.iter();
            replicas.leaving.is_empty()
                && replicas.joining.is_empty()
                && seen.is_some_and(|seen| seen.is(replicas))
                && voters.all(|id| self.sites.is_up(*id) && self.sites.is_staying(*id))
        };
        !self.touched.shards.contains(&shard) && map.shards.get(&shard).is_some_and(is_steady)
    }

    /// Moves replicas that are closer together than they could be.
    fn part_shards(&mut self, calm: &mut BTreeMap<ShardId, &[DeviceId]>) {
        let best = self.sites.best_closeness(usize::from(WIDTH));
        let close = calm
            .iter()
            .filter(|(_, voters)| voters.len() > 1 && self.sites.closeness(voters) > best);
        // Each costs a look at all devices, and may be in vain as long as some are down.
        let close: Vec<_> = close.map(|(shard, _)| *shard).take(MOVES_MAX).collect();
        for shard in close {
            let voters = calm[&shard];
            if let Some((_, to)) = self.sites.farther(Kind::Shard, voters, shard.0.into()) {
                calm.remove(&shard);
                self.move_shard(shard, voters, to);
            }
        }
    }

    fn move_shard(&mut self, shard: ShardId, voters: &[DeviceId], to: DeviceId) {
        self.sites.change(to, |site| site.joining += 1);
        self.sites.change(to, |site| site.shards += 1);
        let among = [voters, &[to]].concat();
        for from in self.sites.trim(Kind::Shard, &mut among.clone(), &among, 1) {
            self.sites.change(from, |site| site.shards -= 1);
        }
        self.steps.push(Step::Join { shard, device: to });
    }

    fn spread_leaders(&mut self, calm: &BTreeMap<ShardId, &[DeviceId]>) {
        let node_of = |device: &DeviceId| self.sites.get(*device).map(|site| site.node);
        let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
        for replicas in self.map.shards.values() {
            if let Some(node) = replicas.voters.first().and_then(node_of) {
                *leads.entry(node).or_default() += 1;
            }
        }
        let mut steps = Vec::new();
        for (shard, voters) in calm {
            if self.steps.len() + steps.len() >= STEPS_MAX {
                break;
            }
            let nodes = voters
                .iter()
                .filter_map(|device| Some((*device, node_of(device)?)));
            let loads = nodes.map(|(device, node)| {
                let leads = leads.get(&node).copied().unwrap_or_default();
                (leads, device, node)
            });
            let loads: Vec<_> = loads.collect();
            let (Some((most, _, from)), Some((least, device, to))) =
                (loads.first(), loads.iter().min())
            else {
                continue;
            };
            if *most >= least + 2 {
                *leads.entry(*from).or_default() -= 1;
                *leads.entry(*to).or_default() += 1;
                steps.push(Step::Lead {
                    shard: *shard,
                    device: *device,
                });
            }
        }
        self.steps.extend(steps);
    }
}
