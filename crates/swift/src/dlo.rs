//! Dynamic large objects: all objects of a container whose names start with a prefix, as one.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{Stream, stream};
use gateway::range::Ranges;
use gateway::{Body, Broken, Response, percent};
use http::{HeaderMap, StatusCode, header};
use md5::{Digest, Md5};
use namespace::{
    BodyReader, Container, Entry, Expired, Fetch, ListQuery, Namespace, Object, ObjectEntry,
};

use crate::authorise::Operation;
use crate::call::Call;
use crate::config::LISTING_ENTRIES_MAX;
use crate::headers::X_OBJECT_MANIFEST;
use crate::object_get::{Wanted, answer, facts, head_only, judge};
use crate::path::{Path, Place, container_and_object};
use crate::render::hex;
use crate::respond::Refusal;

/// Whether a manifest can be one: `container/prefix`.
pub(crate) fn check_manifest(manifest: &[u8]) -> Result<(), Refusal> {
    let decoded = std::str::from_utf8(manifest)
        .ok()
        .and_then(percent::decode_utf8);
    let good = decoded.is_some_and(|manifest| {
        let parts = container_and_object(&manifest);
        parts.is_some_and(|(container, prefix)| {
            let odd = |c| matches!(c, '?' | '&' | '\0');
            !manifest.starts_with('/')
                && !container.contains(odd)
                && !prefix.contains(odd)
                && !prefix.starts_with('/')
        })
    });
    if good {
        return Ok(());
    }
    let sentence = "X-Object-Manifest must be in the format container/prefix";
    Err(Refusal::bad(sentence))
}

/// The segments of a large object, in order, as far as one listing shows them.
struct Segments {
    container: Container,
    prefix: String,
    entries: Vec<ObjectEntry>,
}

impl Segments {
    /// Whether there may be more than one listing shows. Then nobody knows how long it is.
    fn is_partial(&self) -> bool {
        self.entries.len() >= LISTING_ENTRIES_MAX
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    fn etag(&self) -> String {
        let mut all = Md5::new();
        let mut etag = String::with_capacity(32);
        for entry in &self.entries {
            etag.clear();
            hex(&mut etag, &entry.md5);
            all.update(&etag);
        }
        etag.clear();
        hex(&mut etag, &all.finalize());
        etag
    }

    /// The parts of the segments that make up a range of the whole.
    fn cut(&self, range: &Range<u64>) -> VecDeque<Part> {
        let mut parts = VecDeque::new();
        let mut start = 0;
        for entry in &self.entries {
            let end = start + entry.bytes;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                parts.push_back(Part {
                    name: entry.name.clone(),
                    md5: entry.md5,
                    range: from - start..to - start,
                });
            }
            start = end;
        }
        parts
    }
}

/// A part of a segment.
struct Part {
    name: String,
    md5: [u8; 16],
    range: Range<u64>,
}

impl Call<'_> {
    /// Answers with the whole that a manifest describes.
    pub(crate) async fn read_segments(
        &self,
        account: &str,
        object: &Object,
        manifest: &[u8],
        fetch: Fetch,
    ) -> Result<Response, Refusal> {
        let segments = self.segments(account, manifest).await?;
        let mut facts = facts(object);
        if segments.is_partial() {
            facts.bytes = None;
        } else {
            facts.bytes = Some(segments.bytes());
            facts.etag = segments.etag();
            facts.etag_quoted = true;
        }
        let headers = without_several_ranges(&self.request.headers);
        let wanted = match judge(
            headers.as_ref().unwrap_or(&self.request.headers),
            &facts,
            fetch,
        ) {
            Ok(wanted) => wanted,
            Err(response) => return Ok(*response),
        };
        if fetch == Fetch::Head {
            return Ok(head_only(facts));
        }
        let (range, length) = match &wanted {
            Wanted::One(range) => (range.clone(), Some(range.end - range.start)),
            Wanted::Whole | Wanted::Many(_) => (0..u64::MAX, facts.bytes),
        };
        let body = self.join(segments, &range, length).await?;
        Ok(answer(facts, &wanted, body))
    }

    /// The segments that the caller may read.
    async fn segments(&self, account: &str, manifest: &[u8]) -> Result<Segments, Refusal> {
        let manifest = std::str::from_utf8(manifest)
            .ok()
            .and_then(percent::decode_utf8);
        let manifest = manifest.unwrap_or_default();
        let (container, prefix) =
            container_and_object(&manifest).ok_or(Refusal::new(StatusCode::CONFLICT))?;
        let path = Path {
            account,
            place: Place::Container(container),
        };
        let (container, _) = self.open(Operation::ReadContainer, &path).await?;
        let entries = list(&self.swift.namespace, &container, prefix, "").await?;
        Ok(Segments {
            container,
            prefix: prefix.to_owned(),
            entries,
        })
    }

    /// The body, whose first segment is opened before anything is sent.
    async fn join(
        &self,
        segments: Segments,
        range: &Range<u64>,
        length: Option<u64>,
    ) -> Result<Body, Refusal> {
        let marker = segments.is_partial().then(|| last(&segments.entries));
        let mut join = Join {
            namespace: self.swift.namespace.clone(),
            parts: segments.cut(range),
            container: segments.container,
            prefix: segments.prefix,
            marker,
            reader: None,
        };
        if let Some(part) = join.parts.pop_front() {
            let first = join.open(&part).await;
            join.reader = Some(first.map_err(|_| Refusal::new(StatusCode::CONFLICT))?);
        }
        Ok(Body::stream(length, join.pieces()))
    }
}

/// Several ranges of a large object are answered with all of it.
fn without_several_ranges(headers: &HeaderMap) -> Option<HeaderMap> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let several = Ranges::parse(range).is_some_and(|ranges| ranges.is_several());
    several.then(|| {
        let mut headers = headers.clone();
        headers.remove(header::RANGE);
        headers
    })
}

/// A large object on its way out.
struct Join {
    namespace: Namespace,
    container: Container,
    prefix: String,
    parts: VecDeque<Part>,
    /// After which name to look for more, if there may be more.
    marker: Option<String>,
    reader: Option<BodyReader>,
}

impl Join {
    fn pieces(self) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        stream::unfold(self, |mut join| async {
            let piece = join.next().await?;
            Some((piece, join))
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.next().await {
                    Some(piece) => return Some(piece.map_err(Broken::from)),
                    None => self.reader = None,
                }
            }
            match self.parts.pop_front() {
                Some(part) => match self.open(&part).await {
                    Ok(reader) => self.reader = Some(reader),
                    Err(broken) => return Some(Err(broken)),
                },
                None => {
                    let marker = self.marker.take()?;
                    if let Err(error) = self.find_more(&marker).await {
                        return Some(Err(error.into()));
                    }
                }
            }
        }
    }

    async fn open(&self, part: &Part) -> Result<BodyReader, Broken> {
        let namespace = &self.namespace;
        let found = namespace.object(&self.container, &part.name, Expired::Hide);
        let object = found.await?;
        if object.md5 != part.md5 {
            return Err(Broken::Part(format!("segment {:?} has changed", part.name)));
        }
        let reader = namespace.read(&self.container, &object, part.range.clone());
        Ok(reader.await?)
    }

    async fn find_more(&mut self, marker: &str) -> Result<(), namespace::Error> {
        let entries = list(&self.namespace, &self.container, &self.prefix, marker).await?;
        if entries.len() >= LISTING_ENTRIES_MAX {
            self.marker = Some(last(&entries));
        }
        self.parts = entries
            .into_iter()
            .filter(|entry| entry.bytes > 0)
            .map(|entry| Part {
                name: entry.name,
                md5: entry.md5,
                range: 0..entry.bytes,
            })
            .collect();
        Ok(())
    }
}

fn last(entries: &[ObjectEntry]) -> String {
    entries
        .last()
        .map_or_else(String::new, |entry| entry.name.clone())
}

async fn list(
    namespace: &Namespace,
    container: &Container,
    prefix: &str,
    marker: &str,
) -> Result<Vec<ObjectEntry>, namespace::Error> {
    let query = ListQuery {
        limit: LISTING_ENTRIES_MAX,
        prefix: prefix.to_owned(),
        marker: marker.to_owned(),
        ..ListQuery::default()
    };
    let entries = namespace.list_objects(container, &query).await?;
    let rows = entries.into_iter().filter_map(|entry| match entry {
        Entry::Row(row) => Some(row),
        // There is none without a delimiter.
        Entry::Subdir(_) => None,
    });
    Ok(rows.collect())
}

/// Whether an answer carries a manifest itself rather than what it describes.
pub(crate) fn is_manifest(headers: &HeaderMap, asked_for: Option<&[u8]>) -> bool {
    asked_for == Some(b"get") && headers.contains_key(&X_OBJECT_MANIFEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests() {
        let good = |manifest: &str| check_manifest(manifest.as_bytes()).is_ok();
        assert!(good("c/p") && good("c/p/q/") && good("c%20d/p"));
        for bad in [
            "", "c", "c/", "/c/p", "c//p", "c/p?x", "c/p&x", "c/%00", "c/%ff",
        ] {
            assert!(!good(bad), "{bad}");
        }
    }
}
