//! Making, opening and merely reading a log.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use base::env::{BLOCK_BYTES, Disk, Env, Open};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tracing::info;

use super::buffer::AlignedBuffer;
use super::files::{Files, LiveFile, Slot};
use super::format::FileHeader;
use super::replay::{self, End, Found};
use super::writer::{Queue, Writer};
use super::{Kind, Log, LogConfig, LogMetrics, Record, Shared, Threads};
use crate::{Error, Health};

impl Log {
    /// Makes an empty log in `dir`, which is made too; whatever log was there before is gone. It has
    /// two files from the start: with one alone a disk that others fill would leave no log for deletes,
    /// since the file that is being written cannot be recycled.
    pub fn create(
        env: &Env,
        dir: &Path,
        health: &Health,
        config: &LogConfig,
    ) -> Result<u64, Error> {
        let doing = |what: &str| format!("{what} {}", dir.display());
        let clear = || {
            env.disk.create_dir(dir)?;
            for name in env.disk.list(dir)? {
                if Slot::number_in(&name).is_some() {
                    env.disk.remove(&dir.join(name))?;
                }
            }
            env.disk.sync_dir(dir)
        };
        clear().map_err(|error| Error::io(doing("clearing"), error))?;

        let salt = env.entropy.u64();
        let shared = Shared::new(env, dir, health, config, salt, Vec::new())?;
        for (number, sequence) in [(0, 1), (1, 2)] {
            let slot = Slot {
                number,
                bytes: shared.file_bytes,
            };
            let made = shared
                .zero(slot)
                .and_then(|_| shared.prepare(slot, sequence));
            made.map_err(|error| {
                shared
                    .health
                    .write_failed(&doing("making the log in"), &error)
            })?;
        }
        Ok(salt)
    }

    /// Opens the log in `dir` and gives every record in it to `visit`, in order. Reads what is
    /// there, so it waits for the disk.
    ///
    /// # Errors
    /// [`Error::Damaged`] if acknowledged records are not as they were written; [`Error::NotFound`]
    /// if there is no log. Nothing is changed then.
    pub fn open(
        env: &Env,
        dir: &Path,
        health: &Health,
        config: &LogConfig,
        visit: &mut dyn FnMut(Record) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut files = ordered(&*env.disk, dir)?;
        let mut states: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
        let mut marks = vec![BTreeMap::<u16, u64>::new(); files.len()];
        let end = replay::replay(&files, &mut |file, record| {
            match record.kind {
                Kind::State => {
                    states.insert(record.stream, record.body.clone());
                }
                Kind::Entry(mark) => {
                    let highest = marks[file].entry(record.stream).or_default();
                    *highest = mark.max(*highest);
                }
            }
            visit(record)
        })?;
        // The last batch may be from a process that was killed before it was durable. It has been
        // read now, so it must not go away any more.
        let last = &files[end.file].path;
        let synced = env
            .disk
            .open(last, Open::Write)
            .and_then(|file| file.sync());
        synced.map_err(|error| Error::io(format!("syncing {}", last.display()), error))?;
        let free = files.split_off(end.file + 1);
        let salt = files[0].salt();
        info!(
            dir = %dir.display(),
            files = files.len(),
            batches = end.sequence - 1,
            "opened the log"
        );
        let shared = Shared::new(env, dir, health, config, salt, free)?;
        shared.resume(files, marks, end, states)
    }

    /// Reads the log in `dir` and changes nothing.
    pub fn read(
        disk: &dyn Disk,
        dir: &Path,
        visit: &mut dyn FnMut(Record) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let files = ordered(disk, dir)?;
        replay::replay(&files, &mut |_, record| visit(record))?;
        Ok(files[0].salt())
    }
}

/// The files of the log in `dir` in the order of their sequences; those that were being made when
/// the power went are left out.
fn ordered(disk: &dyn Disk, dir: &Path) -> Result<Vec<Found>, Error> {
    if let Err(error) = disk.list(dir)
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return Err(Error::NotFound);
    }
    let mut files = replay::find(disk, dir)?;
    files.retain(|found| found.header.is_some());
    files.sort_by_key(|found| found.sequence());
    if files.is_empty() {
        return Err(Error::NotFound);
    }
    for pair in files.windows(2) {
        let [a, b] = pair else { continue };
        if a.salt() != b.salt() {
            let (a, b) = (a.path.display(), b.path.display());
            return Err(Error::damaged(format!("{a} and {b} are of different logs")));
        }
        if a.sequence() + 1 != b.sequence() {
            return Err(Error::damaged(format!(
                "the log is damaged: files {} to {} of it are missing in {}",
                a.sequence() + 1,
                b.sequence().saturating_sub(1),
                dir.display()
            )));
        }
    }
    Ok(files)
}

impl Found {
    fn header(&self) -> FileHeader {
        self.header.expect("files without header are left out")
    }

    fn sequence(&self) -> u64 {
        self.header().sequence
    }

    fn salt(&self) -> u64 {
        self.header().salt
    }
}

impl Shared {
    fn new(
        env: &Env,
        dir: &Path,
        health: &Health,
        config: &LogConfig,
        salt: u64,
        free: Vec<Found>,
    ) -> Result<Self, Error> {
        const MIB: u64 = 1 << 20;
        let space = env.disk.space(dir);
        let space = space
            .map_err(|error| Error::io(format!("asking {} for space", dir.display()), error))?;
        let file_bytes = config
            .file_bytes
            .unwrap_or((space.total_bytes / 32).clamp(4 * MIB, 64 * MIB));
        if !(64 * 1024..=1024 * MIB).contains(&file_bytes) {
            return Err(Error::invalid("log: file_bytes is out of bounds"));
        }
        let free: VecDeque<Slot> = free.iter().map(|found| found.slot).collect();
        Ok(Self {
            env: env.clone(),
            dir: dir.to_owned(),
            health: health.clone(),
            salt,
            file_bytes: file_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64,
            reserve_bytes: config.reserve_bytes,
            queue: Mutex::new(Queue::default()),
            queued: Condvar::new(),
            files: Mutex::new(Files::new(VecDeque::new(), free, 0)),
            files_changed: Condvar::new(),
            ask: OnceLock::new(),
            metrics: LogMetrics::default(),
        })
    }

    /// Starts the threads of a log that has been read.
    fn resume(
        self,
        files: Vec<Found>,
        marks: Vec<BTreeMap<u16, u64>>,
        end: End,
        states: BTreeMap<u16, Vec<Bytes>>,
    ) -> Result<Log, Error> {
        let last = files.last().expect("a log has a file");
        let file = self.env.disk.open(&last.path, Open::DirectDurable);
        let file =
            file.map_err(|error| Error::io(format!("opening {}", last.path.display()), error))?;
        let (slot, file_sequence) = (last.slot, last.sequence());
        {
            let mut books = self.files.lock();
            let live = files.iter().zip(marks).map(|(found, marks)| LiveFile {
                slot: found.slot,
                sequence: found.sequence(),
                marks,
            });
            let free = std::mem::take(&mut books.free);
            let used = files
                .iter()
                .map(|found| found.slot)
                .chain(free.iter().copied());
            let next_number = used.map(|slot| slot.number + 1).max().unwrap_or(0);
            *books = Files::new(live.collect(), free, next_number);
            books.wrote([], slot.bytes - end.offset);
        }
        let shared = Arc::new(self);
        let writer = Writer {
            shared: shared.clone(),
            file,
            file_sequence,
            file_bytes: slot.bytes,
            offset: end.offset,
            sequence: end.sequence,
            states,
            buffer: AlignedBuffer::new(BLOCK_BYTES),
        };
        let mut threads = Threads {
            shared: shared.clone(),
            handles: Vec::new(),
        };
        let write = Threads::spawn("log-writer", move || writer.run())?;
        threads.handles.push(write);
        let spares = shared.clone();
        let spare = Threads::spawn("log-spare", move || spares.make_spares())?;
        threads.handles.push(spare);
        Ok(Log {
            shared,
            _threads: Arc::new(threads),
        })
    }
}
