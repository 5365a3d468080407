//! Opens LMDB environments.
//!
//! The one place that needs `unsafe`: LMDB maps its file, so the file must not change behind its
//! back. A device's lock file keeps other processes out, and nothing else of ours opens the file.

use std::path::Path;

use heed::{EnvFlags, EnvOpenOptions, WithoutTls};

/// An LMDB environment whose read transactions may travel between threads.
pub type Lmdb = heed::Env<WithoutTls>;

/// Whether an environment may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    /// Touches nothing, not even the lock file: for offline checks under the device's own lock.
    ReadOnly,
}

/// Opens, and unless read-only makes, the environment in the directory `dir`, which must exist and
/// be on a device whose lock this process holds. `map_bytes` is a reservation of address space and
/// the most that the file can grow to.
pub fn open(
    dir: &Path,
    access: Access,
    map_bytes: usize,
    databases: u32,
) -> Result<Lmdb, heed::Error> {
    /// Readers hold a slot for microseconds, and each is a thread or a short blocking job.
    const READERS_MAX: u32 = 1024;

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
    unsafe {
        options.flags(flags).open(dir)
    }
}
