//! What the cluster consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base::{DeviceId, GroupId, NodeId, ShardId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Policies, Policy};

/// Counts the changes of the map.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Replicas of a shard, and copies of a chunk, where there are devices enough.
pub const WIDTH: u8 = 3;

/// Whether a node or a device answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    #[default]
    Up,
    /// It is silent or out of service, and expected back: its copies count.
    Down { since: Timestamp },
    /// It has been down for so long that what it held is made anew elsewhere.
    Out,
}

/// A server process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where its node port is, `host:port`, the best first. None if it never listened.
    pub addresses: Vec<String>,
    /// What fails together with it: a rack, a room. Empty if nobody has said.
    pub zone: String,
    pub state: State,
    /// It is to give away all that it holds.
    pub is_draining: bool,
}

/// One directory on one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub node: NodeId,
    /// Its size, and so its share of the data; 0 until its node has reported it.
    pub bytes: u64,
    /// What it would still take, roughly: published again when it has changed by a sixteenth of its
    /// size, or has come to or from nothing.
    pub bytes_free: u64,
    pub state: State,
    /// As [`Node::is_draining`], for this device alone.
    pub is_draining: bool,
}

impl Device {
    /// One that has just come.
    pub fn new(node: NodeId, bytes: u64) -> Self {
        Self {
            node,
            bytes,
            bytes_free: bytes,
            state: State::Up,
            is_draining: false,
        }
    }
}

/// A set of devices that hold the same chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub policy: Policy,
    /// The map's epoch when the members were last others. A writer names it; a device refuses one
    /// that is older than it knows.
    pub epoch: Epoch,
    /// At most as many full ones as the policy is wide; of whole copies fewer while there are fewer devices.
    pub members: Vec<Member>,
    /// It was made when too few devices were up. It takes chunks only when no other group does, so
    /// that little has to be filled when they are back.
    pub is_spare: bool,
}

/// A device of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub device: DeviceId,
    /// Which fragment of each chunk it keeps; 0 if it keeps whole copies. Who is to take over from
    /// another member has the same.
    pub index: u8,
    pub fill: Fill,
}

/// Which of a group's chunks a member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fill {
    /// All of them.
    Full,
    /// Those that were written in `since`, the group's epoch when it became a member, or later; the
    /// others are being copied to it.
    Filling { since: Epoch },
}

/// Where a shard is. Its leader makes the Raft membership what is said here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// The map's epoch when the devices were last others: what is reported of an older one is of the
    /// past.
    pub epoch: Epoch,
    /// They vote. The first leads, if it can.
    pub voters: Vec<DeviceId>,
    /// They learn, to become voters.
    pub joining: Vec<DeviceId>,
    /// They were voters, and keep what they have until the others have agreed to go on without them.
    pub leaving: Vec<DeviceId>,
}

/// What the cluster consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Grows with every change.
    pub epoch: Epoch,
    pub nodes: BTreeMap<NodeId, Node>,
    /// The highest number that a node ever had. None is given twice: its certificate may still be
    /// somewhere.
    pub last_node: NodeId,
    pub devices: BTreeMap<DeviceId, Device>,
    pub groups: BTreeMap<GroupId, Group>,
    pub policies: Policies,
    pub shards: BTreeMap<ShardId, Replicas>,
}

impl Group {
    pub fn is_member(&self, device: DeviceId) -> bool {
        self.members.iter().any(|member| member.device == device)
    }

    /// Which fragment of each chunk a member keeps; `None` if it keeps whole copies, or is no member.
    pub fn part(&self, device: DeviceId) -> Option<u8> {
        let member = self.members.iter().find(|one| one.device == device)?;
        match self.policy {
            Policy::Replicated { .. } => None,
            Policy::Coded { .. } => Some(member.index),
        }
    }

    /// All devices that a chunk is written to.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.members.iter().map(|member| member.device)
    }

    /// The devices that have all chunks.
    pub fn full(&self) -> impl Iterator<Item = DeviceId> {
        self.full_members().map(|member| member.device)
    }

    pub fn full_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|one| one.fill == Fill::Full)
    }

    /// How many different copies or fragments of each chunk those full members have that are `there`.
    pub fn copies(&self, there: impl Fn(DeviceId) -> bool) -> usize {
        let members = self.full_members().filter(|one| there(one.device));
        match self.policy {
            Policy::Replicated { .. } => members.count(),
            Policy::Coded { .. } => members.map(|one| one.index).collect::<BTreeSet<_>>().len(),
        }
    }

    /// How many of these copies can be lost before a chunk is; `None` if they are too few to read one.
    pub fn copies_to_spare(&self, there: impl Fn(DeviceId) -> bool) -> Option<usize> {
        self.copies(there).checked_sub(self.policy.needed())
    }
}

impl Replicas {
    /// All devices that have a replica or are to get one.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        let all = self.voters.iter().chain(&self.joining);
        all.chain(&self.leaving).copied()
    }
}

impl Map {
    /// How small bodies are kept, and all for which there is no group of their own policy.
    pub const POLICY: Policy = Policy::Replicated { copies: WIDTH };

    /// Whether a device and its node are up.
    pub fn is_up(&self, device: DeviceId) -> bool {
        let up = |device: &Device| {
            let node = self.nodes.get(&device.node);
            device.state == State::Up && node.is_some_and(|node| node.state == State::Up)
        };
        self.devices.get(&device).is_some_and(up)
    }

    /// Whether a device or its node is out, or not in the map: its copies are made elsewhere.
    pub fn is_out(&self, device: DeviceId) -> bool {
        let is_in = |device: &Device| {
            let node = self.nodes.get(&device.node);
            device.state != State::Out && node.is_some_and(|node| node.state != State::Out)
        };
        !self.devices.get(&device).is_some_and(is_in)
    }

    /// Whether a device or its node is to give away what it holds.
    pub fn is_draining(&self, device: DeviceId) -> bool {
        let draining = |device: &Device| {
            let node = self.nodes.get(&device.node);
            device.is_draining || node.is_some_and(|node| node.is_draining)
        };
        self.devices.get(&device).is_some_and(draining)
    }

    /// The number of a new group: one more than any.
    pub fn next_group(&self) -> GroupId {
        let last = self.groups.last_key_value();
        last.map_or(GroupId(0), |(id, _)| GroupId(id.0 + 1))
    }

    /// This map and `devices` of the first node; each new one is a group of its own. Known ones
    /// change nothing, so that starting a server again gives the same map.
    #[must_use]
    pub fn with_devices(&self, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        let mut map = self.clone();
        map.epoch = self.epoch.next();
        for id in devices {
            if map.devices.contains_key(&id) {
                continue;
            }
            map.nodes.entry(NodeId::FIRST).or_default();
            map.last_node = map.last_node.max(NodeId::FIRST);
            map.devices.insert(id, Device::new(NodeId::FIRST, 0));
            let group = Group::new(Self::POLICY, map.epoch, &[id], false);
            map.groups.insert(map.next_group(), group);
        }
        match map.devices.len() == self.devices.len() {
            true => self.clone(),
            false => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DeviceId = DeviceId(10);
    const B: DeviceId = DeviceId(20);
    const C: DeviceId = DeviceId(30);

    fn map() -> Map {
        Map::default().with_devices([A, B]).with_devices([C])
    }

    #[test]
    fn a_new_device_is_a_new_group_and_an_old_one_changes_nothing() {
        let map = map();
        assert_eq!(map.epoch, Epoch(2));
        let group = &map.groups[&GroupId(2)];
        assert!(group.devices().eq([C]) && group.full().eq([C]));
        assert_eq!(map.with_devices([C, A]), map);
    }

    #[test]
    fn a_device_is_as_its_node_is() {
        let mut map = map();
        let all = [A, B, C];
        assert_eq!(all.map(|id| map.is_up(id)), [true; 3]);
        assert_eq!(all.map(|id| map.is_draining(id)), [false; 3]);
        let since = Timestamp::from_secs(1);
        map.devices.get_mut(&A).unwrap().state = State::Down { since };
        map.devices.get_mut(&B).unwrap().is_draining = true;
        assert_eq!(all.map(|id| map.is_up(id)), [false, true, true]);
        assert_eq!(all.map(|id| map.is_draining(id)), [false, true, false]);
        let node = map.nodes.get_mut(&NodeId::FIRST).unwrap();
        (node.state, node.is_draining) = (State::Out, true);
        assert_eq!(all.map(|id| map.is_up(id)), [false; 3]);
        assert_eq!(all.map(|id| map.is_draining(id)), [true; 3]);
        assert!(!map.is_up(DeviceId(4)) && !map.is_draining(DeviceId(4)));
    }
}
