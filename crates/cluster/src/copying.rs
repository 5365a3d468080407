//! How far the copying of chunks has come, as nodes report it, and how long it may yet take.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{DeviceId, GroupId, NodeId};
use map::{Fill, Group, Map};
use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::status::wanted;

/// A fill under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub group: GroupId,
    pub device: DeviceId,
    /// Chunks that have been looked at, of so many.
    pub done: u64,
    pub total: u64,
}

/// Rates are means of about so many milliseconds.
const MEAN_MS: u64 = 10_000;

/// What all nodes copy.
#[derive(Debug, Default)]
pub struct Copying {
    nodes: BTreeMap<NodeId, OfNode>,
}

#[derive(Debug)]
struct OfNode {
    /// When it reported last.
    at: Duration,
    copied_bytes: u64,
    bytes_per_second: u64,
    fills: Vec<Progress>,
}

/// What is to be copied until everything has all its copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Copies of groups that are missing or being made.
    pub copies: usize,
    /// What that is, roughly: as much as groups have on the mean.
    pub bytes_left: u64,
    /// What has been copied lately, by all nodes together.
    pub bytes_per_second: u64,
}

impl Copying {
    pub(crate) fn take(&mut self, now: Duration, node: NodeId, report: &Report) {
        let known = self.nodes.get(&node);
        let mut rate = known.map_or(0, |known| known.bytes_per_second);
        if let Some(known) = known {
            let since = now.saturating_sub(known.at).as_millis();
            let since = u64::try_from(since).unwrap_or(u64::MAX);
            // One that has begun anew counts from nothing.
            let more = report.copied_bytes.saturating_sub(known.copied_bytes);
            if let Some(lately) = more.saturating_mul(1000).checked_div(since) {
                let weight = since.min(MEAN_MS);
                let mean = rate.saturating_mul(MEAN_MS - weight);
                rate = mean.saturating_add(lately.saturating_mul(weight)) / MEAN_MS;
            }
        }
        let of_node = OfNode {
            at: now,
            copied_bytes: report.copied_bytes,
            bytes_per_second: rate,
            fills: report.fills.clone(),
        };
        self.nodes.insert(node, of_node);
    }

    pub(crate) fn retain(&mut self, is_known: impl Fn(&NodeId) -> bool) {
        self.nodes.retain(|node, _| is_known(node));
    }

    /// How much of a group is on a device that is being filled: of 1000 parts.
    pub(crate) fn done(&self, group: GroupId, device: DeviceId) -> Option<u64> {
        let mut fills = self.nodes.values().flat_map(|node| &node.fills);
        let fill = fills.find(|fill| (fill.group, fill.device) == (group, device))?;
        Some(
            (fill.done.min(fill.total) * 1000)
                .checked_div(fill.total)
                .unwrap_or(1000),
        )
    }

    /// What is to be copied so that each group is `width` wide; nothing if nothing is.
    pub(crate) fn repair(&self, map: &Map, width: usize) -> Option<Repair> {
        let mut repair = Repair::default();
        let means = means(map);
        for (id, group) in &map.groups {
            let full: Vec<_> = group.full().filter(|id| !map.is_out(*id)).collect();
            let known = full.iter().filter_map(|id| means.get(id));
            let mean = known.clone().sum::<u64>() / known.count().max(1) as u64;
            let filling = group.members.iter().filter(|one| one.fill != Fill::Full);
            let filling: Vec<_> = filling.map(|one| one.device).collect();
            let copies = group.copies(|id| !map.is_out(id));
            let wanted = wanted(group, width);
            let lacking = wanted.saturating_sub(copies + filling.len());
            repair.copies += filling.len() + lacking;
            repair.bytes_left += mean * lacking as u64;
            for device in filling {
                let left = 1000 - self.done(*id, device).unwrap_or(0);
                repair.bytes_left += mean / 1000 * left;
            }
        }
        repair.bytes_per_second = self.nodes.values().map(|node| node.bytes_per_second).sum();
        (repair.copies > 0).then_some(repair)
    }
}

/// What each device holds of a group, on the mean.
fn means(map: &Map) -> BTreeMap<DeviceId, u64> {
    let mut groups: BTreeMap<DeviceId, u64> = BTreeMap::new();
    for device in map.groups.values().flat_map(Group::full) {
        *groups.entry(device).or_default() += 1;
    }
    let mean = |(id, count): (&DeviceId, &u64)| {
        let device = map.devices.get(id)?;
        let used = device.bytes.saturating_sub(device.bytes_free);
        Some((*id, used / count))
    };
    groups.iter().filter_map(mean).collect()
}

impl Repair {
    /// How long it will take if it goes on so; nothing if nothing moves.
    pub fn seconds_left(&self) -> Option<u64> {
        self.bytes_left.checked_div(self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use map::Member;

    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn report(copied_bytes: u64, done: u64) -> Report {
        let device = DeviceId(3);
        Report {
            copied_bytes,
            fills: vec![Progress {
                group: GROUP,
                device,
                done,
                total: 200,
            }],
            ..Report::default()
        }
    }

    #[test]
    fn what_is_left_is_told_by_size_progress_and_rate() {
        let mut map = crate::status::tests::whole_map();
        let mut copying = Copying::default();
        assert_eq!(copying.repair(&map, 3), None);
        for device in map.devices.values_mut() {
            (device.bytes, device.bytes_free) = (100 << 20, 60 << 20);
        }
        let devices: Vec<_> = map.devices.keys().copied().collect();
        let since = map.epoch;
        let group = map.groups.get_mut(&GROUP).unwrap();
        group.members.truncate(1);
        group.members.push(Member {
            index: 0,
            device: devices[2],
            fill: Fill::Filling { since },
        });
        let repair = copying.repair(&map, 3).unwrap();
        assert_eq!((repair.copies, repair.seconds_left()), (2, None));
        assert_eq!(repair.bytes_left >> 20, 79);

        let secs = Duration::from_secs;
        let mut report = report(0, 100);
        report.fills[0].device = devices[2];
        copying.take(secs(1), NodeId(3), &report);
        assert_eq!(copying.done(GROUP, devices[2]), Some(500));
        assert_eq!(copying.repair(&map, 3).unwrap().bytes_left >> 20, 59);
        report.copied_bytes = 200 << 20;
        copying.take(secs(21), NodeId(3), &report);
        let repair = copying.repair(&map, 3).unwrap();
        assert_eq!(repair.bytes_per_second >> 20, 10);
        assert_eq!(repair.seconds_left(), Some(5));
        // A process that begins anew is no negative rate.
        report.copied_bytes = 0;
        copying.take(secs(41), NodeId(3), &report);
        assert_eq!(copying.repair(&map, 3).unwrap().bytes_per_second, 0);
        copying.retain(|_| false);
        assert_eq!(copying.done(GROUP, devices[2]), None);
    }
}
