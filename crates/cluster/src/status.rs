//! How the cluster is, for people and for scripts.

use std::collections::BTreeMap;

use base::{DeviceId, GroupId, NodeId, ShardId};
use map::{Fill, Group, Map, Observed, Policy, Replicas, State, WIDTH};
use serde::{Deserialize, Serialize};

use crate::copying::{Copying, Repair};

/// Groups and shards that are listed one by one; of the others only the number is told.
const LISTED_MAX: usize = 100;

/// How the cluster is, as its controller sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node that leads the control group, and so says all this.
    pub leader: u32,
    pub epoch: u64,
    /// Every shard and group has all the replicas that it should have, all of them are up, and nothing is
    /// under way.
    pub whole: bool,
    pub nodes: Vec<NodeStatus>,
    pub shards_total: usize,
    /// Not as they should be.
    pub shards_unsettled: usize,
    pub groups_total: usize,
    pub groups_unsettled: usize,
    /// The first of those that are not as they should be, and why.
    pub unsettled: Vec<Unsettled>,
    /// What is to be copied for that; nothing if nothing is.
    #[serde(default)]
    pub repair: Option<Repair>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: u32,
    pub addresses: Vec<String>,
    pub zone: String,
    /// `up`, `down` or `out`.
    pub state: String,
    pub draining: bool,
    pub devices: Vec<DeviceStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub device: String,
    pub state: String,
    pub draining: bool,
    pub bytes: u64,
    pub bytes_free: u64,
    /// Groups that it is a member of.
    pub groups: usize,
    /// Shards that it has a replica of.
    pub shards: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// `group 7` or `shard 3`.
    pub what: String,
    /// How many copies are there and up, of how many that there should be.
    pub copies: usize,
    pub wanted: usize,
    /// What is being done, or waited for.
    pub doing: String,
}

impl Status {
    /// How a cluster of so many shards is, as the node `leader` sees it.
    pub fn of(
        leader: NodeId,
        map: &Map,
        observed: &Observed,
        copying: &Copying,
        shards: u16,
    ) -> Self {
        let width = usize::from(WIDTH).min(staying(map));
        let mut unsettled = Vec::new();
        for shard in (0..shards).map(ShardId) {
            unsettled.extend(of_shard(map, observed, shard, width));
        }
        let shards_unsettled = unsettled.len();
        for (id, group) in &map.groups {
            unsettled.extend(of_group(map, copying, *id, group, width));
        }
        let groups_unsettled = unsettled.len() - shards_unsettled;
        let whole = unsettled.is_empty();
        unsettled.truncate(LISTED_MAX);
        Self {
            leader: leader.0,
            epoch: map.epoch.0,
            whole,
            nodes: nodes(map),
            shards_total: usize::from(shards),
            shards_unsettled,
            groups_total: map.groups.len(),
            groups_unsettled,
            unsettled,
            repair: copying.repair(map, width),
        }
    }
}

/// Devices whose data may stay: as plans count them.
pub(crate) fn staying(map: &Map) -> usize {
    let stays = |id: &DeviceId, device: &map::Device| {
        !map.is_out(*id) && !map.is_draining(*id) && device.bytes > 0
    };
    let devices = map.devices.iter();
    devices.filter(|(id, device)| stays(id, device)).count()
}

fn of_shard(map: &Map, observed: &Observed, shard: ShardId, width: usize) -> Option<Unsettled> {
    let what = format!("shard {}", shard.0);
    let Some(replicas) = map.shards.get(&shard) else {
        return Some(Unsettled {
            what,
            copies: 0,
            wanted: width.max(1),
            doing: "its leader has not reported yet".to_owned(),
        });
    };
    // Three or one: two tolerate nothing.
    let wanted = match width < usize::from(WIDTH) {
        true => replicas.voters.len().max(1),
        false => usize::from(WIDTH),
    };
    let up = replicas.voters.iter().filter(|id| map.is_up(**id)).count();
    let seen = observed.shards.get(&shard);
    let doing = shard_doing(map, replicas, wanted, up, width);
    let doing = match (doing, seen) {
        (Some(doing), _) => doing,
        (None, Some(seen)) if seen.is(replicas) => return None,
        (None, Some(_)) => "its leader changes the voters".to_owned(),
        (None, None) => "its leader has not reported yet".to_owned(),
    };
    Some(Unsettled {
        what,
        copies: up,
        wanted,
        doing,
    })
}

fn shard_doing(
    map: &Map,
    replicas: &Replicas,
    wanted: usize,
    up: usize,
    width: usize,
) -> Option<String> {
    if !replicas.joining.is_empty() {
        return Some(format!("copied to {}", list(&replicas.joining)));
    }
    if !replicas.leaving.is_empty() {
        return Some(format!("leaves {}", list(&replicas.leaving)));
    }
    if let Some(gone) = gone(map, replicas.voters.iter().copied()) {
        let place = (width < usize::from(WIDTH)).then_some("; there is no other place for it");
        return Some(format!("{gone}{}", place.unwrap_or_default()));
    }
    if up < replicas.voters.len() {
        return Some("waits for a device that is down".to_owned());
    }
    (replicas.voters.len() < wanted).then(|| "is to be copied".to_owned())
}

fn of_group(
    map: &Map,
    copying: &Copying,
    id: GroupId,
    group: &Group,
    width: usize,
) -> Option<Unsettled> {
    let filling = group.members.iter().filter(|one| one.fill != Fill::Full);
    let filling: Vec<_> = filling.map(|member| member.device).collect();
    let full = group.copies(|id| map.is_up(id));
    let wanted = wanted(group, width);
    let done = filling
        .iter()
        .filter_map(|device| copying.done(id, *device))
        .min();
    let doing = if !filling.is_empty() {
        let done = done
            .map(|parts| format!(" ({} %)", parts / 10))
            .unwrap_or_default();
        format!("copied to {}{done}", list(&filling))
    } else if let Some(gone) = gone(map, group.devices()) {
        gone
    } else if !group.devices().all(|id| map.is_up(id)) {
        "waits for a device that is down".to_owned()
    } else if full < wanted {
        "is to be copied".to_owned()
    } else if group.members.len() > group.policy.width() {
        "is to leave a device".to_owned()
    } else {
        return None;
    };
    Some(Unsettled {
        what: format!("group {}", id.0),
        copies: full,
        wanted,
        doing,
    })
}

/// How many copies or fragments there should be, if `width` whole copies can be had.
pub(crate) fn wanted(group: &Group, width: usize) -> usize {
    match group.policy {
        Policy::Replicated { .. } => width,
        Policy::Coded { .. } => group.policy.width(),
    }
}

/// What is said if one of these will not have its copy for long.
fn gone(map: &Map, mut devices: impl Iterator<Item = DeviceId>) -> Option<String> {
    devices.find_map(|id| {
        let device = map.devices.get(&id);
        let node = device.and_then(|device| map.nodes.get(&device.node));
        let states = device
            .map(|one| one.state)
            .into_iter()
            .chain(node.map(|one| one.state));
        if node.is_none() {
            Some(format!("is to be copied: {id} was removed"))
        } else if states.into_iter().any(|state| state == State::Out) {
            Some(format!("is to be copied: {id} is out"))
        } else if map.is_draining(id) {
            Some(format!("is to be moved: {id} is drained"))
        } else {
            None
        }
    })
}

fn list(devices: &[DeviceId]) -> String {
    let devices: Vec<_> = devices.iter().map(ToString::to_string).collect();
    devices.join(", ")
}

fn nodes(map: &Map) -> Vec<NodeStatus> {
    let mut groups: BTreeMap<DeviceId, usize> = BTreeMap::new();
    let mut shards: BTreeMap<DeviceId, usize> = BTreeMap::new();
    for device in map.groups.values().flat_map(Group::devices) {
        *groups.entry(device).or_default() += 1;
    }
    for device in map.shards.values().flat_map(Replicas::devices) {
        *shards.entry(device).or_default() += 1;
    }
    let of_node = |id: NodeId| {
        let devices = map.devices.iter().filter(move |(_, one)| one.node == id);
        let devices = devices.map(|(id, device)| DeviceStatus {
            device: id.to_string(),
            state: device.state.to_string(),
            draining: device.is_draining,
            bytes: device.bytes,
            bytes_free: device.bytes_free,
            groups: groups.get(id).copied().unwrap_or_default(),
            shards: shards.get(id).copied().unwrap_or_default(),
        });
        devices.collect()
    };
    let nodes = map.nodes.iter().map(|(id, node)| NodeStatus {
        node: id.0,
        addresses: node.addresses.clone(),
        zone: node.zone.clone(),
        state: node.state.to_string(),
        draining: node.is_draining,
        devices: of_node(*id),
    });
    nodes.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use base::Timestamp;
    use map::{Membership, Node};

    use super::*;

    const A: DeviceId = DeviceId(1);
    const B: DeviceId = DeviceId(2);
    const C: DeviceId = DeviceId(3);
    const SHARD: ShardId = ShardId(0);

    /// Three nodes with a device each, one group and one shard on all of them.
    pub(crate) fn whole_map() -> Map {
        let mut map = Map::default().with_devices([A, B, C]);
        for (number, device) in (1..).zip(map.devices.values_mut()) {
            (device.node, device.bytes) = (NodeId(number), 1 << 40);
            map.nodes.insert(NodeId(number), Node::default());
        }
        map.groups.clear();
        let group = Group::new(Map::POLICY, map.epoch, &[A, B, C], false);
        map.groups.insert(GroupId(7), group);
        let replicas = Replicas {
            voters: vec![A, B, C],
            ..Replicas::default()
        };
        map.shards.insert(SHARD, replicas);
        map
    }

    /// That, and what the shard's leader says.
    fn whole() -> (Map, Observed) {
        let map = whole_map();
        let seen = Membership {
            voters: [A, B, C].into(),
            ..Membership::default()
        };
        let mut observed = Observed::default();
        observed.shards.insert(SHARD, seen);
        (map, observed)
    }

    /// What is said of the first thing that is not as it should be, after this.
    fn after(change: impl FnOnce(&mut Map, &mut Observed)) -> Option<String> {
        let (mut map, mut observed) = whole();
        change(&mut map, &mut observed);
        let status = Status::of(NodeId::FIRST, &map, &observed, &Copying::default(), 1);
        assert_eq!(status.whole, status.unsettled.is_empty());
        status.unsettled.first().map(|one| {
            let Unsettled {
                what,
                copies,
                wanted,
                doing,
            } = one;
            format!("{what} {copies}/{wanted} {doing}")
        })
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_with_the_reason() {
        let says = |text: &str| Some(text.to_owned());
        let (b, c) = (B.to_string(), C.to_string());
        assert_eq!(after(|_, _| {}), None);
        let silent = after(|_, observed| observed.shards.clear());
        assert_eq!(silent, says("shard 0 3/3 its leader has not reported yet"));
        let unknown = after(|map, _| map.shards.clear());
        assert_eq!(unknown, says("shard 0 0/3 its leader has not reported yet"));
        let behind = after(|_, observed| {
            observed.shards.get_mut(&SHARD).unwrap().voters.remove(&C);
        });
        assert_eq!(behind, says("shard 0 3/3 its leader changes the voters"));
        let single = after(|map, _| map.shards.get_mut(&SHARD).unwrap().voters = vec![A]);
        assert_eq!(single, says("shard 0 1/3 is to be copied"));
        let joining = after(|map, _| {
            let replicas = map.shards.get_mut(&SHARD).unwrap();
            (replicas.voters, replicas.joining) = (vec![A], vec![B, C]);
        });
        assert_eq!(joining, Some(format!("shard 0 1/3 copied to {b}, {c}")));
        let leaving = after(|map, _| map.shards.get_mut(&SHARD).unwrap().leaving = vec![B]);
        assert_eq!(leaving, Some(format!("shard 0 3/3 leaves {b}")));
        let down = after(|map, _| {
            let since = Timestamp::from_secs(1);
            map.nodes.get_mut(&NodeId(3)).unwrap().state = State::Down { since };
        });
        assert_eq!(down, says("shard 0 2/3 waits for a device that is down"));
        let out = after(|map, _| map.devices.get_mut(&C).unwrap().state = State::Out);
        let place = "there is no other place for it";
        let expected = format!("shard 0 2/3 is to be copied: {c} is out; {place}");
        assert_eq!(out, Some(expected));
        let group = |change: fn(&mut Group)| {
            after(|map, _| change(map.groups.get_mut(&GroupId(7)).unwrap()))
        };
        let narrow = group(|group| group.members.truncate(2));
        assert_eq!(narrow, says("group 7 2/3 is to be copied"));
        let filling = group(|group| {
            let since = map::Epoch(1);
            group.members[2].fill = Fill::Filling { since };
        });
        assert_eq!(filling, Some(format!("group 7 2/3 copied to {c}")));
    }

    #[test]
    fn one_node_alone_is_whole_with_one_copy_of_all() {
        let (mut map, mut observed) = whole();
        map.nodes.retain(|id, _| *id == NodeId(1));
        map.devices.retain(|id, _| *id == A);
        map.groups
            .insert(GroupId(7), Group::new(Map::POLICY, map.epoch, &[A], false));
        map.shards.get_mut(&SHARD).unwrap().voters = vec![A];
        observed.shards.get_mut(&SHARD).unwrap().voters = [A].into();
        let status = Status::of(NodeId::FIRST, &map, &observed, &Copying::default(), 1);
        assert!(status.whole, "{status:?}");
        assert_eq!(
            (status.nodes.len(), status.nodes[0].devices[0].shards),
            (1, 1)
        );
    }

    #[test]
    fn the_list_has_a_bound_and_the_numbers_have_not() {
        let (map, observed) = whole();
        let status = Status::of(NodeId::FIRST, &map, &observed, &Copying::default(), 500);
        assert_eq!(
            (status.shards_unsettled, status.unsettled.len()),
            (499, LISTED_MAX)
        );
        assert!(!status.whole);
    }
}
