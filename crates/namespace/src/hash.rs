//! The MD5 of a body, computed beside the task that receives it.
//!
//! MD5 is the slowest thing that happens to a large body, so it must not wait for anything else: it
//! is handed, in order and about a mebibyte at a time, to the blocking threads, while the
//! connection's task goes on receiving and the device's threads write. No more bodies are hashed at
//! once than there are processors.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::Error;

/// A hop to another thread costs some 10 µs, this much hashing 1.4 ms.
const STEP_BYTES: usize = 1 << 20;

/// What may wait to be hashed before the upload waits too.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Less than this is hashed where it is: at most 50 µs.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// One for each processor.
static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(processors))
});

/// The MD5 of a small body.
pub(crate) fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// Computes the MD5 of pieces in the order in which they are pushed.
pub(crate) struct Hasher {
    /// Of everything that was hashed, while no job runs.
    md5: Md5,
    job: Option<JoinHandle<Md5>>,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self {
            md5: Md5::new(),
            job: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes the next piece; waits only if hashing is far behind.
    pub(crate) async fn push(&mut self, piece: Bytes) -> Result<(), Error> {
        self.waiting_bytes += piece.len();
        self.waiting.push(piece);
        let is_idle = self.job.as_ref().is_none_or(JoinHandle::is_finished);
        if self.waiting_bytes >= WAITING_BYTES_MAX || is_idle && self.waiting_bytes >= STEP_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Begins to hash all that waits, so that its memory comes back soon.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let turn = TURNS.clone().acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        self.settle().await?;
        let md5 = std::mem::take(&mut self.md5);
        let pieces = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        self.job = Some(tokio::task::spawn_blocking(|| hash(md5, pieces, turn)));
        Ok(())
    }

    /// Waits until nothing is being hashed.
    async fn settle(&mut self) -> Result<(), Error> {
        if let Some(job) = &mut self.job {
            self.md5 = match job.await {
                Ok(md5) => md5,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is going down.
                Err(_) => return Err(Error::later()),
            };
            self.job = None;
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<[u8; 16], Error> {
        if self.waiting_bytes > INLINE_BYTES_MAX {
            self.flush().await?;
        }
        self.settle().await?;
        for piece in &self.waiting {
            self.md5.update(piece);
        }
        Ok(self.md5.finalize().into())
    }
}

fn hash(mut md5: Md5, pieces: Vec<Bytes>, _turn: OwnedSemaphorePermit) -> Md5 {
    // Each piece goes back to the pool as soon as it is done.
    for piece in pieces {
        md5.update(&piece);
    }
    md5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_hash_like_the_whole() {
        let body: Bytes = (0..6 << 20).map(|at: u32| (at % 251) as u8).collect();
        for (len, step) in [
            (0, 1),
            (100, 7),
            (INLINE_BYTES_MAX, 1000),
            (STEP_BYTES + 1, 128 << 10),
            (6 << 20, 100_000),
        ] {
            let mut hasher = Hasher::new();
            let mut rest = body.slice(..len);
            while !rest.is_empty() {
                let piece = rest.split_to(step.min(rest.len()));
                hasher.push(piece).await.unwrap();
            }
            let hash = hasher.finish().await.unwrap();
            assert_eq!(hash, md5(&body[..len]), "{len} by {step}");
        }
    }
}
