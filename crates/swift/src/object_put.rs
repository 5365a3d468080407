//! PUT and DELETE of an object.

use std::fmt::Write as _;

use gateway::condition::{Tags, unquote};
use gateway::{Announced, Response, State, date};
use http::{HeaderMap, StatusCode, header};
use namespace::{
    AccountQuota, Condition, Container, Expired, Metadata, PutObject, Stored, Upload, Written,
};

use crate::authorise::{Operation, Standing};
use crate::call::{Call, check_names, found_or_none};
use crate::config::OBJECT_BYTES_MAX;
use crate::headers::{X_COPY_FROM, X_OBJECT_MANIFEST, value};
use crate::path::Place;
use crate::render::hex;
use crate::respond::{Refusal, done};
use crate::{content_type, dlo, expiry, metadata};

/// What an object is to be, besides its body.
pub(crate) struct Plan {
    pub(crate) content_type: String,
    pub(crate) metadata: Metadata,
    pub(crate) delete_at: Option<u64>,
    pub(crate) condition: Condition,
    pub(crate) account_quota: AccountQuota,
}

impl Call<'_> {
    pub(crate) async fn put_object(&mut self) -> Result<Response, Refusal> {
        check_names(&self.path)?;
        if self.request.headers.contains_key(&X_COPY_FROM) {
            return Box::pin(self.copy_from()).await;
        }
        let bytes = match self.request.body.announced() {
            Announced::Nothing => return Err(Refusal::new(StatusCode::LENGTH_REQUIRED)),
            Announced::Length(bytes) if bytes > OBJECT_BYTES_MAX => {
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE));
            }
            Announced::Length(bytes) => Some(bytes),
            Announced::Chunked => None,
        };
        let (container, standing) = self.open(Operation::WriteObject, &self.path).await?;
        let plan = self.plan(standing)?;
        let namespace = &self.swift.namespace;
        namespace
            .admit(&container, bytes, plan.account_quota)
            .await?;
        self.check_absence(&container, &plan.condition).await?;

        let upload = namespace.upload(&container, self.object_name());
        let stored = self.receive(upload).await?;
        check_etag(&self.request.headers, &stored)?;
        self.store(&container, plan, stored).await
    }

    /// The name in the path, which is that of an object.
    pub(crate) fn object_name(&self) -> &str {
        match self.path.place {
            Place::Object(_, name) => name,
            Place::Account | Place::Container(_) => "",
        }
    }

    fn plan(&self, standing: Standing) -> Result<Plan, Refusal> {
        let headers = &self.request.headers;
        let metadata = metadata::of_object(headers)?;
        if let Some(manifest) = metadata.get(X_OBJECT_MANIFEST.as_str()) {
            dlo::check_manifest(manifest)?;
        }
        Ok(Plan {
            content_type: content_type::of_put(headers, self.object_name())?,
            metadata,
            delete_at: expiry::delete_at(headers, self.swift.now())?,
            condition: condition(headers)?,
            account_quota: account_quota(standing),
        })
    }

    /// Looks before the body is read; the namespace decides when it is stored.
    async fn check_absence(
        &self,
        container: &Container,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        if *condition != Condition::Absent {
            return Ok(());
        }
        let namespace = &self.swift.namespace;
        let present = namespace.object(container, self.object_name(), Expired::Hide);
        match found_or_none(present.await)? {
            None => Ok(()),
            Some(_) => Err(Refusal::new(StatusCode::PRECONDITION_FAILED)),
        }
    }

    /// Takes the body in.
    async fn receive(&mut self, mut upload: Upload) -> Result<Stored, Refusal> {
        while let Some(piece) = self.request.body.next().await {
            self.request.progress.enter(State::WritingChunks);
            upload.write(piece?).await?;
        }
        self.request.progress.enter(State::WritingChunks);
        let stored = upload.finish().await?;
        self.request.progress.enter(State::Committing);
        Ok(stored)
    }

    async fn store(
        &self,
        container: &Container,
        plan: Plan,
        stored: Stored,
    ) -> Result<Response, Refusal> {
        let md5 = stored.md5;
        let put = plan.put(self.object_name(), stored);
        let written = self.swift.namespace.put_object(container, put).await?;
        Ok(created(&md5, written))
    }

    pub(crate) async fn delete_object(&mut self) -> Result<Response, Refusal> {
        let (container, _) = self.open(Operation::WriteObject, &self.path).await?;
        let if_delete_at = expiry::if_delete_at(&self.request.headers)?;
        self.request.progress.enter(State::Committing);
        let (namespace, name) = (&self.swift.namespace, self.object_name());
        let deleted = namespace.delete_object(&container, name, Condition::None, if_delete_at);
        deleted.await?;
        Ok(done(StatusCode::NO_CONTENT))
    }
}

impl Plan {
    pub(crate) fn put(self, name: &str, stored: Stored) -> PutObject {
        PutObject {
            name: name.to_owned(),
            content_type: self.content_type,
            metadata: self.metadata,
            delete_at: self.delete_at,
            condition: self.condition,
            account_quota: self.account_quota,
            stored,
        }
    }
}

pub(crate) fn account_quota(standing: Standing) -> AccountQuota {
    match standing {
        Standing::Reseller => AccountQuota::Exempt,
        Standing::Owner | Standing::Guest => AccountQuota::Enforced,
    }
}

/// 201 with what the object is now.
pub(crate) fn created(md5: &[u8; 16], written: Written) -> Response {
    let mut etag = String::with_capacity(32);
    hex(&mut etag, md5);
    let mut response = done(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, value(etag));
    let modified = date::header(written.modified.secs_ceil());
    headers.insert(header::LAST_MODIFIED, modified);
    response
}

/// `If-None-Match: *` and `If-Match`.
fn condition(headers: &HeaderMap) -> Result<Condition, Refusal> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(tags) = text(header::IF_NONE_MATCH) {
        return match Tags::parse(tags) {
            Tags::Any => Ok(Condition::Absent),
            Tags::Of(_) => Err(Refusal::bad("If-None-Match only supports *")),
        };
    }
    Ok(match text(header::IF_MATCH).map(Tags::parse) {
        None => Condition::None,
        Some(Tags::Any) => Condition::Present,
        Some(Tags::Of(tags)) => {
            Condition::Matches(tags.into_iter().filter_map(parse_md5).collect())
        }
    })
}

/// Thirty-two hex digits.
fn parse_md5(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

/// The client may say beforehand what the MD5 of its body is.
fn check_etag(headers: &HeaderMap, stored: &Stored) -> Result<(), Refusal> {
    let Some(given) = headers.get(header::ETAG).filter(|given| !given.is_empty()) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or_default();
    if parse_md5(unquote(given.trim())) == Some(stored.md5) {
        return Ok(());
    }
    let mut sentence = "The body's MD5 is ".to_owned();
    hex(&mut sentence, &stored.md5);
    write!(sentence, ", not {given}").expect("a string takes all that is written");
    Err(Refusal::because(StatusCode::UNPROCESSABLE_ENTITY, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_a_put() {
        let of = |name: &str, value: &str| {
            let mut headers = HeaderMap::new();
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
            condition(&headers).ok()
        };
        let md5 = "000102030405060708090a0b0c0d0e0F";
        let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n).unwrap());
        assert_eq!(of("if-none-match", "*"), Some(Condition::Absent));
        assert_eq!(of("if-none-match", md5), None);
        assert_eq!(of("if-none-match", ""), None);
        assert_eq!(of("if-match", "*"), Some(Condition::Present));
        let matches = Some(Condition::Matches(vec![bytes]));
        assert_eq!(of("if-match", &format!("\"x\", \"{md5}\"")), matches);
        assert_eq!(of("if-match", "x"), Some(Condition::Matches(vec![])));
        assert_eq!(of("x", "y"), Some(Condition::None));
    }
}
