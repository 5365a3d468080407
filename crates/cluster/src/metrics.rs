//! What an operator is to be told of the cluster: how it is by this node's map, and what the node's own part counts.

use std::time::Duration;

use base::metrics::{Counter, Histogram, Labels, Report};
use map::{Fill, Map, State, WIDTH};

use crate::status::{staying, wanted};

/// What the loops of a node count.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// From a report to its answer.
    pub(crate) report_duration: Histogram,
    pub(crate) reports_failed: Counter,
    pub(crate) jobs_done: Counter,
    pub(crate) jobs_failed: Counter,
}

impl Metrics {
    /// Reports them, and how long the map was not confirmed.
    pub(crate) fn report(&self, unconfirmed: Duration, to: &mut dyn Report) {
        to.histogram(
            "martlet_cluster_report_seconds",
            "from a report to the answer of the control leader",
            &[],
            &self.report_duration,
        );
        let counters = [
            (
                "reports_failed_total",
                "reports that nobody answered",
                &self.reports_failed,
            ),
            (
                "jobs_done_total",
                "things done because the map says so",
                &self.jobs_done,
            ),
            (
                "jobs_failed_total",
                "of these, those that failed and are tried again",
                &self.jobs_failed,
            ),
        ];
        for (name, help, counter) in counters {
            let name = format!("martlet_cluster_{name}");
            to.counter(&name, help, &[], counter.get());
        }
        to.gauge(
            "martlet_cluster_map_age_seconds",
            "since the control leader last confirmed this node's map",
            &[],
            i64::try_from(unconfirmed.as_secs()).unwrap_or(i64::MAX),
        );
    }
}

/// How many of what there are by a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    total: usize,
    /// Fewer copies are up than there should be.
    short: usize,
    /// So few that nothing can be read, or for shards be changed either.
    unavailable: usize,
    /// A copy is on its way to another device.
    moving: usize,
}

fn groups(map: &Map) -> Counts {
    let width = usize::from(WIDTH).min(staying(map));
    let mut counts = Counts::default();
    for group in map.groups.values() {
        let up = group.copies(|id| map.is_up(id));
        let is_moving = group.members.iter().any(|one| one.fill != Fill::Full);
        counts.total += 1;
        counts.short += usize::from(up < wanted(group, width));
        counts.unavailable += usize::from(up < group.policy.needed());
        counts.moving += usize::from(is_moving);
    }
    counts
}

fn shards(map: &Map) -> Counts {
    let width = usize::from(WIDTH).min(staying(map));
    let mut counts = Counts::default();
    for replicas in map.shards.values() {
        let voters = &replicas.voters;
        // Three or one: two tolerate nothing.
        let wanted = match width < usize::from(WIDTH) {
            true => voters.len(),
            false => usize::from(WIDTH),
        };
        let up = voters.iter().filter(|id| map.is_up(**id)).count();
        let is_moving = !replicas.joining.is_empty() || !replicas.leaving.is_empty();
        counts.total += 1;
        counts.short += usize::from(up < wanted);
        counts.unavailable += usize::from(up <= voters.len() / 2);
        counts.moving += usize::from(is_moving);
    }
    counts
}

/// Reports how the cluster is by this map.
pub(crate) fn of_map(map: &Map, to: &mut dyn Report) {
    let epoch = i64::try_from(map.epoch.0).unwrap_or(i64::MAX);
    let help = "epoch of the map that this node knows";
    to.gauge("martlet_cluster_map_epoch", help, &[], epoch);
    for name in STATES {
        let is = |state: State| state.to_string() == name;
        let labels = [("state", name)];
        let nodes = map.nodes.values().filter(|node| is(node.state)).count();
        gauge(to, "nodes", "nodes of the cluster", &labels, nodes);
        let devices = map.devices.values().filter(|one| is(one.state)).count();
        gauge(to, "devices", "devices of the cluster", &labels, devices);
    }
    for (what, counts) in [("groups", groups(map)), ("shards", shards(map))] {
        let Counts {
            total,
            short,
            unavailable,
            moving,
        } = counts;
        let gauges = [
            ("", "in the cluster", total),
            ("_short", "with fewer copies up than wanted", short),
            (
                "_unavailable",
                "with too few copies up to serve",
                unavailable,
            ),
            ("_moving", "of which a copy is being made elsewhere", moving),
        ];
        for (suffix, help, value) in gauges {
            let help = format!("{what} {help}");
            gauge(to, &format!("{what}{suffix}"), &help, &[], value);
        }
    }
}

fn gauge(to: &mut dyn Report, name: &str, help: &str, labels: Labels<'_>, value: usize) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    to.gauge(&format!("martlet_cluster_{name}"), help, labels, value);
}

/// As they are counted.
const STATES: [&str; 3] = ["up", "down", "out"];

/// Reports each node by itself; to be asked of one node only, since there may be a thousand.
pub(crate) fn each_node(map: &Map, to: &mut dyn Report) {
    for (id, node) in &map.nodes {
        let state = match node.state {
            State::Up => 0,
            State::Down { .. } => 1,
            State::Out => 2,
        };
        to.gauge(
            "martlet_cluster_node_state",
            "0 up, 1 down, 2 out; by the control leader alone",
            &[("node", &id.0.to_string())],
            state,
        );
    }
}

#[cfg(test)]
mod tests {
    use base::{DeviceId, GroupId, ShardId, Timestamp};
    use map::Group;

    use super::*;
    use crate::status::tests::whole_map;

    const A: DeviceId = DeviceId(1);
    const B: DeviceId = DeviceId(2);
    const C: DeviceId = DeviceId(3);

    /// What is short, unavailable and moving of the only group and of the only shard.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Map), of_groups: [usize; 3], of_shards: [usize; 3]) {
        let mut map = whole_map();
        change(&mut map);
        let numbers = |counts: Counts| {
            assert_eq!(counts.total, 1);
            [counts.short, counts.unavailable, counts.moving]
        };
        assert_eq!(numbers(groups(&map)), of_groups, "groups");
        assert_eq!(numbers(shards(&map)), of_shards, "shards");
    }

    fn down(map: &mut Map, devices: &[DeviceId]) {
        let since = Timestamp::from_secs(1);
        for id in devices {
            map.devices.get_mut(id).unwrap().state = State::Down { since };
        }
    }

    #[test]
    fn what_lacks_copies_is_counted() {
        check(|_| {}, [0, 0, 0], [0, 0, 0]);
        check(|map| down(map, &[C]), [1, 0, 0], [1, 0, 0]);
        // A chunk can be read from one copy; a shard needs a majority.
        check(|map| down(map, &[B, C]), [1, 0, 0], [1, 1, 0]);
        check(|map| down(map, &[A, B, C]), [1, 1, 0], [1, 1, 0]);
    }

    #[test]
    fn what_is_on_its_way_is_counted() {
        let since = map::Epoch(1);
        let filling = |map: &mut Map| {
            let group = map.groups.get_mut(&GroupId(7)).unwrap();
            group.members[2].fill = Fill::Filling { since };
            map.shards.get_mut(&ShardId(0)).unwrap().joining = vec![DeviceId(4)];
        };
        check(filling, [1, 0, 1], [0, 0, 1]);
    }

    #[test]
    fn a_cluster_of_one_lacks_nothing() {
        let alone = |map: &mut Map| {
            map.devices.retain(|id, _| *id == A);
            map.groups
                .insert(GroupId(7), Group::new(Map::POLICY, map.epoch, &[A], false));
            map.shards.get_mut(&ShardId(0)).unwrap().voters = vec![A];
        };
        check(alone, [0, 0, 0], [0, 0, 0]);
    }
}
