//! Bodies on their way out.

use std::ops::{ControlFlow, Range};

use base::ShardId;
use bytes::Bytes;
use chunks::Reader;

use crate::key::{self, BodyId, table};
use crate::manifest::Manifest;
use crate::object::{self, Place};
use crate::row::{self, Body, ObjectRead, PartRow};
use crate::{Container, Error, Missing, Namespace, Object, scan};

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
    _object: Object,
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
        let view = self.namespace.shard(self.shard).view().await?;
        let found = self.find(&view)?;
        let (offset, end, spans) = found.ok_or_else(|| {
            let id = self.id.container;
            Error::Damaged(format!("an object in {id} lacks a part of its manifest"))
        })?;
        if !(offset..end).contains(&self.range.start) {
            let id = self.id.container;
            let text = format!("the manifest of an object in {id} has a gap");
            return Err(Error::Damaged(text));
        }
        for span in spans {
            reader.push(span);
        }
        self.range.start = end.min(self.range.end);
        Ok(())
    }

    /// The part with the first byte of the range: its offset, its end and what to read of it.
    fn find(&self, view: &shard::View) -> Result<Option<(u64, u64, Vec<chunks::Span>)>, Error> {
        use std::ops::Bound::Included;
        let mut found = Ok(None);
        let (from, to) = (self.id.part(0), self.id.part(self.range.start));
        view.scan_back(Included(&from), Included(&to), &mut |key, value| {
            found = self.spans(key, value).map(Some);
            shard::Scan::Stop
        })?;
        found
    }

    fn spans(&self, key: &[u8], value: &[u8]) -> Result<(u64, u64, Vec<chunks::Span>), Error> {
        let mut parts = key::Parts::of(table::PART, key)?;
        parts.body_id()?;
        let offset = parts.u64()?;
        let part: PartRow<'_> = row::decode(value)?;
        let manifest = Manifest::decode(part.manifest.0)?;
        let spans = manifest.spans(offset, self.range.clone()).collect();
        Ok((offset, offset + manifest.bytes(), spans))
    }
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
                    None => self.fetch_inline(container, object).await?,
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
            _object: object.clone(),
        }));
        Ok(BodyReader { source })
    }

    /// The small body of an object that was looked up without it.
    async fn fetch_inline(&self, container: &Container, object: &Object) -> Result<Bytes, Error> {
        let view = self.shard(container.shard()).view().await?;
        let row = view.get(&key::object(container.id, &object.name))?;
        let row = row.ok_or(Error::NotFound(Missing::Object))?;
        let row: ObjectRead<'_> = row::decode(&row)?;
        if row.head.created != object.created || row.body != Body::Inline {
            return Err(Error::Changed);
        }
        object::read_inline(&view, container, &object.name, &row.head)
    }
}

/// All chunks of a body, wherever its manifest is, until `visit` breaks.
pub(crate) fn each_chunk(
    view: &shard::View,
    id: &BodyId<'_>,
    body: &Body<'_>,
    mut visit: impl FnMut(chunks::Chunk) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut each = |manifest: Manifest<'_>| {
        let mut chunks = manifest.chunks();
        chunks.try_for_each(&mut visit)
    };
    match body {
        Body::Inline => {}
        Body::Chunks { manifest, .. } => {
            let _: ControlFlow<()> = each(Manifest::decode(manifest.0)?);
        }
        Body::Parts { .. } => {
            let from = id.parts();
            let to = key::end_of(&from).expect("tables are letters, so something follows");
            scan::rows(view, &from, &to, |_, value| {
                let part: PartRow<'_> = row::decode(value)?;
                Ok(each(Manifest::decode(part.manifest.0)?))
            })?;
        }
    }
    Ok(())
}
