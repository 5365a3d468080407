//! What an administrator does with nodes and devices, and what the start of the first node does.

use std::collections::BTreeSet;
use std::fmt;

use base::{DeviceId, NodeId, Timestamp};
use map::{Map, State};
use serde::{Deserialize, Serialize};
use shard::{Latch, Procedure, View};

use super::{Planned, Refusal, change_map, map_latch, row};

/// The map of a thousand nodes must stay a message.
pub(super) const ZONE_BYTES_MAX: usize = 64;

/// Adds devices of the first node to the map, and says where it is: whoever joins next must find it. Gives the map.
///
/// A map that has none gets all of them; else only those that are new, since one that was removed is not to come back
/// because its directory is still there.
#[derive(Serialize, Deserialize)]
pub struct Found {
    pub devices: Vec<DeviceId>,
    /// Those of them that have never served.
    pub new: Vec<DeviceId>,
    /// Of its node port; none if it has none.
    pub addresses: Vec<String>,
}

impl Procedure for Found {
    const NAME: &'static str = "map.join";

    type Output = Map;
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<Map> {
        change_map(view, |map| {
            let devices = match map.devices.is_empty() {
                true => &self.devices,
                false => &self.new,
            };
            let mut after = map.with_devices(devices.iter().copied());
            if let Some(first) = after.nodes.get_mut(&NodeId::FIRST)
                && !self.addresses.is_empty()
                && first.addresses != self.addresses
            {
                first.addresses.clone_from(&self.addresses);
                after.epoch = map.epoch.next();
            }
            Ok(after)
        })
    }
}

/// What can be drained and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    Node(NodeId),
    Device(DeviceId),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(NodeId(number)) => write!(f, "node {number}"),
            Self::Device(device) => write!(f, "device {device}"),
        }
    }
}

impl Part {
    /// Its devices, and whether it is out.
    fn look(self, map: &Map) -> Result<(BTreeSet<DeviceId>, bool), Refusal> {
        match self {
            Self::Node(node) => {
                let state = map.nodes.get(&node).ok_or(Refusal::Unknown(self))?.state;
                let devices = map.devices.iter().filter(|(_, one)| one.node == node);
                let devices = devices.map(|(id, _)| *id).collect();
                Ok((devices, state == State::Out))
            }
            Self::Device(device) if map.devices.contains_key(&device) => {
                Ok(([device].into(), map.is_out(device)))
            }
            Self::Device(_) => Err(Refusal::Unknown(self)),
        }
    }
}

/// Lets a part of the cluster give away all that it holds, or be used again.
#[derive(Serialize, Deserialize)]
pub struct Drain {
    pub part: Part,
    pub is_draining: bool,
}

impl Procedure for Drain {
    const NAME: &'static str = "control.drain";

    type Output = ();
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<()> {
        let (batch, _) = change_map(view, |map| self.drain(map))?;
        Ok((batch, ()))
    }
}

impl Drain {
    fn drain(&self, map: &Map) -> Result<Map, Refusal> {
        let Self { part, is_draining } = *self;
        let after = edit(map, |map| {
            match part {
                Part::Node(node) => map.nodes.get_mut(&node)?.is_draining = is_draining,
                Part::Device(device) => map.devices.get_mut(&device)?.is_draining = is_draining,
            }
            Some(())
        });
        let after = after.ok_or(Refusal::Unknown(part))?;
        match is_draining && after.devices.keys().all(|id| after.is_draining(*id)) {
            true => Err(Refusal::Last),
            false => Ok(after),
        }
    }
}

/// Says what fails together with a node.
#[derive(Serialize, Deserialize)]
pub struct SetZone {
    pub node: NodeId,
    pub zone: String,
}

impl Procedure for SetZone {
    const NAME: &'static str = "control.set_zone";

    type Output = ();
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<()> {
        if self.zone.len() > ZONE_BYTES_MAX {
            return super::refuse(Refusal::ZoneTooLong);
        }
        let (batch, _) = change_map(view, |map| {
            let after = edit(map, |map| {
                let node = map.nodes.get_mut(&self.node)?;
                node.zone.clone_from(&self.zone);
                Some(())
            });
            after.ok_or(Refusal::Unknown(Part::Node(self.node)))
        })?;
        Ok((batch, ()))
    }
}

/// What may be lost when a node is removed that will not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Losses {
    /// Nothing: as long as something is nowhere else, the node is not removed.
    Refused,
    /// What is nowhere else.
    Accepted,
}

/// Removes a node and its devices, or a device, for ever: a node's certificate is refused from now on. It must hold
/// nothing, or be out.
#[derive(Serialize, Deserialize)]
pub struct Remove {
    pub part: Part,
    pub losses: Losses,
}

impl Procedure for Remove {
    const NAME: &'static str = "control.remove";

    type Output = ();
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<()> {
        let (mut batch, _) = change_map(view, |map| self.remove(map))?;
        if let Part::Node(node) = self.part {
            // It may come again as another one.
            batch.delete(row::node_key(node));
        }
        Ok((batch, ()))
    }
}

impl Remove {
    fn remove(&self, map: &Map) -> Result<Map, Refusal> {
        let part = self.part;
        let (devices, is_out) = part.look(map)?;
        if let Part::Device(_) = part
            && map.devices.len() == 1
        {
            return Err(Refusal::Last);
        }
        let is_here = |id: DeviceId| devices.contains(&id);
        let count = |groups: &dyn Fn(&map::Group) -> bool,
                     shards: &dyn Fn(&map::Replicas) -> bool| {
            let groups = map.groups.values().filter(|group| groups(group)).count();
            let shards = map.shards.values().filter(|one| shards(one)).count();
            (groups, shards)
        };
        let holds = count(&|group| group.devices().any(is_here), &|one| {
            one.devices().any(is_here)
        });
        // Nothing left to ask, or too few to agree.
        let is_elsewhere = |id| !is_here(id);
        let only = count(
            &|group| group.copies_to_spare(is_elsewhere).is_none(),
            &|one| {
                let left = one.voters.iter().filter(|id| !is_here(**id)).count();
                left <= one.voters.len() / 2
            },
        );
        match (is_out, holds, only, self.losses) {
            (_, (0, 0), ..) | (true, _, (0, 0), _) | (true, _, _, Losses::Accepted) => {}
            (true, _, (groups, shards), Losses::Refused) => {
                return Err(Refusal::OnlyCopy {
                    part,
                    groups,
                    shards,
                });
            }
            (false, (groups, shards), ..) => {
                return Err(Refusal::Holds {
                    part,
                    groups,
                    shards,
                });
            }
        }
        // What it was a member of is made whole as it is for every member that is out.
        let mut map = map.clone();
        map.epoch = map.epoch.next();
        map.devices.retain(|id, _| !is_here(*id));
        if let Part::Node(node) = part {
            map.nodes.remove(&node);
        }
        Ok(map)
    }
}

/// The map with a change in it, if what is to be changed is there.
fn edit(map: &Map, edit: impl FnOnce(&mut Map) -> Option<()>) -> Option<Map> {
    let mut after = map.clone();
    edit(&mut after)?;
    if after != *map {
        after.epoch = map.epoch.next();
    }
    Some(after)
}
