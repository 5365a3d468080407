//! The sweeper: removes lines of accounts' container lists that lead nowhere.
//!
//! A crash while a container is made or deleted leaves such a line. A line is written just before its
//! container is made, so a young one may be about to lead somewhere; see
//! [`Namespace::put_container`].

use std::time::Duration;

use base::{ShardId, Timestamp};
use bytes::Bytes;

use crate::account::{Line, Unlist};
use crate::key::{self, Parts, table};
use crate::row::{self, AccountContainerRow};
use crate::{Error, Namespace, rows};

/// Twice the time within which a container is made after it was listed, for clocks that differ.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(120);

/// Where the next round begins.
#[derive(Default)]
pub(crate) struct Sweeper {
    cursor: Option<Bytes>,
}

impl Sweeper {
    /// One round in one shard of accounts. Returns whether there is more before the end.
    pub(crate) async fn round(
        &mut self,
        namespace: &Namespace,
        shard: ShardId,
    ) -> Result<bool, Error> {
        let first = || Bytes::from_static(&[table::ACCOUNT_CONTAINER]);
        let from = self.cursor.take().unwrap_or_else(first);
        let to = key::end_of(&[table::ACCOUNT_CONTAINER]);
        self.cursor = namespace.sweep(shard, from, to).await?;
        Ok(self.cursor.is_some())
    }
}

impl Namespace {
    /// Sweeps the whole list of one account.
    pub(crate) async fn sweep_account(&self, account: &str) -> Result<(), Error> {
        let shard = self.account_shard_id(account);
        let mut from = key::account_containers(account);
        let to = key::end_of(&from);
        while let Some(next) = self.sweep(shard, from, to.clone()).await? {
            from = next;
        }
        Ok(())
    }

    /// Sweeps a page of lines; returns where to go on.
    async fn sweep(&self, shard: ShardId, from: Bytes, to: Bytes) -> Result<Option<Bytes>, Error> {
        let now = self.now();
        let (lines, next) = self.old_lines(shard, from, to, now).await?;
        let mut dead = Vec::new();
        // Lines of one account stand together.
        for run in lines.chunk_by(|a, b| a.0 == b.0) {
            let account = &run[0].0;
            let lines: Vec<&Line> = run.iter().map(|(_, line)| line).collect();
            let found = self.look_up(account, &lines).await?;
            let pairs = lines.iter().zip(found);
            let gone = pairs.filter(|(_, found)| found.is_none());
            dead.extend(gone.map(|(line, _)| line.key.clone()));
        }
        if !dead.is_empty() {
            tracing::info!(%shard, lines = dead.len(), "removing lines of containers that are gone");
            self.execute(shard, Unlist { lines: dead }).await?;
        }
        Ok(next)
    }

    /// Lines that are no longer young, with their accounts.
    async fn old_lines(
        &self,
        shard: ShardId,
        from: Bytes,
        to: Bytes,
        now: Timestamp,
    ) -> Result<(Vec<(String, Line)>, Option<Bytes>), Error> {
        let page = rows::page(self.shard(shard), from, to).await?;
        let mut lines = Vec::new();
        for (key, value) in &page.rows {
            let row: AccountContainerRow = row::decode(value)?;
            if now.since(row.listed) > LEFT_OVER_AFTER {
                let mut parts = Parts::of(table::ACCOUNT_CONTAINER, key)?;
                let account = parts.name()?.to_owned();
                let (name, id) = parts.name_and_container()?;
                lines.push((account, Line::new(key, name, id)));
            }
        }
        Ok((lines, page.next))
    }
}
