//! The thread that writes.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use base::env::{BLOCK_BYTES, File};
use bytes::Bytes;

use super::buffer::AlignedBuffer;
use super::format::{self, BATCH_HEADER_BYTES, BatchHeader, HEADER_BYTES};
use super::{Kind, Record, Shared};
use crate::Error;

/// Gathering stops at this many bytes: more would only make the first ones wait longer.
const BATCH_BYTES: usize = 1 << 20;
/// Gathering stops at this many appends: the call backs of one batch delay the next.
const BATCH_APPENDS_MAX: usize = 1024;

/// How long a writer that waits for a file may miss that the device has failed. So often it asks for a release.
const HEALTH_LOOK: Duration = Duration::from_secs(1);

pub(super) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Vec<Append>,
    closed: bool,
    /// Why nothing is written any more.
    failed: Option<Error>,
}

struct Append {
    records: Vec<Record>,
    bytes: usize,
    done: Done,
}

impl Queue {
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes what fits one batch, at least one append.
    fn gather(&mut self, bytes_max: usize) -> Vec<Append> {
        let mut bytes = 0;
        let fit = self.waiting.iter().take_while(|append| {
            bytes += append.bytes;
            bytes <= bytes_max
        });
        let count = fit.count().clamp(1, BATCH_APPENDS_MAX);
        if count >= self.waiting.len() {
            return std::mem::take(&mut self.waiting);
        }
        self.waiting.drain(..count).collect()
    }
}

impl Shared {
    pub(super) fn append(&self, records: Vec<Record>, done: Done) {
        let sizes = records
            .iter()
            .map(|record| format::record_bytes(&record.body));
        let bytes: usize = sizes.sum();
        assert!(
            bytes as u64 <= self.file_bytes / 2,
            "an append of {bytes} B is too large for this log"
        );
        let refused = {
            let mut queue = self.queue.lock();
            match (&queue.failed, queue.closed) {
                (Some(error), _) => error.clone(),
                (None, true) => Error::Closed,
                (None, false) => {
                    let was_empty = queue.waiting.is_empty();
                    queue.waiting.push(Append {
                        records,
                        bytes,
                        done,
                    });
                    self.metrics.queue.add(1);
                    drop(queue);
                    if was_empty {
                        self.queued.notify_one();
                    }
                    return;
                }
            }
        };
        done(Err(refused));
    }
}

/// Where the log ends, and all that the next batch depends on.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) file: Arc<dyn File>,
    pub(super) file_sequence: u64,
    pub(super) file_bytes: u64,
    pub(super) offset: u64,
    /// Of the next batch.
    pub(super) sequence: u64,
    /// The newest state of each stream, for the head of the next file.
    pub(super) states: BTreeMap<u16, Vec<Bytes>>,
    pub(super) buffer: AlignedBuffer,
}

impl Writer {
    pub(super) fn run(mut self) {
        while let Some(batch) = self.next() {
            self.shared
                .metrics
                .queue
                .sub(i64::try_from(batch.len()).unwrap_or(i64::MAX));
            let health = self.shared.health.clone();
            let written = health
                .guard("writing the log", || self.write(&batch))
                .flatten();
            let told = self.tell(batch, &written);
            if let Err(error) = written.and(told) {
                self.fail(error);
            }
        }
    }

    /// Tells everyone, also if one of them panics.
    fn tell(&self, batch: Vec<Append>, answer: &Result<(), Error>) -> Result<(), Error> {
        let health = &self.shared.health;
        let tell =
            |append: Append| health.guard("answering an append", || (append.done)(answer.clone()));
        batch.into_iter().map(tell).fold(Ok(()), Result::and)
    }

    /// Waits for something to write; `None` once the log is closed and all is written.
    fn next(&self) -> Option<Vec<Append>> {
        let mut queue = self.shared.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            self.shared.queued.wait(&mut queue);
        }
        // However small the files are, a batch and the states before it must fit one.
        let quarter = usize::try_from(self.shared.file_bytes / 4).unwrap_or(usize::MAX);
        Some(queue.gather(quarter.min(BATCH_BYTES)))
    }

    /// Nothing is written any more: fails what waits, and what will come.
    fn fail(&self, error: Error) {
        let waiting = {
            let mut queue = self.shared.queue.lock();
            queue.failed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut queue.waiting)
        };
        self.shared.metrics.queue.set(0);
        let _ = self.tell(waiting, &Err(error));
    }

    fn write(&mut self, batch: &[Append]) -> Result<(), Error> {
        let payload: usize = batch.iter().map(|append| append.bytes).sum();
        let mut bytes = (BATCH_HEADER_BYTES + payload).next_multiple_of(BLOCK_BYTES);
        let begins_file = self.offset + bytes as u64 > self.file_bytes;
        if begins_file {
            self.next_file()?;
            let states: usize = self.states.values().map(|s| format::record_bytes(s)).sum();
            bytes = (BATCH_HEADER_BYTES + states + payload).next_multiple_of(BLOCK_BYTES);
        }
        self.encode(batch, bytes, begins_file);

        let clock = &self.shared.env.clock;
        let started = clock.monotonic();
        self.shared.health.log_writes(Some(started));
        let whole = IoSlice::new(self.buffer.take(bytes, BATCH_BYTES));
        let written = self.file.write_at(&[whole], self.offset);
        self.shared.health.log_writes(None);
        let metrics = &self.shared.metrics;
        metrics.write_duration.observe(clock.monotonic() - started);
        if let Err(error) = written {
            let health = &self.shared.health;
            health.fail("writing the log", &error);
            return Err(health
                .check_write()
                .expect_err("the device has just failed"));
        }
        metrics.batches.inc();
        metrics.bytes.add(bytes as u64);
        self.offset += bytes as u64;
        self.sequence += 1;
        self.account(batch);
        Ok(())
    }

    fn encode(&mut self, batch: &[Append], bytes: usize, begins_file: bool) {
        let whole = self.buffer.take(bytes, BATCH_BYTES);
        let mut room = &mut whole[BATCH_HEADER_BYTES..];
        let mut records = 0;
        if begins_file {
            for (stream, body) in &self.states {
                room = format::encode_record(room, *stream, Kind::State, body);
                records += 1;
            }
        }
        for record in batch.iter().flat_map(|append| &append.records) {
            room = format::encode_record(room, record.stream, record.kind, &record.body);
            records += 1;
        }
        room.fill(0);
        let unused = room.len();
        let payload_bytes = bytes - BATCH_HEADER_BYTES - unused;
        let header = BatchHeader {
            file: self.file_sequence,
            sequence: self.sequence,
            records,
            payload_bytes: u32::try_from(payload_bytes).expect("a batch is smaller than a file"),
        };
        header.encode(whole, self.shared.salt);
        self.shared.metrics.records.add(records.into());
    }

    /// Remembers what the batch that was just written holds.
    fn account(&mut self, batch: &[Append]) {
        let mut marks = Vec::new();
        for record in batch.iter().flat_map(|append| &append.records) {
            match record.kind {
                Kind::Entry(mark) => marks.push((record.stream, mark)),
                Kind::State => {
                    self.states.insert(record.stream, record.body.clone());
                }
            }
        }
        let left = self.file_bytes - self.offset;
        self.shared.files.lock().wrote(marks, left);
    }

    /// Goes over to the next file. Waits for it as long as it takes: what has been appended cannot
    /// be refused any more, and a release brings a file sooner or later.
    fn next_file(&mut self) -> Result<(), Error> {
        let mut files = self.shared.files.lock();
        loop {
            if let Some(file) = files.take_spare() {
                let now = files.live.back().expect("the spare is live now");
                self.file = file;
                self.file_sequence = now.sequence;
                self.file_bytes = now.slot.bytes;
                self.offset = HEADER_BYTES;
                let live = i64::try_from(files.live.len()).unwrap_or(i64::MAX);
                self.shared.metrics.files.set(live);
                self.shared.files_changed.notify_all();
                return Ok(());
            }
            self.shared.health.check_write()?;
            if files.is_closed() {
                return Err(Error::Closed);
            }
            if files.is_short()
                && let Some(ask) = self.shared.ask.get()
            {
                ask();
            }
            // The device may fail elsewhere, and then nothing is released.
            self.shared.files_changed.wait_for(&mut files, HEALTH_LOOK);
        }
    }
}

/// However the thread ends, nobody waits for it any longer.
impl Drop for Writer {
    fn drop(&mut self) {
        self.fail(Error::Closed);
    }
}
