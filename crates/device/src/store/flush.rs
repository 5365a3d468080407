//! Tells the index what the ledger knows, then gives back the space that nobody needs any more.
//!
//! **Invariant:** a hole is punched and a segment removed only after the index that no longer
//! points there is durable.

use std::time::Duration;

use base::ChunkId;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tracing::{info, warn};

use super::ledger::{Batch, Known};
use super::record::Place;
use super::write::LEDGER_CHANGES_MAX;
use super::{Shared, Store};
use crate::{Error, Identity, lmdb};
use base::env::Open;

/// A smaller hole is not worth its extent: compaction gets it.
pub(crate) const PUNCH_BYTES_MIN: u64 = 64 * 1024;

/// Deletions that had to wait for writes in flight are tried again after this.
const HELD_RETRY: Duration = Duration::from_millis(5);

/// Wakes the flusher thread, and tells others how far it is.
pub(crate) struct Flusher {
    orders: Mutex<Orders>,
    changed: Condvar,
    progress: watch::Sender<Progress>,
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
            self.check_directory();
            let outcome = self.flush();
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
        }
        // Who deletes to make room finds it when he is told.
        let given_back = self.give_back(&batch);
        self.flusher
            .progress
            .send_modify(|progress| progress.deletions = batch.deletions);
        given_back.map(|()| batch.held)
    }

    fn flush_failed(&self, error: heed::Error) -> Error {
        let error = lmdb::into_io(error);
        let refused = self.health.write_failed("writing the chunk index", &error);
        if matches!(refused, Error::Full) {
            warn!(device = %self.device, %error, "no space to write the chunk index back");
        }
        refused
    }

    /// Punches holes and removes files that the durable index no longer points to.
    fn give_back(&self, batch: &Batch) -> Result<(), Error> {
        let freed = batch.chunks.values().flat_map(|change| &change.freed);
        for place in freed.filter(|place| !batch.doomed.contains(&place.segment)) {
            self.punch(place)?;
        }
        if batch.doomed.is_empty() {
            return Ok(());
        }
        for segment in &batch.doomed {
            self.files.forget(*segment);
            match self.env.disk.remove(&self.files.path(*segment)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let what = format!("removing segment {segment}");
                    return Err(self.health.write_failed(&what, &error));
                }
                _ => {}
            }
        }
        if let Err(error) = self.env.disk.sync_dir(&self.dir) {
            self.health
                .fail("syncing the directory of segments", &error);
            self.health.check_write()?;
        }
        let mut ledger = self.ledger.lock();
        for segment in &batch.doomed {
            ledger.removed(*segment);
            self.metrics.segments_removed.inc();
            info!(device = %self.device, segment, "empty segment removed");
        }
        Ok(())
    }

    /// Gives the blocks of a dead record back to the file system, if they are worth a hole. For
    /// whoever holds the `flushing` lock, so that the file is not removed meanwhile.
    pub(crate) fn punch(&self, place: &Place) -> Result<(), Error> {
        let bytes = place.record_bytes();
        if bytes < PUNCH_BYTES_MIN || self.ledger.lock().segment(place.segment).is_none() {
            return Ok(());
        }
        let path = self.files.path(place.segment);
        let file = self.env.disk.open(&path, Open::Write);
        let punched = file.and_then(|file| file.punch(place.offset, bytes));
        if let Err(error) = punched {
            if error.kind() == std::io::ErrorKind::StorageFull {
                // A hole may split an extent and need a block for that: the scrubber tries again.
                return Ok(());
            }
            let what = format!("punching segment {} at {}", place.segment, place.offset);
            return Err(self.health.write_failed(&what, &error));
        }
        self.metrics.bytes_punched.add(bytes);
        self.ledger.lock().punched(place);
        Ok(())
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
