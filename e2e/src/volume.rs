//! A file system of our own that can lose its power.
//!
//! It lies in a file behind a loop device. [`Volume::cut`] shuts it down without writing anything
//! back, by the `goingdown` ioctl that both ext4 and xfs have; mounted again, it holds what had
//! reached the "disk" by then: as after a power cut, except that a disk's own write cache is not lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use crate::process;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

/// A mounted file system. Unmounted when it is dropped; its files stay.
pub struct Volume {
    image: PathBuf,
    mount: PathBuf,
    caching: Caching,
}

/// Whether the kernel keeps a second copy of everything in the page cache of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caching {
    Twice,
    /// Like a disk.
    Once,
}

impl Volume {
    /// Makes one of `bytes` (sparse) under `work`, whose files it owns from then on.
    pub fn create(kind: Kind, work: &Path, bytes: u64) -> Result<Self> {
        Self::create_with(kind, work, bytes, Caching::Twice)
    }

    /// As [`Volume::create`], but what is written goes past the page cache of the image. Where `work`
    /// lies must be able to do that.
    pub fn create_direct(kind: Kind, work: &Path, bytes: u64) -> Result<Self> {
        Self::create_with(kind, work, bytes, Caching::Once)
    }

    fn create_with(kind: Kind, work: &Path, bytes: u64, caching: Caching) -> Result<Self> {
        let volume = Self {
            image: work.join("image"),
            mount: work.join("volume"),
            caching,
        };
        fs::create_dir_all(&volume.mount)?;
        let _ = fs::remove_file(&volume.image);
        File::create(&volume.image)?.set_len(bytes)?;
        let mut command = match kind {
            Kind::Xfs => Command::new("mkfs.xfs"),
            Kind::Ext4 => {
                let mut command = Command::new("mkfs.ext4");
                // Nothing is left for the kernel to do in the background.
                command.args([
                    "-F",
                    "-m",
                    "0",
                    "-E",
                    "lazy_itable_init=0,lazy_journal_init=0",
                ]);
                command
            }
        };
        process::run(command.arg("-q").arg(&volume.image))?;
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts the power: from now on nothing reaches the disk, and writes fail.
    pub fn cut(&self) -> Result<()> {
        go_down(&File::open(&self.mount)?).context("shutting the file system down")
    }

    /// Gives the power back. Nobody may have a file open in it.
    pub fn restore(&self) -> Result<()> {
        process::run(Command::new("umount").arg(&self.mount))?;
        self.mount()
    }

    fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        if self.caching == Caching::Twice {
            mount.args(["-o", "loop,noatime"]).arg(&self.image);
            return process::run(mount.arg(&self.mount));
        }
        let mut attach = Command::new("losetup");
        attach.args(["--find", "--show", "--direct-io=on"]);
        let output = attach.arg(&self.image).output().context("losetup")?;
        ensure!(output.status.success(), "{attach:?}: {output:?}");
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        let mounted = process::run(mount.args(["-o", "noatime", &device]).arg(&self.mount));
        // From now on only the mount holds it.
        process::run(Command::new("losetup").args(["--detach", &device]))?;
        mounted
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What cannot be unmounted now is let go of when its last user ends.
        let _ = process::run(Command::new("umount").arg("--lazy").arg(&self.mount));
    }
}

#[expect(unsafe_code, reason = "nobody wraps this ioctl")]
fn go_down(root: &File) -> rustix::io::Result<()> {
    /// `XFS_IOC_GOINGDOWN` and `EXT4_IOC_SHUTDOWN`: the same number and argument.
    const GOING_DOWN: Opcode = opcode::read::<u32>(b'X', 125);
    /// Not even the log is written back.
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: the kernel reads one u32 at the pointer, which is what `Setter` passes, and keeps none of
    // our memory.
    unsafe { ioctl(root, Setter::<GOING_DOWN, u32>::new(NO_LOG_FLUSH)) }
}

/// Whether this process may mount file systems.
pub fn is_possible() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The harness itself: synced bytes stay, others go.
    #[test]
    fn a_power_cut_keeps_what_was_synced_and_nothing_else() {
        if !crate::may_skip(is_possible(), "needs root and loop devices") {
            return;
        }
        for kind in [Kind::Ext4, Kind::Xfs] {
            let work = tempfile::tempdir_in(crate::scratch().unwrap()).unwrap();
            let volume = Volume::create(kind, work.path(), 512 << 20).unwrap();
            let path = |name: &str| volume.path().join(name);
            let mut synced = File::create(path("synced")).unwrap();
            synced.write_all(b"here").unwrap();
            synced.sync_all().unwrap();
            File::open(volume.path()).unwrap().sync_all().unwrap();
            fs::write(path("lost"), b"gone").unwrap();
            volume.cut().unwrap();
            drop(synced);
            volume.restore().unwrap();

            assert_eq!(fs::read(path("synced")).unwrap(), b"here", "{kind:?}");
            assert!(
                fs::read(path("lost")).unwrap_or_default().is_empty(),
                "{kind:?}"
            );
        }
    }
}
