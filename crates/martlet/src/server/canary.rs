//! Planted bugs, for builds with the feature `canary` alone: a harness that does not notice them
//! proves nothing. `CANARY=` chooses one.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::env::{Disk, Env, File, Open, Space};

#[cfg(not(debug_assertions))]
compile_error!("a server that lies about durability is not built for release");

/// What a file is lied about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Writes stay in the page cache and syncs do nothing.
    SyncSkipped,
    /// Writes are said to be done a moment before they are.
    AcknowledgedEarly,
}

/// Plants the bug that `CANARY` asks for, and gives the environment, which may be part of it.
pub(super) fn env(real: Env) -> Env {
    let (folder, lie) = match std::env::var("CANARY").as_deref() {
        Ok("log-sync-skipped") => ("log", Lie::SyncSkipped),
        Ok("store-sync-skipped") => ("segments", Lie::SyncSkipped),
        Ok("acknowledged-early") => ("log", Lie::AcknowledgedEarly),
        Ok("acknowledged-before-quorum") => {
            shard::Canary::AcknowledgedBeforeQuorum.plant();
            return real;
        }
        Ok("list-from-follower") => {
            shard::Canary::ListFromFollower.plant();
            return real;
        }
        Ok("repeat-executed") => {
            shard::Canary::RepeatExecuted.plant();
            return real;
        }
        Ok("epoch-unchecked") => {
            chunks::Canary::EpochUnchecked.plant();
            return real;
        }
        Ok(other) => panic!("CANARY={other}: there is no such planted bug"),
        Err(_) => return real,
    };
    tracing::warn!(folder, ?lie, "this server lies about durability");
    let disk = LyingDisk {
        real: real.disk,
        folder,
        lie,
    };
    Env {
        disk: Arc::new(disk),
        ..real
    }
}

struct LyingDisk {
    real: Arc<dyn Disk>,
    /// Files directly below a folder of this name.
    folder: &'static str,
    lie: Lie,
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let folder = path.parent().and_then(Path::file_name);
        let writes = matches!(how, Open::Write | Open::Direct | Open::DirectDurable);
        if !writes || folder.is_none_or(|folder| folder != self.folder) {
            return self.real.open(path, how);
        }
        let how = match self.lie {
            Lie::SyncSkipped => Open::Write,
            Lie::AcknowledgedEarly => how,
        };
        let real = self.real.open(path, how)?;
        let lie = self.lie;
        Ok(Arc::new(LyingFile { real, lie }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.real.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.real.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.real.space(dir)
    }
}

struct LyingFile {
    real: Arc<dyn File>,
    lie: Lie,
}

impl File for LyingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_at(buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_cached_at(buffer, offset)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        /// Long enough for a client to have its answer.
        const MOMENT: Duration = Duration::from_millis(20);
        if self.lie == Lie::SyncSkipped {
            return self.real.write_at(pieces, offset);
        }
        let real = Arc::clone(&self.real);
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        std::thread::spawn(move || {
            std::thread::sleep(MOMENT);
            write_aligned(&*real, &bytes, offset).expect("the disk of a test takes writes");
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match self.lie {
            Lie::SyncSkipped => Ok(()),
            Lie::AcknowledgedEarly => self.real.sync(),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.real.allocate(len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.real.truncate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.real.punch(offset, len)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.real.allocated_bytes()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.real.try_lock()
    }
}

/// Writes from memory that is aligned, as direct I/O wants it.
fn write_aligned(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    use base::env::BLOCK_BYTES;
    let mut memory = vec![0; bytes.len() + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let aligned = &mut memory[start..start + bytes.len()];
    aligned.copy_from_slice(bytes);
    file.write_at(&[IoSlice::new(aligned)], offset)
}
