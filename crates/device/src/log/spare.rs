//! The thread that makes the next file ready before the writer needs it.

use std::io::{self, IoSlice};
use std::sync::Arc;

use base::env::{BLOCK_BYTES, File, Open};
use tracing::{info, warn};

use super::Shared;
use super::buffer::AlignedBuffer;
use super::files::{Files, Job, Slot, Spare};
use super::format::FileHeader;

impl Shared {
    pub(super) fn release(&self, marks: impl IntoIterator<Item = (u16, u64)>) {
        self.let_go(|files| files.release(marks));
    }

    pub(super) fn retire(&self, stream: u16) {
        self.let_go(|files| files.retire(stream));
    }

    fn let_go(&self, change: impl FnOnce(&mut Files)) {
        let mut files = self.files.lock();
        change(&mut files);
        let live = i64::try_from(files.live.len()).unwrap_or(i64::MAX);
        self.metrics.files.set(live);
        self.files_changed.notify_all();
    }

    /// Does what [`Job`]s there are until the log is closed or the device fails.
    pub(super) fn make_spares(&self) {
        loop {
            let job = {
                let mut files = self.files.lock();
                loop {
                    match files.job() {
                        Job::Wait => self.files_changed.wait(&mut files),
                        Job::Quit => return,
                        job => break job,
                    }
                }
            };
            let what = "preparing a log file";
            let work = || self.work(job).inspect_err(|e| self.health.fail(what, e));
            if !matches!(self.health.guard(what, work), Ok(Ok(()))) {
                // The writer may wait for the file: it looks at the health.
                let _files = self.files.lock();
                self.files_changed.notify_all();
                return;
            }
        }
    }

    fn work(&self, job: Job) -> io::Result<()> {
        let spare = match job {
            Job::Recycle { slot, sequence } => self.prepare(slot, sequence).map(Some),
            Job::Make { number, sequence } => self.make(number).and_then(|made| match made {
                Some(slot) => self.prepare(slot, sequence).map(Some),
                None => Ok(None),
            }),
            Job::Remove(slot) => {
                self.env.disk.remove(&self.dir.join(slot.name()))?;
                self.env.disk.sync_dir(&self.dir)?;
                self.files.lock().removed(slot);
                return Ok(());
            }
            Job::Wait | Job::Quit => return Ok(()),
        };
        let mut files = self.files.lock();
        match spare? {
            Some(spare) => files.made(spare),
            None => files.out_of_space(),
        }
        self.files_changed.notify_all();
        Ok(())
    }

    /// Writes the header of the file's next use, durably, one copy after the other.
    pub(super) fn prepare(&self, slot: Slot, sequence: u64) -> io::Result<Spare> {
        let path = self.dir.join(slot.name());
        let file = self.env.disk.open(&path, Open::DirectDurable)?;
        let header = FileHeader {
            salt: self.salt,
            sequence,
            file_bytes: slot.bytes,
        };
        let mut buffer = AlignedBuffer::new(BLOCK_BYTES);
        let block = buffer.take(BLOCK_BYTES, BLOCK_BYTES);
        header.encode(block);
        for copy in 0..2 {
            file.write_at(&[IoSlice::new(block)], copy * BLOCK_BYTES as u64)?;
        }
        Ok(Spare {
            slot,
            sequence,
            file,
        })
    }

    /// Makes a file of zeros; `None` if there is no space for it.
    fn make(&self, number: u32) -> io::Result<Option<Slot>> {
        let slot = Slot {
            number,
            bytes: self.file_bytes,
        };
        let space = self.env.disk.space(&self.dir)?;
        if space.free_bytes < self.reserve_bytes.saturating_add(slot.bytes) {
            warn!(
                free_bytes = space.free_bytes,
                "no space for another log file"
            );
            return Ok(None);
        }
        match self.zero(slot) {
            Ok(_) => {
                info!(number, bytes = slot.bytes, "made a log file");
                Ok(Some(slot))
            }
            Err(error) => {
                // A file that is not whole must not be taken for one after a restart.
                self.env.disk.remove(&self.dir.join(slot.name()))?;
                self.env.disk.sync_dir(&self.dir)?;
                match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        warn!("no space for another log file");
                        Ok(None)
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// Fills a new file with zeros that are really written, so that later writes change nothing
    /// but data.
    pub(super) fn zero(&self, slot: Slot) -> io::Result<Arc<dyn File>> {
        const PIECE_BYTES: u64 = 1 << 20;

        let path = self.dir.join(slot.name());
        let file = self.env.disk.open(&path, Open::Direct)?;
        file.truncate(0)?;
        file.allocate(slot.bytes)?;
        let piece = usize::try_from(PIECE_BYTES.min(slot.bytes)).expect("1 MiB fits memory");
        let mut zeros = AlignedBuffer::new(piece);
        let zeros = &*zeros.take(piece, piece);
        let mut offset = 0;
        while offset < slot.bytes {
            let rest = usize::try_from(slot.bytes - offset).unwrap_or(usize::MAX);
            let bytes = zeros.len().min(rest);
            file.write_at(&[IoSlice::new(&zeros[..bytes])], offset)?;
            offset += bytes as u64;
        }
        file.sync()?;
        self.env.disk.sync_dir(&self.dir)?;
        Ok(file)
    }
}
