//! Accounts.
//!
//! An account's own row and the list of its containers' names are in the account's shard; what its
//! containers hold is counted in the shards where they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{ContainerId, ShardId, Timestamp};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, View};

use crate::key::{self, Count, Parts, table};
use crate::listing::{Keys, Step, Verdict, Window};
use crate::row::{self, AccountContainerRow, AccountRow};
use crate::{
    Created, Entry, Error, ListQuery, Metadata, MetadataChange, MetadataLimits, Missing, Namespace,
    container, placement,
};

/// How many containers one round of a listing asks for.
const LIST_ROUND_MAX: usize = 1000;

/// An account as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub created: Timestamp,
    pub metadata: Metadata,
}

/// What an account holds: exact, summed over its containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub containers: u64,
    pub objects: u64,
    pub bytes: u64,
}

/// A line of an account's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEntry {
    pub name: String,
    pub objects: u64,
    pub bytes: u64,
    /// The container's last PUT or POST.
    pub modified: Timestamp,
}

fn read(view: &View, key: &[u8]) -> Result<Option<AccountRow>, Error> {
    let bytes = view.get(key)?;
    bytes.map(|bytes| row::decode_owned(&bytes)).transpose()
}

/// Merges metadata into an account that may be there.
#[derive(Serialize, Deserialize)]
pub(crate) struct Update {
    account: String,
    change: MetadataChange,
    limits: MetadataLimits,
}

impl Procedure for Update {
    const NAME: &'static str = "account.update";

    type Output = Created;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(key::account(&self.account))]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, Created), Execution<Error>> {
        let key = key::account(&self.account);
        let (mut row, created) = match read(view, &key)? {
            Some(mut row) => {
                row.modified = now.max(row.modified.next());
                (row, Created::Existed)
            }
            None => (AccountRow::new(now), Created::New),
        };
        row.metadata = self.change.merge(row.metadata, &self.limits)?;
        let mut batch = Batch::new();
        batch.put(key, row::encode(&row));
        Ok((batch, created))
    }
}

/// Writes a line of the account's container list, and makes the account.
#[derive(Serialize, Deserialize)]
pub(crate) struct List {
    account: String,
    line: Bytes,
    /// Whether the account may be missing. One that is there is only relied on, so that many of its
    /// containers can be made at once.
    account_may_be_missing: bool,
}

impl Procedure for List {
    const NAME: &'static str = "account.list_container";

    type Output = Timestamp;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        let account = key::account(&self.account);
        vec![if self.account_may_be_missing {
            Latch::Exclusive(account)
        } else {
            Latch::Shared(account)
        }]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, Timestamp), Execution<Error>> {
        let key = key::account(&self.account);
        let mut batch = Batch::new();
        if view.get(&key)?.is_none() {
            if !self.account_may_be_missing {
                return Err(Error::NotFound(Missing::Account).into());
            }
            batch.put(key, row::encode(&AccountRow::new(now)));
        }
        let line = AccountContainerRow { listed: now };
        batch.put(self.line.clone(), row::encode(&line));
        Ok((batch, now))
    }
}

/// Removes lines of accounts' container lists.
#[derive(Serialize, Deserialize)]
pub(crate) struct Unlist {
    pub(crate) lines: Vec<Bytes>,
}

impl Procedure for Unlist {
    const NAME: &'static str = "account.unlist_containers";

    type Output = ();
    type Error = Error;

    /// A line names an id that is never made again, so nothing rests on the line itself.
    fn latches(&self) -> Vec<Latch> {
        Vec::new()
    }

    fn plan(&self, _: Timestamp, _: &View) -> Result<(Batch, ()), Execution<Error>> {
        let mut batch = Batch::new();
        for line in &self.lines {
            batch.delete(line.clone());
        }
        Ok((batch, ()))
    }
}

/// Removes an account whose container list is empty.
#[derive(Serialize, Deserialize)]
pub(crate) struct Delete {
    account: String,
}

impl Procedure for Delete {
    const NAME: &'static str = "account.delete";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(key::account(&self.account))]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, ()), Execution<Error>> {
        let key = key::account(&self.account);
        if view.get(&key)?.is_none() {
            return Err(Error::NotFound(Missing::Account).into());
        }
        if container::holds_rows(view, &key::account_containers(&self.account))? {
            return Err(Error::NotEmpty.into());
        }
        let mut batch = Batch::new();
        batch.delete(key);
        Ok((batch, ()))
    }
}

impl Namespace {
    /// The account as it is now, `None` if nothing was ever stored in it. Cheap enough for every
    /// request, so nothing is copied.
    pub async fn account(&self, account: &str) -> Result<Option<Arc<Account>>, Error> {
        let epoch = match self.inner.accounts.get(account) {
            Ok(known) => return Ok(known),
            Err(epoch) => epoch,
        };
        let view = self.account_shard(account).view().await?;
        let row = read(&view, &key::account(account))?;
        let found = row.map(|row| {
            Arc::new(Account {
                name: account.to_owned(),
                created: row.created,
                metadata: row.metadata,
            })
        });
        self.inner.accounts.insert(epoch, account, found.clone());
        Ok(found)
    }

    /// Three counters of each shard. Writes that are acknowledged before the call are counted;
    /// those that go on meanwhile may be seen in one shard and not in another.
    pub async fn usage(&self, account: &str) -> Result<Usage, Error> {
        let keys = [Count::Containers, Count::Objects, Count::Bytes]
            .map(|count| key::account_total(count, account));
        let keys = &keys;
        let shards = self.shard_ids().map(|shard| async move {
            let view = self.shard(shard).view().await?;
            Ok::<_, Error>(Usage {
                containers: container::count(&view, &keys[0])?,
                objects: container::count(&view, &keys[1])?,
                bytes: container::count(&view, &keys[2])?,
            })
        });
        let mut sum = Usage::default();
        for part in try_join_all(shards).await? {
            sum.containers += part.containers;
            sum.objects += part.objects;
            sum.bytes += part.bytes;
        }
        Ok(sum)
    }

    /// Merges metadata, making the account if it is missing.
    pub async fn update_account(
        &self,
        account: &str,
        change: MetadataChange,
        limits: MetadataLimits,
    ) -> Result<Created, Error> {
        key::check_name("account", account, key::ACCOUNT_NAME_BYTES_MAX)?;
        let update = Update {
            account: account.to_owned(),
            change,
            limits,
        };
        let updated = self.account_shard(account).execute(update).await;
        // Also if the outcome is unknown.
        self.inner.accounts.forget(account);
        Ok(updated?)
    }

    /// Deletes an account that holds no container; [`Error::NotEmpty`] otherwise. While a container
    /// is being made or was half made a moment ago: [`Error::Unavailable`].
    pub async fn delete_account(&self, account: &str) -> Result<(), Error> {
        let any = ListQuery {
            limit: 1,
            ..ListQuery::default()
        };
        if !self.list_containers(account, &any).await?.is_empty() {
            return Err(Error::NotEmpty);
        }
        self.sweep_account(account).await?;
        let delete = Delete {
            account: account.to_owned(),
        };
        let deleted = self.account_shard(account).execute(delete).await;
        self.inner.accounts.forget(account);
        match deleted.map_err(Error::from) {
            // There is no container, so its maker is at work, or has died on the way.
            Err(Error::NotEmpty) => Err(Error::Unavailable {
                retry_in: Duration::from_secs(5),
            }),
            other => other,
        }
    }

    /// Writes the line of a container that is about to be made; tells when.
    pub(crate) async fn list_container(
        &self,
        account: &str,
        name: &str,
        id: ContainerId,
    ) -> Result<Timestamp, Error> {
        let list = |account_may_be_missing| List {
            account: account.to_owned(),
            line: key::account_container(account, name, id),
            account_may_be_missing,
        };
        let shard = self.account_shard(account);
        match shard.execute(list(false)).await.map_err(Error::from) {
            Err(Error::NotFound(_)) => {
                let listed = shard.execute(list(true)).await;
                self.inner.accounts.forget(account);
                Ok(listed?)
            }
            other => other,
        }
    }

    /// Removes the line of a container that is gone, or was never made. If that fails the line is
    /// seen by nobody, and swept up later.
    pub(crate) async fn unlist_container(&self, account: &str, name: &str, id: ContainerId) {
        let lines = vec![key::account_container(account, name, id)];
        let unlisted = self.account_shard(account).execute(Unlist { lines }).await;
        if let Err(error) = unlisted {
            let error = Error::from(error);
            tracing::debug!(%id, %error, "the container's line is left to the sweeper");
        }
    }

    /// The account's containers. Each line is exact; together they are no snapshot, since containers
    /// are spread over shards.
    pub async fn list_containers(
        &self,
        account: &str,
        query: &ListQuery,
    ) -> Result<Vec<Entry<ContainerEntry>>, Error> {
        let base = key::account_containers(account);
        let mut window = Window::new(query, &base, Keys::NameAndContainer);
        let mut entries = Vec::new();
        while entries.len() < query.limit {
            let want = (query.limit - entries.len()).min(LIST_ROUND_MAX);
            let view = self.account_shard(account).view().await?;
            let lines = read_lines(&window, &view, want)?;
            drop(view);
            let asked: Vec<&Line> = lines.iter().map(|(line, _)| line).collect();
            let found = self.look_up(account, &asked).await?;
            let is_last = lines.len() < want;
            if window.show(&lines, found, &mut entries) && is_last {
                break;
            }
        }
        Ok(entries)
    }

    /// Asks the containers themselves, all of a shard at once: `None` for a line that leads nowhere.
    pub(crate) async fn look_up(
        &self,
        account: &str,
        lines: &[&Line],
    ) -> Result<Vec<Option<ContainerEntry>>, Error> {
        let mut shards: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        for (at, line) in lines.iter().enumerate() {
            shards
                .entry(placement::of_id(line.id))
                .or_default()
                .push(at);
        }
        let mut found = vec![None; lines.len()];
        for (shard, places) in shards {
            if shard.0 >= self.inner.shards.count() {
                return Err(Error::Damaged(format!("a container in shard {shard}")));
            }
            let view = self.shard(shard).view().await?;
            for at in places {
                found[at] = read_entry(&view, account, lines[at])?;
            }
        }
        Ok(found)
    }
}

/// A line of an account's list.
pub(crate) struct Line {
    pub(crate) key: Bytes,
    name: String,
    id: ContainerId,
}

impl Line {
    pub(crate) fn new(key: &[u8], name: &str, id: ContainerId) -> Self {
        Self {
            key: Bytes::copy_from_slice(key),
            name: name.to_owned(),
            id,
        }
    }
}

impl Window<'_> {
    /// Turns lines into entries and leaves them out of the window. Stops behind a line that was to be
    /// rolled up and leads nowhere, and then returns `false`: only the next line will tell whether
    /// there is anything to roll up.
    fn show(
        &mut self,
        lines: &[(Line, Verdict)],
        found: Vec<Option<ContainerEntry>>,
        entries: &mut Vec<Entry<ContainerEntry>>,
    ) -> bool {
        for ((line, verdict), found) in lines.iter().zip(found) {
            match (verdict, found) {
                (Verdict::RollUp(_), None) => {
                    self.resume_behind(&line.key);
                    return false;
                }
                (Verdict::RollUp(end), Some(_)) => {
                    let subdir = &line.name[..*end];
                    if !self.was_shown(subdir) {
                        entries.push(Entry::Subdir(subdir.to_owned()));
                    }
                }
                (_, found) => entries.extend(found.map(Entry::Row)),
            }
        }
        match lines.last() {
            Some((line, Verdict::RollUp(end))) => self.resume_past(&line.name[..*end]),
            Some((line, _)) => self.resume_behind(&line.key),
            None => {}
        }
        true
    }
}

/// The next lines of a listing, each with what it is to become.
fn read_lines(
    window: &Window<'_>,
    view: &View,
    want: usize,
) -> Result<Vec<(Line, Verdict)>, Error> {
    let mut lines = Vec::new();
    window.scan(view, |name, key, _| {
        let verdict = window.judge(name);
        let step = match verdict {
            Verdict::Skip => return Ok(Step::Next),
            Verdict::Pass(end) => return Ok(Step::Past(end)),
            Verdict::Row => Step::Next,
            Verdict::RollUp(end) => Step::Past(end),
        };
        let mut parts = Parts::of(table::ACCOUNT_CONTAINER, key)?;
        parts.name()?;
        let (_, id) = parts.name_and_container()?;
        lines.push((Line::new(key, name, id), verdict));
        Ok(if lines.len() < want { step } else { Step::Stop })
    })?;
    Ok(lines)
}

fn read_entry(view: &View, account: &str, line: &Line) -> Result<Option<ContainerEntry>, Error> {
    let Some(bytes) = view.get(&key::container(account, &line.name))? else {
        return Ok(None);
    };
    let (head, _) = row::decode_front::<row::ContainerHead>(&bytes)?;
    if head.id != line.id {
        return Ok(None);
    }
    Ok(Some(ContainerEntry {
        name: line.name.clone(),
        objects: container::count(view, &key::container_count(Count::Objects, head.id))?,
        bytes: container::count(view, &key::container_count(Count::Bytes, head.id))?,
        modified: head.modified,
    }))
}
