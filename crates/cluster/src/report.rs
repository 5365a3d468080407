//! What a node tells the control leader twice a second, and what it is told.

use base::{DeviceId, GroupId, ShardId};
use map::{Epoch, Map, Membership};
use serde::{Deserialize, Serialize};

use crate::copying::Progress;

/// The memberships in one report: the rest follows half a second later.
pub(crate) const MEMBERSHIPS_MAX: usize = 256;

/// Whether a device can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    Good,
    /// It takes no writes, or nothing at all.
    Broken,
    /// As good, and it has never served: it is to be one of the cluster's.
    New,
}

/// A device of the reporting node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    pub device: DeviceId,
    /// The size of its file system.
    pub bytes: u64,
    /// What it would still take.
    pub bytes_free: u64,
    pub condition: Condition,
}

/// A member of a group that has been filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Filled {
    pub group: GroupId,
    pub device: DeviceId,
    /// Since which epoch it had been filling.
    pub since: Epoch,
}

/// What a node tells the control leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of the map that the node has.
    pub epoch: Epoch,
    /// Where its node port is now, the best first.
    pub addresses: Vec<String>,
    pub devices: Vec<DeviceReport>,
    /// Shards that it leads, each with a proof made with the map of the epoch in it. Those of which the
    /// controller knows as much are left out.
    pub shards: Vec<(ShardId, Membership)>,
    pub filled: Vec<Filled>,
    /// Of chunks, to new members of groups, since the node's process began.
    pub copied_bytes: u64,
    /// The fills under way.
    pub fills: Vec<Progress>,
}

/// What the control leader answers, after a proof that it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which controller it is. One that took over knows nothing of earlier reports.
    pub reign: Reign,
    /// The newest map, if it is newer than that of the report: [`Map::encode`].
    pub map: Option<Vec<u8>>,
}

/// One time of one node as the controller. Drawn at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reign(pub u64);

impl Answer {
    pub fn new(reign: Reign, known: Epoch, map: &Map) -> Self {
        Self {
            reign,
            map: (map.epoch > known).then(|| map.encode()),
        }
    }
}
