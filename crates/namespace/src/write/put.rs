//! PUT of an object whose body is stored.

use std::borrow::Cow;

use base::{Timestamp, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, View, whole_pages};

use super::Target;
use crate::body::{Parts, StoredBody};
use crate::key::{self, Count};
use crate::manifest;
use crate::quota::Quota;
use crate::row::{self, Body, ObjectHead, ObjectRead, ObjectRow, PartRow, Raw};
use crate::write::signed;
use crate::{
    Condition, Container, Created, Error, Metadata, Namespace, PutObject, Stored, Written,
    container,
};

/// The decision about a PUT.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    target: Target,
    content_type: String,
    metadata: Metadata,
    delete_at: Option<u64>,
    condition: Condition,
    /// Of the container.
    quota: Quota,
    bytes: u64,
    md5: [u8; 16],
    body: NewBody,
    /// The row that says that the upload is pending, if there is one.
    pending: Option<Bytes>,
}

/// The body, as it goes into the batch.
#[derive(Serialize, Deserialize)]
enum NewBody {
    Inline(Bytes),
    Chunks { version: Version, manifest: Vec<u8> },
    Parts(Parts),
}

impl Procedure for Plan {
    const NAME: &'static str = "object.put";

    type Output = Written;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        let mut latches = self.target.latches();
        if !self.quota.is_none() {
            // One at a time, so that the counters are what this write adds to.
            let counter = key::container_count(Count::Bytes, self.target.container);
            latches.push(Latch::Exclusive(counter));
        }
        latches.extend(self.pending.clone().map(Latch::Exclusive));
        latches
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, Written), Execution<Error>> {
        let bytes = self.target.read(view)?;
        let old = bytes.as_deref().map(row::decode::<ObjectRead<'_>>);
        let old = old.transpose()?;
        let live = old
            .as_ref()
            .filter(|old| !self.target.is_expired(&old.head));
        self.condition.check(live.map(|old| &old.head.md5))?;
        self.admit(view)?;

        let written = Written {
            modified: old
                .as_ref()
                .map_or(now, |old| now.max(old.head.modified.next())),
            created: if live.is_some() {
                Created::Existed
            } else {
                Created::New
            },
        };
        let mut batch = Batch::new();
        self.put_row(&mut batch, written.modified);
        let (mut objects, mut more, mut before) = (1, signed(self.bytes), None);
        if let Some(old) = &old {
            objects = 0;
            more -= signed(old.head.bytes);
            before = old.head.delete_at;
            self.release(&mut batch, now, old);
        }
        self.put_body(&mut batch);
        self.end_upload(&mut batch, view)?;
        self.target.expire(&mut batch, before, self.delete_at);
        self.target.charge(&mut batch, objects, more);
        Ok((batch, written))
    }
}

impl Plan {
    fn admit(&self, view: &View) -> Result<(), Error> {
        if self.quota.is_none() {
            return Ok(());
        }
        let held = |count| {
            let key = key::container_count(count, self.target.container);
            container::count(view, &key)
        };
        self.quota
            .admit(held(Count::Objects)?, held(Count::Bytes)?, self.bytes)
    }

    fn put_row(&self, batch: &mut Batch, modified: Timestamp) {
        let row = ObjectRow {
            head: ObjectHead {
                modified,
                created: modified,
                bytes: self.bytes,
                md5: self.md5,
                content_type: Cow::Borrowed(&self.content_type),
                delete_at: self.delete_at,
            },
            metadata: &self.metadata,
            body: match &self.body {
                NewBody::Inline(body) => Body::Inline {
                    end: Raw(&body[whole_pages(body.len())..]),
                },
                NewBody::Chunks { version, manifest } => Body::Chunks {
                    version: *version,
                    manifest: Raw(manifest),
                },
                NewBody::Parts(parts) => Body::Parts {
                    version: parts.id().version,
                },
            },
        };
        batch.put(self.target.key.clone(), row::encode(&row));
    }

    /// Lets go of the old body, unless the new one takes its very place.
    fn release(&self, batch: &mut Batch, now: Timestamp, old: &ObjectRead<'_>) {
        match (&self.body, &old.body) {
            (NewBody::Inline(body), Body::Inline { .. }) if !body.is_empty() => {}
            _ => self.target.release(batch, now, old),
        }
    }

    fn put_body(&self, batch: &mut Batch) {
        let Target {
            container, name, ..
        } = &self.target;
        match &self.body {
            NewBody::Inline(body) if body.is_empty() => {}
            NewBody::Inline(body) => {
                let own_row = body.slice(..whole_pages(body.len()));
                batch.put(key::body(*container, name), own_row);
            }
            NewBody::Chunks { .. } => {}
            NewBody::Parts(parts) => put_last_part(batch, parts),
        }
    }

    /// Makes a pending upload an object's.
    fn end_upload(&self, batch: &mut Batch, view: &View) -> Result<(), Error> {
        let Some(pending) = &self.pending else {
            return Ok(());
        };
        // A reaper took it for dead, and deletes its chunks.
        if view.get(pending)?.is_none() {
            return Err(Error::later());
        }
        batch.delete(pending.clone());
        Ok(())
    }
}

/// Adds the end of a long manifest.
fn put_last_part(batch: &mut Batch, parts: &Parts) {
    let id = parts.id();
    let mut offset = parts.offset;
    for chunks in parts.chunks.chunks(manifest::PART_CHUNKS_MAX) {
        let manifest = manifest::encode(chunks);
        let part = PartRow {
            manifest: Raw(&manifest),
        };
        batch.put(id.part(offset), row::encode(&part));
        offset += chunks
            .iter()
            .map(|chunk| u64::from(chunk.bytes))
            .sum::<u64>();
    }
}

impl Namespace {
    /// Fails with [`Error::Changed`] if the container is another one than `container`, or its
    /// metadata (so perhaps its ACL) has changed since. On any error the stored body is discarded.
    ///
    /// # Cancel safety
    /// A dropped call may have happened or not.
    pub async fn put_object(
        &self,
        container: &Container,
        put: PutObject,
    ) -> Result<Written, Error> {
        key::check_name("object", &put.name, key::OBJECT_NAME_BYTES_MAX)?;
        self.chunks().serves_client();
        self.admit_to_account(&container.account, put.stored.bytes, put.account_quota)
            .await?;
        let Stored { bytes, md5, body } = put.stored;
        let plan = |name, body, pending| Plan {
            target: Target::new(container, name, self.now()),
            content_type: put.content_type,
            metadata: put.metadata,
            delete_at: put.delete_at,
            condition: put.condition,
            quota: Quota::of_container(&container.metadata),
            bytes,
            md5,
            body,
            pending,
        };
        let shard = container.shard();
        let chunked = match body {
            StoredBody::Inline(body) => {
                let plan = plan(put.name, NewBody::Inline(body), None);
                return self.execute(shard, plan).await;
            }
            StoredBody::Chunked(chunked) => chunked,
        };
        let body = match &chunked.parts {
            parts if parts.is_long() => NewBody::Parts(parts.clone()),
            parts => NewBody::Chunks {
                version: parts.version,
                manifest: manifest::encode(&parts.chunks),
            },
        };
        let parts = &chunked.parts;
        let pending = parts.is_pending.then(|| parts.id().upload());
        let plan = plan(put.name, body, pending);
        // In a task of its own, so that a client who goes away does not leave the body between
        // an object that has it and a list of chunks to be deleted.
        let namespace = self.clone();
        let commit = tokio::spawn(async move {
            let written = namespace.execute(shard, plan).await;
            match written {
                // The scrubber asks later whether the chunks are an object's.
                Ok(_) | Err(Error::Unknown) => chunked.keep(),
                Err(_) => drop(chunked),
            }
            written
        });
        match commit.await {
            Ok(written) => written,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Error::Unknown),
        }
    }
}
