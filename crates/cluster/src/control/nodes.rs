//! What an administrator does with nodes, and what a start does with new devices.

use std::collections::BTreeSet;

use base::{DeviceId, NodeId, Timestamp};
use map::{Device, Map, State};
use serde::{Deserialize, Serialize};
use shard::{Latch, Procedure, View};

use super::{Planned, Refusal, change_map, map_latch, row};

/// The map of a thousand nodes must stay a message.
pub(super) const ZONE_BYTES_MAX: usize = 64;

/// Adds devices of the first node to the map, if they are not in it, and says where it is: whoever joins next
/// must find it. Gives the map.
#[derive(Serialize, Deserialize)]
pub struct Found {
    pub devices: Vec<DeviceId>,
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
            let mut after = map.with_devices(self.devices.iter().copied());
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

/// Adds new devices of a node that is in the map; those that are in it as its own stay as they are.
#[derive(Serialize, Deserialize)]
pub struct AddDevices {
    pub node: NodeId,
    /// With the bytes of their file systems.
    pub devices: Vec<(DeviceId, u64)>,
}

impl Procedure for AddDevices {
    const NAME: &'static str = "control.add_devices";

    type Output = Map;
    type Error = Refusal;

    fn latches(&self) -> Vec<Latch> {
        map_latch()
    }

    fn plan(&self, _: Timestamp, view: &View) -> Planned<Map> {
        change_map(view, |map| self.add(map))
    }
}

impl AddDevices {
    fn add(&self, map: &Map) -> Result<Map, Refusal> {
        let node = self.node;
        if !map.nodes.contains_key(&node) {
            return Err(Refusal::NoNode(node));
        }
        let mut after = map.clone();
        for (id, bytes) in &self.devices {
            match map.devices.get(id) {
                Some(known) if known.node == node => {}
                Some(_) => return Err(Refusal::DeviceKnown(*id)),
                None => drop(after.devices.insert(*id, new_device(node, *bytes))),
            }
        }
        if after != *map {
            after.epoch = map.epoch.next();
        }
        Ok(after)
    }
}

/// A device that has just come.
pub(super) fn new_device(node: NodeId, bytes: u64) -> Device {
    Device {
        node,
        bytes,
        bytes_free: bytes,
        state: State::Up,
        is_draining: false,
    }
}

/// Lets a node give away all that it holds, or be used again.
#[derive(Serialize, Deserialize)]
pub struct Drain {
    pub node: NodeId,
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
        let (batch, _) = change_map(view, |map| {
            let mut others = map.nodes.iter().filter(|(id, _)| **id != self.node);
            if self.is_draining && others.all(|(_, other)| other.is_draining) {
                return Err(Refusal::LastNode);
            }
            edit(map, self.node, |node| node.is_draining = self.is_draining)
        })?;
        Ok((batch, ()))
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
            edit(map, self.node, |node| node.zone.clone_from(&self.zone))
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

/// Removes a node and its devices for ever: its certificate is refused from now on. It must hold nothing, or
/// be out.
#[derive(Serialize, Deserialize)]
pub struct Remove {
    pub node: NodeId,
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
        // It may come again as another one.
        batch.delete(row::node_key(self.node));
        Ok((batch, ()))
    }
}

impl Remove {
    fn remove(&self, map: &Map) -> Result<Map, Refusal> {
        let node = self.node;
        let state = map.nodes.get(&node).ok_or(Refusal::NoNode(node))?.state;
        let devices = map.devices.iter().filter(|(_, one)| one.node == node);
        let devices: BTreeSet<DeviceId> = devices.map(|(id, _)| *id).collect();
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
        let only = count(&|group| group.full().all(is_here), &|one| {
            let left = one.voters.iter().filter(|id| !is_here(**id)).count();
            left <= one.voters.len() / 2
        });
        match (state, holds, only, self.losses) {
            (_, (0, 0), ..) | (State::Out, _, (0, 0), _) | (State::Out, _, _, Losses::Accepted) => {
            }
            (State::Out, _, (groups, shards), Losses::Refused) => {
                return Err(Refusal::OnlyCopy {
                    node,
                    groups,
                    shards,
                });
            }
            (State::Up | State::Down { .. }, (groups, shards), ..) => {
                return Err(Refusal::Holds {
                    node,
                    groups,
                    shards,
                });
            }
        }
        // What it was a member of is made whole as it is for every member that is out.
        let mut map = map.clone();
        map.epoch = map.epoch.next();
        map.nodes.remove(&node);
        map.devices.retain(|_, device| device.node != node);
        Ok(map)
    }
}

fn edit(map: &Map, node: NodeId, edit: impl FnOnce(&mut map::Node)) -> Result<Map, Refusal> {
    let mut after = map.clone();
    edit(after.nodes.get_mut(&node).ok_or(Refusal::NoNode(node))?);
    if after != *map {
        after.epoch = map.epoch.next();
    }
    Ok(after)
}
