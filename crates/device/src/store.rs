//! The chunk store: segments of records, the ledger of what is new, the index of the rest.
//!
//! What the parts are for is told in their heads; how they fit together:
//!
//! - `record`, `segment`, `walk` know the bytes on disk; `index` the rows of LMDB.
//! - `ledger` decides what is true now; it is pure.
//! - `write`, `active`, `group` bring a chunk to the disk; `read`, `files`, `buffers` fetch one.
//! - `flush` tells the index what the ledger knows, `reclaim` then gives space back; `recover` is the
//!   start.
//! - `compact` and `scrub` run in the background, as `pace` lets them; `verify` is for a device that
//!   nobody has open.
//!
//! Lock order: `flushing`, `active`, `ledger`. None is held across an `await`; only `flushing` and
//! `active` are held during I/O, by the threads whose I/O it is.

mod active;
mod bad;
mod buffers;
mod compact;
mod files;
mod flush;
mod group;
mod index;
mod label;
mod ledger;
mod pace;
mod queue;
mod read;
mod reclaim;
mod record;
mod recover;
mod scrub;
mod segment;
mod verify;
mod walk;
mod write;

pub use bad::BadRecord;
pub use label::{Fragment, Label, Owner};
pub use record::OWNER_BYTES_MAX;
pub use scrub::Referenced;
pub(crate) use verify::verify;
pub use verify::{Finding, FoundRecord};

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use base::env::{Env, File};
use base::{ChunkId, DeviceId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::config::Settings;
use crate::{Error, Health, Metrics};
use active::Active;
use bad::BadList;
use buffers::Buffers;
use files::Files;
use flush::Flusher;
use group::Group;
use index::Index;
use ledger::Ledger;
use pace::Pace;
use queue::Queue;
use reclaim::Holes;
use recover::Recovered;

/// Each frame of a payload has its own checksum.
pub const FRAME_BYTES: usize = 128 * 1024;

/// The most that a chunk holds.
pub const CHUNK_BYTES_MAX: usize = 32 * FRAME_BYTES;

/// The most that one read returns.
pub const READ_BYTES_MAX: usize = 8 * FRAME_BYTES;

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub chunks: u64,
    /// Records of chunks that exist, with their headers.
    pub live_bytes: u64,
    /// What deleted chunks still occupy.
    pub dead_bytes: u64,
    pub segments: u64,
    /// What the growing segment still takes.
    pub allocated_bytes: u64,
}

/// The chunks of one device. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What all parts of a store work on.
pub(crate) struct Shared {
    env: Env,
    device: DeviceId,
    device_dir: PathBuf,
    /// The directory of segments.
    dir: PathBuf,
    settings: Settings,
    health: Health,
    metrics: Arc<Metrics>,
    index: Index,
    /// One flush at a time; also whoever punches, so that no file goes meanwhile.
    flushing: Mutex<()>,
    /// Dead records whose blocks have not been given back.
    holes: Mutex<Holes>,
    active: Mutex<Active>,
    ledger: Mutex<Ledger>,
    files: Files,
    buffers: Buffers,
    bad: BadList,
    flusher: Flusher,
    writes: Queue<write::Job>,
    write_slots: Arc<Semaphore>,
    group: Group<write::Written>,
    read_slots: Arc<Semaphore>,
    compaction: Pace,
    scrubbing: Pace,
    /// The device's lock. Here, since whoever has a store has the index open. Dropped last.
    _lock: Arc<dyn File>,
}

/// What a store needs of its device.
pub(crate) struct Context {
    pub(crate) env: Env,
    pub(crate) device: DeviceId,
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) health: Health,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lock: Arc<dyn File>,
}

/// The threads of a store. Dropped, they end without writing the index back, as in a crash.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    running: Mutex<Vec<JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
}

impl Store {
    /// Opens the chunks of a device, and reads what the index has not learned.
    pub(crate) fn open(context: Context) -> Result<(Self, Threads), Error> {
        let Context { env, device, .. } = context;
        let dir = context.dir.join("segments");
        let made = env.disk.create_dir(&dir);
        made.map_err(|error| Error::io(format!("making {}", dir.display()), error))?;
        let map_bytes = context.settings.index_bytes_max;
        let index = recover::open_index(&context.dir.join("index"), map_bytes)?;
        let Recovered {
            index,
            ledger,
            active,
        } = recover::recover(&env, device, &dir, index)?;
        let shared = Arc::new(Shared {
            device,
            device_dir: context.dir,
            files: Files::new(env.disk.clone(), dir.clone()),
            dir,
            settings: context.settings,
            health: context.health,
            metrics: context.metrics,
            index,
            flushing: Mutex::new(()),
            holes: Mutex::default(),
            active: Mutex::new(active),
            ledger: Mutex::new(ledger),
            buffers: Buffers::default(),
            bad: BadList::default(),
            flusher: Flusher::new(),
            writes: Queue::default(),
            write_slots: Arc::new(Semaphore::new(write::WRITES_MAX)),
            group: Group::default(),
            read_slots: Arc::new(Semaphore::new(read::WAITING_READS_MAX)),
            compaction: Pace::default(),
            scrubbing: Pace::default(),
            env,
            _lock: context.lock,
        });
        let threads = Threads {
            running: Mutex::default(),
            stopping: watch::Sender::default(),
            shared: shared.clone(),
        };
        for _ in 0..shared.settings.config.write_threads {
            threads.start("write", Shared::write_jobs)?;
        }
        // The next start should not read the same tails again. If there is no space, it has to.
        match shared.flush() {
            Ok(_) | Err(Error::Full) => {}
            Err(error) => return Err(error),
        }
        threads.start("index", Shared::flush_forever)?;
        Ok((Self { shared }, threads))
    }

    pub fn usage(&self) -> Usage {
        let segments = self.shared.ledger.lock().segments();
        let mut usage = Usage {
            segments: segments.len() as u64,
            allocated_bytes: self.shared.room_left(),
            ..Usage::default()
        };
        for row in segments.iter().map(|segment| segment.row) {
            let used = row.end.saturating_sub(segment::RECORDS_AT);
            usage.chunks += row.live_chunks;
            usage.live_bytes += row.live_bytes;
            usage.dead_bytes += used.saturating_sub(row.live_bytes + row.punched_bytes);
        }
        usage
    }

    /// What the growing segment still takes.
    pub(crate) fn room_left(&self) -> u64 {
        self.shared.room_left()
    }

    /// Records that were found to be bad and still are: the first thousand.
    pub fn bad_records(&self) -> Vec<BadRecord> {
        self.shared.bad.list()
    }
}

impl Threads {
    fn start(&self, name: &str, run: impl FnOnce(&Shared) + Send + 'static) -> Result<(), Error> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(format!("device-{name}"));
        let what = format!("thread {name}");
        let started = thread.spawn(move || {
            // Who waits for a thread is told by the thread itself.
            let _ = shared.health.guard(&what, || run(&shared));
        });
        let started = started.map_err(|error| Error::io("starting a thread", error))?;
        self.running.lock().push(started);
        Ok(())
    }

    /// Starts compaction and scrubbing, which shows old chunks to `ask`.
    pub(crate) fn start_jobs(
        &self,
        ask: impl Fn(ChunkId, Owner) -> Referenced + Send + 'static,
    ) -> Result<(), Error> {
        self.start("compact", Shared::compact_forever)?;
        self.start("scrub", move |shared| shared.scrub_forever(&ask))
    }

    /// Turns true when the threads are told to end.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Pauses compaction and scrubbing, or lets them go on.
    pub(crate) fn pause_jobs(&self, paused: bool) {
        self.shared.compaction.set_paused(paused);
        self.shared.scrubbing.set_paused(paused);
    }

    /// Takes nothing new, finishes what was taken, and waits until all threads have ended.
    fn stop(&self) {
        self.stopping.send_replace(true);
        self.shared.write_slots.close();
        self.shared.writes.close();
        self.shared.compaction.stop();
        self.shared.scrubbing.stop();
        self.shared.flusher.stop();
        for thread in self.running.lock().drain(..) {
            // A panic has failed the device, which was said then.
            let _ = thread.join();
        }
    }

    /// Stops, and writes the index back.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.stop();
        let flushed = self.shared.flush();
        self.shared.flusher.give_up();
        flushed.map(drop)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
        self.shared.flusher.give_up();
    }
}

#[cfg(test)]
mod tests;
