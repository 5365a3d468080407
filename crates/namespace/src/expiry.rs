//! The expirer: removes objects whose time has come.
//!
//! Every object that expires has a row in an index by time. An expired object is hidden at once by
//! whoever reads it; the expirer removes it, with its counters and its body, some time later.

use base::{ShardId, Timestamp};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Query, View};

use crate::key::{self, Parts, table};
use crate::row::{self, ContainerNameRow, ObjectHead, ObjectRead};
use crate::write::Target;
use crate::{Container, Error, Namespace, container, scan};

/// What one round removes at most.
const ROUND_MAX: usize = 1000;

/// Commits that wait for one fsync together.
const AT_ONCE_MAX: usize = 32;

/// A container with more expired objects than this is not emptied for its deletion: the expirer
/// gets there.
const EMPTY_MAX: usize = 1000;

/// Removes an object if it expired at this second, and in any case its row in the index.
#[derive(Serialize, Deserialize)]
pub(crate) struct Expire {
    target: Target,
    delete_at: u64,
    index_row: Bytes,
}

impl Procedure for Expire {
    const NAME: &'static str = "object.expire";

    /// Whether there was such an object.
    type Output = bool;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        self.target.latches()
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, bool), Execution<Error>> {
        let row = match self.target.read(view) {
            Err(Error::NotFound(_) | Error::Changed) => None,
            other => other?,
        };
        let mut batch = Batch::new();
        let Some(row) = row else {
            batch.delete(self.index_row.clone());
            return Ok((batch, false));
        };
        let object: ObjectRead<'_> = row::decode(&row)?;
        if object.head.delete_at != Some(self.delete_at) {
            batch.delete(self.index_row.clone());
            return Ok((batch, false));
        }
        let is_expired = self.target.is_expired(&object.head);
        if is_expired {
            self.target.remove(&mut batch, now, &object);
        }
        Ok((batch, is_expired))
    }
}

/// A row of the index.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Due {
    delete_at: u64,
    container: Container,
    name: String,
    index_row: Bytes,
}

/// What the index says is due before this second: the first so many.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindDue {
    end: u64,
}

impl Query for FindDue {
    const NAME: &'static str = "expiry.due";

    type Output = Vec<Due>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Vec<Due>, Execution<Error>> {
        let mut due = Vec::new();
        let to = key::expiry_end(self.end);
        scan::rows(view, &[table::EXPIRY], &to, |key, _| {
            let mut parts = Parts::of(table::EXPIRY, key)?;
            let (delete_at, id) = (parts.u64()?, parts.container()?);
            let name = match view.get(&key::container_name(id))? {
                Some(row) => row::decode_owned(&row)?,
                // The container is gone, and its objects with it: only this row is left.
                None => ContainerNameRow {
                    account: String::new(),
                    name: String::new(),
                },
            };
            due.push(Due {
                delete_at,
                container: Container::of_id(id, name),
                name: parts.last_name()?.to_owned(),
                index_row: Bytes::copy_from_slice(key),
            });
            Ok(scan::while_below(due.len(), ROUND_MAX))
        })?;
        Ok(due)
    }
}

/// The objects of a container, if they have all expired and are not too many.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindAllExpired {
    account: String,
    container: String,
    now: Timestamp,
}

impl Query for FindAllExpired {
    const NAME: &'static str = "expiry.all_of_container";

    type Output = Option<Vec<Due>>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Option<Vec<Due>>, Execution<Error>> {
        let id = container::read(view, &self.account, &self.container)?.id;
        let name = ContainerNameRow {
            account: self.account.clone(),
            name: self.container.clone(),
        };
        let container = Container::of_id(id, name);
        let from = key::objects(id);
        let to = key::end_of(&from);
        let mut due = Some(Vec::new());
        scan::rows(view, &from, &to, |key, value| {
            let (object, _) = row::decode_front::<ObjectHead<'_>>(value)?;
            let expired = object.delete_at.filter(|_| object.is_expired(self.now));
            let (Some(list), Some(delete_at)) = (due.as_mut(), expired) else {
                due = None;
                return Ok(std::ops::ControlFlow::Break(()));
            };
            let mut parts = Parts::of(table::OBJECT, key)?;
            parts.container()?;
            let name = parts.last_name()?;
            list.push(Due {
                delete_at,
                container: container.clone(),
                name: name.to_owned(),
                index_row: key::expiry(delete_at, id, name),
            });
            Ok(scan::while_below(list.len(), EMPTY_MAX))
        })?;
        Ok(due)
    }
}

impl Namespace {
    /// One round of the expirer in one shard. Returns how many objects it removed.
    pub(crate) async fn expire(&self, shard: ShardId) -> Result<usize, Error> {
        let due = self.due(shard).await?;
        let waiting = i64::try_from(due.len()).expect("a round is short");
        self.metrics().expiry_backlog.add(waiting);
        let removed = self.expire_all(shard, due).await;
        self.metrics().expiry_backlog.sub(waiting);
        removed
    }

    async fn expire_all(&self, shard: ShardId, due: Vec<Due>) -> Result<usize, Error> {
        let removals = due.into_iter().map(|due| {
            let expire = Expire {
                target: Target::new(&due.container, due.name, self.now()).without_rights(),
                delete_at: due.delete_at,
                index_row: due.index_row,
            };
            self.execute(shard, expire)
        });
        let mut removals = stream::iter(removals).buffer_unordered(AT_ONCE_MAX);
        let mut count = 0;
        while let Some(removed) = removals.next().await {
            if removed? {
                count += 1;
                self.metrics().objects_expired.inc();
            }
        }
        Ok(count)
    }

    /// What the index says is due.
    async fn due(&self, shard: ShardId) -> Result<Vec<Due>, Error> {
        let now = self.now().secs();
        let delay = self.inner.config.expiry_delay.as_secs();
        // What expired at this very second or before.
        let Some(end) = (now + 1).checked_sub(delay) else {
            return Ok(Vec::new());
        };
        self.query(shard, FindDue { end }).await
    }

    /// Removes the objects of a container if all have expired. Returns whether it did.
    pub(crate) async fn expire_container(&self, account: &str, name: &str) -> Result<bool, Error> {
        let shard = self.container_shard(account, name);
        let find = FindAllExpired {
            account: account.to_owned(),
            container: name.to_owned(),
            now: self.now(),
        };
        let Some(due) = self.query(shard, find).await? else {
            return Ok(false);
        };
        self.expire_all(shard, due).await?;
        Ok(true)
    }
}
