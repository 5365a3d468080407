//! Reading: verified pieces of up to 1 MiB, one ahead of the client.
//!
//! What is being read, and what was read and waits for the client to take it, counts against the
//! reads' share of the buffer budget. The less of it is free, the smaller the pieces: so a hundred
//! slow clients hold one frame each, and a single fast one gets its megabytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::checksum::crc32c_of;
use base::{ChunkId, DeviceId};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use map::Group;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::code::Code;
use crate::error::joined;
use crate::pool::WAIT_MAX;
use crate::{Chunk, Chunks, Error, PIECE_BYTES, StorageError};

/// The most that one read takes of the budget: 1 MiB.
const READ_PIECES_MAX: usize = 8;
const _: () = assert!(READ_PIECES_MAX * PIECE_BYTES == device::READ_BYTES_MAX);

/// A read takes at most this part of the free budget.
const FREE_PART: usize = 16;

/// A device that has not answered for so long is not waited for alone. Longer than a busy disk takes,
/// and shorter than a client notices.
pub(crate) const HEDGE_AFTER: Duration = Duration::from_millis(50);

/// A part of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub chunk: Chunk,
    /// Not empty, and inside the chunk.
    pub range: Range<u32>,
}

impl Span {
    /// Takes off at most `pieces` frames from the front, ending at a frame's border.
    fn take_front(&mut self, pieces: usize) -> Span {
        const FRAME: u32 = 128 * 1024;
        const _: () = assert!(FRAME as usize == PIECE_BYTES);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let border = (self.range.start / FRAME).saturating_add(pieces);
        let end = self.range.end.min(border.saturating_mul(FRAME));
        let range = self.range.start..end;
        self.range.start = end;
        Span {
            chunk: self.chunk,
            range,
        }
    }
}

/// A body on its way out.
pub struct Reader {
    chunks: Chunks,
    spans: VecDeque<Span>,
    ahead: Option<JoinHandle<Result<Bytes, Error>>>,
}

impl Chunks {
    pub fn reader(&self) -> Reader {
        Reader {
            chunks: self.clone(),
            spans: VecDeque::new(),
            ahead: None,
        }
    }

    async fn read(&self, span: &Span) -> Result<Bytes, Error> {
        self.serves_client();
        let (chunk, range) = (span.chunk, span.range.clone());
        let group = self.group(chunk.id.group()).await?;
        match Code::of(group.policy) {
            None => self.read_copy(&group, chunk.id, range).await,
            Some(code) => self.read_coded(&group, code, chunk, range).await,
        }
    }

    /// Reads from the nearest full member. Another is asked as well when that one is slow, and at once
    /// when its copy is bad.
    async fn read_copy(
        &self,
        group: &Group,
        chunk: ChunkId,
        range: Range<u32>,
    ) -> Result<Bytes, Error> {
        let mut sources = self.sources(group, chunk).into_iter();
        let mut reads = FuturesUnordered::new();
        let ask = |device| self.read_on(device, chunk, None, range.clone());
        reads.extend(sources.next().map(ask));
        let mut failures = Vec::new();
        loop {
            // What is asked for has its own end, so there is nothing more to do than to wait for it.
            let is_last = sources.len() == 0;
            let answer = tokio::select! {
                biased;
                answer = reads.next() => answer,
                () = tokio::time::sleep(HEDGE_AFTER), if !is_last => {
                    self.inner.metrics.reads_hedged.inc();
                    reads.extend(sources.next().map(ask));
                    continue;
                }
            };
            let Some((device, read)) = answer else {
                return Err(no_copy(chunk, &failures));
            };
            match read {
                Ok(bytes) => {
                    self.tell_failures(chunk, &failures);
                    return Ok(bytes);
                }
                Err(error) => {
                    failures.push((device, error));
                    reads.extend(sources.next().map(ask));
                }
            }
        }
    }

    /// Reads one copy, or a fragment of this index.
    pub(crate) async fn read_on(
        &self,
        device: DeviceId,
        chunk: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    ) -> (DeviceId, Result<Bytes, StorageError>) {
        let source = self.device(device);
        let read = async move { source?.read(chunk, index, range).await };
        (device, self.inner.hung.wait(device, read.boxed()).await)
    }

    /// What is to be done about copies that could not be read, while another could.
    pub(crate) fn tell_failures(&self, chunk: ChunkId, failures: &[(DeviceId, StorageError)]) {
        for (device, error) in failures {
            match error {
                StorageError::Missing | StorageError::Damaged(_) => {
                    self.repair(chunk, *device, error);
                }
                StorageError::Full
                | StorageError::Stale
                | StorageError::Unavailable(_)
                | StorageError::Unreached(_)
                | StorageError::Overdue => {
                    tracing::debug!(%chunk, %device, %error, "copy not read");
                }
            }
        }
    }

    /// The full members of a chunk's group in the order in which they are asked: those here first, those
    /// that are down or hang last; others in an order of the chunk's own, so that all of them share the work.
    pub(crate) fn sources(&self, group: &Group, chunk: ChunkId) -> Vec<DeviceId> {
        let mut full: Vec<_> = group.full().collect();
        full.sort_by_cached_key(|id| self.rank(chunk, *id));
        full
    }

    /// What comes first is asked first.
    pub(crate) fn rank(&self, chunk: ChunkId, device: DeviceId) -> (bool, bool, u32) {
        let is_here = self.inner.devices.is_here(device);
        let share = crc32c_of(&[&chunk.0.to_le_bytes(), &device.0.to_le_bytes()]);
        (self.is_slow(device), !is_here, share)
    }

    /// Whether it is down or hangs.
    pub(crate) fn is_slow(&self, device: DeviceId) -> bool {
        !self.inner.map.load().is_up(device) || self.inner.hung.is_hung(device)
    }

    /// How many pieces a read should take now.
    fn read_pieces(&self) -> usize {
        (self.inner.reads.available_permits() / FREE_PART).clamp(1, READ_PIECES_MAX)
    }

    async fn read_permit(&self, pieces: u32) -> Result<OwnedSemaphorePermit, Error> {
        let reads = self.inner.reads.clone();
        let _waiting = self.inner.metrics.read_waits.enter();
        let permit = tokio::time::timeout(WAIT_MAX, reads.acquire_many_owned(pieces)).await;
        Ok(permit
            .map_err(|_| Error::unavailable())?
            .expect("the semaphore is never closed"))
    }
}

impl Reader {
    /// Appends to what is to be read.
    pub fn push(&mut self, span: Span) {
        self.spans.push_back(span);
    }

    /// Whether nothing is left to begin: time to push more.
    pub fn is_short(&self) -> bool {
        self.spans.is_empty()
    }

    /// The next piece; `None` when all that was pushed has been read. After an error nothing more
    /// can be told about the body.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let read = match self.ahead.take() {
            Some(ahead) => joined(ahead.await),
            None => {
                let span = self.take_front()?;
                self.read_now(span).await
            }
        };
        if read.is_ok() {
            self.read_ahead();
        }
        Some(read)
    }

    fn take_front(&mut self) -> Option<Span> {
        let first = self.spans.front_mut()?;
        let span = first.take_front(self.chunks.read_pieces());
        if first.range.is_empty() {
            self.spans.pop_front();
        }
        Some(span)
    }

    async fn read_now(&self, span: Span) -> Result<Bytes, Error> {
        let permit = self.chunks.read_permit(pieces(&span)).await?;
        Ok(budgeted(self.chunks.read(&span).await?, permit))
    }

    /// Begins to read what comes next, if the budget allows that at once.
    fn read_ahead(&mut self) {
        let Some(span) = self.take_front() else {
            return;
        };
        let reads: Arc<_> = self.chunks.inner.reads.clone();
        let Ok(permit) = reads.try_acquire_many_owned(pieces(&span)) else {
            self.spans.push_front(span);
            return;
        };
        let chunks = self.chunks.clone();
        self.ahead = Some(tokio::spawn(async move {
            Ok(budgeted(chunks.read(&span).await?, permit))
        }));
    }
}

/// What it means that no copy could be read. That one may come back is worth more than that another
/// is gone.
pub(crate) fn no_copy(chunk: ChunkId, failures: &[(DeviceId, StorageError)]) -> Error {
    let mut damaged = None;
    for (device, error) in failures {
        tracing::warn!(%chunk, %device, %error, "copy not read");
        match error.clone().into() {
            Error::Damaged(what) => damaged = Some(what),
            Error::OutOfSpace | Error::Unavailable { .. } => return Error::unavailable(),
        }
    }
    match damaged {
        Some(what) => Error::Damaged(format!("chunk {chunk}: {what}")),
        None => Error::unavailable(),
    }
}

/// How many frames a device reads to answer.
fn pieces(span: &Span) -> u32 {
    let frame = u32::try_from(PIECE_BYTES).expect("128 KiB fits");
    span.range.end.div_ceil(frame) - span.range.start / frame
}

/// Bytes that give their share of the budget back when they are dropped.
fn budgeted(bytes: Bytes, permit: OwnedSemaphorePermit) -> Bytes {
    struct Budgeted {
        bytes: Bytes,
        _permit: OwnedSemaphorePermit,
    }
    impl AsRef<[u8]> for Budgeted {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Budgeted {
        bytes,
        _permit: permit,
    })
}

#[cfg(test)]
mod tests;
