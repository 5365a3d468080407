//! Where a backup is: a directory, or a container of an object store.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use base::env::Env;
use bytes::Bytes;

use super::directory::Directory;
use super::store::{Store, StoreUrl};

/// As it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    Store(StoreUrl),
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.contains("://") {
            true => text.parse().map(Self::Store),
            false => Ok(Self::Directory(text.into())),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Store(url) => url.fmt(f),
        }
    }
}

/// Where the files of a backup are.
pub(crate) enum Target {
    Directory(Directory),
    Store(Store),
}

impl Target {
    /// Logs in where that is needed; `user` is `ACCOUNT:USER`.
    pub(crate) fn open(env: &Env, place: &Place, user: &str) -> anyhow::Result<Self> {
        Ok(match place {
            Place::Directory(path) => Self::directory(env, path),
            Place::Store(url) => Self::Store(Store::login(url, user)?),
        })
    }

    pub(crate) fn directory(env: &Env, path: &Path) -> Self {
        Self::Directory(Directory::new(env.disk.clone(), path))
    }

    /// Makes room for a backup; removes what one left that was not completed.
    ///
    /// # Errors
    /// If a backup is there, or something else.
    pub(crate) fn make_ready(&self) -> anyhow::Result<()> {
        match self {
            Self::Directory(directory) => directory.make_ready(),
            Self::Store(store) => store.make_ready(),
        }
    }

    /// Writes a file, which is durable when [`Target::complete`] has returned.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Directory(directory) => directory.put(name, bytes),
            Self::Store(store) => store.put(name, bytes),
        }
    }

    /// Writes the file with which everything is complete: it is there as a whole, and so is all that was put before,
    /// or it is not there.
    pub(crate) fn complete(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Directory(directory) => directory.complete(name, bytes),
            Self::Store(store) => store.put(name, bytes),
        }
    }

    /// The whole of a file; nothing if it is not there.
    pub(crate) fn get(&self, name: &str) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::Directory(directory) => directory.get(name),
            Self::Store(store) => store.get(name),
        }
    }
}

/// Whether a backup that was not completed may have left a file of this name.
pub(super) fn is_leftover(name: &str) -> bool {
    name == super::directory::NEW || name.starts_with("shard-")
}
