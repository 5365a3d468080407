//! What a backup reads of a running cluster: the rows of all shards, each shard as of one moment. docs/backup.md has
//! the whole of it.
//!
//! **Invariant:** the authority's key, join tokens and the keys of nodes are in no backup: of the control group's rows
//! only the map leaves this module.

mod format;

use base::ShardId;
use bytes::Bytes;
pub use shard::{Export, Exported};

use crate::key::{self, table};
use crate::{Error, Namespace};

pub use format::{Invalid, MANIFEST_NAME, Manifest, Part, PartSum, ShardParts, part_name, rows};
pub use format::{decode_rows, encode_rows};

/// Some rows of a shard, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub rows: Vec<(Bytes, Exported)>,
    /// What the next page is behind; nothing if this is the last.
    pub next: Option<Bytes>,
}

impl Namespace {
    /// How many shards there are to be saved.
    pub fn shard_count(&self) -> u16 {
        self.inner.shards.count()
    }

    /// Opens a view of the shard that sees everything that was acknowledged before the call. It is closed when its
    /// last page has been read, or nobody has read from it for a minute.
    ///
    /// # Errors
    /// [`Error::Limit`] if there is no such shard.
    pub async fn open_backup(&self, shard: ShardId) -> Result<Export, Error> {
        Ok(self.shard_of_backup(shard)?.open_export().await?)
    }

    /// The rows of the view behind `after`, which is empty at first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the view is lost: the shard is to be begun anew. [`Error::Damaged`] if a row is.
    pub async fn read_backup(
        &self,
        shard: ShardId,
        view: &Export,
        after: Bytes,
    ) -> Result<Page, Error> {
        let piece = self.shard_of_backup(shard)?.read_export(view, after).await;
        let mut piece = piece?;
        let last = piece.rows.last().map(|(key, _)| key.clone());
        piece.rows.retain(|(key, _)| is_saved(key));
        Ok(Page {
            rows: piece.rows,
            next: last.filter(|_| !piece.is_last),
        })
    }

    fn shard_of_backup(&self, shard: ShardId) -> Result<&shard::Shard, Error> {
        match shard.0 < self.shard_count() {
            true => Ok(self.shard(shard)),
            false => Err(Error::Limit(format!("there is no shard {shard}"))),
        }
    }
}

fn is_saved(key: &[u8]) -> bool {
    key.first() != Some(&table::MEMBERSHIP) || key == key::MAP
}

#[cfg(test)]
mod tests;
