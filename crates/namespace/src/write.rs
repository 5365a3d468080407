//! Changes of one object: what PUT, POST and DELETE have in common.
//!
//! Each is one commit in the container's shard: the object's row, its inline body, the counters of
//! the container and of its account, the expiry index and the garbage queue change together. The
//! latch on the object is exclusive; the container's row is only relied on, so that many objects of
//! one container are written at once, but none while the container is deleted or changes its rights.

pub(crate) mod delete;
pub(crate) mod post;
pub(crate) mod put;

use base::{ContainerId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Latch, View};

use crate::key::{self, BodyId, Count, GarbageCount};
use crate::row::{self, Body, ContainerHead, GarbageRow, ObjectHead, ObjectRead};
use crate::{Container, Error, Missing};

/// One object, and what a change of it rests on.
#[derive(Serialize, Deserialize)]
pub(crate) struct Target {
    account: String,
    container: ContainerId,
    container_key: Bytes,
    /// The container's metadata must not have changed since then: the writer's rights came from it.
    container_changed: Option<Timestamp>,
    name: String,
    key: Bytes,
    /// Whether the object has expired is decided by this clock, as it is for reads: then a write does
    /// not take for gone what its client can still read.
    now: Timestamp,
}

impl Target {
    pub(crate) fn new(container: &Container, name: String, now: Timestamp) -> Self {
        Self {
            account: container.account.clone(),
            container: container.id,
            container_key: key::container(&container.account, &container.name),
            container_changed: Some(container.changed),
            key: key::object(container.id, &name),
            name,
            now,
        }
    }

    /// For work of our own, which needs no rights.
    pub(crate) fn without_rights(self) -> Self {
        Self {
            container_changed: None,
            ..self
        }
    }

    pub(crate) fn latches(&self) -> Vec<Latch> {
        vec![
            Latch::Shared(self.container_key.clone()),
            Latch::Exclusive(self.key.clone()),
        ]
    }

    /// The object's row, in the container that the writer looked up.
    pub(crate) fn read(&self, view: &View) -> Result<Option<Bytes>, Error> {
        let row = view.get(&self.container_key)?;
        let row = row.ok_or(Error::NotFound(Missing::Container))?;
        let (head, _) = ContainerHead::decode(&row)?;
        let changed = self.container_changed.unwrap_or(head.changed);
        if head.id != self.container || head.changed != changed {
            return Err(Error::Changed);
        }
        Ok(view.get(&self.key)?)
    }

    pub(crate) fn is_expired(&self, head: &ObjectHead<'_>) -> bool {
        head.is_expired(self.now)
    }

    /// As [`Target::read`], of an object that must be there.
    fn read_present(&self, view: &View) -> Result<Bytes, Error> {
        self.read(view)?.ok_or(Error::NotFound(Missing::Object))
    }

    /// Adds to what the container and the account hold.
    fn charge(&self, batch: &mut Batch, objects: i64, bytes: i64) {
        for (count, by) in [(Count::Objects, objects), (Count::Bytes, bytes)] {
            if by != 0 {
                batch.add(key::container_count(count, self.container), by);
                batch.add(key::account_total(count, &self.account), by);
            }
        }
    }

    /// Moves the object in the expiry index.
    fn expire(&self, batch: &mut Batch, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            batch.delete(key::expiry(at, self.container, &self.name));
        }
        if let Some(at) = after {
            batch.put(key::expiry(at, self.container, &self.name), Bytes::new());
        }
    }

    /// Removes the object and all that belongs to it.
    pub(crate) fn remove(&self, batch: &mut Batch, now: Timestamp, old: &ObjectRead<'_>) {
        // The garbage row takes less than the body gives.
        batch.frees_space();
        batch.delete(self.key.clone());
        self.release(batch, now, old);
        self.expire(batch, old.head.delete_at, None);
        self.charge(batch, -1, -signed(old.head.bytes));
    }

    /// Lets go of the body of a row that is replaced or removed.
    fn release(&self, batch: &mut Batch, now: Timestamp, old: &ObjectRead<'_>) {
        match old.body.version() {
            None if old.head.bytes == 0 => {}
            None => batch.delete(key::body(self.container, &self.name)),
            Some(version) => {
                let id = BodyId {
                    container: self.container,
                    name: self.name.as_str().into(),
                    version,
                };
                queue_garbage(batch, &id, now, old.head.bytes, old.body.clone());
            }
        }
    }
}

/// Queues a body whose chunks are to be deleted.
pub(crate) fn queue_garbage(
    batch: &mut Batch,
    id: &BodyId<'_>,
    queued: Timestamp,
    bytes: u64,
    body: Body<'_>,
) {
    let garbage = GarbageRow {
        queued,
        bytes,
        body,
    };
    batch.put(id.garbage(), row::encode(&garbage));
    batch.add(key::garbage_count(GarbageCount::Bodies), 1);
    batch.add(key::garbage_count(GarbageCount::Bytes), signed(bytes));
}

/// A size as a change of a counter.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("no body has 8 EiB")
}
