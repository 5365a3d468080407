//! The devices as a plan sees them: where they are, what they take, and what lies on them.

use std::collections::BTreeMap;

use base::{DeviceId, NodeId};

use super::RECEIVED_MAX;
use crate::Map;

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) node: NodeId,
    zone: usize,
    /// It and its node are.
    pub(super) is_up: bool,
    /// What is on it may stay: it is neither out nor to be emptied.
    pub(super) is_staying: bool,
    /// Something new may be put on it.
    takes: bool,
    bytes: u64,
    /// Groups that it is to be a member of when all that is under way is done.
    pub(super) groups: u32,
    /// Groups that are being copied to it.
    pub(super) filling: u32,
    /// Shards, like `groups`.
    pub(super) shards: u32,
    pub(super) joining: u32,
}

/// What is counted on a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Shard,
}

/// How close together devices are: the pairs in one zone, then the pairs on one node. Less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Closeness {
    in_zone: usize,
    on_node: usize,
}

/// What a device holds, in 2^32nds of what it holds if it is of mean size: twice as large, half the load.
type Load = u128;

pub(super) struct Sites {
    sites: BTreeMap<DeviceId, Site>,
    /// How many there are whose data may stay.
    pub(super) staying: usize,
    /// How many of these are not up.
    pub(super) down: usize,
    /// The mean size of those that stay.
    bytes_mean: u64,
}

impl Site {
    fn count(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Group => self.groups,
            Kind::Shard => self.shards,
        }
    }

    fn receiving(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Group => self.filling,
            Kind::Shard => self.joining,
        }
    }
}

impl Sites {
    pub(super) fn of(map: &Map) -> Self {
        let mut zones = BTreeMap::new();
        for node in map.nodes.values() {
            let next = zones.len();
            zones.entry(node.zone.as_str()).or_insert(next);
        }
        let mut sites = BTreeMap::new();
        for (id, device) in &map.devices {
            let Some(node) = map.nodes.get(&device.node) else {
                continue;
            };
            let is_up = map.is_up(*id);
            let is_staying = !map.is_out(*id) && !map.is_draining(*id);
            let site = Site {
                node: device.node,
                zone: zones[node.zone.as_str()],
                is_up,
                is_staying,
                takes: is_up && is_staying && device.bytes_free > 0,
                bytes: device.bytes,
                groups: 0,
                filling: 0,
                shards: 0,
                joining: 0,
            };
            sites.insert(*id, site);
        }
        let staying = sites
            .values()
            .filter(|site: &&Site| site.is_staying && site.bytes > 0);
        let down = staying.clone().filter(|site| !site.is_up).count();
        let bytes: u64 = staying.clone().map(|site| site.bytes).sum();
        let staying = staying.count();
        Self {
            down,
            bytes_mean: (bytes / staying.max(1) as u64).max(1),
            staying,
            sites,
        }
    }

    pub(super) fn get(&self, id: DeviceId) -> Option<&Site> {
        self.sites.get(&id)
    }

    pub(super) fn change(&mut self, id: DeviceId, change: impl FnOnce(&mut Site)) {
        self.sites.get_mut(&id).map(change);
    }

    pub(super) fn is_up(&self, id: DeviceId) -> bool {
        self.get(id).is_some_and(|site| site.is_up)
    }

    pub(super) fn is_staying(&self, id: DeviceId) -> bool {
        self.get(id).is_some_and(|site| site.is_staying)
    }

    pub(super) fn load(&self, kind: Kind, id: DeviceId) -> Load {
        let site = self.get(id);
        site.map_or(Load::MAX, |site| self.load_with(kind, site, 0))
    }

    /// The load of a site with so many things more.
    fn load_with(&self, kind: Kind, site: &Site, more: i32) -> Load {
        let count = site.count(kind).saturating_add_signed(more);
        (Load::from(count) << 32) * Load::from(self.bytes_mean) / Load::from(site.bytes.max(1))
    }

    /// How many devices take something new.
    pub(super) fn taking(&self) -> usize {
        self.sites.values().filter(|site| site.takes).count()
    }

    pub(super) fn closeness(&self, devices: &[DeviceId]) -> Closeness {
        let mut closeness = Closeness::default();
        for (i, one) in devices.iter().enumerate() {
            let beside = self.beside(*one, &devices[..i]);
            closeness.in_zone += beside.in_zone;
            closeness.on_node += beside.on_node;
        }
        closeness
    }

    /// How many of `devices` are close to `one`.
    fn beside(&self, one: DeviceId, devices: &[DeviceId]) -> Closeness {
        let mut closeness = Closeness::default();
        let Some(one) = self.get(one) else {
            return closeness;
        };
        for other in devices.iter().filter_map(|id| self.get(*id)) {
            closeness.in_zone += usize::from(other.zone == one.zone);
            closeness.on_node += usize::from(other.node == one.node);
        }
        closeness
    }

    /// The least closeness of `width` devices that any choice of those that stay has.
    pub(super) fn best_closeness(&self, width: usize) -> Closeness {
        let mut chosen = Vec::new();
        for _ in 0..width {
            let staying = self.sites.iter().filter(|(_, site)| site.is_staying);
            let others = staying.filter(|(id, _)| !chosen.contains(*id));
            let next = others.min_by_key(|(id, _)| self.beside(**id, &chosen));
            chosen.extend(next.map(|(id, _)| *id));
        }
        self.closeness(&chosen)
    }

    /// The device that is best for something which is on the devices `with` already and must be copied:
    /// far from them, then with little load, then by chance, so that all combinations of devices come up.
    /// The chance comes from `thing`, so that the same plan is made twice.
    pub(super) fn pick(&self, kind: Kind, with: &[DeviceId], thing: u64) -> Option<DeviceId> {
        self.best(kind, with, thing, |id, site| {
            site.receiving(kind) < RECEIVED_MAX && !with.contains(&id)
        })
    }

    /// `count` devices for something new, far from each other.
    pub(super) fn pick_all(&self, kind: Kind, count: usize, thing: u64) -> Option<Vec<DeviceId>> {
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let is_other = |id, _: &Site| !chosen.contains(&id);
            chosen.push(self.best(kind, &chosen, thing, is_other)?);
        }
        Some(chosen)
    }

    fn best(
        &self,
        kind: Kind,
        with: &[DeviceId],
        thing: u64,
        able: impl Fn(DeviceId, &Site) -> bool,
    ) -> Option<DeviceId> {
        /// Loads that differ by less are alike: two things.
        const ALIKE_BITS: u32 = 33;
        let sites = self.sites.iter();
        let able = sites.filter(|(id, site)| site.takes && able(**id, site));
        let best = able.min_by_key(|(id, site)| {
            let load = self.load_with(kind, site, 1) >> ALIKE_BITS;
            (self.beside(**id, with), load, mixed(thing, **id))
        });
        best.map(|(id, _)| *id)
    }

    /// The least loaded devices, of those that receive nothing yet.
    pub(super) fn emptiest(&self, kind: Kind, count: usize) -> Vec<DeviceId> {
        let able = self.sites.iter();
        let able = able.filter(|(_, site)| site.takes && site.receiving(kind) == 0);
        let mut loads: Vec<_> = able
            .map(|(id, site)| (self.load_with(kind, site, 1), *id))
            .collect();
        loads.sort_unstable();
        loads.truncate(count);
        loads.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether moving something leaves `to` no fuller than `from`.
    fn evens(&self, kind: Kind, from: DeviceId, to: DeviceId) -> bool {
        match (self.get(from), self.get(to)) {
            (Some(from), Some(to)) => self.load_with(kind, from, -1) >= self.load_with(kind, to, 1),
            _ => false,
        }
    }

    /// The fullest of `devices` from which a move to `to` is worth it.
    pub(super) fn fuller(
        &self,
        kind: Kind,
        devices: &[DeviceId],
        to: DeviceId,
    ) -> Option<DeviceId> {
        if devices.contains(&to) {
            return None;
        }
        let now = self.closeness(devices);
        let worth = devices.iter().filter(|from| {
            let others = devices.iter().filter(|one| one != from);
            let after: Vec<_> = others.copied().chain([to]).collect();
            self.evens(kind, **from, to) && self.closeness(&after) <= now
        });
        worth.max_by_key(|id| self.load(kind, **id)).copied()
    }

    /// One of `devices` and another device that would be farther from the rest.
    pub(super) fn farther(
        &self,
        kind: Kind,
        devices: &[DeviceId],
        thing: u64,
    ) -> Option<(DeviceId, DeviceId)> {
        let able = |id, site: &Site| site.receiving(kind) < RECEIVED_MAX && !devices.contains(&id);
        let moves = devices.iter().filter_map(|from| {
            let others = devices.iter().filter(|one| *one != from);
            let mut after: Vec<_> = others.copied().collect();
            let to = self.best(kind, &after, thing, able)?;
            after.push(to);
            Some((self.closeness(&after), to, *from))
        });
        let (closeness, to, from) = moves.min()?;
        (closeness < self.closeness(devices)).then_some((from, to))
    }

    /// Takes `count` of those `among` the devices away, and returns them: those first that can be missed best.
    pub(super) fn trim(
        &self,
        kind: Kind,
        devices: &mut Vec<DeviceId>,
        among: &[DeviceId],
        count: usize,
    ) -> Vec<DeviceId> {
        let mut trimmed = Vec::new();
        for _ in 0..count {
            trimmed.extend(self.superfluous(kind, devices, among));
            devices.retain(|device| !trimmed.contains(device));
        }
        trimmed
    }

    /// The one of those `among` the devices that can be missed best: one that is not to stay, or not up;
    /// then so that the others are far from each other; then the fullest.
    fn superfluous(
        &self,
        kind: Kind,
        devices: &[DeviceId],
        among: &[DeviceId],
    ) -> Option<DeviceId> {
        let able = devices.iter().filter(|id| among.contains(id));
        let most = able.min_by_key(|id| {
            let others: Vec<_> = devices.iter().filter(|one| one != id).copied().collect();
            let load = self.load(kind, **id);
            let stays = (self.is_staying(**id), self.is_up(**id));
            (
                stays,
                self.closeness(&others),
                std::cmp::Reverse(load),
                **id,
            )
        });
        most.copied()
    }
}

/// A number that looks like chance and is not (the finalizer of splitmix64).
fn mixed(thing: u64, device: DeviceId) -> u64 {
    // Any half of a random number is one, too.
    let [a, b, c, d, e, f, g, h, ..] = device.0.to_le_bytes();
    let device = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let mut mixed = thing.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ device;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
