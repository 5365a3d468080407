//! Reading chunks that lie in fragments.
//!
//! What is asked for is read where it lies. A fragment that is slow, missing or bad is computed from others: the same
//! range of as many as the code needs, those first that are near and answer. As with whole copies, who is slow
//! is not waited for alone, and who fails is told.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use base::{ChunkId, DeviceId};
use bytes::Bytes;
use futures_util::future::{Either, select, try_join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use map::{Group, Member};

use crate::code::{Code, WORD_BYTES};
use crate::read::{HEDGE_AFTER, no_copy};
use crate::{Chunk, Chunks, Error, StorageError};

/// Why there were not enough fragments.
pub(crate) type Failures = Vec<(DeviceId, StorageError)>;

/// A part of one fragment.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) chunk: Chunk,
    pub(crate) index: u8,
    /// Not empty, at most [`device::READ_BYTES_MAX`], and inside the fragment.
    pub(crate) range: Range<u32>,
}

impl Chunks {
    /// Reads a part of a chunk.
    pub(crate) async fn read_coded(
        &self,
        group: &Group,
        code: Code,
        chunk: Chunk,
        range: Range<u32>,
    ) -> Result<Bytes, Error> {
        let parts = code.parts(chunk.bytes, range).into_iter();
        let reads = parts.map(|(index, range)| {
            let wanted = Wanted {
                chunk,
                index,
                range,
            };
            self.read_fragment(group, code, wanted)
        });
        let mut pieces = try_join_all(reads).await?;
        match pieces.len() {
            1 => Ok(pieces.remove(0)),
            _ => Ok(pieces.concat().into()),
        }
    }

    /// Reads where the fragment lies, and makes it from others when that takes long or fails.
    async fn read_fragment(
        &self,
        group: &Group,
        code: Code,
        wanted: Wanted,
    ) -> Result<Bytes, Error> {
        let id = wanted.chunk.id;
        let holders = self.in_order(
            id,
            group.full_members().filter(|one| one.index == wanted.index),
        );
        let mut failures = Vec::new();
        let mut direct = None;
        if let Some(holder) = holders.first() {
            let device = holder.device;
            let read = self.read_on(device, id, Some(wanted.index), wanted.range.clone());
            let mut read = read.boxed();
            let patience = match self.is_slow(device) {
                true => Duration::ZERO,
                false => HEDGE_AFTER,
            };
            match tokio::time::timeout(patience, &mut read).await {
                Ok((_, Ok(bytes))) => return Ok(bytes),
                Ok((device, Err(error))) => failures.push((device, error)),
                Err(_) => {
                    self.inner.metrics.reads_hedged.inc();
                    direct = Some(read);
                }
            }
        }
        let make = self.make_fragment(group, code, &wanted).boxed();
        let made = match direct {
            None => make.await,
            Some(direct) => match select(direct, make).await {
                Either::Left(((_, Ok(bytes)), _)) => return Ok(bytes),
                Either::Left(((device, Err(error)), make)) => {
                    failures.push((device, error));
                    make.await
                }
                Either::Right((Err(others), direct)) => {
                    let (device, read) = direct.await;
                    read.map_err(|error| {
                        failures.push((device, error));
                        others
                    })
                }
                Either::Right((made, _)) => made,
            },
        };
        match made {
            Ok(bytes) => {
                self.tell_failures(id, &failures);
                Ok(bytes)
            }
            Err(others) => {
                failures.extend(others);
                Err(no_copy(id, &failures))
            }
        }
    }

    /// Computes a part of a fragment from as many others as are needed.
    pub(crate) async fn make_fragment(
        &self,
        group: &Group,
        code: Code,
        wanted: &Wanted,
    ) -> Result<Bytes, Failures> {
        let permit = self.inner.making.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let id = wanted.chunk.id;
        let words = wanted.range.start / WORD_BYTES * WORD_BYTES
            ..wanted.range.end.next_multiple_of(WORD_BYTES);
        let mut others = self.in_order(
            id,
            group.full_members().filter(|one| one.index != wanted.index),
        );
        let mut known = BTreeSet::new();
        others.retain(|one| known.insert(one.index));
        let mut others = others.into_iter();
        let ask = async |member: Member| {
            let end = words
                .end
                .min(code.bytes_of(wanted.chunk.bytes, member.index));
            if words.start >= end {
                // Behind its end there are zeros.
                return (member, Ok(Bytes::new()));
            }
            let range = words.start..end;
            let (_, read) = self
                .read_on(member.device, id, Some(member.index), range)
                .await;
            (member, read)
        };
        let needed = usize::from(code.data);
        let mut reads = FuturesUnordered::new();
        reads.extend(others.by_ref().take(needed).map(&ask));
        let (mut given, mut failures) = (Vec::new(), Vec::new());
        while given.len() < needed {
            let is_last = others.len() == 0;
            let answer = tokio::select! {
                biased;
                answer = reads.next() => answer,
                () = tokio::time::sleep(HEDGE_AFTER), if !is_last => {
                    reads.extend(others.next().map(&ask));
                    continue;
                }
            };
            match answer {
                Some((member, Ok(bytes))) => given.push((member.index, bytes)),
                Some((member, Err(error))) => {
                    failures.push((member.device, error));
                    reads.extend(others.next().map(&ask));
                }
                None => return Err(failures),
            }
        }
        self.tell_failures(id, &failures);
        self.inner.metrics.fragments_made.inc();
        let bytes = usize::try_from(words.end - words.start).expect("32 bits fit");
        let made = code.make(wanted.index, &given, bytes);
        let at = |offset: u32| usize::try_from(offset - words.start).expect("32 bits fit");
        Ok(made.slice(at(wanted.range.start)..at(wanted.range.end)))
    }

    /// These members as they are best asked: see [`Chunks::sources`].
    fn in_order<'a>(
        &self,
        chunk: ChunkId,
        members: impl Iterator<Item = &'a Member>,
    ) -> Vec<Member> {
        let mut members: Vec<_> = members.copied().collect();
        members.sort_by_cached_key(|one| self.rank(chunk, one.device));
        members
    }
}

#[cfg(test)]
mod tests;
