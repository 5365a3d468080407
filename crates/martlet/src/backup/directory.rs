//! A backup in a directory.

use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::{Disk, Open};
use bytes::Bytes;
use namespace::backup::MANIFEST_NAME;

use super::target::is_leftover;

/// The manifest before it is renamed.
pub(super) const NEW: &str = "manifest.new";

/// More is no file of a backup.
const FILE_BYTES_MAX: u64 = 1 << 30;

pub(crate) struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(disk: Arc<dyn Disk>, path: &Path) -> Self {
        let path = path.to_owned();
        Self { disk, path }
    }

    /// Makes the directory if it is missing, and removes what a backup left that was not completed.
    ///
    /// # Errors
    /// If a backup is in it, or something else.
    pub(super) fn make_ready(&self) -> anyhow::Result<()> {
        let path = self.path.display();
        let names = match self.disk.list(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = self.disk.create_dir(&self.path);
                return made.with_context(|| format!("making {path}"));
            }
            names => names.with_context(|| format!("listing {path}"))?,
        };
        if names.iter().any(|name| name == MANIFEST_NAME) {
            bail!("{path} holds a backup already: name another directory");
        }
        if let Some(name) = names.iter().find(|name| !is_leftover(name)) {
            bail!("{path} holds {name:?}: name an empty directory");
        }
        for name in names {
            let file = self.path.join(name);
            let removed = self.disk.remove(&file);
            removed.with_context(|| format!("removing {}", file.display()))?;
        }
        Ok(())
    }

    /// Writes a file that survives a power cut when [`Directory::complete`] has returned.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let file = self.path.join(name);
        let written = self.write(&file, bytes);
        written.with_context(|| format!("writing {}", file.display()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk.open(path, Open::Write)?;
        // What was left of a try that broke off.
        file.truncate(0)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        file.sync()
    }

    /// Writes the file with which everything is complete: after a power cut it is there as a whole, and so is
    /// all that was put before, or it is not there.
    pub(super) fn complete(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let complete = || {
            let new = self.path.join(NEW);
            self.write(&new, bytes)?;
            // First the names of all other files.
            self.disk.sync_dir(&self.path)?;
            self.disk.rename(&new, &self.path.join(name))?;
            self.disk.sync_dir(&self.path)
        };
        complete().with_context(|| format!("writing {name} in {}", self.path.display()))
    }

    /// The whole of a file; nothing if it is not there.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<Option<Bytes>> {
        let path = self.path.join(name);
        let read = || {
            let file = match self.disk.open(&path, Open::Read) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let bytes = file.len()?;
            if bytes > FILE_BYTES_MAX {
                return Err(io::Error::other("the file is too long"));
            }
            let mut all = vec![0; usize::try_from(bytes).expect("bounded above")];
            let read = file.read_at(&mut all, 0)?;
            all.truncate(read);
            Ok(Some(all.into()))
        };
        read().with_context(|| format!("reading {}", path.display()))
    }
}
