//! The names of the simulated disk: what programs see, and what a power cut leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::Random;

/// Directories are durable when they are made; the names of files in them are not.
#[derive(Clone, Default)]
pub(super) struct Names {
    dirs: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, u64>,
    platter: BTreeMap<PathBuf, u64>,
    /// What differs between the two, per directory and in order: a name and what it stands for now.
    pending: BTreeMap<PathBuf, Vec<(PathBuf, Option<u64>)>>,
}

impl Names {
    pub(super) fn file(&self, path: &Path) -> Option<u64> {
        self.seen.get(path).copied()
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.dirs.contains(path)
    }

    /// How many names the file has, or would have after a power cut.
    pub(super) fn links(&self, inode: u64) -> usize {
        let names = self.seen.values().chain(self.platter.values());
        let pending = self.pending.values().flatten();
        names.filter(|i| **i == inode).count() + pending.filter(|(_, i)| *i == Some(inode)).count()
    }

    pub(super) fn link(&mut self, path: &Path, inode: u64) -> io::Result<()> {
        self.set(path, Some(inode))
    }

    pub(super) fn unlink(&mut self, path: &Path) {
        self.set(path, None)
            .expect("a file that exists has a parent");
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.file(from).ok_or(ErrorKind::NotFound)?;
        self.set(to, Some(inode))?;
        self.set(from, None)
    }

    fn set(&mut self, path: &Path, inode: Option<u64>) -> io::Result<()> {
        let dir = path.parent().filter(|dir| self.is_dir(dir));
        let dir = dir.ok_or(ErrorKind::NotFound)?.to_owned();
        match inode {
            Some(inode) => self.seen.insert(path.to_owned(), inode),
            None => self.seen.remove(path),
        };
        let change = (path.to_owned(), inode);
        self.pending.entry(dir).or_default().push(change);
        Ok(())
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        for dir in path.ancestors() {
            if self.seen.contains_key(dir) {
                return Err(ErrorKind::NotADirectory.into());
            }
        }
        self.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.is_dir(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let all = self.seen.keys().chain(&self.dirs);
        let inside = all.filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.is_dir(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let changes = self.pending.remove(dir).unwrap_or_default();
        changes.into_iter().for_each(|change| self.settle(change));
        Ok(())
    }

    fn settle(&mut self, (path, inode): (PathBuf, Option<u64>)) {
        match inode {
            Some(inode) => self.platter.insert(path, inode),
            None => self.platter.remove(&path),
        };
    }

    /// Of each directory's changes the first few happened: journals keep their order.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        for (_, changes) in std::mem::take(&mut self.pending) {
            let kept = random.below(changes.len() as u64 + 1);
            let kept = usize::try_from(kept).expect("a length");
            for change in changes.into_iter().take(kept) {
                self.settle(change);
            }
        }
        self.seen = self.platter.clone();
    }

    pub(super) fn vanish(&mut self, dir: &Path) {
        self.dirs.retain(|path| !path.starts_with(dir));
        self.seen.retain(|path, _| !path.starts_with(dir));
        self.platter.retain(|path, _| !path.starts_with(dir));
        self.pending.retain(|path, _| !path.starts_with(dir));
    }
}
