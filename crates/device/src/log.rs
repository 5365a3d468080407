//! The write-ahead log of all shards on one device; its bytes are in docs/formats/log.md.
//!
//! Appends of many streams (one a shard) go to one writer thread, which gathers all that wait into
//! one block-aligned batch and writes it to a preallocated, zeroed, recycled file that was opened
//! `O_DIRECT|O_DSYNC`. Only then does it write the next batch. So
//!
//! - a block that holds acknowledged records is never written again until its file is recycled;
//! - what follows a bad batch decides what it is: a good one after it means damage, nothing after
//!   it means that the power went during the last write, which nobody was told of.
//!
//! **Invariant:** after the first write that fails nothing more is written, and all that waits and
//! all that comes later fails.
//!
//! Sketch, per batch: one wake-up of the writer if it sleeps, one copy of the records into the
//! reused buffer, one checksum, one write, one call back per append. A spare file is always made
//! ready in advance by a second thread, so the writer never waits for zeroing. Memory: the buffer,
//! 1 MiB unless an append is larger, and what the callers wait for: each stream has one append
//! under way.

mod buffer;
mod files;
mod format;
mod open;
mod replay;
mod spare;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use base::env::Env;
use base::metrics::{Counter, Gauge, Histogram};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::{Error, Health};

use files::Files;
use writer::Queue;

/// Settings of a log.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// The size of a log file; 64 KiB to 1 GiB. `None`: a thirty-second of the file system, between
    /// 4 MiB and 64 MiB.
    pub file_bytes: Option<u64>,
    /// No further file is made if less than this would be left free on the file system.
    pub reserve_bytes: u64,
}

/// What a record is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only the newest state of a stream counts; the log keeps it for ever.
    State,
    /// Is needed until its mark is released, see [`Log::release`].
    Entry(u64),
}

/// One record of one stream. The body may come in pieces, which are written as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub stream: u16,
    pub kind: Kind,
    pub body: Vec<Bytes>,
}

/// What an append costs the log in a full device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Grow,
    /// Gives space back in the end: may use what is kept for this.
    Reclaim,
}

/// How much the log can still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Ample,
    /// The last file that can be had is being written: until something is released, only what
    /// reclaims space is taken.
    Last,
}

/// The log of one device. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    _threads: Arc<Threads>,
}

struct Shared {
    env: Env,
    dir: PathBuf,
    health: Health,
    /// In every checksum, and the identity of the log.
    salt: u64,
    file_bytes: u64,
    reserve_bytes: u64,
    queue: Mutex<Queue>,
    /// The writer waits here for something to write.
    queued: Condvar,
    files: Mutex<Files>,
    /// The writer waits here for a spare file, the other thread for work.
    files_changed: Condvar,
    /// Asks for a release.
    ask: OnceLock<Box<dyn Fn() + Send + Sync>>,
    metrics: LogMetrics,
}

/// What a log counts.
#[derive(Debug, Default)]
pub struct LogMetrics {
    pub batches: Counter,
    pub records: Counter,
    pub bytes: Counter,
    /// Of the write of one batch, which returns when it is durable.
    pub write_duration: Histogram,
    /// Appends that wait for the writer.
    pub queue: Gauge,
    /// Files that hold what is still needed, the one being written among them.
    pub files: Gauge,
}

impl Log {
    /// Appends `records`, in this order, and calls `done` when they would survive a power cut, or
    /// when it is known that this log will not say so any more. `done` runs on the writer's thread,
    /// or on this one: it must be short and must not append.
    ///
    /// The records must fit [`Log::append_bytes_max`]. What waits here is for the caller to bound.
    pub fn append(
        &self,
        records: Vec<Record>,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        self.shared.append(records, Box::new(done));
    }

    /// The most that one append may hold, record headers of 16 bytes included.
    pub fn append_bytes_max(&self) -> u64 {
        self.shared.file_bytes / 2
    }

    /// `ask` is called when what was appended waits for a file and there is no space for one: something must be
    /// released. It runs on the writer's thread and must be short. Only the first `ask` counts.
    pub fn on_shortage(&self, ask: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.ask.set(Box::new(ask));
    }

    /// Lets go of the entries of each stream up to and including its mark: they are durable
    /// elsewhere. Files that nobody needs any more are recycled.
    pub fn release(&self, marks: impl IntoIterator<Item = (u16, u64)>) {
        self.shared.release(marks);
    }

    /// Lets go of all entries of a stream that has ended. All its appends must have been answered; what is
    /// appended later may have any marks.
    pub fn retire(&self, stream: u16) {
        self.shared.retire(stream);
    }

    /// Whether there is room for `bytes` more. While files can be made there always is; when the
    /// disk is full only what reclaims space may use the rest of the files that exist.
    ///
    /// # Errors
    /// [`Error::Full`]; or why the device takes no writes.
    pub fn admit(&self, bytes: u64, purpose: Purpose) -> Result<Room, Error> {
        self.shared.health.check_write()?;
        self.shared.files.lock().admit(bytes, purpose)
    }

    /// What tells this log from any other.
    pub fn id(&self) -> u64 {
        self.shared.salt
    }

    pub fn metrics(&self) -> &LogMetrics {
        &self.shared.metrics
    }
}

/// The two threads of a log; ended and waited for when dropped.
struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        thread.map_err(|error| Error::io(format!("starting thread {name}"), error))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue.lock().close();
        self.shared.queued.notify_all();
        self.shared.files.lock().close();
        self.shared.files_changed.notify_all();
        for handle in self.handles.drain(..) {
            // The last clone may be dropped by a call back, on the writer's own thread.
            if handle.thread().id() != thread::current().id() {
                // A panic there has been reported by its thread.
                let _ = handle.join();
            }
        }
    }
}
