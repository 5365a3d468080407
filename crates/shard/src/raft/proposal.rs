//! What travels in one Raft entry: the batches of all procedures that waited together, and, on the
//! leader that proposed it, who waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::raft::ClientWriteResponse;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Error;
use crate::budget::Queued;
use crate::latch::Held;

use super::Types;

/// The effects of one Raft entry. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proposal {
    inner: Arc<Inner>,
}

struct Inner {
    time: u64,
    batches: Vec<Bytes>,
    local: Option<Local>,
}

/// What openraft answers. We complete the waiters when the entry is applied, one hop earlier, but
/// openraft complains if nobody holds the receiver.
pub(crate) type Answer = oneshot::Receiver<
    Result<
        ClientWriteResponse<Types>,
        openraft::error::ClientWriteError<super::NodeId, openraft::EmptyNode>,
    >,
>;

/// The proposer's side of a proposal; whoever drops it unfinished fails the waiters.
pub(crate) struct Local {
    waiters: Mutex<Vec<Waiter>>,
    slot: Mutex<Option<Slot>>,
    answer: Mutex<Option<Answer>>,
    /// Set before the entry is given to the log: from then on it may happen.
    appended: AtomicBool,
}

/// One procedure that waits for its batch; it holds its latches until then.
pub(crate) struct Waiter {
    pub(crate) held: Held,
    pub(crate) queued: Queued,
    pub(crate) done: oneshot::Sender<Result<(), Error>>,
}

/// The right to have an entry on its way to the log; its end lets the next one go.
pub(crate) struct Slot(Option<Box<dyn FnOnce() + Send>>);

impl Slot {
    pub(crate) fn new(free: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(free)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(free) = self.0.take() {
            free();
        }
    }
}

impl Proposal {
    /// `time` is the newest that any procedure was given so far.
    pub(crate) fn new(time: u64, batches: Vec<Bytes>, local: Option<Local>) -> Self {
        Self {
            inner: Arc::new(Inner {
                time,
                batches,
                local,
            }),
        }
    }

    pub(crate) fn time(&self) -> u64 {
        self.inner.time
    }

    pub(crate) fn batches(&self) -> &[Bytes] {
        &self.inner.batches
    }

    pub(crate) fn local(&self) -> Option<&Local> {
        self.inner.local.as_ref()
    }
}

impl Local {
    pub(crate) fn new(waiters: Vec<Waiter>, slot: Slot) -> Self {
        Self {
            waiters: Mutex::new(waiters),
            slot: Mutex::new(Some(slot)),
            answer: Mutex::new(None),
            appended: AtomicBool::new(false),
        }
    }

    pub(crate) fn keep(&self, answer: Answer) {
        *self.answer.lock() = Some(answer);
    }

    /// The entry goes to the log: from now on it may happen.
    pub(crate) fn appending(&self) {
        self.appended.store(true, Ordering::Relaxed);
    }

    /// The entry is in the log: the next one may go there.
    pub(crate) fn logged(&self) {
        let slot = self.slot.lock().take();
        drop(slot);
    }

    /// The entry is applied, or will never be known to be.
    pub(crate) fn finish(&self, result: &Result<(), Error>) {
        for waiter in std::mem::take(&mut *self.waiters.lock()) {
            // Before the answer: whoever gets it may come back for the same keys at once.
            drop(waiter.queued);
            drop(waiter.held);
            // The caller may be gone.
            let _ = waiter.done.send(result.clone());
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let error = match self.appended.load(Ordering::Relaxed) {
            true => Error::Unknown,
            false => Error::Unavailable {
                retry_in: Duration::from_secs(1),
            },
        };
        self.finish(&Err(error));
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.batches().iter().map(Bytes::len).sum();
        write!(f, "{} batches of {bytes} B", self.batches().len())
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        (self.time(), self.batches()) == (other.time(), other.batches())
    }
}
