//! The seam to the outside world: disk, clock and randomness.
//!
//! Production uses [`Env::real`]; tests put a simulated world behind the same traits, where the
//! nth I/O fails, unsynced writes are lost at a power cut, and time goes where it is told.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::real;

/// Everything that a layer may ask of the world outside the process. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub disk: Arc<dyn Disk>,
}

impl Env {
    /// The operating system's own.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(real::SystemClock::new()),
            entropy: Arc::new(real::SystemEntropy),
            disk: Arc::new(real::SystemDisk),
        }
    }
}

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. May jump, also backwards.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point in the past; never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// Gives random bytes that nobody can guess.
pub trait Entropy: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);

    /// A random number.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// How a file is opened. Every mode creates nothing unless it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For reading through the page cache; the file must exist.
    Read,
    /// As `Read`, but past the page cache (`O_DIRECT`): sees what is on the disk and pushes nothing
    /// out of the cache. Memory, length and offset must be multiples of [`BLOCK_BYTES`].
    ReadDirect,
    /// For reading and writing through the page cache; made (mode 0600) if it is missing.
    Write,
    /// As `Write`, but reads and writes go past the page cache (`O_DIRECT`): memory, length and
    /// offset must be multiples of [`BLOCK_BYTES`]. Falls back to `Write` where the file system
    /// cannot.
    Direct,
    /// As `Direct`, and a write returns when its bytes would survive a power cut (`O_DSYNC`).
    DirectDurable,
}

/// The unit in which files are aligned. Writes of one block are not assumed to be atomic.
pub const BLOCK_BYTES: usize = 4096;

/// The file system. Paths are those of the real one; a simulated disk keeps its own files under
/// the same names.
///
/// After a power cut a name that was made, renamed or removed is only sure to be so if
/// [`Disk::sync_dir`] of its directory has returned since, and bytes only after [`File::sync`].
pub trait Disk: Send + Sync + 'static {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Makes a directory (mode 0700) and its missing parents, durably.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// The space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    /// What an ordinary user could still write.
    pub free_bytes: u64,
}

/// An open file. Reads and writes name their offset, so one handle serves many threads.
pub trait File: Send + Sync + 'static {
    /// Reads until `buffer` is full or the file ends; returns how much was read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`File::read_at`], but only what needs no waiting: fails with
    /// [`io::ErrorKind::WouldBlock`] where the page cache lacks any of it.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `pieces`, one after the other. On an error any part may have been written.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes everything written to this file so far survive a power cut (`fdatasync`). After an
    /// error the state of earlier writes is unknown, for ever: never try again, close the device.
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Grows the file to `len` and reserves its blocks; they read as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file to `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Gives the blocks inside the range back to the file system; the range reads as zeros.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// The bytes that the file occupies on disk.
    fn allocated_bytes(&self) -> io::Result<u64>;
    /// Takes the file's exclusive lock until the handle is dropped; `false` if another holds it.
    fn try_lock(&self) -> io::Result<bool>;
}
