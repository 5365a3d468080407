//! Which devices are to be members of which groups.
//!
//! A member comes as filling and goes when it is not needed any more; both are a new epoch of the group. So
//! a move is a fourth member that becomes full, after which the one that can be missed best is dropped.

use base::{DeviceId, GroupId};

use super::sites::Kind;
use super::{GROUPS_PER_DEVICE, MOVES_MAX, Plan};
use crate::{Fill, Group, Step, WIDTH};

impl Plan<'_> {
    /// Members that a group should have now.
    fn width(&self) -> usize {
        usize::from(WIDTH).min(self.sites.staying)
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
        let (spare, ordinary): (Vec<_>, Vec<_>) =
            groups.filter(is_writable).partition(|group| group.is_spare);
        if !ordinary.is_empty() {
            return;
        }
        // Each device that is up is in one, so that all of them help.
        let wanted = (self.sites.taking() / width).max(1);
        for _ in spare.len()..wanted {
            if !self.mend_spare(width) && !self.make(width, true) {
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
            self.add_member(*id, *device);
        }
        true
    }

    /// Makes a new group if there are devices for it.
    fn make(&mut self, width: usize, is_spare: bool) -> bool {
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
            members,
            is_spare,
        });
        true
    }

    /// What must be done for each group by itself.
    pub(super) fn settle_groups(&mut self) {
        let map = self.map;
        // Those first that are in the greatest danger: a device receives only a few at a time.
        let copies = |group: &Group| group.full().filter(|id| self.sites.is_up(*id)).count();
        let mut order: Vec<_> = map.groups.iter().collect();
        order.sort_by_key(|(id, group)| (copies(group), **id));
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
        let width = self.width();
        for (id, group) in &map.groups {
            if group.members.len() > width {
                let mut stay: Vec<_> = group.devices().collect();
                let going = self.sites.trim(Kind::Group, &mut stay, width);
                for device in &going {
                    self.sites.change(*device, |site| site.groups -= 1);
                }
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
        } else if let Some(device) = self.dispensable(id, group) {
            self.drop_member(id, device);
        } else if let Some(device) = self.lacking(id, group) {
            self.add_member(id, device);
        }
    }

    /// A member that the group can do without.
    fn dispensable(&self, id: GroupId, group: &Group) -> Option<DeviceId> {
        let is_staying = |id: &DeviceId| self.sites.is_staying(*id);
        let is_going = |one: &DeviceId| self.going.get(&id).is_some_and(|all| all.contains(one));
        let is_full = |one: &DeviceId| group.full().any(|full| full == *one);
        let needless = |one: &DeviceId| !is_full(one) && (!is_staying(one) || is_going(one));
        if let Some(one) = group.devices().find(needless) {
            return Some(one);
        }
        // Copies that are there for sure, and are to stay.
        let staying = || group.full().filter(is_staying);
        let can_go = |one: &DeviceId| {
            let enough = match (is_staying(one), self.sites.is_up(*one)) {
                (true, _) => is_going(one) && staying().count() > self.width(),
                (false, true) => staying().count() >= self.width(),
                // It keeps the group from taking chunks, and nothing can be had from it.
                (false, false) => staying().count() >= self.width_min(),
            };
            enough && staying().any(|other| other != *one && self.sites.is_up(other))
        };
        let mut full: Vec<_> = group.full().collect();
        full.sort_by_key(|one| (is_staying(one), self.sites.is_up(*one)));
        full.into_iter().find(can_go)
    }

    /// A device that the group needs.
    fn lacking(&self, id: GroupId, group: &Group) -> Option<DeviceId> {
        let staying = group.devices().filter(|id| self.sites.is_staying(*id));
        let has_source = group.full().any(|id| self.sites.is_up(id));
        if staying.count() >= self.width() || !has_source {
            return None;
        }
        let members: Vec<_> = group.devices().collect();
        self.sites.pick(Kind::Group, &members, id.0.into())
    }

    fn add_member(&mut self, group: GroupId, device: DeviceId) {
        self.sites.change(device, |site| {
            site.groups += 1;
            site.filling += 1;
        });
        self.touched.groups.insert(group);
        self.steps.push(Step::Add { group, device });
    }

    fn drop_member(&mut self, group: GroupId, device: DeviceId) {
        self.touched.groups.insert(group);
        self.steps.push(Step::Drop { group, device });
    }

    /// Makes ordinary groups until there are enough for the devices.
    pub(super) fn make_groups(&mut self) {
        let ordinary = self.map.groups.values().filter(|group| !group.is_spare);
        let wanted = (GROUPS_PER_DEVICE * self.sites.staying).div_ceil(usize::from(WIDTH));
        for _ in ordinary.count()..wanted {
            if self.is_long() || !self.make(self.width(), false) {
                return;
            }
        }
    }

    /// Moves members from full devices to empty ones.
    pub(super) fn spread_groups(&mut self) {
        let width = self.width();
        let map = self.map;
        let calm = map.groups.iter().filter(|(id, group)| {
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
                Some((self.sites.load(Kind::Group, from), *id, devices))
            });
            if let Some((_, id, devices)) = able.max_by_key(|(load, id, _)| (*load, *id)) {
                self.move_member(id, devices, to);
            }
        }
    }

    /// Moves members that are closer together than they could be.
    fn part_groups(&mut self, calm: &[(GroupId, Vec<DeviceId>)]) {
        let best = self.sites.best_closeness(self.width());
        let close = calm
            .iter()
            .filter(|(_, devices)| self.sites.closeness(devices) > best);
        // Each costs a look at all devices, and may be in vain as long as some are down.
        let close: Vec<_> = close.take(MOVES_MAX).collect();
        for (id, devices) in close {
            if let Some(to) = self.sites.farther(Kind::Group, devices, id.0.into()) {
                self.move_member(*id, devices, to);
            }
        }
    }

    fn move_member(&mut self, group: GroupId, devices: &[DeviceId], to: DeviceId) {
        self.add_member(group, to);
        let mut all = [devices, &[to]].concat();
        for from in self.sites.trim(Kind::Group, &mut all, devices.len()) {
            self.sites.change(from, |site| site.groups -= 1);
        }
    }
}
