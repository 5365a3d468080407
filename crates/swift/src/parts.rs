//! `multipart/byteranges`: several ranges in one answer.

use std::ops::Range;

use base::env::Entropy;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use gateway::{Body, Broken, Response};
use http::{HeaderValue, StatusCode, header};
use namespace::{Container, Namespace, Object};

use crate::headers::value;
use crate::object_get::{Facts, describe};
use crate::render::hex;

/// The parts of an answer, laid out before any byte is read.
pub(crate) struct Parts {
    boundary: String,
    /// The head of each part, and what follows it.
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
    length: u64,
}

impl Parts {
    pub(crate) fn new(
        ranges: &[Range<u64>],
        facts: &Facts,
        bytes: u64,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut random = [0; 16];
        entropy.fill(&mut random);
        let mut boundary = String::with_capacity(32);
        hex(&mut boundary, &random);
        let heads = ranges.iter().enumerate().map(|(at, range)| {
            let head = head(at, &boundary, &facts.content_type, range, bytes);
            (head, range.clone())
        });
        let parts: Vec<_> = heads.collect();
        let end = Bytes::from(format!("\r\n--{boundary}--"));
        let each = parts
            .iter()
            .map(|(head, range)| head.len() as u64 + (range.end - range.start));
        let length = each.sum::<u64>() + end.len() as u64;
        Self {
            boundary,
            parts,
            end,
            length,
        }
    }

    pub(crate) fn answer(
        self,
        facts: Facts,
        namespace: Namespace,
        container: &Container,
        object: &Object,
    ) -> Response {
        let multipart = format!("multipart/byteranges;boundary={}", self.boundary);
        let pieces = pieces(self.parts, self.end, namespace, container, object);
        let mut response = Response::new(Body::stream(Some(self.length), pieces));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let headers = response.headers_mut();
        describe(facts, headers);
        headers.insert(header::CONTENT_TYPE, value(multipart));
        response
    }
}

fn head(
    at: usize,
    boundary: &str,
    content_type: &HeaderValue,
    range: &Range<u64>,
    bytes: u64,
) -> Bytes {
    let mut head = Vec::with_capacity(160);
    if at > 0 {
        head.extend(b"\r\n");
    }
    head.extend(format!("--{boundary}\r\nContent-Type: ").as_bytes());
    head.extend(content_type.as_bytes());
    let (first, last) = (range.start, range.end - 1);
    head.extend(format!("\r\nContent-Range: bytes {first}-{last}/{bytes}\r\n\r\n").as_bytes());
    head.into()
}

/// Each part is opened when the one before it is sent.
fn pieces(
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
    namespace: Namespace,
    container: &Container,
    object: &Object,
) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
    let (container, object) = (container.clone(), object.clone());
    let bodies = stream::iter(parts).then(move |(head, range)| {
        let (namespace, container) = (namespace.clone(), container.clone());
        let object = object.clone();
        async move {
            let head = stream::once(async { Ok(head) });
            let body = match namespace.read(&container, &object, range).await {
                Ok(reader) => gateway::pieces(reader).left_stream(),
                Err(error) => stream::once(async { Err(error.into()) }).right_stream(),
            };
            head.chain(body).boxed()
        }
    });
    bodies.flatten().chain(stream::once(async { Ok(end) }))
}
