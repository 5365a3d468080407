//! How much memory the shards of a device take for what is not in the tree yet.
//!
//! Counted are the batches on their way and the active memtables. Half way to the bound a flush is
//! asked for; that freezes the memtables and so makes room at once, while it writes. At the bound new
//! procedures wait. So memory is at most twice the bound, and what the procedures at work hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Error;

pub(crate) struct Budget {
    bytes_max: u64,
    queued: AtomicU64,
    active: AtomicU64,
    room: Notify,
    /// The device has no space for what grows.
    full: AtomicBool,
}

/// Bytes of a batch on its way to the memtable; they are free again when this is dropped.
pub(crate) struct Queued {
    budget: Arc<Budget>,
    bytes: u64,
}

/// A flush takes seconds at worst; who waits longer had better try again.
const WAIT_MAX: Duration = Duration::from_secs(10);

impl Budget {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            queued: AtomicU64::new(0),
            active: AtomicU64::new(0),
            room: Notify::new(),
            full: AtomicBool::new(false),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.active.load(Relaxed) + self.queued.load(Relaxed) < self.bytes_max
    }

    /// Waits until there is room; `flush` asks for it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that takes too long.
    pub(crate) async fn room(&self, flush: impl Fn()) -> Result<(), Error> {
        let has_room = async {
            loop {
                let freed = self.room.notified();
                if self.has_room() {
                    return;
                }
                flush();
                freed.await;
            }
        };
        timeout(WAIT_MAX, has_room)
            .await
            .map_err(|_| Error::Unavailable {
                retry_in: Duration::from_secs(1),
            })
    }

    pub(crate) fn queue(self: &Arc<Self>, bytes: u64) -> Queued {
        self.queued.fetch_add(bytes, Relaxed);
        Queued {
            budget: self.clone(),
            bytes,
        }
    }

    /// The active memtables grew. Returns whether it is time to flush, so that a flush is done before
    /// the bound is reached.
    pub(crate) fn grew(&self, bytes: u64) -> bool {
        let before = self.active.fetch_add(bytes, Relaxed);
        let half = self.bytes_max / 2;
        before < half && before + bytes >= half
    }

    /// Active memtables were frozen or dropped.
    pub(crate) fn shrank(&self, bytes: u64) {
        self.active.fetch_sub(bytes, Relaxed);
        self.room.notify_waiters();
    }

    pub(crate) fn active_bytes(&self) -> u64 {
        self.active.load(Relaxed)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// Returns whether that is news.
    pub(crate) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Relaxed) != full
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.budget.queued.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn who_finds_no_room_asks_for_a_flush_and_waits_for_it() {
        let budget = Arc::new(Budget::new(100));
        let queued = budget.queue(60);
        assert!(!budget.grew(30));
        budget.room(|| panic!("there is room")).await.unwrap();
        assert!(budget.grew(20), "over the half");

        let asked = AtomicBool::new(false);
        let mut waits = pin!(budget.room(|| asked.store(true, Relaxed)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        assert!(asked.load(Relaxed));
        budget.shrank(50);
        assert!(matches!(
            waits.as_mut().poll(&mut context),
            Poll::Ready(Ok(()))
        ));
        drop(queued);
        assert_eq!(budget.queued.load(Relaxed), 0);
    }
}
