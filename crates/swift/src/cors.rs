//! Cross-origin requests: what a browser is told about a container's resources.
//!
//! The owner lists the origins in the container's metadata. Only listed origins learn anything
//! (Swift's strict mode); a request itself is carried out in any case, it is the browser that
//! withholds the answer from the page. The protocol is the Fetch standard's (fetch.spec.whatwg.org).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use namespace::Metadata;

const ALLOW_ORIGIN: &str = "x-container-meta-access-control-allow-origin";
const MAX_AGE: &str = "x-container-meta-access-control-max-age";
const EXPOSE_HEADERS: &str = "x-container-meta-access-control-expose-headers";

/// What every page may read of an answer that it may read at all.
const EXPOSED: &str = "cache-control, content-language, content-type, expires, last-modified, \
                       pragma, etag, x-timestamp, x-trans-id, x-openstack-request-id";

/// What a container says to an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    No,
    /// To every origin the same.
    Any,
    /// To this one because it is listed, so caches must tell origins apart.
    Listed,
}

fn allowed(metadata: &Metadata, origin: &HeaderValue) -> Allowed {
    let listed = metadata.get(ALLOW_ORIGIN).map_or(&b""[..], |value| value);
    let mut origins = listed.split(|byte| *byte == b' ');
    let mut found = Allowed::No;
    for listed in origins.by_ref().filter(|listed| !listed.is_empty()) {
        if listed == b"*" {
            return Allowed::Any;
        }
        if listed == origin.as_bytes() {
            found = Allowed::Listed;
        }
    }
    found
}

/// The headers of the answer to a preflight, which come on top of `Allow`; `None` if the page may
/// not send what it asks for. `methods` are those of the resource.
pub(crate) fn preflight(
    metadata: &Metadata,
    origin: &HeaderValue,
    asked: &HeaderMap,
    methods: &'static [&'static str],
) -> Option<HeaderMap> {
    let method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if !methods
        .iter()
        .any(|known| known.as_bytes() == method.as_bytes())
    {
        return None;
    }
    let mut answer = HeaderMap::new();
    allow_origin(&mut answer, metadata, origin)?;
    let methods = HeaderValue::from_str(&methods.join(", ")).expect("methods are ASCII");
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(age) = value_of(metadata, MAX_AGE) {
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, age);
    }
    if let Some(headers) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        let vary = HeaderValue::from_static("Access-Control-Request-Headers");
        answer.append(header::VARY, vary);
    }
    Some(answer)
}

/// Lets the page at `origin` read the answer, if the container allows it.
pub(crate) fn admit(answer: &mut HeaderMap, metadata: &Metadata, origin: &HeaderValue) {
    if allow_origin(answer, metadata, origin).is_none() {
        return;
    }
    let mut exposed = EXPOSED.to_owned();
    let own = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-object-meta-") || name.starts_with("x-container-meta-")
    };
    for name in answer.keys().filter(own) {
        exposed.push_str(", ");
        exposed.push_str(name.as_str());
    }
    let listed = metadata.get(EXPOSE_HEADERS).map_or(&b""[..], |value| value);
    for name in String::from_utf8_lossy(listed)
        .split([' ', ','])
        .filter(|name| !name.is_empty())
    {
        exposed.push_str(", ");
        exposed.push_str(&name.to_ascii_lowercase());
    }
    // An owner may have written anything there: what is no header value is not sent.
    if let Ok(exposed) = HeaderValue::from_str(&exposed) {
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

fn allow_origin(answer: &mut HeaderMap, metadata: &Metadata, origin: &HeaderValue) -> Option<()> {
    let value = match allowed(metadata, origin) {
        Allowed::No => return None,
        Allowed::Any => HeaderValue::from_static("*"),
        Allowed::Listed => {
            answer.append(header::VARY, HeaderValue::from_static("Origin"));
            origin.clone()
        }
    };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    Some(())
}

fn value_of(metadata: &Metadata, name: &str) -> Option<HeaderValue> {
    let value = metadata.get(name)?;
    HeaderValue::from_bytes(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(origins: &'static str) -> Metadata {
        let items = [
            (ALLOW_ORIGIN, origins),
            (MAX_AGE, "60"),
            (EXPOSE_HEADERS, "X-One x-two"),
        ];
        items
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into()
    }

    fn asked(method: &'static str) -> HeaderMap {
        let mut asked = HeaderMap::new();
        let method = HeaderValue::from_static(method);
        asked.insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        let headers = HeaderValue::from_static("x-foo, x-bar");
        asked.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, headers);
        asked
    }

    const HERE: HeaderValue = HeaderValue::from_static("http://here.example");
    const METHODS: &[&str] = &["GET", "PUT"];

    #[test]
    fn a_listed_origin_is_answered_by_name() {
        let metadata = container("http://a.example http://here.example");
        let answer = preflight(&metadata, &HERE, &asked("PUT"), METHODS).unwrap();
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], HERE);
        assert_eq!(answer[header::ACCESS_CONTROL_MAX_AGE], "60");
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_HEADERS], "x-foo, x-bar");
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        let vary: Vec<_> = answer.get_all(header::VARY).iter().collect();
        assert_eq!(vary, ["Origin", "Access-Control-Request-Headers"]);
    }

    #[test]
    fn a_star_is_for_all() {
        let answer = preflight(&container("*"), &HERE, &asked("GET"), METHODS).unwrap();
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }

    #[test]
    fn strangers_and_unknown_methods_are_refused() {
        let refused = |metadata: &Metadata, asked: &HeaderMap| {
            preflight(metadata, &HERE, asked, METHODS).is_none()
        };
        assert!(refused(&container("http://a.example"), &asked("GET")));
        assert!(refused(&Metadata::new(), &asked("GET")));
        assert!(refused(&container("*"), &asked("COPY")));
        assert!(refused(&container("*"), &HeaderMap::new()));
    }

    #[test]
    fn answers_say_what_may_be_read() {
        let mut answer = HeaderMap::new();
        let name = HeaderName::from_static("x-object-meta-colour");
        answer.insert(name, HeaderValue::from_static("red"));
        admit(&mut answer, &container("http://here.example"), &HERE);
        let exposed = answer[header::ACCESS_CONTROL_EXPOSE_HEADERS]
            .to_str()
            .unwrap();
        assert!(exposed.starts_with("cache-control, "));
        assert!(exposed.ends_with("x-object-meta-colour, x-one, x-two"));

        let mut stranger = HeaderMap::new();
        admit(&mut stranger, &container("http://a.example"), &HERE);
        assert!(stranger.is_empty());
    }
}
