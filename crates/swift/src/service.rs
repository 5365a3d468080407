//! The front door itself: which path goes to which handler.

use std::sync::Arc;

use base::env::Env;
use gateway::query::Query;
use gateway::{Body, Request, Response, Service, percent};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use namespace::Namespace;

use crate::call::Call;
use crate::config::{ACCOUNT_NAME_BYTES_MAX, Config};
use crate::headers::{X_AUTH_TOKEN, X_SERVICE_TOKEN, X_STORAGE_TOKEN, text};
use crate::identity::{Caller, Identity};
use crate::path::{BadPath, Path, Place, Target};
use crate::respond::{Refusal, explained};
use crate::token::Tokens;
use crate::{authorise, info};

/// The Swift API over a namespace.
pub struct Swift {
    pub(crate) namespace: Namespace,
    pub(crate) env: Env,
    pub(crate) config: Config,
    pub(crate) tokens: Tokens,
}

impl Swift {
    /// Fetches the secret that tokens are signed with; the cluster makes it when it is first asked.
    ///
    /// # Errors
    /// What the namespace says if it cannot give the secret.
    pub async fn new(
        namespace: Namespace,
        env: Env,
        config: Config,
    ) -> Result<Self, namespace::Error> {
        let secret = namespace.users().secret("swift tokens").await?;
        let tokens = Tokens::new(&secret, config.token_lifetime_s, config.tokens_cached_max);
        Ok(Self {
            namespace,
            env,
            config,
            tokens,
        })
    }

    /// Now, in Unix seconds.
    pub(crate) fn now(&self) -> u64 {
        self.env.clock.now().secs()
    }

    fn info(&self, request: &Request) -> Response {
        let mut response = match request.method {
            Method::GET | Method::HEAD => {
                let policies = self.namespace.policies();
                Response::new(Body::from(info::render(&self.config, &policies)))
            }
            Method::OPTIONS => allowed("GET, HEAD, OPTIONS"),
            _ => return not_allowed("GET, HEAD, OPTIONS"),
        };
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=UTF-8");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(origin) = request.headers.get(header::ORIGIN) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        }
        response
    }

    async fn api(&self, request: &mut Request, path: Path<'_>, query: Query<'_>) -> Response {
        if path.account.len() > ACCOUNT_NAME_BYTES_MAX {
            return explained(StatusCode::NOT_FOUND);
        }
        let caller = match self.caller(&request.headers).await {
            Ok(Some(caller)) => caller,
            Ok(None) => return authorise::bad_token(Some(path.account)),
            Err(error) => return Refusal::from(error).into_response(),
        };
        let method = request.method.clone();
        let mut call = Call {
            swift: self,
            request,
            path,
            query,
            caller,
        };
        let done = match (path.place, &method) {
            (_, &Method::OPTIONS) => Box::pin(call.options()).await,
            (Place::Object(..), &Method::GET | &Method::HEAD) => call.get_object().await,
            (Place::Object(..), &Method::PUT) => call.put_object().await,
            (Place::Object(..), &Method::POST) => call.post_object().await,
            (Place::Object(..), &Method::DELETE) => call.delete_object().await,
            (Place::Object(..), copy) if copy.as_str() == "COPY" => Box::pin(call.copy()).await,
            (Place::Container(_), _) => Box::pin(call.container(&method)).await,
            (Place::Account, _) => Box::pin(call.account(&method)).await,
            (place, _) => Ok(not_allowed(methods(place))),
        };
        let mut response = done.unwrap_or_else(Refusal::into_response);
        if method != Method::OPTIONS && call.request.headers.contains_key(header::ORIGIN) {
            Box::pin(call.share(&mut response)).await;
        }
        response
    }

    /// Who calls. `Ok(None)`: it gave a token that is none, or no longer.
    async fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>, namespace::Error> {
        let mut caller = Caller::default();
        for (names, identity) in [
            (&[&X_AUTH_TOKEN, &X_STORAGE_TOKEN][..], &mut caller.user),
            (&[&X_SERVICE_TOKEN][..], &mut caller.service),
        ] {
            let Some(token) = first(headers, names) else {
                continue;
            };
            *identity = self.identify(token).await?;
            if identity.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(caller))
    }

    async fn identify(&self, token: &str) -> Result<Option<Arc<Identity>>, namespace::Error> {
        let Some(claim) = self.tokens.read(token, self.now()) else {
            return Ok(None);
        };
        let users = self.namespace.users();
        let user = users.get(&claim.account, &claim.user).await?;
        let same = user.filter(|user| user.generation == claim.generation);
        Ok(same.map(|user| claim.identity(user)))
    }
}

/// The first of these headers that is there. One that is not even ASCII is no token either.
fn first<'a>(headers: &'a HeaderMap, names: &[&HeaderName]) -> Option<&'a str> {
    let name = names.iter().find(|name| headers.contains_key(**name))?;
    Some(text(headers, name).unwrap_or("?"))
}

impl Service for Swift {
    async fn answer(&self, request: &mut Request) -> Response {
        let uri = request.uri.clone();
        let query = Query::parse(uri.query().unwrap_or_default());
        let (Some(path), Some(query)) = (percent::decode(uri.path()), query) else {
            return precondition("Bad URL: a % without two hexadecimal digits behind it");
        };
        let path = str::from_utf8(&path).ok();
        let Some(path) = path.filter(|path| !path.contains('\0')) else {
            return precondition("Invalid UTF8 or contains NULL");
        };
        match Target::parse(path) {
            Ok(Target::Api(path)) => self.api(request, path, query).await,
            Ok(Target::Healthcheck) => healthy(),
            Ok(Target::Info) => self.info(request),
            Ok(Target::Auth(account)) => Box::pin(self.authenticate(request, account)).await,
            Err(BadPath::VersionOnly) => precondition("Bad URL"),
            Err(BadPath::UnknownVersion) => explained(StatusCode::BAD_REQUEST),
            Err(BadPath::Nothing) => explained(StatusCode::NOT_FOUND),
        }
    }
}

fn healthy() -> Response {
    let mut response = Response::new(Body::from("OK"));
    let text = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

fn precondition(sentence: &'static str) -> Response {
    Refusal::because(StatusCode::PRECONDITION_FAILED, sentence).into_response()
}

/// The methods of an entity.
pub(crate) fn methods(place: Place<'_>) -> &'static str {
    match place {
        Place::Account | Place::Container(_) => "GET, HEAD, PUT, POST, DELETE, OPTIONS",
        Place::Object(..) => "GET, HEAD, PUT, POST, DELETE, OPTIONS, COPY",
    }
}

pub(crate) fn not_allowed(methods: &'static str) -> Response {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED)
        .with(header::ALLOW, HeaderValue::from_static(methods))
        .into_response()
}

/// The answer to OPTIONS.
pub(crate) fn allowed(methods: &'static str) -> Response {
    let mut response = crate::respond::done(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
