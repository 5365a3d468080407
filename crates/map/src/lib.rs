//! Nodes, devices, groups, policies: pure values.
//!
//! A [`Map`] says which devices hold a chunk. It is a value: whoever changes it makes another one,
//! and whoever uses it is not surprised. It knows nothing of the devices' present state; who places
//! a chunk brings that along.
//!
//! **Invariant:** a group's devices never change as long as it holds chunks: a chunk's id names its
//! group for ever.

use std::collections::{BTreeMap, BTreeSet};

use base::{DeviceId, GroupId};
use serde::{Deserialize, Serialize};

/// How the data of a container is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Policy {
    /// So many whole copies, each on another device.
    Replicated { copies: u8 },
}

impl Policy {
    /// On how many devices a chunk lies.
    pub fn width(self) -> usize {
        match self {
            Self::Replicated { copies } => usize::from(copies),
        }
    }
}

/// A set of devices that hold the same chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub policy: Policy,
    /// As many as the policy is wide.
    pub devices: Vec<DeviceId>,
}

/// What the cluster consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Grows with every change.
    pub epoch: u64,
    pub devices: BTreeSet<DeviceId>,
    pub groups: BTreeMap<GroupId, Group>,
}

impl Map {
    /// The policy of every container for now.
    pub const POLICY: Policy = Policy::Replicated { copies: 1 };

    /// This map and `devices`; each new one is a group of its own. Known ones change nothing, so
    /// that starting a server again gives the same map.
    #[must_use]
    pub fn with_devices(&self, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        let mut map = self.clone();
        for device in devices {
            if !map.devices.insert(device) {
                continue;
            }
            let next = map.groups.last_key_value().map_or(0, |(id, _)| id.0 + 1);
            let group = Group {
                policy: Self::POLICY,
                devices: vec![device],
            };
            map.groups.insert(GroupId(next), group);
        }
        if map != *self {
            map.epoch += 1;
        }
        map
    }

    /// Chooses a group for a new chunk: one whose devices all take writes, at random by free space,
    /// so that devices fill up evenly.
    ///
    /// `free` gives the bytes that a device would still take, `None` if it takes none now. `avoid`
    /// are the groups that have just failed. `draw` is a random number; equal draws choose equally.
    pub fn place(
        &self,
        policy: Policy,
        free: impl Fn(DeviceId) -> Option<u64>,
        avoid: &[GroupId],
        draw: u64,
    ) -> Option<GroupId> {
        let weight = |group: &Group| {
            let free = group.devices.iter().map(|device| free(*device));
            free.min().flatten().unwrap_or(0)
        };
        let candidates: Vec<(GroupId, u128)> = self
            .groups
            .iter()
            .filter(|(id, group)| group.policy == policy && !avoid.contains(id))
            .map(|(id, group)| (*id, u128::from(weight(group))))
            .collect();
        let total: u128 = candidates.iter().map(|(_, weight)| weight).sum();
        // Free space over all devices is far below 2^64 bytes, so the product does not overflow.
        let mut point = (u128::from(draw) * total) >> 64;
        for (id, weight) in candidates {
            if point < weight {
                return Some(id);
            }
            point -= weight;
        }
        None
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
        assert_eq!(map.epoch, 2);
        assert_eq!(map.groups[&GroupId(2)].devices, [C]);
        assert_eq!(map.with_devices([C, A]), map);
    }

    fn share(map: &Map, free: impl Fn(DeviceId) -> Option<u64>, avoid: &[GroupId]) -> [u32; 3] {
        let mut share = [0; 3];
        for step in 0..1000 {
            let draw = u64::MAX / 1000 * step;
            if let Some(GroupId(id)) = map.place(Map::POLICY, &free, avoid, draw) {
                share[id as usize] += 1;
            }
        }
        share
    }

    #[test]
    fn chunks_are_placed_by_free_space() {
        let free = |device| Some(if device == B { 3 << 40 } else { 1 << 40 });
        for (got, expected) in share(&map(), free, &[]).into_iter().zip([200, 600, 200]) {
            assert!(got.abs_diff(expected) <= 1, "{got} of {expected}");
        }
    }

    #[test]
    fn full_failed_and_avoided_groups_get_nothing() {
        let free = |device| (device != B).then_some(1 << 40);
        assert_eq!(share(&map(), free, &[GroupId(0)]), [0, 0, 1000]);
        assert_eq!(share(&map(), |_| Some(0), &[]), [0, 0, 0]);
        assert_eq!(share(&map(), |_| None, &[]), [0, 0, 0]);
    }

    #[test]
    fn the_largest_draw_is_in_bounds() {
        let map = map();
        let last = map.place(Map::POLICY, |_| Some(1), &[], u64::MAX);
        assert_eq!(last, Some(GroupId(2)));
    }

    #[test]
    fn a_group_takes_what_its_fullest_device_takes() {
        let mut map = map();
        let mirrored = Policy::Replicated { copies: 2 };
        let group = Group {
            policy: mirrored,
            devices: vec![A, B],
        };
        map.groups.insert(GroupId(7), group);
        let free = |device| (device == A).then_some(1 << 40);
        assert_eq!(map.place(mirrored, free, &[], 0), None);
        assert_eq!(map.place(mirrored, |_| Some(5), &[], 0), Some(GroupId(7)));
    }
}
