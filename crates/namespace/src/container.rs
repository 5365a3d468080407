//! Containers.
//!
//! A container is named in three places: its own row, which is the truth, in the shard that account
//! and name hash to; beside it a row that leads from its id back to its name; and a line in the list
//! of its account, in the account's shard. The order in which they come and go is at
//! [`Namespace::put_container`] and [`Namespace::delete_container`].

use std::ops::ControlFlow;
use std::time::Duration;

use base::{ContainerId, ShardId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Query, View};

use crate::key::{self, Count};
use crate::row::{self, ContainerHead, ContainerNameRow, ContainerRow};
use crate::{
    Error, Metadata, MetadataChange, MetadataLimits, Missing, Namespace, placement, rows, scan,
};

/// A container is made within this time after it was listed in its account, or not at all. So a line
/// that is older and leads nowhere is a leftover and can be removed.
const LISTED_BEFORE_MAX: Duration = Duration::from_secs(60);

/// Whether a PUT made something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Created {
    New,
    Existed,
}

/// A container as it was when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub account: String,
    pub name: String,
    pub id: ContainerId,
    pub created: Timestamp,
    /// The last PUT or POST of the container itself.
    pub modified: Timestamp,
    pub metadata: Metadata,
    /// How its bodies are kept: the place among [`map::Policies`].
    pub policy: u16,
    /// The last change of its metadata: a write of an object insists that it is still so.
    pub(crate) changed: Timestamp,
}

/// What a container holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub objects: u64,
    pub bytes: u64,
}

impl Container {
    /// Enough of a container to remove an object from it.
    pub(crate) fn of_id(id: ContainerId, name: ContainerNameRow) -> Self {
        Self {
            account: name.account,
            name: name.name,
            id,
            created: Timestamp::default(),
            modified: Timestamp::default(),
            metadata: Metadata::new(),
            policy: 0,
            changed: Timestamp::default(),
        }
    }

    pub(crate) fn shard(&self) -> ShardId {
        placement::of_id(self.id)
    }
}

/// The value of a counter that only a bug can make negative.
pub(crate) fn count(view: &View, key: &[u8]) -> Result<u64, Error> {
    let value = view.counter(key)?;
    u64::try_from(value)
        .map_err(|_| Error::Damaged(format!("counter {}: {value}", key.escape_ascii())))
}

/// The container's row.
pub(crate) fn read_row(view: &View, key: &[u8]) -> Result<Option<ContainerRow>, Error> {
    let bytes = view.get(key)?;
    bytes.map(|bytes| ContainerRow::decode(&bytes)).transpose()
}

/// A container as the view shows it.
pub(crate) fn read(view: &View, account: &str, name: &str) -> Result<Container, Error> {
    let row = read_row(view, &key::container(account, name))?;
    let ContainerRow { head, metadata } = row.ok_or(Error::NotFound(Missing::Container))?;
    Ok(Container {
        account: account.to_owned(),
        name: name.to_owned(),
        id: head.id,
        created: head.created,
        modified: head.modified,
        metadata,
        policy: head.policy,
        changed: head.changed,
    })
}

/// What is counted of a container.
fn held(view: &View, id: ContainerId) -> Result<Held, Error> {
    Ok(Held {
        objects: count(view, &key::container_count(Count::Objects, id))?,
        bytes: count(view, &key::container_count(Count::Bytes, id))?,
    })
}

/// The container of a name, and what it holds at the same moment.
#[derive(Serialize, Deserialize)]
pub(crate) struct GetHeld {
    account: String,
    name: String,
}

impl Query for GetHeld {
    const NAME: &'static str = "container.held";

    type Output = (Container, Held);
    type Error = Error;

    fn answer(&self, view: &View) -> Result<(Container, Held), Execution<Error>> {
        let container = read(view, &self.account, &self.name)?;
        let held = held(view, container.id)?;
        Ok((container, held))
    }
}

/// The container of a name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Get {
    account: String,
    name: String,
}

impl Query for Get {
    const NAME: &'static str = "container.get";

    type Output = Container;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Container, Execution<Error>> {
        Ok(read(view, &self.account, &self.name)?)
    }
}

/// What a PUT or POST does to a container that may be there.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Put {
    key: Bytes,
    account: String,
    name: String,
    change: MetadataChange,
    limits: MetadataLimits,
    policy: PolicyChoice,
    missing: IfMissing,
}

/// How a new container is to keep its bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChoice {
    /// Among [`map::Policies`].
    pub place: u16,
    /// One that is there already must have it, too.
    pub is_demanded: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum IfMissing {
    Refuse,
    /// Make it with this id; it was listed in its account at this time.
    Make {
        id: ContainerId,
        listed: Timestamp,
    },
}

impl Put {
    fn make(&self, now: Timestamp, view: &View) -> Result<Batch, Error> {
        let (id, listed) = match self.missing {
            IfMissing::Refuse => return Err(Error::NotFound(Missing::Container)),
            IfMissing::Make { id, listed } => (id, listed),
        };
        let back = key::container_name(id);
        // Two ids that are the same: once in 2^48. And a maker who fell asleep must not wake up when
        // its line in the account's list has been swept away.
        if view.get(&back)?.is_some() || now.since(listed) > LISTED_BEFORE_MAX {
            return Err(Error::later());
        }
        let metadata = self.change.merge(Metadata::new(), &self.limits)?;
        let head = ContainerHead {
            id,
            created: now,
            modified: now,
            changed: now,
            policy: self.policy.place,
        };
        let mut batch = Batch::new();
        let row = ContainerRow { head, metadata };
        batch.put(self.key.clone(), row.encode());
        let name = ContainerNameRow {
            account: self.account.clone(),
            name: self.name.clone(),
        };
        batch.put(back, row::encode(&name));
        batch.add(key::account_total(Count::Containers, &self.account), 1);
        Ok(batch)
    }

    fn merge(&self, now: Timestamp, mut row: ContainerRow) -> Result<Batch, Error> {
        if self.policy.is_demanded && self.policy.place != row.head.policy {
            return Err(Error::OtherPolicy);
        }
        let merged = self.change.merge(row.metadata.clone(), &self.limits)?;
        let head = &mut row.head;
        head.modified = now.max(head.modified.next());
        if merged != row.metadata {
            head.changed = head.modified;
        }
        row.metadata = merged;
        let mut batch = Batch::new();
        batch.put(self.key.clone(), row.encode());
        Ok(batch)
    }
}

impl Procedure for Put {
    const NAME: &'static str = "container.put";

    type Output = Created;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.key.clone())]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, Created), Execution<Error>> {
        Ok(match read_row(view, &self.key)? {
            Some(row) => (self.merge(now, row)?, Created::Existed),
            None => (self.make(now, view)?, Created::New),
        })
    }
}

/// Removes a container that holds nothing; gives the id that it had.
#[derive(Serialize, Deserialize)]
pub(crate) struct Delete {
    key: Bytes,
    account: String,
}

impl Procedure for Delete {
    const NAME: &'static str = "container.delete";

    type Output = ContainerId;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.key.clone())]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, ContainerId), Execution<Error>> {
        let row = read_row(view, &self.key)?.ok_or(Error::NotFound(Missing::Container))?;
        let id = row.head.id;
        if holds_rows(view, &key::objects(id))? {
            return Err(Error::NotEmpty.into());
        }
        let mut batch = Batch::new();
        batch.delete(self.key.clone());
        batch.delete(key::container_name(id));
        batch.add(key::account_total(Count::Containers, &self.account), -1);
        Ok((batch, id))
    }
}

/// Whether any row's key begins with `prefix`.
pub(crate) fn holds_rows(view: &View, prefix: &[u8]) -> Result<bool, Error> {
    let end = key::end_of(prefix);
    let mut any = false;
    scan::rows(view, prefix, &end, |_, _| {
        any = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(any)
}

impl Namespace {
    /// A container and what it holds.
    pub async fn container_held(
        &self,
        account: &str,
        container: &str,
    ) -> Result<(Container, Held), Error> {
        let shard = self.container_shard(account, container);
        let get = GetHeld {
            account: account.to_owned(),
            name: container.to_owned(),
        };
        self.query(shard, get).await
    }

    /// A container, for who wants something of its objects: what it holds is not looked up.
    pub async fn container(&self, account: &str, container: &str) -> Result<Container, Error> {
        let shard = self.container_shard(account, container);
        let get = Get {
            account: account.to_owned(),
            name: container.to_owned(),
        };
        self.query(shard, get).await
    }

    /// Makes the container (and its account) or merges metadata into the one that is there.
    ///
    /// A new one is (1) listed in its account under a new id, (2) made with that id, unless someone
    /// else was quicker, and then (3) the line with the new id is taken back. A crash after (1)
    /// leaves a line that leads to no container of that id: nobody sees it, and the sweeper removes
    /// it. Two makers have different ids, so neither removes the other's line.
    pub async fn put_container(
        &self,
        account: &str,
        container: &str,
        change: MetadataChange,
        limits: MetadataLimits,
        policy: PolicyChoice,
    ) -> Result<Created, Error> {
        key::check_name("container", container, key::CONTAINER_NAME_BYTES_MAX)?;
        key::check_name("account", account, key::ACCOUNT_NAME_BYTES_MAX)?;
        let shard = self.container_shard(account, container);
        let mut put = Put {
            key: key::container(account, container),
            account: account.to_owned(),
            name: container.to_owned(),
            change,
            limits,
            policy,
            missing: IfMissing::Refuse,
        };
        let get = rows::Get {
            key: put.key.clone(),
        };
        if self.query(shard, get).await?.is_some() {
            match self.execute(shard, put.clone()).await {
                // It has just been deleted.
                Err(Error::NotFound(Missing::Container)) => {}
                other => return other,
            }
        }
        put.change.merge(Metadata::new(), &put.limits)?;
        let id = placement::container_id(shard, self.inner.env.entropy.u64());
        let listed = self.list_container(account, container, id).await?;
        put.missing = IfMissing::Make { id, listed };
        let made = self.execute(shard, put).await;
        match made {
            Ok(Created::New) | Err(Error::Unknown) => {}
            Ok(Created::Existed) | Err(_) => self.unlist_container(account, container, id).await,
        }
        made
    }

    /// Merges metadata into a container that must exist.
    pub async fn post_container(
        &self,
        account: &str,
        container: &str,
        change: MetadataChange,
        limits: MetadataLimits,
    ) -> Result<(), Error> {
        let put = Put {
            key: key::container(account, container),
            account: account.to_owned(),
            name: container.to_owned(),
            change,
            limits,
            policy: PolicyChoice::default(),
            missing: IfMissing::Refuse,
        };
        let shard = self.container_shard(account, container);
        self.execute(shard, put).await?;
        Ok(())
    }

    /// Deletes a container that holds nothing but expired objects.
    ///
    /// First its row goes, then its line in the account's list: the line that holds this very id, so
    /// that a container of the same name that is being made meanwhile keeps its own. A crash in
    /// between leaves a line that leads nowhere, as with [`Namespace::put_container`].
    pub async fn delete_container(&self, account: &str, container: &str) -> Result<(), Error> {
        let delete = || Delete {
            key: key::container(account, container),
            account: account.to_owned(),
        };
        let shard = self.container_shard(account, container);
        let id = match self.execute(shard, delete()).await {
            // Nobody sees its expired objects, so they must not be in the way.
            Err(Error::NotEmpty) if self.expire_container(account, container).await? => {
                self.execute(shard, delete()).await?
            }
            other => other?,
        };
        self.unlist_container(account, container, id).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::World;
    use crate::{AccountQuota, Expired, Fetch};

    /// Makes counters that only a bug can make: whoever reads them fails.
    #[derive(Serialize, Deserialize)]
    struct Miscount(ContainerId);

    impl Procedure for Miscount {
        const NAME: &'static str = "miscount";

        type Output = ();
        type Error = Error;

        fn latches(&self) -> Vec<Latch> {
            Vec::new()
        }

        fn plan(&self, _: Timestamp, _: &View) -> Result<(Batch, ()), Execution<Error>> {
            let mut batch = Batch::new();
            for count in [Count::Objects, Count::Bytes] {
                batch.add(key::container_count(count, self.0), -100);
            }
            Ok((batch, ()))
        }
    }

    #[tokio::test]
    async fn who_wants_an_object_reads_no_counters() {
        let world = World::new(1).await;
        let container = world.container("c").await;
        world.put(&container, "o", b"body").await.unwrap();
        let namespace = &world.namespace;
        let (same, held) = namespace.container_held("a", "c").await.unwrap();
        let one = Held {
            objects: 1,
            bytes: 4,
        };
        assert_eq!((&same, held), (&container, one));

        let spoil = Miscount(container.id);
        namespace.execute(container.shard(), spoil).await.unwrap();
        let counted = namespace.container_held("a", "c").await;
        assert!(matches!(counted, Err(Error::Damaged(_))), "{counted:?}");
        assert_eq!(namespace.container("a", "c").await, Ok(container.clone()));
        let found = namespace.find("a", "c", "o", Expired::Hide, Fetch::Body);
        assert_eq!(found.await.unwrap().container, container);
        let admitted = namespace.admit(&container, Some(1), AccountQuota::Enforced);
        assert_eq!(admitted.await, Ok(()));
        world.put(&container, "o", b"again").await.unwrap();
        assert_eq!(world.get(&container, "o").await.unwrap(), b"again");
    }
}
