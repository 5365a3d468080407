//! Reading headers, and names that are used often.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::respond::Refusal;

macro_rules! names {
    ($($id:ident $name:literal),* $(,)?) => {
        $(pub(crate) static $id: HeaderName = HeaderName::from_static($name);)*
    };
}

names! {
    X_TIMESTAMP "x-timestamp",
    X_DELETE_AT "x-delete-at",
    X_DELETE_AFTER "x-delete-after",
    X_IF_DELETE_AT "x-if-delete-at",
    X_OPEN_EXPIRED "x-open-expired",
    X_DETECT_CONTENT_TYPE "x-detect-content-type",
    X_OBJECT_MANIFEST "x-object-manifest",
    X_COPY_FROM "x-copy-from",
    X_COPY_FROM_ACCOUNT "x-copy-from-account",
    X_FRESH_METADATA "x-fresh-metadata",
    DESTINATION "destination",
    DESTINATION_ACCOUNT "destination-account",
    X_STORAGE_POLICY "x-storage-policy",
    X_AUTH_TOKEN "x-auth-token",
    X_STORAGE_TOKEN "x-storage-token",
    X_SERVICE_TOKEN "x-service-token",
    X_CONTAINER_READ "x-container-read",
    X_CONTAINER_WRITE "x-container-write",
    X_ACCOUNT_ACCESS_CONTROL "x-account-access-control",
}

/// A header as text; `None` if it is missing or not ASCII.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A header that names something, percent-decoded.
pub(crate) fn decoded<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).ok();
    let decoded = text.and_then(gateway::percent::decode_utf8);
    match decoded {
        Some(decoded) if !decoded.contains('\0') => Ok(Some(decoded)),
        _ => Err(Refusal::because(
            http::StatusCode::PRECONDITION_FAILED,
            format!("{name} header must be percent-encoded UTF-8 without NULL"),
        )),
    }
}

/// Whether a header says yes.
pub(crate) fn is_true(headers: &HeaderMap, name: &HeaderName) -> bool {
    text(headers, name).is_some_and(means_true)
}

/// Whether a word says yes, in any case.
pub(crate) fn means_true(word: &str) -> bool {
    ["true", "1", "yes", "on", "t", "y"]
        .iter()
        .any(|yes| word.eq_ignore_ascii_case(yes))
}

/// A number as a header's value.
pub(crate) fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

/// Text that we made as a header's value.
pub(crate) fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .expect("what we say is made of printable characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_has_many_names() {
        for yes in ["true", "TRUE", "1", "Yes", "on", "t", "Y"] {
            assert!(means_true(yes), "{yes}");
        }
        for no in ["", "false", "0", "2", "truee", "no"] {
            assert!(!means_true(no), "{no}");
        }
    }

    #[test]
    fn names_are_decoded() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DESTINATION.clone(), value.parse().unwrap());
            let result = decoded(&headers, &DESTINATION);
            result.ok().flatten().map(Cow::into_owned)
        };
        assert_eq!(with("a%2Fb").as_deref(), Some("a/b"));
        for bad in ["a%00", "%ff", "100%", "%zz", "%4"] {
            assert_eq!(with(bad), None, "{bad}");
        }
    }
}
