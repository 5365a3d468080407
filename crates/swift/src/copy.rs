//! COPY, and PUT with `X-Copy-From`: an object made of another one's body.

use gateway::{Announced, Body, Response, State, percent};
use http::{HeaderMap, HeaderName, StatusCode, header};
use namespace::{AccountQuota, Condition, Container, Fetch, Metadata, Stored};

use crate::authorise::Operation;
use crate::call::{Call, check_names};
use crate::dlo;
use crate::headers::{
    DESTINATION, DESTINATION_ACCOUNT, X_COPY_FROM, X_COPY_FROM_ACCOUNT, X_DELETE_AT,
    X_FRESH_METADATA, X_OBJECT_MANIFEST, decoded, is_true, number, value,
};
use crate::object_put::{Plan, account_quota, created};
use crate::path::{Path, Place, container_and_object};
use crate::respond::Refusal;
use crate::{content_type, expiry, metadata};

static X_COPIED_FROM: HeaderName = HeaderName::from_static("x-copied-from");
static X_COPIED_FROM_ACCOUNT: HeaderName = HeaderName::from_static("x-copied-from-account");
static X_COPIED_FROM_LAST_MODIFIED: HeaderName =
    HeaderName::from_static("x-copied-from-last-modified");

impl Call<'_> {
    /// COPY: the path is the source.
    pub(crate) async fn copy(&mut self) -> Result<Response, Refusal> {
        let headers = self.request.headers.clone();
        let (account, place) = other_end(&headers, &DESTINATION, &DESTINATION_ACCOUNT)?;
        let (container, object) = split(&place, "Destination")?;
        let destination = Path {
            account: account.as_deref().unwrap_or(self.path.account),
            place: Place::Object(container, object),
        };
        check_names(&destination)?;
        self.copy_between(self.path, destination).await
    }

    /// PUT with `X-Copy-From`: the path is the destination.
    pub(crate) async fn copy_from(&mut self) -> Result<Response, Refusal> {
        if !matches!(
            self.request.body.announced(),
            Announced::Nothing | Announced::Length(0)
        ) {
            return Err(Refusal::bad("Copy requests require a zero byte body"));
        }
        let headers = self.request.headers.clone();
        let (account, place) = other_end(&headers, &X_COPY_FROM, &X_COPY_FROM_ACCOUNT)?;
        let (container, object) = split(&place, "X-Copy-From")?;
        let source = Path {
            account: account.as_deref().unwrap_or(self.path.account),
            place: Place::Object(container, object),
        };
        self.copy_between(source, self.path).await
    }

    async fn copy_between(&self, from: Path<'_>, to: Path<'_>) -> Result<Response, Refusal> {
        let mut source = self.read_object(from, Fetch::Body).await?;
        if !matches!(
            source.status(),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT
        ) {
            return Ok(source);
        }
        let (container, standing) = self.open(Operation::WriteObject, &to).await?;
        let plan = self.copy_plan(source.headers(), account_quota(standing))?;
        let namespace = &self.swift.namespace;
        let bytes = source.body().length();
        namespace
            .admit(&container, bytes, plan.account_quota)
            .await?;

        let Place::Object(_, name) = to.place else {
            return Err(Refusal::new(StatusCode::NOT_FOUND));
        };
        let stored = self.take_over(&container, name, source.body_mut()).await?;
        let md5 = stored.md5;
        let mut shown = HeaderMap::new();
        show(&plan, &mut shown);
        let put = plan.put(name, stored);
        let written = namespace.put_object(&container, put).await?;

        let mut response = created(&md5, written);
        let headers = response.headers_mut();
        headers.extend(shown);
        say_source(&from, source.headers(), headers);
        Ok(response)
    }

    /// What the copy is to be: the source's metadata under the request's, unless they are to be
    /// fresh.
    fn copy_plan(&self, source: &HeaderMap, account_quota: AccountQuota) -> Result<Plan, Refusal> {
        let headers = &self.request.headers;
        let mut metadata = Metadata::new();
        let mut delete_at = None;
        if !is_true(headers, &X_FRESH_METADATA) {
            metadata = kept(source);
            delete_at = source
                .get(&X_DELETE_AT)
                .and_then(|at| at.to_str().ok()?.parse().ok());
            if !dlo::is_manifest(source, self.query.bytes("multipart-manifest")) {
                metadata.remove(X_OBJECT_MANIFEST.as_str());
            }
        }
        let given = metadata::of_object(headers)?;
        if let Some(manifest) = given.get(X_OBJECT_MANIFEST.as_str()) {
            dlo::check_manifest(manifest)?;
        }
        metadata.extend(given);
        let of_source = source.get(header::CONTENT_TYPE);
        let of_source = of_source.map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        Ok(Plan {
            content_type: match content_type::given(headers)? {
                Some(given) => given,
                None => of_source.unwrap_or_default().into_owned(),
            },
            metadata,
            delete_at: expiry::delete_at(headers, self.swift.now())?.or(delete_at),
            // Conditions of the request are about the source.
            condition: Condition::None,
            account_quota,
        })
    }

    async fn take_over(
        &self,
        container: &Container,
        name: &str,
        body: &mut Body,
    ) -> Result<Stored, Refusal> {
        let mut upload = self.swift.namespace.upload(container, name);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|broken| {
                tracing::error!(%broken, "source of a copy cannot be read");
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR)
            })?;
            self.request.progress.enter(State::WritingChunks);
            upload.write(piece).await?;
        }
        self.request.progress.enter(State::WritingChunks);
        let stored = upload.finish().await?;
        self.request.progress.enter(State::Committing);
        Ok(stored)
    }
}

/// The account, if it is named, and the path of the other end.
fn other_end(
    headers: &HeaderMap,
    name: &'static HeaderName,
    account: &'static HeaderName,
) -> Result<(Option<String>, String), Refusal> {
    let account = decoded(headers, account)?;
    if account
        .as_ref()
        .is_some_and(|account| account.is_empty() || account.contains('/'))
    {
        let sentence = "Account name cannot be empty or contain slashes";
        return Err(Refusal::because(StatusCode::PRECONDITION_FAILED, sentence));
    }
    let Some(place) = decoded(headers, name)? else {
        let sentence = "Destination header required";
        return Err(Refusal::because(StatusCode::PRECONDITION_FAILED, sentence));
    };
    Ok((account.map(Into::into), place.into_owned()))
}

fn split<'a>(place: &'a str, header: &str) -> Result<(&'a str, &'a str), Refusal> {
    // A query on the source is not a part of its name, but nothing here understands one.
    container_and_object(place).ok_or_else(|| {
        let sentence =
            format!("{header} header must be of the form <container name>/<object name>");
        Refusal::because(StatusCode::PRECONDITION_FAILED, sentence)
    })
}

/// What of an answer's headers was kept with the object.
fn kept(source: &HeaderMap) -> Metadata {
    let kept = source
        .iter()
        .filter(|(name, _)| metadata::is_kept_with_object(name.as_str()));
    let pairs = kept.map(|(name, value)| {
        let value = bytes::Bytes::copy_from_slice(value.as_bytes());
        (name.as_str().to_owned(), value)
    });
    pairs.collect()
}

/// The user metadata and the expiry that the copy has.
fn show(plan: &Plan, to: &mut HeaderMap) {
    let mut of_user = plan.metadata.clone();
    of_user.retain(|name, _| name.starts_with(metadata::OBJECT_PREFIX));
    metadata::show(&of_user, crate::authorise::Standing::Owner, to);
    if let Some(at) = plan.delete_at {
        to.insert(X_DELETE_AT.clone(), number(at));
    }
}

fn say_source(from: &Path<'_>, source: &HeaderMap, to: &mut HeaderMap) {
    if let Place::Object(container, object) = from.place {
        let container = percent::encode_path(container);
        let object = percent::encode_path(object);
        to.insert(
            X_COPIED_FROM.clone(),
            value(format!("{container}/{object}")),
        );
    }
    let account = percent::encode_path(from.account).into_owned();
    to.insert(X_COPIED_FROM_ACCOUNT.clone(), value(account));
    if let Some(modified) = source.get(header::LAST_MODIFIED) {
        to.insert(X_COPIED_FROM_LAST_MODIFIED.clone(), modified.clone());
    }
}
