//! The collector: deletes the chunks of bodies that belong to no object any more.
//!
//! First the chunks, durably, then the row that names them: a crash in between repeats the deletion,
//! which harms nobody. A body whose devices cannot be reached now stays in the queue, and does not
//! hold up the others.
//!
//! Deleting waits for the devices' indexes, some seconds, so a round takes many bodies at once. A group that
//! could not delete is left alone for a while: a member that is away may be so for hours.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use base::{ChunkId, GroupId, ShardId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, View};

use crate::key::{self, BodyId, GarbageCount, table};
use crate::manifest::Manifest;
use crate::row::{self, Body, GarbageRow, PartRow};
use crate::write::signed;
use crate::{Error, Namespace, scan};

/// The most that one round deletes: 64 GiB in full chunks, 256 KiB of ids.
const ROUND_CHUNKS_MAX: usize = 16 * 1024;

/// The most that one round removes from the queue: one commit of some hundred KiB.
const ROUND_BODIES_MAX: usize = 2048;

/// A body, or as much of a long one as fits into a round.
#[derive(Serialize, Deserialize)]
struct Doomed {
    garbage: Bytes,
    bytes: u64,
    chunks: Vec<ChunkId>,
    /// The rows of the parts of its manifest that name these chunks.
    parts: Vec<Bytes>,
    /// Whether these are all that were left.
    is_all: bool,
}

/// Where the next round begins, and what one did.
#[derive(Default)]
pub(crate) struct Collector {
    /// Bodies that could not be deleted must not be met again before all others.
    cursor: Option<Bytes>,
    /// Groups that could not delete, and when they are asked again, by the monotonic clock.
    put_off: HashMap<GroupId, Duration>,
}

impl Collector {
    /// One round in one shard. Returns how many chunks and bodies were deleted.
    pub(crate) async fn round(
        &mut self,
        namespace: &Namespace,
        shard: ShardId,
    ) -> Result<usize, Error> {
        let doomed = self.select(namespace, shard).await?;
        if doomed.is_empty() {
            return Ok(0);
        }
        let ids: Vec<ChunkId> = doomed.iter().flat_map(|one| one.chunks.clone()).collect();
        let failed = namespace.chunks().delete(&ids).await;
        let again = namespace.inner.env.clock.monotonic() + RETRY_IN;
        self.put_off
            .extend(failed.iter().map(|group| (*group, again)));
        let is_gone = |one: &Doomed| !one.chunks.iter().any(|id| failed.contains(&id.group()));
        let doomed: Vec<Doomed> = doomed.into_iter().filter(is_gone).collect();
        let (bodies, chunks) = (
            doomed.iter().filter(|one| one.is_all).count(),
            doomed.iter().map(|one| one.chunks.len()).sum::<usize>(),
        );
        namespace.execute(shard, Remove { doomed }).await?;
        let metrics = namespace.metrics();
        metrics.bodies_collected.add(bodies as u64);
        metrics.chunks_collected.add(chunks as u64);
        Ok(bodies + chunks)
    }

    /// Chooses what to delete next.
    async fn select(
        &mut self,
        namespace: &Namespace,
        shard: ShardId,
    ) -> Result<Vec<Doomed>, Error> {
        let now = namespace.now();
        let view = namespace.shard(shard).view().await?;
        let bodies = key::garbage_count(GarbageCount::Bodies);
        if view.counter(&bodies)? == 0 {
            return Ok(Vec::new());
        }
        let clock = namespace.inner.env.clock.monotonic();
        self.put_off.retain(|_, again| clock < *again);
        let mut doomed = Vec::new();
        let mut chunks = 0;
        let from = self.cursor.take();
        let (first, to) = ([table::GARBAGE], [table::GARBAGE + 1]);
        scan::rows(
            &view,
            from.as_deref().unwrap_or(&first),
            &to,
            |key, value| {
                let Some(one) = namespace.doom(&view, key, value, now)? else {
                    return Ok(ControlFlow::Continue(()));
                };
                let mut groups = one.chunks.iter().map(|id| id.group());
                if groups.any(|group| self.put_off.contains_key(&group)) {
                    return Ok(ControlFlow::Continue(()));
                }
                chunks += one.chunks.len();
                doomed.push(one);
                if chunks < ROUND_CHUNKS_MAX && doomed.len() < ROUND_BODIES_MAX {
                    return Ok(ControlFlow::Continue(()));
                }
                self.cursor = Some([key, &[0]].concat().into());
                Ok(ControlFlow::Break(()))
            },
        )?;
        Ok(doomed)
    }
}

impl Namespace {
    /// What to delete of a body in the queue; `None` if it must stay for now.
    fn doom(
        &self,
        view: &View,
        key: &[u8],
        value: &[u8],
        now: Timestamp,
    ) -> Result<Option<Doomed>, Error> {
        let (queued, _) = row::decode_front::<Timestamp>(value)?;
        if now.since(queued) < self.inner.config.garbage_delay() {
            return Ok(None);
        }
        let id = key::Parts::of(table::GARBAGE, key)?.body_id()?;
        if self.inner.pins.is_pinned(id.container, id.version) {
            return Ok(None);
        }
        let garbage: GarbageRow<'_> = row::decode(value)?;
        let mut doomed = Doomed {
            garbage: Bytes::copy_from_slice(key),
            bytes: garbage.bytes,
            chunks: Vec::new(),
            parts: Vec::new(),
            is_all: true,
        };
        match &garbage.body {
            Body::Inline { .. } => {}
            Body::Chunks { manifest, .. } => {
                let chunks = Manifest::decode(manifest.0)?.chunks();
                doomed.chunks.extend(chunks.map(|chunk| chunk.id));
            }
            Body::Parts { .. } => doomed.add_parts(view, &id)?,
        }
        Ok(Some(doomed))
    }
}

impl Doomed {
    fn add_parts(&mut self, view: &View, id: &BodyId<'_>) -> Result<(), Error> {
        let from = id.parts();
        let to = key::end_of(&from);
        scan::rows(view, &from, &to, |key, value| {
            if self.chunks.len() >= ROUND_CHUNKS_MAX {
                self.is_all = false;
                return Ok(ControlFlow::Break(()));
            }
            let part: PartRow<'_> = row::decode(value)?;
            let chunks = Manifest::decode(part.manifest.0)?.chunks();
            self.chunks.extend(chunks.map(|chunk| chunk.id));
            self.parts.push(Bytes::copy_from_slice(key));
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Removes the rows of what was deleted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Remove {
    doomed: Vec<Doomed>,
}

impl Procedure for Remove {
    const NAME: &'static str = "garbage.remove";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        // One for all: two collectors must not subtract one body twice.
        let counter = key::garbage_count(GarbageCount::Bodies);
        vec![Latch::Exclusive(counter)]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, ()), Execution<Error>> {
        let mut batch = Batch::new();
        let (mut bodies, mut bytes) = (0, 0);
        for one in &self.doomed {
            for part in &one.parts {
                batch.delete(part.clone());
            }
            if one.is_all && view.get(&one.garbage)?.is_some() {
                batch.delete(one.garbage.clone());
                bodies += 1;
                bytes += signed(one.bytes);
            }
        }
        if bodies > 0 {
            batch.add(key::garbage_count(GarbageCount::Bodies), -bodies);
            batch.add(key::garbage_count(GarbageCount::Bytes), -bytes);
        }
        Ok((batch, ()))
    }
}

/// How long after a failed round the next one begins.
pub(crate) const RETRY_IN: Duration = Duration::from_secs(10);
