//! What a path and a method ask for.

use base::{NodeId, ShardId};
use cluster::control::Part;
use http::Method;

use crate::api;

/// Something that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Metrics,
    Status,
    Requests,
    Users,
    User {
        account: String,
        name: String,
    },
    Password {
        account: String,
        name: String,
    },
    Tokens,
    /// A join token, by its id.
    Token(u64),
    Policies,
    /// A policy, by its name.
    Policy(String),
    /// What there is to be saved.
    Backup,
    /// A view of a shard, to be saved.
    BackupShard(ShardId),
    /// Rows of such a view.
    BackupRows(ShardId),
    /// A node or a device; whether data that would be lost with it may be.
    Part {
        part: Part,
        lossy: bool,
    },
}

impl Route {
    /// Whether what is answered holds secrets of the cluster, so that only the owner of the data may have it.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(
            self,
            Self::Backup | Self::BackupShard(_) | Self::BackupRows(_)
        )
    }

    /// `None`: there is nothing at that path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let segments: Option<Vec<_>> = path
            .strip_prefix('/')?
            .split('/')
            .map(gateway::percent::decode_utf8)
            .collect();
        let segments = segments?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let own = |text: &str| text.to_owned();
        match segments.as_slice() {
            ["healthz"] => Some(Self::Health),
            ["metrics"] => Some(Self::Metrics),
            ["admin", "status"] => Some(Self::Status),
            ["admin", "requests"] => Some(Self::Requests),
            ["admin", "users"] => Some(Self::Users),
            ["admin", "users", account, name] => Some(Self::User {
                account: own(account),
                name: own(name),
            }),
            ["admin", "users", account, name, "password"] => Some(Self::Password {
                account: own(account),
                name: own(name),
            }),
            ["admin", "tokens"] => Some(Self::Tokens),
            ["admin", "tokens", id] => api::token_id(id).map(Self::Token),
            ["admin", "policies"] => Some(Self::Policies),
            ["admin", "policies", name] => Some(Self::Policy(own(name))),
            ["admin", "backup"] => Some(Self::Backup),
            ["admin", "backup", shard] => shard_id(shard).map(Self::BackupShard),
            ["admin", "backup", shard, "rows"] => shard_id(shard).map(Self::BackupRows),
            ["admin", kind, name] => part(kind, name).map(|part| Self::Part { part, lossy: false }),
            ["admin", kind, name, "lossy"] => {
                part(kind, name).map(|part| Self::Part { part, lossy: true })
            }
            _ => None,
        }
    }

    /// The methods that it answers, as `Allow` lists them.
    pub(crate) fn allow(&self) -> &'static str {
        match self {
            Self::Health
            | Self::Metrics
            | Self::Status
            | Self::Requests
            | Self::Users
            | Self::Policies => "GET, HEAD",
            Self::User { .. } => "PUT, DELETE",
            Self::Password { .. } | Self::Policy(_) => "PUT",
            Self::Tokens => "GET, HEAD, POST",
            Self::Token(_) => "DELETE",
            Self::Backup | Self::BackupShard(_) | Self::BackupRows(_) => "POST",
            Self::Part { lossy: false, .. } => "PUT, DELETE",
            Self::Part { lossy: true, .. } => "DELETE",
        }
    }

    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.allow()
            .split(", ")
            .any(|allowed| allowed == method.as_str())
    }
}

fn shard_id(text: &str) -> Option<ShardId> {
    text.parse().ok().map(ShardId)
}

fn part(kind: &str, name: &str) -> Option<Part> {
    match kind {
        "nodes" => name.parse().ok().map(|number| Part::Node(NodeId(number))),
        "devices" => api::device_id(name).map(Part::Device),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base::DeviceId;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        let found = Route::of(path).map(|route| format!("{route:?} {}", route.allow()));
        assert_eq!(found.as_deref(), expected, "{path}");
    }

    #[test]
    fn every_route_has_its_methods() {
        check("/healthz", Some("Health GET, HEAD"));
        check("/metrics", Some("Metrics GET, HEAD"));
        check("/admin/status", Some("Status GET, HEAD"));
        check("/admin/requests", Some("Requests GET, HEAD"));
        check("/admin/users", Some("Users GET, HEAD"));
        check(
            "/admin/users/a/b%20c",
            Some(r#"User { account: "a", name: "b c" } PUT, DELETE"#),
        );
        check(
            "/admin/users/a/b/password",
            Some(r#"Password { account: "a", name: "b" } PUT"#),
        );
        check("/admin/backup", Some("Backup POST"));
        check("/admin/backup/3", Some("BackupShard(s3) POST"));
        check("/admin/backup/3/rows", Some("BackupRows(s3) POST"));
        check("/admin/tokens", Some("Tokens GET, HEAD, POST"));
        check("/admin/tokens/00000000000000ff", Some("Token(255) DELETE"));
        check("/admin/policies", Some("Policies GET, HEAD"));
        check("/admin/policies/cold", Some("Policy(\"cold\") PUT"));
        check(
            "/admin/nodes/3",
            Some("Part { part: Node(n3), lossy: false } PUT, DELETE"),
        );
        check(
            "/admin/nodes/3/lossy",
            Some("Part { part: Node(n3), lossy: true } DELETE"),
        );
    }

    #[test]
    fn a_device_is_named_by_its_digits() {
        let id = format!("{:032x}", 0xab);
        for (path, lossy, methods) in [
            (format!("/admin/devices/{id}"), false, "PUT, DELETE"),
            (format!("/admin/devices/d{id}/lossy"), true, "DELETE"),
        ] {
            let part = Part::Device(DeviceId(0xab));
            let route = Route::Part { part, lossy };
            assert_eq!(route.allow(), methods);
            assert_eq!(Route::of(&path), Some(route));
        }
    }

    #[test]
    fn nothing_else_is_there() {
        for path in [
            "",
            "/",
            "*",
            "healthz",
            "/healthz/",
            "/admin",
            "/admin/",
            "/admin/users/",
        ] {
            check(path, None);
        }
        check("/admin/users/a", None);
        check("/admin/tokens/ff", None);
        check("/admin/tokens/+0000000000000ff", None);
        check("/admin/backup/70000", None);
        check("/admin/backup/3/x", None);
        check("/admin/nodes/x", None);
        check("/admin/devices/3", None);
        check("/admin/zones/3", None);
        check("/admin/nodes/3/x", None);
        check("/admin/users/a/b/c", None);
        check("/admin/users/%ff/b", None);
        check("/v1/AUTH_main", None);
    }

    #[test]
    fn methods_are_told_apart() {
        let user = Route::of("/admin/users/a/b").unwrap();
        assert!(user.allows(&Method::PUT) && user.allows(&Method::DELETE));
        assert!(!user.allows(&Method::GET) && !user.allows(&Method::POST));
    }
}
