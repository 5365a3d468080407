//! Who may do what: one decision, from values alone. What nothing grants is denied.
//!
//! | who                                | account          | container          | object            |
//! |------------------------------------|------------------|--------------------|-------------------|
//! | reseller                           | all              | all                | all               |
//! | owner of the account               | read, write      | all                | all               |
//! | account ACL `admin`                | read, write      | all                | all               |
//! | account ACL `read-write`           | read             | all                | all               |
//! | account ACL `read-only`            | read             | read               | read              |
//! | container's read ACL, by group     |                  | read               | read              |
//! | container's read ACL, by referrer  |                  | read if .rlistings | read              |
//! | container's write ACL              |                  |                    | write             |
//!
//! Making and deleting accounts is for resellers alone. The owner of a `SERVICE_` account needs a
//! service's token beside its own. The first three rows are *owners*: they see and set headers that
//! are hidden from all others.

use gateway::Response;
use http::{HeaderValue, StatusCode, header};
use namespace::Metadata;

use crate::account_acl::{self, Grant};
use crate::acl::Acl;
use crate::headers::{X_ACCOUNT_ACCESS_CONTROL, X_CONTAINER_READ, X_CONTAINER_WRITE, value};
use crate::identity::{ACCOUNT_PREFIX, Caller, SERVICE_PREFIX};
use crate::path::Path;
use crate::respond::Refusal;

/// What a request wants to do, as far as rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ReadAccount,
    WriteAccount,
    /// Makes or deletes an account.
    ManageAccount,
    ReadContainer,
    WriteContainer,
    ReadObject,
    WriteObject,
}

/// What a caller who may do it is besides, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Guest,
    Owner,
    Reseller,
}

impl Standing {
    /// Whether headers that are for owners alone are shown and obeyed.
    pub(crate) fn is_owner(self) -> bool {
        matches!(self, Self::Reseller | Self::Owner)
    }
}

impl Operation {
    fn reads(self) -> bool {
        matches!(
            self,
            Self::ReadAccount | Self::ReadContainer | Self::ReadObject
        )
    }
}

/// What the caller's own role grants.
pub(crate) fn by_role(operation: Operation, account: &str, caller: &Caller) -> Option<Standing> {
    let user = caller.user.as_ref()?;
    let (owner, through_service) = match account.strip_prefix(ACCOUNT_PREFIX) {
        Some(owner) => (owner, false),
        None => (account.strip_prefix(SERVICE_PREFIX)?, true),
    };
    if user.is_reseller() {
        return Some(Standing::Reseller);
    }
    let service = caller
        .service
        .as_ref()
        .is_some_and(|service| service.is_service());
    let owns = user.is_owner_of(owner) && (service || !through_service);
    (owns && operation != Operation::ManageAccount).then_some(Standing::Owner)
}

/// What the container's ACLs grant.
pub(crate) fn by_container(
    operation: Operation,
    metadata: &Metadata,
    referrer: Option<&str>,
    caller: &Caller,
) -> Option<Standing> {
    let acl = |name: &str| {
        let stored = metadata.get(name)?;
        std::str::from_utf8(stored).ok().map(Acl)
    };
    let granted = match operation {
        Operation::ReadContainer | Operation::ReadObject => {
            let acl = acl(X_CONTAINER_READ.as_str())?;
            let lists = operation == Operation::ReadObject || acl.lists_for_referrers();
            acl.names(caller.groups()) || lists && acl.admits_referrer(referrer)
        }
        Operation::WriteObject => acl(X_CONTAINER_WRITE.as_str())?.names(caller.groups()),
        Operation::ReadAccount
        | Operation::WriteAccount
        | Operation::ManageAccount
        | Operation::WriteContainer => false,
    };
    granted.then_some(Standing::Guest)
}

/// What the account's ACL grants.
pub(crate) fn by_account(
    operation: Operation,
    metadata: &Metadata,
    caller: &Caller,
) -> Option<Standing> {
    let user = caller.user.as_ref()?;
    let groups: Vec<&str> = user.groups().collect();
    let stored = metadata.get(X_ACCOUNT_ACCESS_CONTROL.as_str())?;
    match account_acl::grant(stored, groups.iter().copied())? {
        _ if operation == Operation::ManageAccount => None,
        Grant::Admin => Some(Standing::Owner),
        Grant::ReadWrite if operation != Operation::WriteAccount => Some(Standing::Guest),
        Grant::ReadOnly if operation.reads() => Some(Standing::Guest),
        Grant::ReadWrite | Grant::ReadOnly => None,
    }
}

/// The answer to whom nothing grants it: 401 if we do not know who it is, else 403.
pub(crate) fn denied(caller: &Caller, path: Option<&Path<'_>>) -> Refusal {
    match caller.user {
        Some(_) => Refusal::new(StatusCode::FORBIDDEN),
        None => unauthorized(path.map(|path| path.account)),
    }
}

pub(crate) fn unauthorized(account: Option<&str>) -> Refusal {
    let realm = gateway::percent::encode_path(account.unwrap_or("unknown")).replace('/', "%2F");
    let challenge = value(format!("Swift realm=\"{realm}\""));
    Refusal::new(StatusCode::UNAUTHORIZED).with(header::WWW_AUTHENTICATE, challenge)
}

/// A caller that gave a token which is none: 401, whatever it wanted.
pub(crate) fn bad_token(account: Option<&str>) -> Response {
    unauthorized(account).into_response()
}

/// Where the caller says it comes from.
pub(crate) fn referrer(headers: &http::HeaderMap) -> Option<&str> {
    let value: Option<&HeaderValue> = headers.get(header::REFERER);
    value.and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use namespace::{Role, User};

    use super::*;
    use crate::identity::Identity;

    const ALL: [Operation; 7] = [
        Operation::ReadAccount,
        Operation::WriteAccount,
        Operation::ManageAccount,
        Operation::ReadContainer,
        Operation::WriteContainer,
        Operation::ReadObject,
        Operation::WriteObject,
    ];

    fn identity(account: &str, role: Role, groups: &[&str]) -> Option<Arc<Identity>> {
        Some(Arc::new(Identity::new(Arc::new(User {
            account: account.to_owned(),
            name: "u".to_owned(),
            role,
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            generation: 0,
        }))))
    }

    fn user(account: &str, role: Role) -> Caller {
        Caller {
            user: identity(account, role, &[]),
            service: None,
        }
    }

    fn one(name: &str, value: &'static str) -> Metadata {
        [(name.to_owned(), Bytes::from_static(value.as_bytes()))].into()
    }

    /// One letter for each operation: `r`eseller, `o`wner, `g`uest, `-` denied.
    fn row(decide: impl Fn(Operation) -> Option<Standing>) -> String {
        let letter = |operation| match decide(operation) {
            Some(Standing::Reseller) => 'r',
            Some(Standing::Owner) => 'o',
            Some(Standing::Guest) => 'g',
            None => '-',
        };
        ALL.into_iter().map(letter).collect()
    }

    #[test]
    fn roles() {
        let of = |caller: Caller, account: &str| row(|op| by_role(op, account, &caller));
        assert_eq!(of(user("test", Role::Owner), "AUTH_test"), "oo-oooo");
        assert_eq!(of(user("test", Role::Member), "AUTH_test"), "-------");
        assert_eq!(of(user("test", Role::Owner), "AUTH_test2"), "-------");
        assert_eq!(of(user("test", Role::Owner), "test"), "-------");
        assert_eq!(of(user("admin", Role::Reseller), "AUTH_test"), "rrrrrrr");
        assert_eq!(of(user("admin", Role::Reseller), "OTHER_test"), "-------");
        assert_eq!(of(Caller::default(), "AUTH_test"), "-------");
    }

    #[test]
    fn service_accounts_need_both_tokens() {
        let service = || identity("svc", Role::Member, &["service"]);
        let owner = || identity("test", Role::Owner, &[]);
        for (user, through, expected) in [
            (owner(), service(), "oo-oooo"),
            (owner(), None, "-------"),
            (owner(), owner(), "-------"),
            (service(), None, "-------"),
            (service(), service(), "-------"),
            (None, service(), "-------"),
        ] {
            let caller = Caller {
                user,
                service: through,
            };
            assert_eq!(row(|op| by_role(op, "SERVICE_test", &caller)), expected);
        }
    }

    #[test]
    fn container_acls() {
        let stranger = user("x", Role::Member);
        let anybody = Caller::default();
        for (name, acl, caller, expected) in [
            ("x-container-read", "x:u", &stranger, "---g-g-"),
            ("x-container-read", "x", &stranger, "---g-g-"),
            ("x-container-read", "y", &stranger, "-------"),
            ("x-container-read", "x", &anybody, "-------"),
            ("x-container-read", ".r:*", &anybody, "-----g-"),
            ("x-container-read", ".r:*,.rlistings", &anybody, "---g-g-"),
            ("x-container-read", ".rlistings", &anybody, "-------"),
            ("x-container-write", "x:u", &stranger, "------g"),
            ("x-container-write", "x:u", &anybody, "-------"),
        ] {
            let metadata = one(name, acl);
            let seen = row(|op| by_container(op, &metadata, None, caller));
            assert_eq!(seen, expected, "{name}: {acl}");
        }
        let none = Metadata::new();
        assert_eq!(
            row(|op| by_container(op, &none, None, &stranger)),
            "-------"
        );
    }

    #[test]
    fn account_acls() {
        let stranger = user("x", Role::Member);
        for (acl, expected) in [
            (r#"{"admin":["x:u"]}"#, "oo-oooo"),
            (r#"{"read-write":["x"]}"#, "g--gggg"),
            (r#"{"read-only":["x:u"]}"#, "g--g-g-"),
            (r#"{"admin":["y"]}"#, "-------"),
            ("broken", "-------"),
        ] {
            let metadata = one("x-account-access-control", acl);
            assert_eq!(
                row(|op| by_account(op, &metadata, &stranger)),
                expected,
                "{acl}"
            );
            let anybody = Caller::default();
            assert_eq!(
                row(|op| by_account(op, &metadata, &anybody)),
                "-------",
                "{acl}"
            );
        }
    }
}
