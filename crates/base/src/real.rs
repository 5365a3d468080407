//! [`crate::env`] by the operating system.

use std::ffi::CString;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::Timestamp;
use crate::env::{Clock, Disk, Entropy, File, Open, Space};

pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the system"
    )]
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that asks the system"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp::default().after(since_epoch.unwrap_or_default())
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("Linux gives random bytes once it has booted");
    }
}

pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let base = match how {
            Open::Read | Open::ReadDirect => OFlags::RDONLY,
            Open::Write | Open::Direct | Open::DirectDurable => OFlags::RDWR | OFlags::CREATE,
        };
        let durable = match how {
            Open::DirectDurable => OFlags::DSYNC,
            Open::Read | Open::ReadDirect | Open::Write | Open::Direct => OFlags::empty(),
        };
        let direct = match how {
            Open::ReadDirect | Open::Direct | Open::DirectDurable => OFlags::DIRECT,
            Open::Read | Open::Write => OFlags::empty(),
        };
        let open = |flags: OFlags| fs::open(path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        let fd = match open(base | durable | direct) {
            // Some file systems (tmpfs before Linux 6.6, some FUSE ones) know no direct I/O.
            Err(Errno::INVAL) if !direct.is_empty() => open(base | durable)?,
            other => other?,
        };
        Ok(Arc::new(SystemFile { fd }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) => match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => self.sync_dir(Path::new(".")),
                Some(parent) => self.sync_dir(parent),
                None => Ok(()),
            },
            Err(Errno::EXIST) if path.is_dir() => Ok(()),
            Err(Errno::NOENT) => {
                let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
                self.create_dir(parent)?;
                self.create_dir(path)
            }
            Err(other) => Err(other.into()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is not UTF-8 is not one of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(from, to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlinkat(CWD, path, AtFlags::empty())?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let fd = fs::open(
            dir,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(fs::fsync(fd)?)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let dir = CString::new(dir.as_os_str().as_bytes())?;
        let stat = fs::statvfs(dir.as_c_str())?;
        Ok(Space {
            total_bytes: stat.f_blocks * stat.f_frsize,
            free_bytes: stat.f_bavail * stat.f_frsize,
        })
    }
}

struct SystemFile {
    fd: OwnedFd,
}

/// Fills `buffer` by repeated calls of `read(buffer, offset)` until it is full or the file ends.
fn read_full(
    buffer: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(done)
}

impl File for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(buffer, offset, |buffer, offset| {
            rustix::io::pread(&self.fd, buffer, offset)
        })
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full(buffer, offset, |buffer, offset| {
            let mut pieces = [io::IoSliceMut::new(buffer)];
            let read = rustix::io::preadv2(&self.fd, &mut pieces, offset, ReadWriteFlags::NOWAIT);
            // A file system without this flag is read the waiting way.
            match read {
                Err(Errno::OPNOTSUPP) => Err(Errno::AGAIN),
                other => other,
            }
        })
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        /// The kernel refuses more in one call (`IOV_MAX`).
        const PIECES_MAX: usize = 1024;
        let mut owned = pieces.to_vec();
        let mut rest = owned.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(PIECES_MAX)];
            match rustix::io::pwritev(&self.fd, batch, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.fd)?)
    }

    fn len(&self) -> io::Result<u64> {
        let size = fs::fstat(&self.fd)?.st_size;
        Ok(u64::try_from(size).expect("a file's size is not negative"))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fs::fallocate(&self.fd, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP) => self.truncate(len),
            other => Ok(other?),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(fs::ftruncate(&self.fd, len)?)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fs::fallocate(&self.fd, flags, offset, len) {
            // The space stays taken until the file is compacted away.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        let blocks = fs::fstat(&self.fd)?.st_blocks;
        Ok(u64::try_from(blocks).expect("a file's size is not negative") * 512)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_read_back_at_their_offset() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        SystemDisk.create_dir(&nested).unwrap();
        let file = SystemDisk.open(&nested.join("f"), Open::Write).unwrap();
        file.write_at(
            &[IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")],
            3,
        )
        .unwrap();
        file.sync().unwrap();

        let mut buffer = [7; 10];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
        assert_eq!(&buffer, b"\0\0\0hello\x07\x07");
        assert_eq!(SystemDisk.list(&nested).unwrap(), ["f"]);
    }

    #[test]
    fn a_second_lock_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = SystemDisk.open(&path, Open::Write).unwrap();
        let second = SystemDisk.open(&path, Open::Write).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }
}
