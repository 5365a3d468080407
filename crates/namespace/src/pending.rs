//! Uploads whose manifests are too long for memory: their parts in the shard, and what becomes of
//! those that nobody commits.
//!
//! While an upload has parts in the shard, or when it has gone on for hours, a row says that it is
//! pending, and is signed anew every few hours. The commit removes the row; giving up moves the upload to
//! the garbage queue. An upload whose process has died is given up by the reaper a day after it signed
//! last; its commit, should it come after all, fails because the row is gone.
//!
//! The scrubber on another node knows of an upload only by that row: it asks about no chunk that is
//! younger than a day, and by then the row is there.

use std::time::Duration;

use base::{ShardId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, View};
use tokio::runtime::Handle;

use crate::body::Parts;
use crate::key::{self, BodyId, table};
use crate::row::{self, Body, PartRow, Raw, UploadRow};
use crate::{Error, Namespace, manifest, rows, write};

/// An upload that has not signed for so long is dead.
const REAP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How many uploads one round of the reaper gives up, and those of one more page.
const ROUND_MAX: usize = 100;

/// Writes the chunks of a manifest as its next part; gives the offset behind it.
#[derive(Serialize, Deserialize)]
pub(crate) struct WritePart {
    pub(crate) parts: Parts,
}

impl Procedure for WritePart {
    const NAME: &'static str = "upload.write_part";

    type Output = u64;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.parts.id().upload())]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, u64), Execution<Error>> {
        let Parts { offset, chunks, .. } = &self.parts;
        let id = self.parts.id();
        self.parts.check_pending(view)?;
        let manifest = manifest::encode(chunks);
        let part = PartRow {
            manifest: Raw(&manifest),
        };
        let end = offset
            + chunks
                .iter()
                .map(|chunk| u64::from(chunk.bytes))
                .sum::<u64>();
        let upload = UploadRow {
            touched: now,
            bytes: end,
        };
        let mut batch = Batch::new();
        batch.put(id.part(*offset), row::encode(&part));
        batch.put(id.upload(), row::encode(&upload));
        Ok((batch, end))
    }
}

impl Parts {
    /// That no reaper took it for dead.
    fn check_pending(&self, view: &View) -> Result<(), Error> {
        match self.is_pending && view.get(&self.id().upload())?.is_none() {
            true => Err(Error::later()),
            false => Ok(()),
        }
    }
}

/// Says that an upload goes on.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sign {
    /// Without the chunks that are not in the shard.
    parts: Parts,
}

impl Sign {
    pub(crate) fn new(parts: &Parts) -> Self {
        let parts = Parts {
            name: parts.name.clone(),
            chunks: Vec::new(),
            ..*parts
        };
        Self { parts }
    }
}

impl Procedure for Sign {
    const NAME: &'static str = "upload.sign";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.parts.id().upload())]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, ()), Execution<Error>> {
        self.parts.check_pending(view)?;
        let upload = UploadRow {
            touched: now,
            bytes: self.parts.offset,
        };
        let mut batch = Batch::new();
        batch.put(self.parts.id().upload(), row::encode(&upload));
        Ok((batch, ()))
    }
}

/// Moves a pending upload to the garbage queue.
#[derive(Serialize, Deserialize)]
pub(crate) struct GiveUp {
    id: BodyId<'static>,
    /// Only if it has not written since then.
    untouched_since: Option<Timestamp>,
}

impl Procedure for GiveUp {
    const NAME: &'static str = "upload.give_up";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.id.upload())]
    }

    fn plan(&self, now: Timestamp, view: &View) -> Result<(Batch, ()), Execution<Error>> {
        let mut batch = Batch::new();
        let Some(bytes) = view.get(&self.id.upload())? else {
            return Ok((batch, ()));
        };
        let upload: UploadRow = row::decode(&bytes)?;
        if self
            .untouched_since
            .is_some_and(|since| upload.touched >= since)
        {
            return Ok((batch, ()));
        }
        batch.frees_space();
        batch.delete(self.id.upload());
        let version = self.id.version;
        let body = Body::Parts { version };
        write::queue_garbage(&mut batch, &self.id, now, upload.bytes, body);
        Ok((batch, ()))
    }
}

impl Namespace {
    /// Gives up an upload of this process, in the background. If that fails the reaper does it.
    pub(crate) fn abandon(&self, parts: &Parts) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let shard = parts.shard();
        let give_up = GiveUp {
            id: parts.id().into_owned(),
            untouched_since: None,
        };
        let namespace = self.clone();
        runtime.spawn(async move {
            if let Err(error) = namespace.execute(shard, give_up).await {
                tracing::debug!(%error, "an abandoned upload is left to the reaper");
            }
        });
    }

    /// One round of the reaper in one shard: gives up uploads that are dead. Returns how many.
    pub(crate) async fn reap(&self, shard: ShardId) -> Result<usize, Error> {
        let now = self.now();
        let dead = self.dead_uploads(shard, now).await?;
        let count = dead.len();
        for id in dead {
            let give_up = GiveUp {
                id,
                untouched_since: Some(now),
            };
            self.execute(shard, give_up).await?;
            self.inner.metrics.uploads_reaped.inc();
        }
        Ok(count)
    }

    async fn dead_uploads(
        &self,
        shard: ShardId,
        now: Timestamp,
    ) -> Result<Vec<BodyId<'static>>, Error> {
        let mut dead = Vec::new();
        let mut from = Some(Bytes::from_static(&[table::UPLOAD]));
        while let Some(next) = from
            && dead.len() < ROUND_MAX
        {
            let to = key::end_of(&[table::UPLOAD]);
            let page = rows::page(self.shard(shard), next, to).await?;
            for (key, value) in &page.rows {
                dead.extend(self.is_dead(key, value, now)?);
            }
            from = page.next;
        }
        Ok(dead)
    }

    fn is_dead(
        &self,
        key: &[u8],
        value: &[u8],
        now: Timestamp,
    ) -> Result<Option<BodyId<'static>>, Error> {
        let id = key::Parts::of(table::UPLOAD, key)?.body_id()?;
        let upload: UploadRow = row::decode(value)?;
        let is_dead = now.since(upload.touched) > REAP_AFTER
            && !self.inner.uploads.is_active(id.container, id.version);
        Ok(is_dead.then(|| id.into_owned()))
    }
}
