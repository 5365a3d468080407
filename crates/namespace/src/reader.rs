//! Bodies on their way out.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use base::ShardId;
use bytes::Bytes;
use chunks::Reader;
use serde::{Deserialize, Serialize};
use shard::{Execution, Query, View};

use crate::key::{self, BodyId, table};
use crate::manifest::Manifest;
use crate::object::{GetInline, Place};
use crate::pin::Pin;
use crate::row::{self, Body, PartRow};
use crate::{Container, Error, Namespace, Object, scan};

/// A body on its way out: verified piece by piece.
pub struct BodyReader {
    source: Source,
}

enum Source {
    Inline(Bytes),
    Chunks(Box<InChunks>),
}

struct InChunks {
    reader: Reader,
    /// Where more of the manifest is.
    rest: Option<Rest>,
    /// Keeps the body from being collected.
    _pin: Option<Arc<Pin>>,
}

/// The parts of a long manifest that are still to be read.
struct Rest {
    namespace: Namespace,
    shard: ShardId,
    id: BodyId<'static>,
    range: Range<u64>,
}

impl BodyReader {
    /// The next piece, at most 1 MiB; `None` at the end. After an error nothing follows.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let next = match &mut self.source {
            Source::Inline(bytes) if bytes.is_empty() => return None,
            Source::Inline(bytes) => return Some(Ok(std::mem::take(bytes))),
            Source::Chunks(body) => body.next().await?,
        };
        if next.is_err() {
            self.source = Source::Inline(Bytes::new());
        }
        Some(next)
    }

    /// All that is left, if that needs no waiting and no I/O (an inline body).
    pub fn inline(&self) -> Option<Bytes> {
        match &self.source {
            Source::Inline(bytes) => Some(bytes.clone()),
            Source::Chunks(_) => None,
        }
    }
}

impl InChunks {
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.reader.is_short()
            && let Some(rest) = &mut self.rest
        {
            if let Err(error) = rest.load(&mut self.reader).await {
                return Some(Err(error));
            }
            if rest.range.is_empty() {
                self.rest = None;
            }
        }
        let next = self.reader.next().await?;
        Some(next.map_err(Error::from))
    }
}

impl Rest {
    /// Reads the next part and tells the reader what to read.
    async fn load(&mut self, reader: &mut Reader) -> Result<(), Error> {
        let id = self.id.container;
        let get = GetPart {
            id: self.id.clone(),
            at: self.range.start,
        };
        let part = self.namespace.query(self.shard, get).await?;
        let (offset, manifest) = part.ok_or_else(|| {
            Error::Damaged(format!("an object in {id} lacks a part of its manifest"))
        })?;
        let manifest = Manifest::decode(&manifest)?;
        let end = offset + manifest.bytes();
        if !(offset..end).contains(&self.range.start) {
            let text = format!("the manifest of an object in {id} has a gap");
            return Err(Error::Damaged(text));
        }
        for span in manifest.spans(offset, self.range.clone()) {
            reader.push(span);
        }
        self.range.start = end.min(self.range.end);
        Ok(())
    }
}

/// The part of a long manifest that has this byte of the body: its offset and its chunks.
#[derive(Serialize, Deserialize)]
pub(crate) struct GetPart {
    id: BodyId<'static>,
    at: u64,
}

impl Query for GetPart {
    const NAME: &'static str = "object.part";

    type Output = Option<(u64, Bytes)>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Self::Output, Execution<Error>> {
        use std::ops::Bound::Included;
        let mut found = Ok(None);
        let (from, to) = (self.id.part(0), self.id.part(self.at));
        view.scan_back(Included(&from), Included(&to), &mut |key, value| {
            found = read_part(key, value).map(Some);
            shard::Scan::Stop
        })?;
        Ok(found?)
    }
}

fn read_part(key: &[u8], value: &[u8]) -> Result<(u64, Bytes), Error> {
    let mut parts = key::Parts::of(table::PART, key)?;
    parts.body_id()?;
    let offset = parts.u64()?;
    let part: PartRow<'_> = row::decode(value)?;
    Ok((offset, Bytes::copy_from_slice(part.manifest.0)))
}

impl Namespace {
    /// Reads the bytes of `range`, which must lie inside the body.
    ///
    /// Needs no trip if the object was looked up by [`Namespace::object`], or by [`Namespace::find`]
    /// with [`crate::Fetch::Body`]. Otherwise a small body is fetched now, and if the object was
    /// replaced meanwhile that is [`Error::Changed`].
    pub async fn read(
        &self,
        container: &Container,
        object: &Object,
        range: Range<u64>,
    ) -> Result<BodyReader, Error> {
        assert!(
            range.start <= range.end && range.end <= object.bytes,
            "the range {range:?} is inside the {} bytes of the body",
            object.bytes
        );
        let mut rest = None;
        let mut reader = self.chunks().reader();
        match &object.place {
            Place::Inline(body) => {
                let body = match body {
                    Some(body) => body.clone(),
                    None => {
                        let get = GetInline {
                            container: container.id,
                            name: object.name.clone(),
                            created: object.created,
                        };
                        self.query(container.shard(), get).await?
                    }
                };
                let cut = |at: u64| usize::try_from(at).expect("a small body");
                let source = Source::Inline(body.slice(cut(range.start)..cut(range.end)));
                return Ok(BodyReader { source });
            }
            Place::Chunks { manifest, .. } => {
                for span in Manifest::decode(manifest)?.spans(0, range) {
                    reader.push(span);
                }
            }
            Place::Parts { version, .. } if !range.is_empty() => {
                let id = BodyId {
                    container: container.id,
                    name: object.name.clone().into(),
                    version: *version,
                };
                rest = Some(Rest {
                    namespace: self.clone(),
                    shard: container.shard(),
                    id,
                    range,
                });
            }
            Place::Parts { .. } => {}
        }
        let source = Source::Chunks(Box::new(InChunks {
            reader,
            rest,
            _pin: object.pin.clone(),
        }));
        Ok(BodyReader { source })
    }
}

/// All chunks of a body, wherever its manifest is, until `visit` breaks.
pub(crate) fn each_chunk(
    view: &View,
    id: &BodyId<'_>,
    body: &Body<'_>,
    mut visit: impl FnMut(chunks::Chunk) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut each = |manifest: Manifest<'_>| {
        let mut chunks = manifest.chunks();
        chunks.try_for_each(&mut visit)
    };
    match body {
        Body::Inline { .. } => {}
        Body::Chunks { manifest, .. } => {
            let _: ControlFlow<()> = each(Manifest::decode(manifest.0)?);
        }
        Body::Parts { .. } => {
            let from = id.parts();
            let to = key::end_of(&from);
            scan::rows(view, &from, &to, |_, value| {
                let part: PartRow<'_> = row::decode(value)?;
                Ok(each(Manifest::decode(part.manifest.0)?))
            })?;
        }
    }
    Ok(())
}
