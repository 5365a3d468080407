//! Who calls.

use std::sync::Arc;

use namespace::{Role, User};

/// A user and the groups that it is in, as ACLs name them.
pub(crate) struct Identity {
    user: Arc<User>,
    /// The account, `account:user`, the user's own groups, and for an owner its storage account.
    groups: Vec<String>,
}

/// The group that lends its members' tokens to service accounts.
const SERVICE_GROUP: &str = "service";

/// What storage accounts of users begin with.
pub(crate) const ACCOUNT_PREFIX: &str = "AUTH_";
/// What storage accounts begin with that a user reaches through a service only.
pub(crate) const SERVICE_PREFIX: &str = "SERVICE_";

impl Identity {
    pub(crate) fn new(user: Arc<User>) -> Self {
        let mut groups = vec![
            user.account.clone(),
            format!("{}:{}", user.account, user.name),
        ];
        groups.extend(user.groups.iter().cloned());
        if user.role == Role::Owner {
            groups.push(storage_account(&user.account));
        }
        Self { user, groups }
    }

    /// Whether this is still right for `user`.
    pub(crate) fn is_of(&self, user: &Arc<User>) -> bool {
        Arc::ptr_eq(&self.user, user) || self.user == *user
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(String::as_str)
    }

    pub(crate) fn is_reseller(&self) -> bool {
        self.user.role == Role::Reseller
    }

    pub(crate) fn is_service(&self) -> bool {
        self.user.groups.iter().any(|group| group == SERVICE_GROUP)
    }

    /// Owns what belongs to this account of users.
    pub(crate) fn is_owner_of(&self, account: &str) -> bool {
        self.user.role == Role::Owner && self.user.account == account
    }
}

/// The storage account of an account of users.
pub(crate) fn storage_account(account: &str) -> String {
    format!("{ACCOUNT_PREFIX}{account}")
}

/// Who calls, and which service it calls through.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    pub(crate) user: Option<Arc<Identity>>,
    pub(crate) service: Option<Arc<Identity>>,
}

impl Caller {
    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.user.iter().flat_map(|identity| identity.groups())
    }
}
