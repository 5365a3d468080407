//! Ids are types, so that one cannot be taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A server process. Counted from 1 in the order of joining, and never given again.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The server that the cluster began as.
    pub const FIRST: Self = Self(1);
}

/// One disk's directory. Drawn at random when the directory is made, and never changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub u128);

/// One Raft group's worth of metadata, counted from 0. Shard 0 is the control shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Holds users, settings and the map.
    pub const CONTROL: Self = Self(0);
}

/// A placement group: a set of devices that hold the same chunks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u32);

/// A container, for as long as it lives: deleting and making it again gives another id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub u64);

/// A body among all those that one object name ever has: the upper 52 bits are the time at which its
/// upload began, in units of 10 µs, the lower 12 the node that took it. So nodes that do not know of each
/// other's uploads give no version twice, unless their numbers differ by a multiple of 4,096; and later
/// uploads have higher versions, as far as clocks agree.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

impl Version {
    /// Good until the year 3397. A node never gives the same time twice.
    pub fn new(began: Timestamp, node: NodeId) -> Self {
        Self(began.ticks() << 12 | u64::from(node.0) & 0xfff)
    }

    /// When the upload began.
    pub fn began(self) -> Timestamp {
        Timestamp::from_ticks(self.0 >> 12)
    }
}

/// An immutable chunk. The upper 32 bits name its placement group, the next 48 the millisecond of
/// its making (so that new chunks are neighbours in every index), the last 48 are random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId(pub u128);

impl ChunkId {
    /// `unix_ms` is cut to 48 bits (good until the year 10889), `random` to 48.
    pub fn new(group: GroupId, unix_ms: u64, random: u64) -> Self {
        const LOW_48: u128 = (1 << 48) - 1;
        let time = (u128::from(unix_ms) & LOW_48) << 48;
        Self(u128::from(group.0) << 96 | time | u128::from(random) & LOW_48)
    }

    /// The placement group that the id names.
    pub fn group(self) -> GroupId {
        GroupId(u32::try_from(self.0 >> 96).expect("32 bits are left"))
    }

    /// When the chunk was made, in milliseconds since the Unix epoch.
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0 >> 48 & ((1 << 48) - 1)).expect("48 bits are left")
    }
}

macro_rules! show {
    ($($id:ident $format:literal),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
show!(NodeId "n{}", DeviceId "d{:032x}", ShardId "s{}", GroupId "g{}", ContainerId "c{:016x}", Version "v{:016x}", ChunkId "{:032x}");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_with_time_and_differ_by_node() {
        let at = Timestamp::from_secs(1_795_000_000);
        let version = |at, node| Version::new(at, NodeId(node));
        assert!(version(at, 4095) < version(at.next(), 1));
        assert_ne!(version(at, 1), version(at, 2));
        assert_eq!(version(at, 7).began(), at);
    }

    #[test]
    fn chunk_id_keeps_its_parts() {
        let id = ChunkId::new(GroupId(7), 1_795_000_000_123, u64::MAX);
        assert_eq!((id.group(), id.unix_ms()), (GroupId(7), 1_795_000_000_123));
        assert!(ChunkId::new(GroupId(7), 2, 0) > ChunkId::new(GroupId(7), 1, u64::MAX));
    }
}
