//! The changes that a map goes through, one by one.

use std::fmt;

use base::{DeviceId, GroupId, NodeId, ShardId};
use serde::{Deserialize, Serialize};

use crate::{Device, Epoch, Fill, Group, Map, Member, Policy, Replicas, State};

/// A change of the map. Each is safe by itself if it was planned on the map that it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    NodeState {
        node: NodeId,
        state: State,
    },
    DeviceState {
        device: DeviceId,
        state: State,
    },
    Space {
        device: DeviceId,
        bytes: u64,
        bytes_free: u64,
    },
    /// A node has got a device.
    Device {
        device: DeviceId,
        node: NodeId,
        bytes: u64,
    },
    /// Where a node's port is now.
    Address {
        node: NodeId,
        addresses: Vec<String>,
    },
    /// A shard that is there, and that the map did not know.
    Found {
        shard: ShardId,
        voters: Vec<DeviceId>,
    },
    /// A device gets a replica that learns.
    Join {
        shard: ShardId,
        device: DeviceId,
    },
    /// Who is to vote from now on. Voters and joining ones who are not among them leave.
    Vote {
        shard: ShardId,
        voters: Vec<DeviceId>,
    },
    /// The shard goes on without those who were leaving: their replicas may be deleted.
    Left {
        shard: ShardId,
    },
    /// This voter is to lead.
    Lead {
        shard: ShardId,
        device: DeviceId,
    },
    /// A group with these members, all full, since there is nothing that they could lack.
    Make {
        group: GroupId,
        policy: Policy,
        /// In the order of their fragments.
        members: Vec<DeviceId>,
        is_spare: bool,
    },
    /// A member that is to be filled.
    Add {
        group: GroupId,
        device: DeviceId,
        index: u8,
    },
    /// A filling member has all chunks.
    Filled {
        group: GroupId,
        device: DeviceId,
    },
    /// A member that is none any more.
    Drop {
        group: GroupId,
        device: DeviceId,
    },
}

impl Map {
    /// The map after these steps, which were planned on this one. All of them are one change.
    ///
    /// # Panics
    /// If a step is about something that this map does not have: then it was planned on another.
    #[must_use]
    pub fn after(&self, steps: &[Step]) -> Self {
        let mut map = self.clone();
        map.epoch = self.epoch.next();
        for step in steps {
            map.take(step);
        }
        map
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::NodeState { node, state } => {
                let node = self.nodes.get_mut(node).expect("a node of this map");
                node.state = *state;
            }
            Step::DeviceState { device, state } => self.device(*device).state = *state,
            Step::Space {
                device,
                bytes,
                bytes_free,
            } => {
                let device = self.device(*device);
                (device.bytes, device.bytes_free) = (*bytes, *bytes_free);
            }
            Step::Device {
                device,
                node,
                bytes,
            } => drop(self.devices.insert(*device, Device::new(*node, *bytes))),
            Step::Address { node, addresses } => {
                let node = self.nodes.get_mut(node).expect("a node of this map");
                node.addresses.clone_from(addresses);
            }
            Step::Found { shard, voters } => {
                let replicas = Replicas {
                    epoch: self.epoch,
                    voters: voters.clone(),
                    ..Replicas::default()
                };
                self.shards.insert(*shard, replicas);
            }
            Step::Join { shard, device } => self.moved(*shard).joining.push(*device),
            Step::Vote { shard, voters } => self.moved(*shard).vote(voters),
            Step::Left { shard } => self.moved(*shard).leaving.clear(),
            Step::Lead { shard, device } => {
                let replicas = self.shards.get_mut(shard).expect("a shard of this map");
                let voters = &mut replicas.voters;
                let at = voters.iter().position(|voter| voter == device);
                voters.swap(0, at.expect("a voter of this map"));
            }
            Step::Make {
                group,
                policy,
                members,
                is_spare,
            } => {
                let group_of = Group::new(*policy, self.epoch, members, *is_spare);
                self.groups.insert(*group, group_of);
            }
            Step::Add {
                group,
                device,
                index,
            } => self.add(*group, *device, *index),
            Step::Filled { group, device } => {
                // Whom a chunk is written to stays the same, and so does the epoch.
                let mut members = self.group(*group).members.iter_mut();
                let member = members.find(|member| member.device == *device);
                member.expect("a member of this map").fill = Fill::Full;
            }
            Step::Drop { group, device } => {
                let members = &mut self.changed(*group).members;
                members.retain(|member| member.device != *device);
            }
        }
    }

    fn add(&mut self, group: GroupId, device: DeviceId, index: u8) {
        let member = Member {
            device,
            index,
            fill: Fill::Filling { since: self.epoch },
        };
        self.changed(group).members.push(member);
    }

    fn device(&mut self, id: DeviceId) -> &mut Device {
        self.devices.get_mut(&id).expect("a device of this map")
    }

    /// A shard whose devices change.
    fn moved(&mut self, id: ShardId) -> &mut Replicas {
        let replicas = self.shards.get_mut(&id).expect("a shard of this map");
        replicas.epoch = self.epoch;
        replicas
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("a group of this map")
    }

    /// A group whose members change.
    fn changed(&mut self, id: GroupId) -> &mut Group {
        let epoch = self.epoch;
        let group = self.group(id);
        group.epoch = epoch;
        group
    }
}

impl Group {
    /// A new group on these devices, in the order of their fragments.
    pub fn new(policy: Policy, epoch: Epoch, devices: &[DeviceId], is_spare: bool) -> Self {
        let full = |(device, index): (&DeviceId, u8)| Member {
            device: *device,
            index: match policy {
                Policy::Replicated { .. } => 0,
                Policy::Coded { .. } => index,
            },
            fill: Fill::Full,
        };
        Self {
            policy,
            epoch,
            members: devices.iter().zip(0..).map(full).collect(),
            is_spare,
        }
    }
}

impl Replicas {
    fn vote(&mut self, voters: &[DeviceId]) {
        let before = self.voters.drain(..).chain(self.joining.drain(..));
        self.leaving
            .extend(before.filter(|device| !voters.contains(device)));
        self.voters = voters.to_vec();
    }
}

/// As a person reads it in a log or on a screen.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeState { node, state } => write!(f, "node {node} is {state}"),
            Self::DeviceState { device, state } => write!(f, "device {device} is {state}"),
            Self::Space {
                device, bytes_free, ..
            } => write!(f, "device {device} has {bytes_free} bytes free"),
            Self::Device { device, node, .. } => write!(f, "node {node} has got device {device}"),
            Self::Address { node, addresses } => write!(f, "node {node} is at {addresses:?}"),
            Self::Found { shard, .. } => write!(f, "shard {shard} is known"),
            Self::Join { shard, device } => write!(f, "shard {shard} is copied to {device}"),
            Self::Vote { shard, voters } => write!(f, "shard {shard} is voted on by {voters:?}"),
            Self::Left { shard } => write!(f, "shard {shard} has left its former devices"),
            Self::Lead { shard, device } => write!(f, "shard {shard} is to be led by {device}"),
            Self::Make { group, members, .. } => write!(f, "group {group} is made on {members:?}"),
            Self::Add { group, device, .. } => write!(f, "group {group} is filled on {device}"),
            Self::Filled { group, device } => write!(f, "group {group} is full on {device}"),
            Self::Drop { group, device } => write!(f, "group {group} leaves {device}"),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down { .. } => "down",
            Self::Out => "out",
        })
    }
}
