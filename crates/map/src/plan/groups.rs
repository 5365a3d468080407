//! Which devices are to be members of which groups.
//!
//! A member comes as filling and goes when it is not needed any more; both are a new epoch of the group. So
//! a move is a fourth member that becomes full, after which the one that can be missed best is dropped.

use std::collections::BTreeMap;

use base::{DeviceId, GroupId};

use super::sites::Kind;
use super::{GROUPS_PER_DEVICE, MOVES_MAX, Plan};
use crate::{Fill, Group, Map, Member, Policy, Step, WIDTH};

/// A place in a group, and the members that it has, of which each could be any other: all of them if they keep whole copies, else those that keep the
/// same fragment.
struct Slot<'a> {
    index: u8,
    /// How many there should be.
    wanted: usize,
    members: Vec<&'a Member>,
}

impl Slot<'_> {
    fn full(&self) -> impl Iterator<Item = DeviceId> {
        let full = self.members.iter().filter(|one| one.fill == Fill::Full);
        full.map(|member| member.device)
    }

    fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.members.iter().map(|member| member.device)
    }

    /// One may be missing, and what is written is still safe.
    fn wanted_min(&self) -> usize {
        self.wanted.saturating_sub(1).max(1)
    }
}

impl Plan<'_> {
    /// Members that a group with whole copies should have now.
    fn width(&self) -> usize {
        self.width_of(Map::POLICY)
    }

    /// Members that a group should have now.
    fn width_of(&self, policy: Policy) -> usize {
        match policy {
            Policy::Replicated { .. } => policy.width().min(self.sites.staying),
            Policy::Coded { .. } => policy.width(),
        }
    }

    fn slots<'a>(&self, group: &'a Group) -> Vec<Slot<'a>> {
        let of = |index: u8, wanted: usize| Slot {
            index,
            wanted,
            members: group
                .members
                .iter()
                .filter(|one| one.index == index)
                .collect(),
        };
        match group.policy {
            Policy::Replicated { .. } => vec![of(0, self.width_of(group.policy))],
            Policy::Coded { data, parity } => {
                (0..data + parity).map(|index| of(index, 1)).collect()
            }
        }
    }

    /// Members without which a group would not be a good place for new chunks: one may be missing.
    fn width_min(&self) -> usize {
        self.width().saturating_sub(1).max(1)
    }

    /// Sees to it that chunks can be written: if no ordinary group has all its members up, there are some
    /// spare ones.
    pub(super) fn keep_writable(&mut self) {
        let width = usize::from(WIDTH).min(self.sites.taking());
        if width < self.width_min() || width == 0 || self.sites.down == 0 {
            return;
        }
        let is_writable = |group: &&Group| {
            let mut devices = group.devices();
            group.members.len() >= width && devices.all(|id| self.sites.is_up(id))
        };
        let groups = self.map.groups.values();
        let groups = groups.filter(|group| group.policy == Map::POLICY);
        let (spare, ordinary): (Vec<_>, Vec<_>) =
            groups.filter(is_writable).partition(|group| group.is_spare);
        if !ordinary.is_empty() {
            return;
        }
        // Each device that is up is in one, so that all of them help.
        let wanted = (self.sites.taking() / width).max(1);
        for _ in spare.len()..wanted {
            if !self.mend_spare(width) && !self.make(Map::POLICY, width, true) {
                return;
            }
        }
    }

    /// Takes a spare group that is there, and puts others in the place of those members that are not up.
    /// What little it has is copied to them; new chunks it takes at once.
    fn mend_spare(&mut self, width: usize) -> bool {
        let map = self.map;
        let up = |group: &Group| {
            let up = group.devices().filter(|id| self.sites.is_up(*id));
            up.collect::<Vec<_>>()
        };
        let mended = map.groups.iter().find(|(id, group)| {
            let full = group.full().filter(|id| self.sites.is_up(*id)).count();
            let is_free = group.is_spare && !self.touched.groups.contains(id);
            let is_whole = group.members.len() >= width && up(group).len() == group.members.len();
            is_free && !is_whole && full >= self.width_min()
        });
        let Some((id, group)) = mended else {
            return false;
        };
        let mut members = up(group);
        let there = members.len();
        while members.len() < width {
            let Some(device) = self.sites.pick(Kind::Group, &members, id.0.into()) else {
                return false;
            };
            members.push(device);
        }
        for device in group.devices().filter(|id| !members.contains(id)) {
            self.drop_member(*id, device);
        }
        for device in &members[there..] {
            self.add_member(*id, *device, 0);
        }
        true
    }

    /// Makes a new group if there are devices for it.
    fn make(&mut self, policy: Policy, width: usize, is_spare: bool) -> bool {
        let made = self
            .steps
            .iter()
            .filter(|step| matches!(step, Step::Make { .. }));
        let made = u32::try_from(made.count()).expect("a plan is short");
        let group = GroupId(self.map.next_group().0 + made);
        let Some(members) = self.sites.pick_all(Kind::Group, width, group.0.into()) else {
            return false;
        };
        let best = self.sites.best_closeness(width);
        // What is not spare is not made before it can lie as well as it should.
        if !is_spare && self.sites.closeness(&members) > best {
            return false;
        }
        for device in &members {
            self.sites.change(*device, |site| site.groups += 1);
        }
        self.steps.push(Step::Make {
            group,
            policy,
            members,
            is_spare,
        });
        true
    }

    /// What must be done for each group by itself.
    pub(super) fn settle_groups(&mut self) {
        let map = self.map;
        // Those first that are in the greatest danger: a device receives only a few at a time.
        let to_spare = |group: &Group| group.copies_to_spare(|id| self.sites.is_up(id));
        let mut order: Vec<_> = map.groups.iter().collect();
        order.sort_by_key(|(id, group)| (to_spare(group), **id));
        for (id, group) in order {
            if self.is_long() {
                return;
            }
            if !self.touched.groups.contains(id) {
                self.settle_group(*id, group);
            }
        }
    }

    /// Notes where all groups will be when those members that are filling are full.
    pub(super) fn count_groups(&mut self) {
        let map = self.map;
        for member in map.groups.values().flat_map(|group| &group.members) {
            let is_filling = member.fill != Fill::Full;
            self.sites.change(member.device, |site| {
                site.groups += 1;
                site.filling += u32::from(is_filling);
            });
        }
        for (id, group) in &map.groups {
            let mut stay: Vec<_> = group.devices().collect();
            let mut going = Vec::new();
            for slot in self.slots(group) {
                let among: Vec<_> = slot.devices().collect();
                let spare = among.len().saturating_sub(slot.wanted);
                going.extend(self.sites.trim(Kind::Group, &mut stay, &among, spare));
            }
            for device in &going {
                self.sites.change(*device, |site| site.groups -= 1);
            }
            if !going.is_empty() {
                self.going.insert(*id, going);
            }
        }
    }

    fn settle_group(&mut self, id: GroupId, group: &Group) {
        let filled = group.members.iter().filter(|member| match member.fill {
            Fill::Filling { since } => {
                let report = (id, member.device, since);
                self.observed.filled.contains(&report)
            }
            Fill::Full => false,
        });
        let filled: Vec<_> = filled.map(|member| member.device).collect();
        if !filled.is_empty() {
            self.touched.groups.insert(id);
            let step = |device| Step::Filled { group: id, device };
            self.steps.extend(filled.into_iter().map(step));
            return;
        }
        for slot in self.slots(group) {
            if let Some(device) = self.dispensable(id, &slot) {
                return self.drop_member(id, device);
            }
        }
        for slot in self.slots(group) {
            if let Some(device) = self.lacking(id, group, &slot) {
                return self.add_member(id, device, slot.index);
            }
        }
    }

    /// One of these members that the group can do without.
    fn dispensable(&self, id: GroupId, slot: &Slot<'_>) -> Option<DeviceId> {
        let is_staying = |id: &DeviceId| self.sites.is_staying(*id);
        let is_going = |one: &DeviceId| self.going.get(&id).is_some_and(|all| all.contains(one));
        let is_full = |one: &DeviceId| slot.full().any(|full| full == *one);
        let needless = |one: &DeviceId| !is_full(one) && (!is_staying(one) || is_going(one));
        if let Some(one) = slot.devices().find(needless) {
            return Some(one);
        }
        // Copies that are there for sure, and are to stay.
        let staying = || slot.full().filter(is_staying);
        let can_go = |one: &DeviceId| {
            let enough = match (is_staying(one), self.sites.is_up(*one)) {
                (true, _) => is_going(one) && staying().count() > slot.wanted,
                (false, true) => staying().count() >= slot.wanted,
                // It keeps the group from taking chunks, and nothing can be had from it.
                (false, false) => staying().count() >= slot.wanted_min(),
            };
            enough && staying().any(|other| other != *one && self.sites.is_up(other))
        };
        let mut full: Vec<_> = slot.full().collect();
        full.sort_by_key(|one| (is_staying(one), self.sites.is_up(*one)));
        full.into_iter().find(can_go)
    }

    /// A device that the group needs beside these members.
    fn lacking(&self, id: GroupId, group: &Group, slot: &Slot<'_>) -> Option<DeviceId> {
        let staying = slot.devices().filter(|id| self.sites.is_staying(*id));
        let has_source = group.copies_to_spare(|id| self.sites.is_up(id)).is_some();
        if staying.count() >= slot.wanted || !has_source {
            return None;
        }
        let members: Vec<_> = group.devices().collect();
        self.sites.pick(Kind::Group, &members, id.0.into())
    }

    fn add_member(&mut self, group: GroupId, device: DeviceId, index: u8) {
        self.sites.change(device, |site| {
            site.groups += 1;
            site.filling += 1;
        });
        self.touched.groups.insert(group);
        self.steps.push(Step::Add {
            group,
            device,
            index,
        });
    }

    fn drop_member(&mut self, group: GroupId, device: DeviceId) {
        self.touched.groups.insert(group);
        self.steps.push(Step::Drop { group, device });
    }

    /// Makes ordinary groups until there are enough for the devices.
    pub(super) fn make_groups(&mut self) {
        for policy in self.map.policies.kinds() {
            let groups = self.map.groups.values();
            let ordinary = groups.filter(|group| group.policy == policy && !group.is_spare);
            let wanted = (GROUPS_PER_DEVICE * self.sites.staying).div_ceil(policy.width());
            for _ in ordinary.count()..wanted {
                if self.is_long() || !self.make(policy, self.width_of(policy), false) {
                    break;
                }
            }
        }
    }

    /// Moves members from full devices to empty ones.
    pub(super) fn spread_groups(&mut self) {
        let map = self.map;
        let calm = map.groups.iter().filter(|(id, group)| {
            let width = self.width_of(group.policy);
            let mut devices = group.devices();
            let stays = |id| self.sites.is_up(id) && self.sites.is_staying(id);
            !self.touched.groups.contains(id)
                && group.members.len() == width
                && group.full().count() == width
                && devices.all(stays)
        });
        let mut calm: Vec<(GroupId, Vec<DeviceId>)> = calm
            .map(|(id, group)| (*id, group.devices().collect()))
            .collect();
        self.part_groups(&calm);
        for to in self.sites.emptiest(Kind::Group, MOVES_MAX) {
            calm.retain(|(id, _)| !self.touched.groups.contains(id));
            let able = calm.iter().filter_map(|(id, devices)| {
                let from = self.sites.fuller(Kind::Group, devices, to)?;
                Some((self.sites.load(Kind::Group, from), *id, devices, from))
            });
            if let Some((_, id, devices, from)) = able.max_by_key(|(load, id, ..)| (*load, *id)) {
                self.move_member(id, devices, from, to);
            }
        }
    }

    /// Moves members that are closer together than they could be.
    fn part_groups(&mut self, calm: &[(GroupId, Vec<DeviceId>)]) {
        let kinds = self.map.policies.kinds();
        let widths = kinds.iter().map(|policy| self.width_of(*policy));
        let best: BTreeMap<usize, _> = widths
            .map(|width| (width, self.sites.best_closeness(width)))
            .collect();
        let close = calm.iter().filter(|(_, devices)| {
            let best = best.get(&devices.len());
            best.is_some_and(|best| self.sites.closeness(devices) > *best)
        });
        // Each costs a look at all devices, and may be in vain as long as some are down.
        let close: Vec<_> = close.take(MOVES_MAX).collect();
        for (id, devices) in close {
            if let Some((from, to)) = self.sites.farther(Kind::Group, devices, id.0.into()) {
                self.move_member(*id, devices, from, to);
            }
        }
    }

    /// Begins to move a member: who goes when the new one is full is decided then, as for all that are too many.
    fn move_member(&mut self, id: GroupId, devices: &[DeviceId], from: DeviceId, to: DeviceId) {
        let group = &self.map.groups[&id];
        let moved = group.members.iter().find(|member| member.device == from);
        let index = moved.expect("it is one of the members").index;
        self.add_member(id, to, index);
        let alike = group.members.iter().filter(|member| member.index == index);
        let among: Vec<_> = alike.map(|member| member.device).chain([to]).collect();
        let mut all = [devices, &[to]].concat();
        for from in self.sites.trim(Kind::Group, &mut all, &among, 1) {
            self.sites.change(from, |site| site.groups -= 1);
        }
    }
}
