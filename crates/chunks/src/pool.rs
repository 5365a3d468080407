//! The memory of uploads: a fixed number of pieces that are handed out and come back.
//!
//! A piece is 128 KiB (one checksummed frame on the device), aligned to 4 KiB so that it can be
//! written past the page cache as it is. It is made when it is first needed and kept for the next
//! upload. Whoever waits is served in order of arrival.
//!
//! Nobody waits for a piece for ever: an upload that holds a full piece writes it to the device and
//! gets memory back that way; one that holds less than a full piece waits for its client, and the
//! gateway's deadline for idle bodies ends that.

use std::sync::Arc;
use std::time::Duration;

use base::env::BLOCK_BYTES;
use base::metrics::Gauge;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// The size of a [`Piece`].
pub const PIECE_BYTES: usize = device::FRAME_BYTES;

/// After so long a wait for memory a client is better told to come back.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// A bounded number of pieces. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    pieces: usize,
    permits: Arc<Semaphore>,
    /// Those that were made and are not in use.
    idle: Mutex<Vec<Memory>>,
    waits: Gauge,
}

impl Pool {
    pub(crate) fn new(pieces: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                pieces,
                permits: Arc::new(Semaphore::new(pieces)),
                idle: Mutex::default(),
                waits: Gauge::new(),
            }),
        }
    }

    pub(crate) fn pieces(&self) -> usize {
        self.inner.pieces
    }

    pub(crate) fn waits(&self) -> u64 {
        u64::try_from(self.inner.waits.get()).unwrap_or_default()
    }

    pub(crate) fn pieces_free(&self) -> usize {
        self.inner.permits.available_permits()
    }

    /// A piece, if one is free and nobody waits for it.
    pub fn try_take(&self) -> Option<Piece> {
        let permit = self.inner.permits.clone().try_acquire_owned().ok()?;
        Some(self.piece(permit))
    }

    /// A piece, when it is this caller's turn.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after half a minute.
    pub async fn take(&self) -> Result<Piece, Error> {
        let _waiting = self.inner.waits.enter();
        let permit = tokio::time::timeout(WAIT_MAX, self.inner.permits.clone().acquire_owned())
            .await
            .map_err(|_| Error::unavailable())?
            .expect("the semaphore is never closed");
        Ok(self.piece(permit))
    }

    fn piece(&self, permit: OwnedSemaphorePermit) -> Piece {
        let idle = self.inner.idle.lock().pop();
        Piece {
            memory: Some(idle.unwrap_or_else(Memory::new)),
            len: 0,
            pool: self.inner.clone(),
            _permit: permit,
        }
    }
}

/// Aligned bytes: a vector that is one block too long, and where the aligned part of it starts.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new() -> Self {
        let bytes = vec![0; PIECE_BYTES + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Self { bytes, start }
    }

    fn all(&self) -> &[u8] {
        &self.bytes[self.start..][..PIECE_BYTES]
    }

    fn all_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..PIECE_BYTES]
    }
}

/// A piece of memory that belongs to one upload until it is dropped.
pub struct Piece {
    /// `None` only while it is dropped.
    memory: Option<Memory>,
    len: usize,
    pool: Arc<Inner>,
    // Given back after the memory, so that the idle pieces are never more than the permits.
    _permit: OwnedSemaphorePermit,
}

impl Piece {
    /// Appends as much of `bytes` as fits and returns how much that was.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let memory = self.memory.as_mut().expect("only a dropped piece has none");
        let room = &mut memory.all_mut()[self.len..];
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.len += count;
        count
    }

    pub fn is_full(&self) -> bool {
        self.len == PIECE_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What was filled in, to be read by many; the memory goes back when the last has let go.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        let memory = self.memory.as_ref().expect("only a dropped piece has none");
        &memory.all()[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let memory = self.memory.take().expect("a piece is dropped once");
        self.pool.idle.lock().push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_aligned_and_comes_back_when_the_last_reader_lets_go() {
        let pool = Pool::new(1);
        let mut piece = pool.try_take().unwrap();
        assert_eq!(piece.fill(b"abc"), 3);
        let frozen = piece.freeze();
        assert_eq!(frozen.as_ptr().align_offset(BLOCK_BYTES), 0);
        let part = frozen.slice(1..);
        drop(frozen);
        assert!(pool.try_take().is_none());
        assert_eq!(&part[..], b"bc");
        drop(part);
        assert!(pool.try_take().unwrap().is_empty());
    }

    #[test]
    fn a_piece_takes_what_fits() {
        let mut piece = Pool::new(1).try_take().unwrap();
        assert_eq!(piece.fill(&vec![1; PIECE_BYTES - 2]), PIECE_BYTES - 2);
        assert!(!piece.is_full());
        assert_eq!(piece.fill(b"abc"), 2);
        assert!(piece.is_full());
        assert_eq!(piece.fill(b"c"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end_and_an_order() {
        let pool = Pool::new(1);
        let held = pool.take().await.unwrap();
        assert!(pool.take().await.is_err());

        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.take().await.unwrap() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(pool.try_take().is_none(), "it belongs to the one who waits");
        waiting.await.unwrap();
    }
}
