//! Copies to a new member of a group what the others have, or makes its fragments from theirs.
//!
//! Whoever calls has seen to it that the nodes of some members refuse writers that do not know the new
//! member (see `fence`). Then one pass over the list of one of them that is full is enough: what is not in the list is
//! written to the new member by its writer. A copy may meet the writer's own; a device keeps one. The list of a
//! member that is not fenced says nothing; but a chunk that is listed never changes, so any copy of it will do.

use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use futures_util::FutureExt as _;
use map::{Fill, Group};

use crate::code::Code;
use crate::fragment::{Failures, Wanted};
use crate::{Chunk, Chunks, Description, Error, Label, StorageError};

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

/// [`device::READ_BYTES_MAX`].
const READ_MAX: u32 = 1 << 20;
const _: () = assert!(READ_MAX as usize == device::READ_BYTES_MAX);

/// What the others have for a member.
enum Found {
    Content(Label, Vec<Bytes>),
    /// None has it, so it was deleted.
    Gone,
    /// What they have is bad.
    Lost,
    /// Some of them may have it.
    Unreached,
}

impl Found {
    /// What it means that nothing could be had.
    fn nothing<'a>(failures: impl Iterator<Item = &'a StorageError>) -> Self {
        let mut found = Self::Gone;
        for error in failures {
            match error {
                StorageError::Missing => {}
                StorageError::Damaged(_) => found = Self::Lost,
                StorageError::Full
                | StorageError::Stale
                | StorageError::Unavailable(_)
                | StorageError::Unreached(_)
                | StorageError::Overdue => return Self::Unreached,
            }
        }
        found
    }
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
        let as_begun = self.filling(group, device)?;
        let index = as_begun.part(device);
        // What it kept from an earlier time is deleted no more: it counts from here on.
        drop(self.inner.leaving.lock().await);
        let target = self.device(device)?;
        let full = as_begun.full();
        let sources: Vec<_> = full.filter(|id| fenced.contains(id)).collect();
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
                if self.filling(group, device)?.epoch != as_begun.epoch {
                    return Err(Error::unavailable());
                }
                let target = target.clone();
                let describe = async move { target.describe(id).await };
                match self.inner.hung.wait(device, describe.boxed()).await {
                    Ok(one) if one.label.index() == index => filled.present += 1,
                    Ok(_) | Err(StorageError::Missing | StorageError::Damaged(_)) => {
                        self.copy(&as_begun, id, device, &mut filled).await?;
                    }
                    Err(error) => return Err(error.into()),
                }
                progress(&filled);
            }
        }
    }

    /// The group, if `device` is a filling member.
    fn filling(&self, group: GroupId, device: DeviceId) -> Result<Group, Error> {
        let map = self.inner.map.load();
        let group = map.groups.get(&group).ok_or_else(Error::unavailable)?;
        let fills = |fill| matches!(fill, Fill::Filling { .. });
        let mut members = group.members.iter();
        if !members.any(|member| member.device == device && fills(member.fill)) {
            return Err(Error::unavailable());
        }
        Ok(group.clone())
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

    /// Gives a member its copy of a chunk, or its fragment, from the other full ones, and reads back what was written.
    pub(crate) async fn copy(
        &self,
        group: &Group,
        id: ChunkId,
        target: DeviceId,
        filled: &mut Filled,
    ) -> Result<(), Error> {
        let began = tokio::time::Instant::now();
        let found = match Code::of(group.policy) {
            None => self.copy_of(group, None, id, target).await,
            Some(code) => self.fragment_for(group, code, id, target).await,
        };
        match found {
            Found::Content(label, payload) => {
                let bytes: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
                let (device, epoch, index) = (self.device(target)?, group.epoch, label.index());
                let write = async move { device.write(epoch, id, &label, &payload).await };
                self.inner.hung.wait(target, write.boxed()).await?;
                // What was written is believed when it has been read.
                self.fetch(target, id, index).await?;
                filled.copied += 1;
                filled.copied_bytes += bytes;
                self.inner.metrics.chunks_filled.inc();
                self.inner.metrics.filled_bytes.add(bytes);
                let read_bytes = bytes * group.policy.needed() as u64;
                self.inner.pace.spend(read_bytes, began.elapsed()).await;
            }
            // It was deleted since it was listed.
            Found::Gone => {}
            Found::Lost => {
                tracing::error!(chunk = %id, "no good copy of a chunk is left");
                filled.lost += 1;
                self.inner.metrics.chunks_lost.inc();
            }
            Found::Unreached => return Err(Error::unavailable()),
        }
        Ok(())
    }

    /// What the first of the other full members has whose copy is good; of those with this index, if it is given.
    async fn copy_of(
        &self,
        group: &Group,
        index: Option<u8>,
        id: ChunkId,
        target: DeviceId,
    ) -> Found {
        let others = group.full_members().filter(|one| one.device != target);
        let others = others.filter(|one| index.is_none_or(|index| one.index == index));
        let mut failures = Vec::new();
        for device in others.map(|one| one.device) {
            match self.fetch(device, id, index).await {
                Ok((description, payload)) => return Found::Content(description.label, payload),
                Err(error) => {
                    tracing::warn!(chunk = %id, %device, %error, "bad copy");
                    failures.push(error);
                }
            }
        }
        Found::nothing(failures.iter())
    }

    /// The fragment that a member is to have: from who had it before, or made of others.
    async fn fragment_for(
        &self,
        group: &Group,
        code: Code,
        id: ChunkId,
        target: DeviceId,
    ) -> Found {
        let Some(index) = group.part(target) else {
            return Found::Unreached;
        };
        if let found @ Found::Content(..) = self.copy_of(group, Some(index), id, target).await {
            return found;
        }
        let mut failures = Vec::new();
        for member in group.full_members().filter(|one| one.index != index) {
            let described = self.describe(member.device, id).await;
            match described.map(|one| (one.label.fragment, one.label)) {
                Ok((Some(fragment), mut label)) => {
                    let chunk = Chunk {
                        id,
                        bytes: fragment.chunk_bytes,
                    };
                    label.fragment = Some(device::Fragment { index, ..fragment });
                    return match self.whole_fragment(group, code, chunk, index).await {
                        Ok(payload) => Found::Content(label, payload),
                        Err(failures) => Found::nothing(failures.iter().map(|(_, error)| error)),
                    };
                }
                // No fragment at all is in its place.
                Ok((None, _)) => failures.push(StorageError::Damaged(String::new())),
                Err(error) => failures.push(error),
            }
        }
        Found::nothing(failures.iter())
    }

    async fn whole_fragment(
        &self,
        group: &Group,
        code: Code,
        chunk: Chunk,
        index: u8,
    ) -> Result<Vec<Bytes>, Failures> {
        let (bytes, mut start) = (code.bytes_of(chunk.bytes, index), 0);
        let mut payload = Vec::new();
        while start < bytes {
            let end = bytes.min(start + READ_MAX);
            let wanted = Wanted {
                chunk,
                index,
                range: start..end,
            };
            payload.push(self.make_fragment(group, code, &wanted).await?);
            start = end;
        }
        Ok(payload)
    }

    async fn describe(&self, device: DeviceId, id: ChunkId) -> Result<Description, StorageError> {
        let source = self.device(device)?;
        let describe = async move { source.describe(id).await };
        self.inner.hung.wait(device, describe.boxed()).await
    }

    /// A device's whole copy of a chunk, or its fragment of this index: verified.
    pub(crate) async fn fetch(
        &self,
        device: DeviceId,
        id: ChunkId,
        index: Option<u8>,
    ) -> Result<(Description, Vec<Bytes>), StorageError> {
        let source = self.device(device)?;
        let fetch = async move {
            let description = source.describe(id).await?;
            let mut payload = Vec::new();
            let mut start = 0;
            while start < description.bytes {
                let end = description.bytes.min(start + READ_MAX);
                payload.push(source.read(id, index, start..end).await?);
                start = end;
            }
            Ok((description, payload))
        };
        self.inner.hung.wait(device, fetch.boxed()).await
    }
}

#[cfg(test)]
mod tests;
