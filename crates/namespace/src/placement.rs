//! Which shard holds what. Part of the format: it never changes for a cluster.

use base::checksum::crc64_of;
use base::{ContainerId, ShardId};

/// The shard of an account's own row and of its list of containers.
pub(crate) fn of_account(account: &str, shards: u16) -> ShardId {
    pick(crc64_of(&[account.as_bytes()]), shards)
}

/// The shard of a container and all that it holds.
pub(crate) fn of_container(account: &str, container: &str, shards: u16) -> ShardId {
    // No account's name holds a zero byte, so no two pairs read the same.
    let hash = crc64_of(&[account.as_bytes(), &[0], container.as_bytes()]);
    pick(hash, shards)
}

/// The shard that a container's id names.
pub(crate) fn of_id(container: ContainerId) -> ShardId {
    ShardId(u16::try_from(container.0 >> 48).expect("16 bits are left"))
}

/// An id for a new container: the shard's number and 48 random bits.
pub(crate) fn container_id(shard: ShardId, random: u64) -> ContainerId {
    ContainerId(u64::from(shard.0) << 48 | random >> 16)
}

/// The upper half of the hash spreads better than its remainder.
fn pick(hash: u64, shards: u16) -> ShardId {
    let share = (u128::from(hash) * u128::from(shards)) >> 64;
    ShardId(u16::try_from(share).expect("less than the number of shards"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_never_change() {
        let places = [
            of_account("AUTH_test", 16),
            of_account("", 16),
            of_container("AUTH_test", "photos", 16),
            of_container("AUTH_test", "photos", 1),
        ];
        assert_eq!(places.map(|shard| shard.0), [15, 0, 11, 0]);
    }

    #[test]
    fn shards_get_equal_shares() {
        let mut share = [0u32; 16];
        for number in 0..16_000 {
            let shard = of_container("AUTH_test", &format!("container-{number}"), 16);
            share[usize::from(shard.0)] += 1;
        }
        assert!(share.iter().all(|n| (800..1200).contains(n)), "{share:?}");
    }

    #[test]
    fn an_id_names_its_shard() {
        let id = container_id(ShardId(515), u64::MAX);
        assert_eq!(of_id(id), ShardId(515));
    }
}
