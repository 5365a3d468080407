//! Cross-origin requests, in Swift's strict mode: only origins that the container admits are told
//! anything.

use gateway::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use namespace::Metadata;

use crate::call::Call;
use crate::respond::Refusal;
use crate::service::{allowed, methods};

const ALLOW_ORIGIN: &str = "x-container-meta-access-control-allow-origin";
const MAX_AGE: &str = "x-container-meta-access-control-max-age";
const EXPOSE_HEADERS: &str = "x-container-meta-access-control-expose-headers";

/// What a browser may always show to a script.
const ALWAYS_EXPOSED: [&str; 10] = [
    "cache-control",
    "content-language",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
    "etag",
    "x-timestamp",
    "x-trans-id",
    "x-openstack-request-id",
];

impl Call<'_> {
    /// OPTIONS, which needs no rights; with an `Origin` it asks beforehand for a browser.
    pub(crate) async fn options(&self) -> Result<Response, Refusal> {
        let methods = methods(self.path.place);
        let Some(origin) = self.request.headers.get(header::ORIGIN) else {
            return Ok(allowed(methods));
        };
        let metadata = self.sharing().await?;
        Ok(preflight(
            &self.request.headers,
            origin,
            metadata.as_ref(),
            methods,
        ))
    }

    /// Adds what a browser asks for to the answer of a request that was carried out.
    pub(crate) async fn share(&self, response: &mut Response) {
        let Some(origin) = self.request.headers.get(header::ORIGIN) else {
            return;
        };
        // The request is done: not to know the container's metadata now means to tell nothing.
        if let Ok(Some(metadata)) = self.sharing().await {
            expose(origin, &metadata, response.headers_mut());
        }
    }

    /// The metadata that say with whom the container is shared. Accounts are not.
    async fn sharing(&self) -> Result<Option<Metadata>, Refusal> {
        let container = self.find_container(&self.path).await?;
        Ok(container.map(|container| container.metadata))
    }
}

fn text<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    metadata
        .get(name)
        .and_then(|value| std::str::from_utf8(value).ok())
}

/// What to say in `Access-Control-Allow-Origin`: the origin itself, or `*`.
fn admitted(origin: &HeaderValue, metadata: &Metadata) -> Option<HeaderValue> {
    let given = origin.to_str().ok()?.trim();
    let mut admitted = text(metadata, ALLOW_ORIGIN)?.split_ascii_whitespace();
    match admitted.find(|one| *one == "*" || *one == given)? {
        "*" => Some(HeaderValue::from_static("*")),
        _ => Some(origin.clone()),
    }
}

fn preflight(
    asked: &HeaderMap,
    origin: &HeaderValue,
    metadata: Option<&Metadata>,
    methods: &'static str,
) -> Response {
    let method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = method.and_then(|method| method.to_str().ok());
    let known = method.is_some_and(|method| methods.split(", ").any(|known| known == method));
    let origin = metadata.and_then(|metadata| admitted(origin, metadata));
    let (Some(origin), Some(metadata), true) = (origin, metadata, known) else {
        return Refusal::new(StatusCode::UNAUTHORIZED)
            .with(header::ALLOW, HeaderValue::from_static(methods))
            .into_response();
    };
    let mut response = allowed(methods);
    let headers = response.headers_mut();
    admit(origin, headers);
    let methods = HeaderValue::from_static(methods);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(age) = metadata.get(MAX_AGE)
        && let Ok(age) = HeaderValue::from_maybe_shared(age.clone())
    {
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
    }
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        let vary = HeaderValue::from_static("Access-Control-Request-Headers");
        headers.append(header::VARY, vary);
    }
    response
}

fn admit(origin: HeaderValue, to: &mut HeaderMap) {
    if origin != "*" {
        to.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    to.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}

fn expose(origin: &HeaderValue, metadata: &Metadata, to: &mut HeaderMap) {
    let Some(origin) = admitted(origin, metadata) else {
        return;
    };
    let of_user = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("x-object-meta-") || name.starts_with("x-container-meta-")
    };
    let present = to.keys().filter(of_user).map(HeaderName::as_str);
    let asked = text(metadata, EXPOSE_HEADERS).unwrap_or_default();
    let asked = asked
        .split_ascii_whitespace()
        .flat_map(|names| names.split(','));
    let names: Vec<_> = ALWAYS_EXPOSED
        .into_iter()
        .chain(present)
        .chain(asked.filter(|name| !name.is_empty()))
        .collect();
    let names = HeaderValue::try_from(names.join(", "));
    if let Ok(names) = names {
        to.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
    admit(origin, to);
}

/// A value that only the tests compare.
#[cfg(test)]
fn shown(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let all: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|v| v.to_str().unwrap())
        .collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(origins: &'static str) -> Metadata {
        [
            (ALLOW_ORIGIN.to_owned(), bytes::Bytes::from(origins)),
            (MAX_AGE.to_owned(), bytes::Bytes::from("5")),
            (EXPOSE_HEADERS.to_owned(), bytes::Bytes::from("x-a, x-b")),
        ]
        .into()
    }

    fn ask(method: Option<&'static str>, origins: &'static str) -> Response {
        let mut asked = HeaderMap::new();
        if let Some(method) = method {
            let method = HeaderValue::from_static(method);
            asked.insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        }
        let wanted = HeaderValue::from_static("x-auth-token");
        asked.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, wanted);
        let origin = HeaderValue::from_static("http://m.com");
        preflight(&asked, &origin, Some(&container(origins)), "GET, PUT")
    }

    #[test]
    fn a_preflight_needs_an_admitted_origin_and_a_known_method() {
        for (method, origins, expected) in [
            (Some("PUT"), "http://m.com http://n.com", 200),
            (Some("PUT"), "*", 200),
            (Some("PUT"), "http://n.com", 401),
            (Some("BREW"), "*", 401),
            (None, "*", 401),
        ] {
            let response = ask(method, origins);
            assert_eq!(response.status(), expected, "{method:?} {origins}");
            assert_eq!(
                shown(response.headers(), header::ALLOW).unwrap(),
                "GET, PUT"
            );
        }
    }

    #[test]
    fn a_preflight_repeats_what_was_asked() {
        let response = ask(Some("PUT"), "http://m.com");
        let of = |name| shown(response.headers(), name).unwrap_or_default();
        assert_eq!(of(header::ACCESS_CONTROL_ALLOW_ORIGIN), "http://m.com");
        assert_eq!(of(header::ACCESS_CONTROL_ALLOW_HEADERS), "x-auth-token");
        assert_eq!(of(header::ACCESS_CONTROL_MAX_AGE), "5");
        assert_eq!(of(header::VARY), "Origin, Access-Control-Request-Headers");
        let response = ask(Some("PUT"), "*");
        let of = |name| shown(response.headers(), name).unwrap_or_default();
        assert_eq!(of(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(of(header::VARY), "Access-Control-Request-Headers");
    }

    #[test]
    fn only_admitted_origins_are_shown_anything() {
        let exposed = |origins| {
            let mut headers = HeaderMap::new();
            headers.insert("x-object-meta-a", HeaderValue::from_static("1"));
            let origin = HeaderValue::from_static("http://m.com");
            expose(&origin, &container(origins), &mut headers);
            shown(&headers, header::ACCESS_CONTROL_EXPOSE_HEADERS)
        };
        assert!(exposed("*").unwrap().ends_with("x-object-meta-a, x-a, x-b"));
        assert_eq!(exposed("http://n.com"), None);
    }
}
