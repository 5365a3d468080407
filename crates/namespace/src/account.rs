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
use shard::{Batch, Execution, Latch, Procedure, Query, View};

use crate::key::{self, Count, Parts, table};
use crate::listing::{Keys, Rest, Step, Verdict, Window};
use crate::row::{self, AccountContainerRow, AccountRow};
use crate::{
    Created, Entry, Error, ListQuery, Metadata, MetadataChange, MetadataLimits, Missing, Namespace,
    container, patience, placement, rows,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEntry {
    pub name: String,
    pub objects: u64,
    pub bytes: u64,
    /// The container's last PUT or POST.
    pub modified: Timestamp,
    /// How its bodies are kept: the place among [`map::Policies`].
    pub policy: u16,
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
    /// The account as it is now, or was within the last second if another node has changed it; `None` if
    /// nothing was ever stored in it. Cheap enough for every request, so nothing is copied.
    pub async fn account(&self, account: &str) -> Result<Option<Arc<Account>>, Error> {
        let epoch = match self.inner.accounts.get(account) {
            Ok(known) => return Ok(known),
            Err(epoch) => epoch,
        };
        let row = rows::get(self.account_shard(account), key::account(account)).await?;
        let found = row.map(|row: AccountRow| {
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
        let [containers, objects, bytes] = self.sums(&keys).await?;
        Ok(Usage {
            containers,
            objects,
            bytes,
        })
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
        let updated = patience::execute(self.account_shard(account), update).await;
        // Also if the outcome is unknown.
        self.inner.accounts.forget(account);
        updated
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
        let deleted = patience::execute(self.account_shard(account), delete).await;
        self.inner.accounts.forget(account);
        match deleted {
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
        match patience::execute(shard, list(false)).await {
            Err(Error::NotFound(_)) => {
                let listed = patience::execute(shard, list(true)).await;
                self.inner.accounts.forget(account);
                listed
            }
            other => other,
        }
    }

    /// Removes the line of a container that is gone, or was never made. If that fails the line is
    /// seen by nobody, and swept up later.
    pub(crate) async fn unlist_container(&self, account: &str, name: &str, id: ContainerId) {
        let lines = vec![key::account_container(account, name, id)];
        let unlisted = patience::execute(self.account_shard(account), Unlist { lines }).await;
        if let Err(error) = unlisted {
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
        let shard = self.account_shard_id(account);
        let mut window = Window::new(query, &base, Keys::NameAndContainer);
        let mut entries = Vec::new();
        while entries.len() < query.limit {
            let want = (query.limit - entries.len()).min(LIST_ROUND_MAX);
            let read = ReadLines {
                account: account.to_owned(),
                query: query.clone(),
                rest: window.rest(),
                want,
            };
            let lines = self.query(shard, read).await?;
            let asked: Vec<&Line> = lines.iter().collect();
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
        if let Some((shard, _)) = shards.last_key_value()
            && shard.0 >= self.inner.shards.count()
        {
            return Err(Error::Damaged(format!("a container in shard {shard}")));
        }
        let asked = shards.into_iter().map(|(shard, places)| async move {
            let line = |at: &usize| (lines[*at].name.clone(), lines[*at].id);
            let look_up = LookUp {
                account: account.to_owned(),
                lines: places.iter().map(line).collect(),
            };
            let found = self.query(shard, look_up).await?;
            Ok::<_, Error>(places.into_iter().zip(found))
        });
        let mut found = vec![None; lines.len()];
        for (at, entry) in try_join_all(asked).await?.into_iter().flatten() {
            found[at] = entry;
        }
        Ok(found)
    }
}

/// A line of an account's list.
#[derive(Serialize, Deserialize)]
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
        lines: &[Line],
        found: Vec<Option<ContainerEntry>>,
        entries: &mut Vec<Entry<ContainerEntry>>,
    ) -> bool {
        for (line, found) in lines.iter().zip(found) {
            match (self.judge(&line.name), found) {
                (Verdict::RollUp(_), None) => {
                    self.resume_behind(&line.key);
                    return false;
                }
                (Verdict::RollUp(end), Some(_)) => {
                    let subdir = &line.name[..end];
                    if !self.was_shown(subdir) {
                        entries.push(Entry::Subdir(subdir.to_owned()));
                    }
                }
                (_, found) => entries.extend(found.map(Entry::Row)),
            }
        }
        if let Some(line) = lines.last() {
            match self.judge(&line.name) {
                Verdict::RollUp(end) => self.resume_past(&line.name[..end]),
                _ => self.resume_behind(&line.key),
            }
        }
        true
    }
}

/// The next lines of a listing that are rows or stand for what is rolled up.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReadLines {
    account: String,
    query: ListQuery,
    rest: Rest,
    want: usize,
}

impl Query for ReadLines {
    const NAME: &'static str = "account.lines";

    type Output = Vec<Line>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Self::Output, Execution<Error>> {
        let base = key::account_containers(&self.account);
        let mut window = Window::new(&self.query, &base, Keys::NameAndContainer);
        window.narrow(&self.rest);
        let want = self.want.min(LIST_ROUND_MAX);
        let mut lines = Vec::new();
        window.scan(view, |name, key, _| {
            let step = match window.judge(name) {
                Verdict::Skip => return Ok(Step::Next),
                Verdict::Pass(end) => return Ok(Step::Past(end)),
                Verdict::Row => Step::Next,
                Verdict::RollUp(end) => Step::Past(end),
            };
            let mut parts = Parts::of(table::ACCOUNT_CONTAINER, key)?;
            parts.name()?;
            let (_, id) = parts.name_and_container()?;
            lines.push(Line::new(key, name, id));
            Ok(if lines.len() < want { step } else { Step::Stop })
        })?;
        Ok(lines)
    }
}

/// The containers that lines lead to; `None` for a line that leads nowhere.
#[derive(Serialize, Deserialize)]
pub(crate) struct LookUp {
    account: String,
    lines: Vec<(String, ContainerId)>,
}

impl Query for LookUp {
    const NAME: &'static str = "container.entries";

    type Output = Vec<Option<ContainerEntry>>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Self::Output, Execution<Error>> {
        let lines = self.lines.iter();
        let entries = lines.map(|(name, id)| read_entry(view, &self.account, name, *id));
        Ok(entries.collect::<Result<_, _>>()?)
    }
}

fn read_entry(
    view: &View,
    account: &str,
    name: &str,
    id: ContainerId,
) -> Result<Option<ContainerEntry>, Error> {
    let Some(bytes) = view.get(&key::container(account, name))? else {
        return Ok(None);
    };
    let (head, _) = row::ContainerHead::decode(&bytes)?;
    if head.id != id {
        return Ok(None);
    }
    Ok(Some(ContainerEntry {
        name: name.to_owned(),
        objects: container::count(view, &key::container_count(Count::Objects, head.id))?,
        bytes: container::count(view, &key::container_count(Count::Bytes, head.id))?,
        modified: head.modified,
        policy: head.policy,
    }))
}
