//! What the control API does, whichever door a request came through.

mod backup;

use std::sync::Arc;

use base::env::Env;
use bytes::Bytes;
use cluster::control::{Losses, Part, PutPolicy, TokenState};
use cluster::{Cluster, Declined, TOKEN_LIFE};
use http::{HeaderValue, Request, Response, StatusCode, header};
use namespace::{Created, NamedPolicy, Namespace, Policy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::Prometheus;
use crate::api::{
    Fault, Generated, PolicyEntry, PolicyList, PutPart, PutPassword, PutUser, RequestList, Status,
    Token, TokenEntry, TokenList, UserEntry, UserList,
};
use crate::authority::{Door, Verdict, judge};
use crate::password;
use crate::route::Route;

/// A user with a thousand groups fits.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;

/// What the rest of the server tells the control API about itself.
pub trait System: Send + Sync + 'static {
    fn status(&self) -> impl Future<Output = Result<Status, namespace::Error>> + Send;
    fn requests(&self) -> Vec<gateway::InFlight>;
    fn report(&self, to: &mut Prometheus) -> impl Future<Output = ()> + Send;
    /// This server as a node of a cluster, if it is one.
    fn cluster(&self) -> Option<&Cluster>;
    /// The id that all its directories have.
    fn cluster_id(&self) -> u128;
}

/// The control API. Cheap to clone.
pub struct Admin<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    env: Env,
    namespace: Namespace,
    system: S,
    /// Held while a user is looked up and then changed, so that of two who add the same user one is
    /// told that it exists.
    changing: Mutex<()>,
}

impl<S> Clone for Admin<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Why a request was not done.
struct Refusal {
    status: StatusCode,
    text: String,
}

fn refuse<T>(status: StatusCode, text: impl Into<String>) -> Result<T, Refusal> {
    let text = text.into();
    Err(Refusal { status, text })
}

impl<S: System> Admin<S> {
    pub fn new(env: Env, namespace: Namespace, system: S) -> Self {
        let shared = Shared {
            env,
            namespace,
            system,
            changing: Mutex::new(()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Answers a request whose body has been read: at most [`BODY_BYTES_MAX`].
    pub(crate) async fn answer(&self, door: Door, request: Request<Bytes>) -> Response<String> {
        let Some(route) = Route::of(request.uri().path()) else {
            let path = request.uri().path();
            return fault(StatusCode::NOT_FOUND, format!("there is nothing at {path}"));
        };
        if !route.allows(request.method()) {
            let text = format!("this answers {} only", route.allow());
            let mut answer = fault(StatusCode::METHOD_NOT_ALLOWED, text);
            let allow = HeaderValue::from_static(route.allow());
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        if route == Route::Health {
            return text("text/plain; charset=utf-8", "ok\n".to_owned());
        }
        let authorization = request.headers().get(header::AUTHORIZATION);
        match judge(door, authorization, &self.shared.namespace).await {
            Ok(Verdict::Granted) => {}
            Ok(Verdict::Unknown) => return challenge(),
            Ok(Verdict::Denied) => {
                return fault(StatusCode::FORBIDDEN, "this needs a reseller's credentials");
            }
            Err(error) => return respond(&error).into(),
        }
        if route.is_secret() && door != Door::Socket {
            let text = "a backup holds secrets: it is made through the admin socket";
            return fault(StatusCode::FORBIDDEN, text);
        }
        let answer = self.act(route, &request).await;
        answer.unwrap_or_else(Response::from)
    }

    async fn act(
        &self,
        route: Route,
        request: &Request<Bytes>,
    ) -> Result<Response<String>, Refusal> {
        let system = &self.shared.system;
        match route {
            Route::Health => unreachable!("answered before credentials are asked for"),
            Route::Metrics => {
                let mut page = Prometheus::default();
                system.report(&mut page).await;
                Ok(text(
                    "text/plain; version=0.0.4; charset=utf-8",
                    page.render(),
                ))
            }
            Route::Status => Ok(json(StatusCode::OK, &system.status().await?)),
            Route::Requests => {
                let requests = system.requests();
                Ok(json(StatusCode::OK, &RequestList { requests }))
            }
            Route::Users => Ok(json(StatusCode::OK, &self.list().await?)),
            Route::User { account, name } if request.method() == http::Method::DELETE => {
                self.remove(&account, &name).await
            }
            Route::User { account, name } => self.put(&account, &name, request).await,
            Route::Password { account, name } => self.set_password(&account, &name, request).await,
            Route::Tokens if request.method() == http::Method::POST => self.create_token().await,
            Route::Tokens => Ok(json(StatusCode::OK, &self.tokens().await?)),
            Route::Token(id) => self.remove_token(id).await,
            Route::Policies => Ok(json(StatusCode::OK, &self.policies())),
            Route::Policy(name) => self.put_policy(name, request).await,
            Route::Backup => Ok(json(StatusCode::OK, &self.backup_scope())),
            Route::BackupShard(shard) => {
                let view = self.open_backup(shard).await?;
                Ok(json(StatusCode::CREATED, &view))
            }
            Route::BackupRows(shard) => {
                let rows = self.read_backup(shard, request).await?;
                Ok(json(StatusCode::OK, &rows))
            }
            Route::Part { part, lossy } if request.method() == http::Method::DELETE => {
                self.remove_part(part, lossy).await
            }
            Route::Part { part, .. } => self.change_part(part, request).await,
        }
    }

    fn cluster(&self) -> Result<&Cluster, Refusal> {
        let alone = || Refusal {
            status: StatusCode::CONFLICT,
            text: "this server is alone: give it node_listen, and start it again".to_owned(),
        };
        self.shared.system.cluster().ok_or_else(alone)
    }

    async fn create_token(&self) -> Result<Response<String>, Refusal> {
        let token = self.cluster()?.create_token(TOKEN_LIFE).await?;
        tracing::info!("join token made");
        let token = token.to_string();
        Ok(json(StatusCode::CREATED, &Token { token }))
    }

    async fn tokens(&self) -> Result<TokenList, Refusal> {
        let tokens = self.cluster()?.tokens().await?;
        let now = self.shared.env.clock.now().secs();
        let entry = |token: TokenState| TokenEntry {
            left_s: token.record.expires.secs().saturating_sub(now),
            id: format!("{:016x}", token.record.id),
            used_by: token.used_by.map(|node| node.0),
        };
        let mut tokens: Vec<_> = tokens.into_iter().map(entry).collect();
        tokens.sort();
        Ok(TokenList { tokens })
    }

    async fn remove_token(&self, id: u64) -> Result<Response<String>, Refusal> {
        self.cluster()?.remove_token(id).await?;
        tracing::info!("join token removed");
        Ok(no_content())
    }

    async fn change_part(
        &self,
        part: Part,
        request: &Request<Bytes>,
    ) -> Result<Response<String>, Refusal> {
        let put: PutPart = parse(request.body())?;
        let cluster = self.cluster()?;
        match (part, put.zone) {
            (_, None) => {}
            (Part::Node(node), Some(zone)) => cluster.set_zone(node, zone).await?,
            (Part::Device(_), Some(_)) => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "a device is in the zone of its node",
                );
            }
        }
        if let Some(is_draining) = put.draining {
            cluster.drain(part, is_draining).await?;
            tracing::info!(%part, is_draining, "changed");
        }
        Ok(json(StatusCode::OK, &serde_json::json!({})))
    }

    async fn remove_part(&self, part: Part, lossy: bool) -> Result<Response<String>, Refusal> {
        let losses = match lossy {
            true => Losses::Accepted,
            false => Losses::Refused,
        };
        self.cluster()?.remove(part, losses).await?;
        tracing::info!(%part, "removed");
        Ok(no_content())
    }

    fn policies(&self) -> PolicyList {
        let policies = self.shared.namespace.policies();
        let default = usize::from(policies.default);
        let entry = |(place, named): (usize, NamedPolicy)| PolicyEntry {
            name: named.name,
            kind: named.policy.to_string(),
            default: place == default,
        };
        PolicyList {
            policies: policies.list.into_iter().enumerate().map(entry).collect(),
        }
    }

    async fn put_policy(
        &self,
        name: String,
        request: &Request<Bytes>,
    ) -> Result<Response<String>, Refusal> {
        let crate::api::PutPolicy { kind, default } = parse(request.body())?;
        let policy = kind.map(|kind| kind.parse::<Policy>()).transpose();
        let policy = policy.or_else(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))?;
        tracing::info!(name, ?policy, default, "policy put");
        let put = PutPolicy {
            name,
            policy,
            is_default: default,
        };
        self.cluster()?.put_policy(put).await?;
        Ok(json(StatusCode::OK, &serde_json::json!({})))
    }

    async fn list(&self) -> Result<UserList, Refusal> {
        let users = self.shared.namespace.users().list().await?;
        let entries = users.into_iter().map(|user| UserEntry {
            account: user.account,
            name: user.name,
            role: role_name(user.role).to_owned(),
            groups: user.groups,
        });
        let mut users: Vec<_> = entries.collect();
        users.sort();
        Ok(UserList { users })
    }

    async fn put(
        &self,
        account: &str,
        name: &str,
        request: &Request<Bytes>,
    ) -> Result<Response<String>, Refusal> {
        let put: PutUser = parse(request.body())?;
        check_name("account", account)?;
        check_name("user", name)?;
        for group in &put.groups {
            check_name("group", group)?;
        }
        let only_add = match request.headers().get(header::IF_NONE_MATCH) {
            None => false,
            Some(value) if value == "*" => true,
            Some(_) => return refuse(StatusCode::BAD_REQUEST, "If-None-Match can only be *"),
        };
        let (password, generated) = self.password(put.password)?;
        let users = self.shared.namespace.users();
        let _changing = self.shared.changing.lock().await;
        if only_add && users.get(account, name).await?.is_some() {
            return refuse(
                StatusCode::CONFLICT,
                format!("{account}:{name} exists already"),
            );
        }
        let role = put.role;
        let created = users
            .put(account, name, role, put.groups, &password)
            .await?;
        tracing::info!(account, user = name, role = role_name(role), "user stored");
        let status = match created {
            Created::New => StatusCode::CREATED,
            Created::Existed => StatusCode::OK,
        };
        Ok(json(status, &generated))
    }

    async fn set_password(
        &self,
        account: &str,
        name: &str,
        request: &Request<Bytes>,
    ) -> Result<Response<String>, Refusal> {
        let put: PutPassword = parse(request.body())?;
        let (password, generated) = self.password(put.password)?;
        let _changing = self.shared.changing.lock().await;
        self.must_exist(account, name).await?;
        let users = self.shared.namespace.users();
        users.set_password(account, name, &password).await?;
        tracing::info!(account, user = name, "password changed");
        Ok(json(StatusCode::OK, &generated))
    }

    async fn remove(&self, account: &str, name: &str) -> Result<Response<String>, Refusal> {
        let _changing = self.shared.changing.lock().await;
        self.must_exist(account, name).await?;
        self.shared.namespace.users().remove(account, name).await?;
        tracing::info!(account, user = name, "user removed");
        Ok(no_content())
    }

    async fn must_exist(&self, account: &str, name: &str) -> Result<(), Refusal> {
        match self.shared.namespace.users().get(account, name).await? {
            Some(_) => Ok(()),
            None => refuse(
                StatusCode::NOT_FOUND,
                format!("there is no user {account}:{name}"),
            ),
        }
    }

    /// The given password or a new one; and what to answer.
    fn password(&self, given: Option<String>) -> Result<(String, Generated), Refusal> {
        /// Longer ones only cost time to verify.
        const PASSWORD_BYTES_MAX: usize = 1024;
        match given {
            None => {
                let password = password::generate(&*self.shared.env.entropy);
                let generated = Generated {
                    password: Some(password.clone()),
                };
                Ok((password, generated))
            }
            Some(password) if password.is_empty() || password.len() > PASSWORD_BYTES_MAX => {
                let text = format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes");
                refuse(StatusCode::BAD_REQUEST, text)
            }
            Some(password) => Ok((password, Generated { password: None })),
        }
    }
}

fn role_name(role: namespace::Role) -> &'static str {
    match role {
        namespace::Role::Owner => "owner",
        namespace::Role::Member => "member",
        namespace::Role::Reseller => "reseller",
    }
}

/// A name must survive in a header, in a path, and between the commas and colons of an ACL.
fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    const NAME_BYTES_MAX: usize = 256;
    let fault = |text: String| refuse(StatusCode::BAD_REQUEST, format!("{what} {name:?}: {text}"));
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return fault(format!("must have 1 to {NAME_BYTES_MAX} bytes"));
    }
    if name.starts_with('.') {
        return fault("must not begin with a dot, as ACLs use it for referrers".to_owned());
    }
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "/:,\"".contains(c);
    match name.chars().find(|c| forbidden(*c)) {
        Some(c) => fault(format!("must not have {c:?} in it")),
        None => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).or_else(|error| {
        let text = format!("the body is not the JSON that is wanted: {error}");
        refuse(StatusCode::BAD_REQUEST, text)
    })
}

/// An answer for every way in which the namespace can refuse.
fn respond(error: &namespace::Error) -> Refusal {
    use namespace::Error;
    let status = match error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::NotEmpty | Error::OtherPolicy | Error::Precondition | Error::Changed => {
            StatusCode::CONFLICT
        }
        Error::Limit(_) => StatusCode::BAD_REQUEST,
        Error::QuotaExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        Error::OutOfSpace => StatusCode::INSUFFICIENT_STORAGE,
        Error::Unavailable { .. } | Error::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        Error::Damaged(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text = error.to_string();
    Refusal { status, text }
}

impl From<namespace::Error> for Refusal {
    fn from(error: namespace::Error) -> Self {
        respond(&error)
    }
}

impl From<Declined> for Refusal {
    fn from(declined: Declined) -> Self {
        let status = match declined {
            Declined::NotLeading | Declined::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Declined::Refused(_) => StatusCode::CONFLICT,
            Declined::Malformed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = declined.to_string();
        Self { status, text }
    }
}

impl From<Refusal> for Response<String> {
    fn from(refusal: Refusal) -> Self {
        let mut answer = fault(refusal.status, refusal.text);
        if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            answer.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        answer
    }
}

fn challenge() -> Response<String> {
    let mut answer = fault(
        StatusCode::UNAUTHORIZED,
        "this needs credentials: account:user and password",
    );
    let value = HeaderValue::from_static("Basic realm=\"martlet admin\", charset=\"UTF-8\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    answer
}

pub(crate) fn fault(status: StatusCode, error: impl Into<String>) -> Response<String> {
    let error = error.into();
    json(status, &Fault { error })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<String> {
    let mut body = serde_json::to_string(body).expect("our types have text for keys");
    body.push('\n');
    let mut answer = text("application/json", body);
    *answer.status_mut() = status;
    answer
}

fn no_content() -> Response<String> {
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn text(content_type: &'static str, body: String) -> Response<String> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
