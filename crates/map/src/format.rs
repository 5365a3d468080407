//! A map as bytes: a version, then the fields as postcard writes them. docs/formats/map.md has it
//! field by field, tests/golden/ an example of every version.

use std::collections::{BTreeMap, BTreeSet};

use base::{DeviceId, GroupId, NodeId, ShardId};
use serde::{Deserialize, Serialize};

use crate::{Device, Epoch, Fill, Group, Map, Member, Node, Policies, Policy, Replicas, State};

/// What is written. Version 1 had neither nodes nor epochs of groups, version 2 no policies and no fragments.
const VERSION: u8 = 3;

/// The bytes are not a map that this version of Martlet can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map: {0}")]
pub struct Invalid(String);

impl Map {
    pub fn encode(&self) -> Vec<u8> {
        let bytes = vec![VERSION];
        postcard::to_extend(self, bytes).expect("maps hold nothing that postcard cannot write")
    }

    /// The epoch of an encoded map, without reading the rest: it comes first in all versions.
    pub fn epoch_of(bytes: &[u8]) -> Result<Epoch, Invalid> {
        match bytes.split_first() {
            Some((1 | 2 | &VERSION, rest)) => match postcard::take_from_bytes(rest) {
                Ok((epoch, _)) => Ok(epoch),
                Err(error) => Err(Invalid(error.to_string())),
            },
            Some((version, _)) => Err(Invalid(format!("version {version}"))),
            None => Err(Invalid("empty".to_owned())),
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        match bytes.split_first() {
            Some((1, rest)) => exactly::<V1>(rest).map(V1::into_map),
            Some((2, rest)) => exactly::<V2>(rest).map(V2::into_map),
            Some((&VERSION, rest)) => exactly(rest),
            Some((version, _)) => Err(Invalid(format!("version {version}"))),
            None => Err(Invalid("empty".to_owned())),
        }
    }
}

fn exactly<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Invalid> {
    match postcard::take_from_bytes(bytes) {
        Ok((map, [])) => Ok(map),
        Ok((_, rest)) => Err(Invalid(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(Invalid(error.to_string())),
    }
}

/// The map of one server alone, before there were clusters.
#[derive(Serialize, Deserialize)]
struct V1 {
    epoch: u64,
    devices: BTreeSet<DeviceId>,
    groups: BTreeMap<GroupId, V1Group>,
}

#[derive(Serialize, Deserialize)]
struct V1Group {
    /// Always one copy, since nothing else could be had. What was wanted is what is wanted now.
    policy: OldPolicy,
    devices: Vec<DeviceId>,
}

/// The same in versions 1 and 2.
#[derive(Serialize, Deserialize)]
enum OldPolicy {
    Replicated { copies: u8 },
}

/// The map before there was erasure coding.
#[derive(Serialize, Deserialize)]
struct V2 {
    epoch: Epoch,
    nodes: BTreeMap<NodeId, Node>,
    last_node: NodeId,
    devices: BTreeMap<DeviceId, Device>,
    groups: BTreeMap<GroupId, V2Group>,
    shards: BTreeMap<ShardId, Replicas>,
}

#[derive(Serialize, Deserialize)]
struct V2Group {
    policy: OldPolicy,
    epoch: Epoch,
    members: Vec<V2Member>,
    is_spare: bool,
}

#[derive(Serialize, Deserialize)]
struct V2Member {
    device: DeviceId,
    fill: Fill,
}

impl V1 {
    fn into_map(self) -> Map {
        let device = |id| {
            let device = Device {
                node: NodeId::FIRST,
                bytes: 0,
                bytes_free: 0,
                state: State::Up,
                is_draining: false,
            };
            (id, device)
        };
        let group = |(id, group): (GroupId, V1Group)| {
            let full = |device| Member {
                device,
                index: 0,
                fill: Fill::Full,
            };
            let group = Group {
                policy: Map::POLICY,
                epoch: Epoch(self.epoch),
                members: group.devices.into_iter().map(full).collect(),
                is_spare: false,
            };
            (id, group)
        };
        Map {
            epoch: Epoch(self.epoch),
            nodes: [(NodeId::FIRST, Node::default())].into(),
            last_node: NodeId::FIRST,
            devices: self.devices.into_iter().map(device).collect(),
            groups: self.groups.into_iter().map(group).collect(),
            policies: Policies::default(),
            shards: BTreeMap::new(),
        }
    }
}

impl V2 {
    fn into_map(self) -> Map {
        let member = |member: V2Member| Member {
            device: member.device,
            index: 0,
            fill: member.fill,
        };
        let group = |(id, group): (GroupId, V2Group)| {
            let OldPolicy::Replicated { copies } = group.policy;
            let group = Group {
                policy: Policy::Replicated { copies },
                epoch: group.epoch,
                members: group.members.into_iter().map(member).collect(),
                is_spare: group.is_spare,
            };
            (id, group)
        };
        Map {
            epoch: self.epoch,
            nodes: self.nodes,
            last_node: self.last_node,
            devices: self.devices,
            groups: self.groups.into_iter().map(group).collect(),
            policies: Policies::default(),
            shards: self.shards,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::PathBuf;

    use base::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::NamedPolicy;

    fn sample() -> Map {
        let mut map = sample_of_version_2();
        let coded = Policy::Coded { data: 2, parity: 1 };
        map.policies.list.push(NamedPolicy {
            name: "cold".into(),
            policy: coded,
        });
        map.policies.default = 1;
        let devices = [DeviceId(7), DeviceId(5), DeviceId(6)];
        let group = Group::new(coded, Epoch(297), &devices, false);
        map.groups.insert(GroupId(2), group);
        map
    }

    fn sample_of_version_2() -> Map {
        let mut map = Map::default().with_devices([DeviceId(5), DeviceId(6)]);
        map.epoch = Epoch(300);
        map.last_node = NodeId(3);
        let since = Timestamp::from_ticks(179_518_958_965_132);
        let node = Node {
            addresses: vec!["10.0.0.2:7000".into()],
            zone: "cellar".into(),
            state: State::Down { since },
            is_draining: true,
        };
        map.nodes.insert(NodeId(3), node);
        let device = Device {
            node: NodeId(3),
            bytes: 1 << 40,
            bytes_free: 1 << 39,
            state: State::Out,
            is_draining: false,
        };
        map.devices.insert(DeviceId(7), device);
        let group = map.groups.get_mut(&GroupId(1)).unwrap();
        group.members.push(Member {
            device: DeviceId(5),
            index: 0,
            fill: Fill::Filling { since: Epoch(299) },
        });
        group.epoch = Epoch(299);
        group.is_spare = true;
        let replicas = Replicas {
            epoch: Epoch(298),
            voters: vec![DeviceId(5)],
            joining: vec![DeviceId(6), DeviceId(7)],
            leaving: vec![DeviceId(8)],
        };
        map.shards.insert(ShardId(0), replicas);
        map
    }

    fn golden(version: u8) -> PathBuf {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        root.join(format!("tests/golden/map.v{version}.txt"))
    }

    fn bytes(version: u8) -> Vec<u8> {
        let hex = std::fs::read_to_string(golden(version)).unwrap();
        let pairs = hex.trim().as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// What was ever written stays readable.
    #[test]
    fn a_map_of_version_1_is_that_of_one_node() {
        let expected = Map::default().with_devices([DeviceId(5)]);
        assert_eq!(Map::epoch_of(&bytes(1)), Ok(expected.epoch));
        assert_eq!(Map::decode(&bytes(1)), Ok(expected));
    }

    #[test]
    fn a_map_of_version_2_has_one_policy_and_no_fragments() {
        let expected = sample_of_version_2();
        assert_eq!(Map::epoch_of(&bytes(2)), Ok(expected.epoch));
        assert_eq!(Map::decode(&bytes(2)), Ok(expected));
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "rewrites the golden file when told to"
    )]
    fn maps_of_version_3_are_as_they_were() {
        if std::env::var_os("BLESS").is_some() {
            let mut hex = String::new();
            for byte in sample().encode() {
                write!(hex, "{byte:02x}").unwrap();
            }
            std::fs::write(golden(3), hex + "\n").unwrap();
        }
        assert_eq!(sample().encode(), bytes(3));
        assert_eq!(Map::decode(&bytes(3)), Ok(sample()));
        assert_eq!(Map::epoch_of(&bytes(3)), Ok(sample().epoch));
    }

    #[test]
    fn what_is_cut_short_too_long_or_of_another_version_is_refused() {
        let good = sample().encode();
        let later = [&[VERSION + 1], &good[1..]].concat();
        let longer = [&good[..], &[0]].concat();
        for bad in [&good[..good.len() - 1], &[], &longer, &later, &[1], &[0]] {
            assert!(Map::decode(bad).is_err(), "{bad:?}");
        }
        for bad in [&later[..], &[], &[2], &[0]] {
            assert!(Map::epoch_of(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_map_or_an_error(mut bytes: Vec<u8>, version in 1..=VERSION) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            let _ = Map::decode(&bytes);
        }

        /// Damaged bytes must not make us ask for memory that we do not have.
        #[test]
        fn any_flipped_byte_is_survived(at: prop::sample::Index, with: u8) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let _ = Map::decode(&bytes);
        }
    }
}
