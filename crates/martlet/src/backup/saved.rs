//! A backup as it is read.

use anyhow::{Context as _, bail};
use base::ShardId;
use bytes::Bytes;
use namespace::backup::{Exported, MANIFEST_NAME, Manifest, part_name, rows};

use super::Target;

/// A complete backup.
pub(crate) struct Saved {
    from: Target,
    manifest: Manifest,
}

impl Saved {
    /// # Errors
    /// If it has no manifest: then it was never completed.
    pub(crate) fn open(from: Target) -> anyhow::Result<Self> {
        let Some(bytes) = from.get(MANIFEST_NAME)? else {
            bail!("there is no complete backup: it has no manifest");
        };
        let manifest = Manifest::decode(&bytes).context("the manifest is damaged")?;
        Ok(Self { from, manifest })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Gives all rows to `each`, part by part.
    ///
    /// # Errors
    /// If a part is missing or damaged; and what `each` says.
    pub(crate) async fn read(
        &self,
        mut each: impl AsyncFnMut(ShardId, Vec<(Bytes, Exported)>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for (shard, saved) in (0..).map(ShardId).zip(&self.manifest.shards) {
            for (number, _) in (0..).zip(&saved.parts) {
                let name = part_name(shard, number);
                let bytes = self.from.get(&name)?;
                let bytes = bytes.with_context(|| format!("{name} is missing"))?;
                let rows = rows(&self.manifest, shard, number, bytes);
                each(shard, rows.with_context(|| name)?).await?;
            }
        }
        Ok(())
    }
}
