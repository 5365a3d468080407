//! GET and HEAD of an object.

use base::Timestamp;
use gateway::condition::{self, Verdict};
use gateway::range::{Ranges, Selection};
use gateway::{Body, Response, State, date};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use namespace::{Container, Expired, Fetch, Metadata, Object};

use crate::authorise::{Operation, Standing};
use crate::call::{Call, check_names, found_or_none};
use crate::headers::{
    X_DELETE_AT, X_OBJECT_MANIFEST, X_OPEN_EXPIRED, X_TIMESTAMP, is_true, number, value,
};
use crate::metadata;
use crate::parts::Parts;
use crate::path::{Path, Place};
use crate::render::hex;
use crate::respond::Refusal;

/// What an answer says about a body, whatever it is made of.
pub(crate) struct Facts {
    /// Without quotes, as conditions compare it.
    pub(crate) etag: String,
    pub(crate) etag_quoted: bool,
    pub(crate) modified: Timestamp,
    pub(crate) content_type: HeaderValue,
    /// `None`: not known.
    pub(crate) bytes: Option<u64>,
    /// Metadata as headers.
    pub(crate) headers: HeaderMap,
}

/// What of the body an answer carries.
pub(crate) enum Wanted {
    Whole,
    One(std::ops::Range<u64>),
    Many(Vec<std::ops::Range<u64>>),
}

impl Call<'_> {
    pub(crate) async fn get_object(&mut self) -> Result<Response, Refusal> {
        let fetch = match self.request.method {
            Method::HEAD => Fetch::Head,
            _ => Fetch::Body,
        };
        self.read_object(self.path, fetch).await
    }

    /// Answers with the object at `path`, by the request's ranges and conditions.
    pub(crate) async fn read_object(
        &self,
        path: Path<'_>,
        fetch: Fetch,
    ) -> Result<Response, Refusal> {
        let Place::Object(container, name) = path.place else {
            return Err(Refusal::new(StatusCode::NOT_FOUND));
        };
        self.request.progress.enter(State::Authorising);
        let namespace = &self.swift.namespace;
        let expired = self.expired();
        let found = match check_names(&path) {
            Ok(()) => {
                let found = namespace.find(path.account, container, name, expired, fetch);
                found_or_none(found.await)?
            }
            Err(_) => None,
        };
        let metadata = found.as_ref().map(|found| &found.container.metadata);
        self.authorise(Operation::ReadObject, &path, metadata)
            .await?;

        let Some((container, Some(object))) = found.map(|f| (f.container, f.object)) else {
            return Err(self.missing());
        };
        match object.metadata.get(X_OBJECT_MANIFEST.as_str()) {
            Some(manifest) if self.query.bytes("multipart-manifest") != Some(b"get") => {
                let manifest = manifest.clone();
                Box::pin(self.read_segments(path.account, &object, &manifest, fetch)).await
            }
            _ => self.read_plain(&container, &object, fetch).await,
        }
    }

    /// Whether objects past their time are seen: asked for, and allowed.
    pub(crate) fn expired(&self) -> Expired {
        let allowed = self.swift.config.allow_open_expired;
        if allowed && is_true(&self.request.headers, &X_OPEN_EXPIRED) {
            Expired::Show
        } else {
            Expired::Hide
        }
    }

    fn missing(&self) -> Refusal {
        Refusal::new(if condition::requires_existence(&self.request.headers) {
            StatusCode::PRECONDITION_FAILED
        } else {
            StatusCode::NOT_FOUND
        })
    }

    async fn read_plain(
        &self,
        container: &Container,
        object: &Object,
        fetch: Fetch,
    ) -> Result<Response, Refusal> {
        let facts = facts(object);
        let wanted = match judge(&self.request.headers, &facts, fetch) {
            Ok(wanted) => wanted,
            Err(response) => return Ok(*response),
        };
        if fetch == Fetch::Head {
            return Ok(head_only(facts));
        }
        let namespace = &self.swift.namespace;
        let body = match &wanted {
            Wanted::Whole => {
                let reader = namespace.read(container, object, 0..object.bytes).await?;
                Body::read(object.bytes, reader).await?
            }
            Wanted::One(range) => {
                let reader = namespace.read(container, object, range.clone()).await?;
                Body::read(range.end - range.start, reader).await?
            }
            Wanted::Many(ranges) => {
                let parts = Parts::new(ranges, &facts, object.bytes, &*self.swift.env.entropy);
                return Ok(parts.answer(facts, namespace.clone(), container, object));
            }
        };
        Ok(answer(facts, &wanted, body))
    }
}

/// What there is to say about a stored object.
pub(crate) fn facts(object: &Object) -> Facts {
    let mut etag = String::with_capacity(32);
    hex(&mut etag, &object.md5);
    let mut headers = HeaderMap::with_capacity(16);
    show(&object.metadata, &mut headers);
    if let Some(at) = object.delete_at {
        headers.insert(X_DELETE_AT.clone(), number(at));
    }
    let content_type = HeaderValue::try_from(object.content_type.as_str());
    Facts {
        etag,
        etag_quoted: false,
        modified: object.modified,
        // It was a header once.
        content_type: content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
        bytes: Some(object.bytes),
        headers,
    }
}

fn show(metadata: &Metadata, to: &mut HeaderMap) {
    // Nothing that is kept with an object is hidden from those who may read it.
    metadata::show(metadata, Standing::Owner, to);
}

/// Judges conditions and ranges: what is wanted, or the answer that says why nothing is sent.
pub(crate) fn judge(
    headers: &HeaderMap,
    facts: &Facts,
    fetch: Fetch,
) -> Result<Wanted, Box<Response>> {
    let modified = facts.modified.secs_ceil();
    match condition::evaluate(headers, &facts.etag, modified) {
        Verdict::Proceed => {}
        Verdict::NotModified => return Err(Box::new(not_modified(facts))),
        Verdict::Failed => return Err(Box::new(precondition_failed(facts))),
    }
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let (Some(range), Some(bytes), Fetch::Body) = (range, facts.bytes, fetch) else {
        return Ok(Wanted::Whole);
    };
    if !condition::range_holds(headers, &facts.etag, modified) {
        return Ok(Wanted::Whole);
    }
    match Ranges::parse(range).map_or(Selection::Whole, |ranges| ranges.select(bytes)) {
        Selection::Whole => Ok(Wanted::Whole),
        Selection::One(range) => Ok(Wanted::One(range)),
        Selection::Many(ranges) => Ok(Wanted::Many(ranges)),
        Selection::Unsatisfiable => Err(Box::new(unsatisfiable(facts, bytes))),
    }
}

/// The answer with the body that was wanted.
pub(crate) fn answer(facts: Facts, wanted: &Wanted, body: Body) -> Response {
    let mut response = Response::new(body);
    if let (Wanted::One(range), Some(bytes)) = (wanted, facts.bytes) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let (first, last) = (range.start, range.end - 1);
        let range = value(format!("bytes {first}-{last}/{bytes}"));
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    describe(facts, response.headers_mut());
    response
}

/// The answer to HEAD.
pub(crate) fn head_only(facts: Facts) -> Response {
    let bytes = facts.bytes;
    let mut response = Response::new(Body::Empty);
    describe(facts, response.headers_mut());
    if let Some(bytes) = bytes {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, number(bytes));
    }
    response
}

/// Everything that a successful answer says besides its body.
pub(crate) fn describe(facts: Facts, to: &mut HeaderMap) {
    identify(&facts, to);
    to.insert(header::CONTENT_TYPE, facts.content_type);
    to.extend(facts.headers);
}

fn identify(facts: &Facts, to: &mut HeaderMap) {
    let etag = if facts.etag_quoted {
        format!("\"{}\"", facts.etag)
    } else {
        facts.etag.clone()
    };
    to.insert(header::ETAG, value(etag));
    to.insert(
        header::LAST_MODIFIED,
        date::header(facts.modified.secs_ceil()),
    );
    to.insert(X_TIMESTAMP.clone(), value(facts.modified.to_string()));
    to.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

fn not_modified(facts: &Facts) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    identify(facts, response.headers_mut());
    let content_type = facts.content_type.clone();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

fn precondition_failed(facts: &Facts) -> Response {
    let mut response = crate::respond::done(StatusCode::PRECONDITION_FAILED);
    identify(facts, response.headers_mut());
    response
}

fn unsatisfiable(facts: &Facts, bytes: u64) -> Response {
    let mut response = crate::respond::explained(StatusCode::RANGE_NOT_SATISFIABLE);
    let headers = response.headers_mut();
    identify(facts, headers);
    headers.insert(header::CONTENT_TYPE, facts.content_type.clone());
    headers.insert(header::CONTENT_RANGE, value(format!("bytes */{bytes}")));
    response
}
