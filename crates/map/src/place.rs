//! Which group takes a new chunk.

use base::{DeviceId, GroupId};

use crate::{Group, Map, Policy};

/// Groups are asked in this order, the greatest first; those that are alike share by free space.
///
/// As many devices as possible are worth more than an even spread; groups that are to stay small, or
/// are being emptied, come last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    width: usize,
    is_staying: bool,
    is_ordinary: bool,
}

impl Map {
    /// Chooses a group for a new chunk: one whose members are all up and take writes, at random by
    /// free space, so that devices fill up evenly. A group of fewer devices is not chosen as long as
    /// the members of a wider one are up, be it full: nothing is kept on fewer devices than it could be.
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
        let groups = self.groups.iter();
        let able = groups.filter(|(_, group)| group.policy == policy && self.takes_chunks(group));
        let ranked: Vec<_> = able
            .map(|(id, group)| (self.rank(group), id, group))
            .collect();
        let width = ranked.iter().map(|(rank, ..)| rank.width).max()?;
        let weighed = ranked.into_iter().filter_map(|(rank, id, group)| {
            let weight = match rank.width == width && !avoid.contains(id) {
                true => group.devices().map(&free).min().flatten()?,
                false => 0,
            };
            (weight > 0).then_some((rank, *id, u128::from(weight)))
        });
        let weighed: Vec<_> = weighed.collect();
        let best = weighed.iter().map(|(rank, ..)| *rank).max()?;
        let candidates = weighed.into_iter().filter(|(rank, ..)| *rank == best);
        choose(candidates.map(|(_, id, weight)| (id, weight)), draw)
    }

    /// Whether all members are up, and each fragment has one.
    pub fn takes_chunks(&self, group: &Group) -> bool {
        let is_covered = match group.policy {
            Policy::Replicated { .. } => !group.members.is_empty(),
            Policy::Coded { data, parity } => (0..data + parity)
                .all(|index| group.members.iter().any(|member| member.index == index)),
        };
        is_covered && group.devices().all(|device| self.is_up(device))
    }

    fn rank(&self, group: &Group) -> Rank {
        Rank {
            width: group.members.len(),
            is_staying: !group.devices().any(|device| self.is_draining(device)),
            is_ordinary: !group.is_spare,
        }
    }
}

/// The one at `draw`, where all of them together are as wide as all numbers that can be drawn.
fn choose(candidates: impl Iterator<Item = (GroupId, u128)> + Clone, draw: u64) -> Option<GroupId> {
    let total: u128 = candidates.clone().map(|(_, weight)| weight).sum();
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

#[cfg(test)]
mod tests {
    use base::Timestamp;

    use super::*;
    use crate::{Fill, Member, State};

    const A: DeviceId = DeviceId(10);
    const B: DeviceId = DeviceId(20);
    const C: DeviceId = DeviceId(30);

    fn map() -> Map {
        Map::default().with_devices([A, B]).with_devices([C])
    }

    fn with_group(mut map: Map, devices: &[DeviceId]) -> Map {
        let full = |device: &DeviceId| Member {
            device: *device,
            index: 0,
            fill: Fill::Full,
        };
        let group = Group {
            members: devices.iter().map(full).collect(),
            ..map.groups[&GroupId(0)].clone()
        };
        map.groups.insert(map.next_group(), group);
        map
    }

    fn share(map: &Map, free: impl Fn(DeviceId) -> Option<u64>, avoid: &[u32]) -> Vec<u32> {
        let avoid: Vec<_> = avoid.iter().copied().map(GroupId).collect();
        let mut share = vec![0; map.groups.len()];
        for step in 0..1000 {
            let draw = u64::MAX / 1000 * step;
            if let Some(GroupId(id)) = map.place(Map::POLICY, &free, &avoid, draw) {
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
        assert_eq!(share(&map(), free, &[0]), [0, 0, 1000]);
        assert_eq!(share(&map(), |_| Some(0), &[]), [0, 0, 0]);
        assert_eq!(share(&map(), |_| None, &[]), [0, 0, 0]);
    }

    #[test]
    fn the_largest_draw_is_in_bounds() {
        let last = map().place(Map::POLICY, |_| Some(1), &[], u64::MAX);
        assert_eq!(last, Some(GroupId(2)));
    }

    #[test]
    fn only_the_widest_groups_that_are_up_take_chunks() {
        let mut map = with_group(with_group(map(), &[A, B]), &[A, B, C]);
        let any = |_| Some(1);
        assert_eq!(share(&map, any, &[]), [0, 0, 0, 0, 1000]);
        // A failed try or a full device is no reason to keep fewer copies.
        assert_eq!(share(&map, any, &[4]), [0; 5]);
        assert_eq!(share(&map, |id| Some(u64::from(id != C)), &[]), [0; 5]);
        let since = Timestamp::from_secs(1);
        map.devices.get_mut(&C).unwrap().state = State::Down { since };
        assert_eq!(share(&map, any, &[]), [0, 0, 0, 1000, 0]);
    }

    #[test]
    fn spare_groups_and_those_being_emptied_come_last() {
        let mut map = map();
        map.groups.get_mut(&GroupId(0)).unwrap().is_spare = true;
        map.devices.get_mut(&B).unwrap().is_draining = true;
        let any = |_| Some(1);
        assert_eq!(share(&map, any, &[]), [0, 0, 1000]);
        assert_eq!(share(&map, any, &[2]), [1000, 0, 0]);
        assert_eq!(share(&map, any, &[2, 0]), [0, 1000, 0]);
    }

    #[test]
    fn a_group_takes_what_its_fullest_device_takes() {
        let map = with_group(map(), &[A, B]);
        let free = |device| (device == A).then_some(1 << 40);
        assert_eq!(map.place(Map::POLICY, free, &[], 0), None);
        assert_eq!(
            map.place(Map::POLICY, |_| Some(5), &[], 0),
            Some(GroupId(3))
        );
        let other = Policy::Replicated { copies: 2 };
        assert_eq!(map.place(other, |_| Some(5), &[], 0), None);
    }
}
