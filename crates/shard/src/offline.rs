//! Reading shards whose server is not running, for checks: nothing is changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::ShardId;
use base::env::Disk;
use device::{Access, Log};

use crate::core::Core;
use crate::host::Tails;
use crate::replica::apply_to;
use crate::tree::Tree;
use crate::view::EachRow;
use crate::{Error, View};

/// The shards of one device as the next start would find them: the tree, and the tail of the log in
/// memory, at most what two memtables may hold.
pub struct Offline {
    shards: BTreeMap<ShardId, Core>,
}

impl Offline {
    /// Opens the shards of the device in `dir`, whose lock the caller must hold.
    ///
    /// # Errors
    /// [`device::Error::NotFound`] if the device has no shards; [`device::Error::Damaged`] if the
    /// tree or the log is not as it was written.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, device::Error> {
        /// LMDB maps more if the file is larger.
        const MAP_BYTES: usize = 1 << 30;

        let damaged = |error: Error| device::Error::damaged(format!("{}: {error}", dir.display()));
        let tree = Arc::new(Tree::open(&dir.join("tree"), Access::ReadOnly, MAP_BYTES)?);
        let mut tails = Tails::of(&tree).map_err(damaged)?;
        let log_id = Log::read(disk, &dir.join("log"), &mut |record| {
            tails.replay(record).map_err(damaged)
        })?;
        if log_id != tree.log_id() {
            let dir = dir.display();
            let what = format!("{dir}: log and tree are of different devices");
            return Err(device::Error::damaged(what));
        }
        let (tails, _) = tails.read().map_err(damaged)?;
        let mut shards = BTreeMap::new();
        for (id, tail) in tails.into_iter().filter(|(_, tail)| !tail.is_gone()) {
            let core = Core::new(id, Some(tree.clone())).map_err(damaged)?;
            apply_to(&core, tail.entries()).map_err(damaged)?;
            shards.insert(id, core);
        }
        Ok(Self { shards })
    }

    /// Which shards the device has.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }

    /// How far the device's replica of the shard goes: term and index of its last entry, by which replicas
    /// compare. `None` if the device does not have it.
    pub fn position(&self, shard: ShardId) -> Option<(u64, u64)> {
        let last = self.shards.get(&shard)?.memo().applied;
        Some((last.term, last.index))
    }

    /// The shard as it is; `None` if the device does not have it.
    pub fn view(&self, shard: ShardId) -> Option<Result<View, Error>> {
        self.shards.get(&shard).map(Core::view)
    }

    /// Gives everything in the shard to `each`, in the order of keys: rows, counters, and what is
    /// damaged, but not counters that are 0.
    ///
    /// # Errors
    /// If the tree itself is so damaged that it cannot be walked.
    pub fn visit(&self, shard: ShardId, each: EachRow<'_>) -> Result<(), Error> {
        match self.shards.get(&shard) {
            Some(core) => core.view()?.visit_all(each),
            None => Ok(()),
        }
    }
}
