//! Copies to a new member of a group what the others have.
//!
//! Whoever calls has seen to it that the nodes of some members refuse writers that do not know the new
//! member (see `fence`). Then one pass over the list of one of them that is full is enough: what is not in the list is
//! written to the new member by its writer. A copy may meet the writer's own; a device keeps one. The list of a
//! member that is not fenced says nothing; but a chunk that is listed never changes, so any copy of it will do.

use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use map::{Epoch, Fill};

use crate::{Chunks, Description, Error, StorageError};

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Chunks that there were to be looked at when it began.
    pub listed: u64,
    /// Chunks that were there already.
    pub present: u64,
    pub copied: u64,
    pub copied_bytes: u64,
    /// Chunks of which no good copy was found anywhere.
    pub lost: u64,
}

impl Chunks {
    /// Makes `device`, which is here and a filling member of `group`, hold what the full members hold. Those of `fenced`
    /// refuse writers with an older map. `progress` is told before the first chunk and after each.
    ///
    /// # Errors
    /// If the device takes no more, no full member that is fenced can be asked, or the group has changed since. What
    /// was copied stays and is not copied again.
    pub async fn fill(
        &self,
        group: GroupId,
        device: DeviceId,
        fenced: &[DeviceId],
        progress: impl Fn(&Filled),
    ) -> Result<Filled, Error> {
        let mut filled = Filled::default();
        let (epoch, full) = self.filling(group, device)?;
        // What it kept from an earlier time is deleted no more: it counts from here on.
        drop(self.inner.leaving.lock().await);
        let target = self.device(device)?;
        let mut sources = full.clone();
        sources.retain(|id| fenced.contains(id));
        let mut after = None;
        loop {
            let page = self.list(&sources, group, after).await?;
            filled.listed += page.len() as u64;
            match page.last() {
                Some(last) => after = Some(*last),
                None => break,
            }
        }
        progress(&filled);
        after = None;
        loop {
            let page = self.list(&sources, group, after).await?;
            let Some(last) = page.last() else {
                return Ok(filled);
            };
            after = Some(*last);
            for id in page {
                if self.filling(group, device)?.0 != epoch {
                    return Err(Error::unavailable());
                }
                let target = target.clone();
                let describe = async move { target.describe(id).await };
                match self.inner.hung.wait(device, describe.boxed()).await {
                    Ok(_) => filled.present += 1,
                    Err(StorageError::Missing | StorageError::Damaged(_)) => {
                        self.copy(&full, epoch, id, device, &mut filled).await?;
                    }
                    Err(error) => return Err(error.into()),
                }
                progress(&filled);
            }
        }
    }

    /// The group's epoch and its full members, if `device` is a filling one.
    fn filling(&self, group: GroupId, device: DeviceId) -> Result<(Epoch, Vec<DeviceId>), Error> {
        let map = self.inner.map.load();
        let group = map.groups.get(&group).ok_or_else(Error::unavailable)?;
        let fills = |fill| matches!(fill, Fill::Filling { .. });
        let mut members = group.members.iter();
        if !members.any(|member| member.device == device && fills(member.fill)) {
            return Err(Error::unavailable());
        }
        Ok((group.epoch, group.full().collect()))
    }

    /// A page of the first of these full members that answers. All of them list the same, but for what is being
    /// written or deleted.
    async fn list(
        &self,
        sources: &[DeviceId],
        group: GroupId,
        after: Option<ChunkId>,
    ) -> Result<Vec<ChunkId>, Error> {
        for id in sources {
            let Some(source) = self.inner.devices.get(*id) else {
                continue;
            };
            let list = async move { source.list(group, after).await };
            match self.inner.hung.wait(*id, list.boxed()).await {
                Ok(page) => return Ok(page),
                Err(error) => tracing::debug!(%group, device = %id, %error, "not listed"),
            }
        }
        Err(Error::unavailable())
    }

    /// Copies a chunk from the first of `full` whose copy is good, and reads back what was written.
    pub(crate) async fn copy(
        &self,
        full: &[DeviceId],
        epoch: Epoch,
        id: ChunkId,
        target: DeviceId,
        filled: &mut Filled,
    ) -> Result<(), Error> {
        let (mut damaged, mut unreached) = (false, false);
        let began = tokio::time::Instant::now();
        for device in full {
            match self.fetch(*device, id).await {
                Ok((Description { owner, bytes }, payload)) => {
                    let device = self.device(target)?;
                    let write = async move { device.write(epoch, id, &owner, &payload).await };
                    self.inner.hung.wait(target, write.boxed()).await?;
                    // What was written is believed when it has been read.
                    self.fetch(target, id).await?;
                    filled.copied += 1;
                    filled.copied_bytes += u64::from(bytes);
                    self.inner.metrics.chunks_filled.inc();
                    self.inner.metrics.filled_bytes.add(bytes.into());
                    self.inner.pace.spend(bytes.into(), began.elapsed()).await;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(chunk = %id, %device, %error, "bad copy");
                    match error {
                        StorageError::Damaged(_) => damaged = true,
                        StorageError::Missing => {}
                        StorageError::Full
                        | StorageError::Stale
                        | StorageError::Unavailable(_)
                        | StorageError::Unreached(_)
                        | StorageError::Overdue => unreached = true,
                    }
                }
            }
        }
        match (damaged, unreached) {
            (_, true) => Err(Error::unavailable()),
            (true, false) => {
                tracing::error!(chunk = %id, "no good copy of a chunk is left");
                filled.lost += 1;
                self.inner.metrics.chunks_lost.inc();
                Ok(())
            }
            // It was deleted since it was listed.
            (false, false) => Ok(()),
        }
    }

    /// A device's copy of a whole chunk, verified.
    pub(crate) async fn fetch(
        &self,
        device: DeviceId,
        id: ChunkId,
    ) -> Result<(Description, Vec<Bytes>), StorageError> {
        let source = self.device(device)?;
        let fetch = async move {
            let read_max = u32::try_from(device::READ_BYTES_MAX).expect("1 MiB fits");
            let description = source.describe(id).await?;
            let mut payload = Vec::new();
            let mut start = 0;
            while start < description.bytes {
                let end = description.bytes.min(start + read_max);
                payload.push(source.read(id, start..end).await?);
                start = end;
            }
            Ok((description, payload))
        };
        self.inner.hung.wait(device, fetch.boxed()).await
    }
}

#[cfg(test)]
mod tests;
