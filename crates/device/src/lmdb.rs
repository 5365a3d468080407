//! Opens LMDB environments.
//!
//! The one place that needs `unsafe`: LMDB maps its file, so the file must not change behind its
//! back. A device's lock file keeps other processes out, and nothing else of ours opens the file.
//! LMDB does its own file access, so this works on the real directory even in a simulated world.

mod verify;

use std::fs::File;
use std::io;
use std::path::Path;

use heed::{EnvFlags, EnvOpenOptions, MdbError, WithoutTls};

pub(crate) use verify::verify;

/// An LMDB environment whose read transactions may travel between threads.
pub type Lmdb = heed::Env<WithoutTls>;

/// Whether an environment may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    /// Touches nothing, not even the lock file: for offline checks under the device's own lock. The
    /// file may be damaged, so its structure is read first.
    ReadOnly,
}

/// Opens the environment in the directory `dir`, which must be on a device whose lock this process
/// holds. Unless read-only, makes what is missing of it, durably. `map_bytes` is a reservation of
/// address space and the most that the file can grow to.
pub fn open(
    dir: &Path,
    access: Access,
    map_bytes: usize,
    databases: u32,
) -> Result<Lmdb, heed::Error> {
    /// Readers hold a slot for microseconds, and each is a thread or a short blocking job.
    const READERS_MAX: u32 = 1024;

    match access {
        Access::ReadWrite => make_dir(dir),
        Access::ReadOnly => verify(dir),
    }
    .map_err(heed::Error::Io)?;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(map_bytes)
        .max_dbs(databases)
        .max_readers(READERS_MAX);
    let flags = match access {
        // Lookups are random: reading ahead would only push useful pages out.
        Access::ReadWrite => EnvFlags::NO_READ_AHEAD,
        Access::ReadOnly => EnvFlags::READ_ONLY | EnvFlags::NO_LOCK,
    };
    #[expect(unsafe_code, reason = "heed marks every memory map unsafe")]
    // SAFETY: the caller holds the exclusive lock of the device, so no other process changes the
    // file, and nobody in this one but LMDB writes to it. Syncs are never switched off. Without
    // LMDB's own locks there is only this reader and, by the same exclusive lock, no writer.
    let env = unsafe { options.flags(flags).open(dir)? };
    if access == Access::ReadWrite {
        // LMDB syncs its bytes, but not the name of a file that it has just made.
        sync_dir(dir).map_err(heed::Error::Io)?;
    }
    Ok(env)
}

/// Removes the environment in `dir`, which must not be open.
#[expect(
    clippy::disallowed_methods,
    reason = "LMDB's files are the real ones, also in a simulated world"
)]
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    for name in ["data.mdb", "lock.mdb"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_dir(dir)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Ok(()) => sync_dir(dir.parent().unwrap_or(dir)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether the error says that the file itself is bad, so that no retry helps.
pub fn is_corrupt(error: &heed::Error) -> bool {
    let error = match error {
        heed::Error::Mdb(error) => error,
        heed::Error::Io(error) => return error.kind() == io::ErrorKind::InvalidData,
        other => return matches!(other, heed::Error::Decoding(_)),
    };
    matches!(
        error,
        MdbError::PageNotFound
            | MdbError::Corrupted
            | MdbError::VersionMismatch
            | MdbError::Invalid
            | MdbError::Incompatible
            | MdbError::PageFull
            | MdbError::CursorFull
    )
}

/// The error as the operating system's: what is full is [`io::ErrorKind::StorageFull`].
pub fn into_io(error: heed::Error) -> io::Error {
    match error {
        heed::Error::Io(error) => error,
        heed::Error::Mdb(MdbError::MapFull) => {
            io::Error::new(io::ErrorKind::StorageFull, "the memory map is full")
        }
        heed::Error::Mdb(MdbError::Other(code)) => io::Error::from_raw_os_error(code),
        other => io::Error::other(other),
    }
}
