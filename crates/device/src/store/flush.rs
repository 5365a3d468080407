//! Tells the index what the ledger knows, every few seconds and when somebody waits for it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use base::ChunkId;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tracing::warn;

use super::ledger::Known;
use super::reclaim::Left;
use super::record::Place;
use super::write::LEDGER_CHANGES_MAX;
use super::{Shared, Store};
use crate::{Error, Identity, lmdb};

/// Deletions that had to wait for writes in flight are tried again after this.
const HELD_RETRY: Duration = Duration::from_millis(5);

/// Wakes the flusher thread, and tells others how far it is.
pub(crate) struct Flusher {
    orders: Mutex<Orders>,
    changed: Condvar,
    progress: watch::Sender<Progress>,
    /// Whether the last flush found no space.
    starved: AtomicBool,
}

#[derive(Default)]
struct Orders {
    /// Counts the requests.
    wanted: u64,
    served: u64,
    stop: bool,
}

#[derive(Clone, Default)]
struct Progress {
    /// Requests up to this one have been served.
    served: u64,
    /// Deletions up to this one are durable.
    deletions: u64,
    /// How the last flush failed, if it did.
    failed: Option<Error>,
}

impl Flusher {
    pub(crate) fn new() -> Self {
        Self {
            orders: Mutex::default(),
            changed: Condvar::new(),
            progress: watch::Sender::default(),
            starved: AtomicBool::new(false),
        }
    }

    /// Asks for a flush that begins after this call; answers with the request's number.
    pub(crate) fn request(&self) -> u64 {
        let mut orders = self.orders.lock();
        orders.wanted += 1;
        self.changed.notify_all();
        orders.wanted
    }

    /// Lets the flusher thread end.
    pub(crate) fn stop(&self) {
        self.orders.lock().stop = true;
        self.changed.notify_all();
    }

    /// Nobody will flush any more: whoever waits for it is told so.
    pub(crate) fn give_up(&self) {
        self.progress.send_modify(|progress| {
            progress.served = u64::MAX;
            progress.failed = Some(Error::Closed);
        });
    }

    /// Waits for a request, or for `interval`; `None` when it is time to end.
    fn next(&self, interval: Duration) -> Option<u64> {
        let mut orders = self.orders.lock();
        if orders.served == orders.wanted && !orders.stop {
            self.changed.wait_for(&mut orders, interval);
        }
        orders.served = orders.wanted;
        (!orders.stop).then_some(orders.wanted)
    }
}

impl Store {
    /// Deletes chunks; those that do not exist are skipped. On `Ok` they stay deleted after power
    /// loss. Waits for the index to be written, so give many at once, or call it many times at once.
    ///
    /// # Cancel safety
    /// A dropped call may have deleted all, and is then durable with the next flush.
    pub async fn delete(&self, ids: &[ChunkId]) -> Result<(), Error> {
        let shared = &self.shared;
        shared.health.check_write()?;
        if shared.ledger.lock().pending() > 2 * LEDGER_CHANGES_MAX {
            return Err(Error::Full);
        }
        for id in ids {
            shared.delete(*id, None)?;
        }
        let deletion = shared.ledger.lock().deletions();
        self.wait_flushed(|progress| progress.deletions >= deletion)
            .await
    }

    /// Writes the index back now.
    pub async fn flush(&self) -> Result<(), Error> {
        self.wait_flushed(|progress| progress.failed.is_none())
            .await
    }

    /// Asks for a flush, and waits until one that began later is done and `enough` is true.
    async fn wait_flushed(&self, enough: impl Fn(&Progress) -> bool) -> Result<(), Error> {
        let mut progress = self.shared.flusher.progress.subscribe();
        let request = self.shared.flusher.request();
        let served = progress.wait_for(|progress| {
            progress.served >= request && (progress.failed.is_some() || enough(progress))
        });
        match served.await {
            Ok(progress) if enough(&progress) => Ok(()),
            Ok(progress) => Err(progress.failed.clone().unwrap_or(Error::Closed)),
            Err(_) => Err(Error::Closed),
        }
    }
}

impl Shared {
    /// What the flusher thread does until it is stopped.
    pub(crate) fn flush_forever(&self) {
        let mut interval = self.settings.config.index_flush_interval;
        while let Some(request) = self.flusher.next(interval) {
            let flush = || {
                self.check_directory();
                self.flush()
            };
            let outcome = self
                .health
                .guard("writing the chunk index", flush)
                .flatten();
            let held = matches!(outcome, Ok(true));
            interval = match held {
                true => HELD_RETRY,
                false => self.settings.config.index_flush_interval,
            };
            self.flusher.progress.send_modify(|progress| {
                progress.served = request;
                progress.failed = outcome.err();
            });
        }
    }

    /// Deletes a chunk, if `only_at` is `None` or where it lies. Durable with the next flush.
    pub(crate) fn delete(&self, id: ChunkId, only_at: Option<Place>) -> Result<bool, Error> {
        let mut ledger = self.ledger.lock();
        let place = match ledger.lookup(id) {
            Known::At(place) => Some(place),
            Known::Deleted => None,
            Known::AskIndex => self.index.get(id)?,
        };
        match place {
            Some(place) if only_at.is_none_or(|only| only == place) => {
                ledger.delete(id, place);
                self.bad.clear(&self.metrics, id);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Writes the index back once; answers whether some deletions must wait for another time.
    pub(crate) fn flush(&self) -> Result<bool, Error> {
        let _one = self.flushing.lock();
        self.health.check_write()?;
        let batch = self.ledger.lock().freeze();
        let before = self.env.clock.monotonic();
        let committed = match batch.is_empty() {
            true => Ok(()),
            false => {
                let places = batch.chunks.iter().map(|(id, change)| (id, change.now));
                self.index.commit(places, &batch.segments)
            }
        };
        if let Err(error) = committed {
            self.ledger.lock().thaw(batch);
            return Err(self.flush_failed(error));
        }
        self.ledger.lock().flushed(&batch);
        if !batch.is_empty() {
            let took = self.env.clock.monotonic().saturating_sub(before);
            self.metrics.index_flush_duration.observe(took);
            self.flusher.starved.store(false, Relaxed);
        }
        // Who deletes a little to make room finds it when he is told.
        let reclaimed = self.reclaim(&batch);
        self.flusher
            .progress
            .send_modify(|progress| progress.deletions = batch.deletions);
        if reclaimed? == Left::More {
            self.flusher.request();
        }
        Ok(batch.held)
    }

    fn flush_failed(&self, error: heed::Error) -> Error {
        let error = lmdb::into_io(error);
        let refused = self.health.write_failed("writing the chunk index", &error);
        // Said once, until there is space again.
        if matches!(refused, Error::Full) && !self.flusher.starved.swap(true, Relaxed) {
            warn!(device = %self.device, %error, "no space to write the chunk index back");
        }
        refused
    }

    /// A directory that was removed or unmounted below us still takes writes through open handles.
    fn check_directory(&self) {
        let gone = |what: &str| {
            let error = std::io::Error::new(std::io::ErrorKind::NotFound, what.to_owned());
            let what = format!("looking at {}", self.device_dir.display());
            self.health.fail(&what, &error);
        };
        match Identity::read(&*self.env.disk, &self.device_dir) {
            Ok(Some(identity)) if identity.device == self.device => {}
            Ok(Some(_)) => gone("another device is in its place"),
            Ok(None) => gone("the directory has disappeared"),
            // Something else is wrong, and whoever meets it when it matters will say so.
            Err(_) => {}
        }
    }
}
