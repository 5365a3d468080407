//! Answers the scrubber: does anything still refer to this chunk?
//!
//! A wrong "no" destroys data, so it is said only after everything that could say "yes" has been
//! asked, in the order in which a body moves on: first the uploads of this process, then one snapshot
//! with the objects, the pending uploads and the garbage queue. An upload that commits between the
//! two questions has been seen by the first.
//!
//! An upload through another node is seen by its row, see `pending`. So this may be asked only about chunks
//! that are older than a day.

use std::ops::ControlFlow;

use base::ChunkId;
use chunks::Owner;
use serde::{Deserialize, Serialize};
use shard::{Execution, Query, View};

use crate::key::{self, BodyId};
use crate::reader::each_chunk;
use crate::row::{self, Body, GarbageRow, ObjectRead};
use crate::{Error, Namespace, placement};

/// Whether something refers to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owns {
    Yes,
    /// Nothing does, and nothing ever will.
    No,
    /// It cannot be told now: leave the chunk alone.
    Unknown,
    /// The garbage queue does, and nothing else: it goes soon.
    Doomed,
}

impl Namespace {
    /// Whether an object, a pending upload or the garbage queue refers to `chunk`, which was written
    /// for `owner`.
    pub async fn owns(&self, owner: &Owner, chunk: ChunkId) -> Owns {
        let uploads = &self.inner.uploads;
        if uploads.is_active(owner.container_id, owner.version) {
            return Owns::Yes;
        }
        let shard = placement::of_id(owner.container_id);
        if shard.0 >= self.inner.shards.count() {
            return Owns::Unknown;
        }
        let find = FindOwner {
            id: BodyId {
                container: owner.container_id,
                name: owner.object.clone().into(),
                version: owner.version,
            },
            chunk,
        };
        match self.query(shard, find).await {
            Ok(owns) => owns,
            Err(error) => {
                tracing::warn!(%chunk, %error, "whether a chunk is needed cannot be told");
                Owns::Unknown
            }
        }
    }
}

/// Whether something in a shard refers to a chunk, which is or was part of this body.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindOwner {
    id: BodyId<'static>,
    chunk: ChunkId,
}

impl Query for FindOwner {
    const NAME: &'static str = "chunk.owner";

    type Output = Owns;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Owns, Execution<Error>> {
        let Self { id, chunk } = self;
        if let Some(row) = view.get(&key::object(id.container, &id.name))? {
            let object: ObjectRead<'_> = row::decode(&row)?;
            if object.body.version() == Some(id.version) {
                return Ok(has_chunk(view, id, &object.body, *chunk)?);
            }
        }
        if let Some(row) = view.get(&id.garbage())? {
            let garbage: GarbageRow<'_> = row::decode(&row)?;
            return Ok(match has_chunk(view, id, &garbage.body, *chunk)? {
                Owns::Yes => Owns::Doomed,
                other => other,
            });
        }
        // It may be that another node goes on with it.
        Ok(match view.get(&id.upload())? {
            Some(_) => Owns::Unknown,
            None => Owns::No,
        })
    }
}

fn has_chunk(view: &View, id: &BodyId<'_>, body: &Body<'_>, chunk: ChunkId) -> Result<Owns, Error> {
    let mut owns = Owns::No;
    each_chunk(view, id, body, |one| {
        if one.id == chunk {
            owns = Owns::Yes;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(owns)
}
