//! The directories into which metadata is put.
//!
//! Each has a mark (`DIR/restoring`) from before anything is changed until everything is there. No server starts on a
//! directory with the mark, and a restore that was cut short is done again from its beginning.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::{Disk, Env, Open};
use device::Device;
use shard::Shards;

use super::Ready;
use crate::server::devices::{Plan, Spare};

/// The name of the mark.
pub(crate) const MARK: &str = "restoring";

/// Where metadata is. Without it a directory has chunks at most.
const METADATA: [&str; 2] = ["log", "tree"];

/// What a node knew of the cluster that it was in.
const OF_A_NODE: [&str; 3] = ["node/credentials.pem", "node/joining", "map"];

pub(crate) struct Ground {
    plan: Plan,
}

impl Ground {
    /// Looks at the directories and changes nothing.
    ///
    /// # Errors
    /// If they do not belong together, have metadata, or another number of shards.
    pub(crate) fn of(env: &Env, dirs: &[PathBuf], shards: u16) -> anyhow::Result<Self> {
        for dir in dirs {
            let dir_name = dir.display();
            let names = names(&*env.disk, dir).with_context(|| format!("listing {dir_name}"))?;
            let is_marked = names.iter().any(|name| name == MARK);
            let metadata = names.iter().find(|name| METADATA.contains(&name.as_str()));
            if let Some(name) = metadata.filter(|_| !is_marked) {
                bail!(
                    "{dir_name} has metadata, which would be lost: if it is of no use any more, move {name:?} away"
                );
            }
        }
        let plan = Plan::of(env, dirs, shards, Spare::None)?;
        if plan.shards != shards {
            bail!(
                "the directories are of a cluster with {} shards, and these are {shards}",
                plan.shards
            );
        }
        Ok(Self { plan })
    }

    /// The cluster that the directories belong to, if they have belonged to one.
    pub(crate) fn cluster(&self) -> Option<u128> {
        (!self.plan.made.is_empty()).then_some(self.plan.cluster)
    }

    /// A directory that is no device yet.
    pub(crate) fn first_new(&self) -> Option<&Path> {
        self.plan.to_make.first().map(PathBuf::as_path)
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let all = self.plan.made.iter().chain(&self.plan.to_make);
        all.map(PathBuf::as_path)
    }

    /// Makes devices of empty directories, and empty shards on all of them.
    pub(crate) async fn make_ready(self, env: &Env) -> anyhow::Result<Ready> {
        self.plan.make(env)?;
        let mut devices = Vec::new();
        for dir in self.dirs() {
            // Its lock keeps everybody else away.
            let device = Device::open(env.clone(), dir, device::Config::default());
            devices.push(device.with_context(|| format!("opening {}", dir.display()))?);
        }
        for dir in self.dirs() {
            let cleared = mark(&*env.disk, dir).and_then(|()| clear(&*env.disk, dir));
            cleared.with_context(|| format!("writing into {}", dir.display()))?;
        }
        let config = shard::Config::default();
        let count = self.plan.shards;
        Shards::format(&devices, count, &config)?;
        let shards = Shards::open(env, devices.clone(), count, config, None);
        let shards = shards.await.context("opening the shards")?;
        Ok(Ready {
            devices,
            shards: Arc::new(shards),
            ground: self,
        })
    }

    /// Removes the marks.
    pub(super) fn done(&self, env: &Env) -> anyhow::Result<()> {
        self.plan.done(env)?;
        for dir in self.dirs() {
            let done = env.disk.remove(&dir.join(MARK));
            let done = done.and_then(|()| env.disk.sync_dir(dir));
            done.with_context(|| format!("writing into {}", dir.display()))?;
        }
        Ok(())
    }
}

fn mark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.open(&dir.join(MARK), Open::Write)?.sync()?;
    disk.sync_dir(dir)
}

/// Removes what a restore left that was cut short, and what was known of another cluster.
fn clear(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for sub in METADATA {
        let sub = dir.join(sub);
        let files = names(disk, &sub)?;
        for name in &files {
            disk.remove(&sub.join(name))?;
        }
        if !files.is_empty() {
            disk.sync_dir(&sub)?;
        }
    }
    for name in OF_A_NODE {
        match disk.remove(&dir.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    disk.sync_dir(dir)
}

/// The names in a directory; none if it is missing.
fn names(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<String>> {
    match disk.list(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}
