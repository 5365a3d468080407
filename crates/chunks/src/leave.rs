//! Removes what a device still has of groups that it is no longer a member of.
//!
//! A device that leaves a group keeps its copies: they are sources until others have them. The map, which is the
//! control group's record, says that all present members are full; that they have a certain chunk is believed when each of
//! their copies has been read and verified. Only then is the copy here deleted. A chunk that no member has was
//! deleted, or is lost: its copy stays until the scrubber has asked the chunk's owner.
//!
//! **Invariant:** no copy is deleted that counts for a fill. A device may come back to a group, and its fill finds
//! what is there already; so copies are deleted only with `Inner::leaving` held and the map looked at, and a fill that has
//! seen the newer map waits for that lock once before it looks.
//!
//! Whoever calls has a map that was confirmed since this process started: of what it was told earlier, this process may
//! have forgotten that its device is a member again.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{ChunkId, DeviceId, GroupId};
use futures_util::FutureExt as _;
use map::{Epoch, Fill, Group, Map};

use crate::{Chunks, Error, StorageError};

/// What is read of the other copies: a part of what a disk or a network gives, since nobody waits for the space.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// What a look at a chunk counts at least.
const LOOK_BYTES: u64 = 64 << 10;

/// From one member to another, a deletion that they were all told of takes less.
const DELETE_TIME: Duration = Duration::from_secs(1);

/// Deleted at once: the others' copies were read a moment ago.
const DELETE_MAX: usize = 32;

/// The groups as they were in the last round. Those that have changed since are left alone: readers may still go by
/// an older map.
pub(crate) type Settled = BTreeMap<GroupId, Epoch>;

impl Chunks {
    /// Goes once through all devices of this node and gives how many copies were removed. To be called again and again,
    /// some seconds apart.
    pub async fn remove_left_behind(&self) -> u64 {
        let map = self.inner.map.get();
        let epochs = map.groups.iter().map(|(id, group)| (*id, group.epoch));
        let before = std::mem::replace(&mut *self.inner.leaving.lock().await, epochs.collect());
        let here = map.devices.keys().copied();
        let mut removed = 0;
        for device in here.filter(|id| self.inner.devices.is_here(*id)) {
            for (id, group) in &map.groups {
                if before.get(id) == Some(&group.epoch) && heirs(&map, group, device).is_some() {
                    let left = self.leave(device, *id, group.epoch, &mut removed).await;
                    if let Err(error) = left {
                        tracing::debug!(group = %id, %device, %error, "copies left behind stay");
                    }
                }
            }
        }
        removed
    }

    /// Removes the copies of one group from one device.
    async fn leave(
        &self,
        device: DeviceId,
        group: GroupId,
        epoch: Epoch,
        removed: &mut u64,
    ) -> Result<(), Error> {
        // Before all of its chunks; what was written a moment ago need not be found.
        let mut after = ChunkId::new(group, 0, 0);
        loop {
            let target = self.device(device)?;
            let list = async move { target.list(group, Some(after)).await };
            let page = self.inner.hung.wait(device, list.boxed()).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = *last;
            for ids in page.chunks(DELETE_MAX) {
                let mut safe = Vec::new();
                for id in ids {
                    if self.is_safe(device, group, epoch, *id).await? {
                        safe.push(*id);
                    }
                }
                *removed += self.delete_left(device, group, epoch, safe).await?;
            }
        }
    }

    /// Whether every present member has a good copy. One that has none while others do gets one.
    async fn is_safe(
        &self,
        device: DeviceId,
        group: GroupId,
        epoch: Epoch,
        id: ChunkId,
    ) -> Result<bool, Error> {
        let (mut good, mut bad, mut bytes) = (None, Vec::new(), LOOK_BYTES);
        for (heir, index) in self.heirs(device, group, epoch)? {
            match self.fetch(heir, id, index).await {
                Ok((description, _)) => {
                    good = Some((heir, index));
                    bytes += u64::from(description.bytes);
                }
                Err(error @ (StorageError::Missing | StorageError::Damaged(_))) => {
                    bad.push((heir, error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some((good, index)) = good.filter(|_| !bad.is_empty()) {
            // While it is being deleted, some have it and others do not.
            tokio::time::sleep(DELETE_TIME).await;
            if self.fetch(good, id, index).await.is_ok() {
                for (heir, error) in &bad {
                    self.repair(id, *heir, error);
                }
            }
        }
        let pause = bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND;
        tokio::time::sleep(Duration::from_micros(pause)).await;
        Ok(good.is_some() && bad.is_empty())
    }

    async fn delete_left(
        &self,
        device: DeviceId,
        group: GroupId,
        epoch: Epoch,
        ids: Vec<ChunkId>,
    ) -> Result<u64, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let count = ids.len() as u64;
        let _no_fill = self.inner.leaving.lock().await;
        self.heirs(device, group, epoch)?;
        let target = self.device(device)?;
        let delete = async move { target.delete(&ids).await };
        self.inner.hung.wait(device, delete.boxed()).await?;
        self.inner.metrics.copies_left_removed.add(count);
        Ok(count)
    }

    /// Those who have taken over, if the group is as it was.
    fn heirs(&self, device: DeviceId, group: GroupId, epoch: Epoch) -> Result<Vec<Heir>, Error> {
        let map = self.inner.map.load();
        let group = map.groups.get(&group).filter(|group| group.epoch == epoch);
        let heirs = group.and_then(|group| heirs(&map, group, device));
        heirs.ok_or_else(Error::unavailable)
    }
}

/// A member, and which fragment it has.
type Heir = (DeviceId, Option<u8>);

/// The members of a group that `device` has left, if they are as many as there should be, and all full and up. Of a
/// group that waits for another member, who has left may be the one.
fn heirs(map: &Map, group: &Group, device: DeviceId) -> Option<Vec<Heir>> {
    let is_wide = group.members.len() >= group.policy.width();
    let is_full = group
        .members
        .iter()
        .all(|member| member.fill == Fill::Full && map.is_up(member.device));
    let has_left = !group.is_member(device);
    let heirs = group.devices().map(|id| (id, group.part(id)));
    (is_wide && is_full && has_left).then(|| heirs.collect())
}

#[cfg(test)]
mod tests;
