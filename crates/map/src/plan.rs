//! What to change next, so that everything lies where it should.
//!
//! [`next_steps`] compares a map with what nodes report and gives the steps that can be made now, all
//! of them one change of the map. It remembers nothing: what is under way is in the map (joining and
//! leaving replicas, filling members), so whoever plans next goes on where the last one stopped, and a step
//! that was made twice is made once. Nodes act on the map by themselves, and their reports say when
//! they are done.
//!
//! In this order: groups that take chunks, if there are none; shards and groups that are short of
//! copies or must leave a device; new groups; then an even spread over devices, a few moves at a time.
//!
//! **Invariant:** no two replicas of a shard, nor members of a group, are on one device.
//! **Invariant:** a full member is dropped only when another full one is up, and no more copies are
//! given up than there are too many; unless what is dropped is out of reach anyway.
//! **Invariant:** what is even enough is left alone: each move leaves the emptier device no fuller than the
//! other, so moves come to an end.
//!
//! Cost: the devices, groups and shards once, and the devices again for each thing that is placed.

mod groups;
mod shards;
mod sites;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use base::{DeviceId, GroupId, ShardId};
use serde::{Deserialize, Serialize};

use crate::{Epoch, Map, Step};
use sites::Sites;

/// A change of the map is one row, and many steps in it cost no more than one; but the more are planned
/// ahead, the less they know of what comes of the others.
const STEPS_MAX: usize = 64;

/// Whole groups or shards that a device receives at a time: one after the other is as fast, but each
/// takes a round of reports to begin.
const RECEIVED_MAX: u32 = 2;

/// Devices that get something moved to them in one plan, for the sake of evenness.
const MOVES_MAX: usize = 8;

/// Groups that each device is a member of, on average: so many others help when it must be rebuilt, and
/// so finely is its data divided when it is moved.
const GROUPS_PER_DEVICE: usize = 16;

/// What nodes report, as far as plans depend on it.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What the leader of each shard says of it.
    pub shards: BTreeMap<ShardId, Membership>,
    /// The members that have been filled: since which epoch they had been filling.
    pub filled: BTreeSet<(GroupId, DeviceId, Epoch)>,
}

/// The Raft membership of a shard, committed, and none other under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its leader knew the map of this epoch, and then proved that it leads, before it looked.
    pub epoch: Epoch,
    pub voters: BTreeSet<DeviceId>,
    pub learners: BTreeSet<DeviceId>,
    /// The learners that have all but the latest entries.
    pub ready: BTreeSet<DeviceId>,
}

/// The steps that can be made now. None: everything is as it should be, or must be waited for.
pub fn next_steps(map: &Map, observed: &Observed) -> Vec<Step> {
    let mut plan = Plan {
        map,
        observed,
        sites: Sites::of(map),
        steps: Vec::new(),
        touched: Touched::default(),
        electorates: BTreeMap::new(),
        going: BTreeMap::new(),
    };
    plan.count_shards();
    plan.count_groups();
    plan.keep_writable();
    plan.settle_shards();
    plan.settle_groups();
    plan.make_groups();
    plan.spread_shards();
    plan.spread_groups();
    plan.steps
}

/// A plan in the making.
struct Plan<'a> {
    map: &'a Map,
    observed: &'a Observed,
    /// The devices, and what will be on them after the steps.
    sites: Sites,
    steps: Vec<Step>,
    touched: Touched,
    /// Who is to vote when those that join have caught up.
    electorates: BTreeMap<ShardId, Vec<DeviceId>>,
    /// The members that groups can do without when those that are filling are full.
    going: BTreeMap<GroupId, Vec<DeviceId>>,
}

/// What has a step already: one at a time.
#[derive(Default)]
struct Touched {
    shards: BTreeSet<ShardId>,
    groups: BTreeSet<GroupId>,
}

impl Plan<'_> {
    fn is_long(&self) -> bool {
        self.steps.len() >= STEPS_MAX
    }
}
