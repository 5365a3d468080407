//! Users, kept in the control shard.

use std::sync::Arc;

use crate::{Created, Error, Namespace};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything in its own account.
    Owner,
    /// What ACLs grant.
    Member,
    /// Everything in every account; may make and delete accounts.
    Reseller,
}

/// A user, without the password.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    pub account: String,
    pub name: String,
    pub role: Role,
    /// Further groups, as ACLs name them.
    pub groups: Vec<String>,
    /// Changes with the password, so that old tokens die.
    pub generation: u64,
}

/// The users of the cluster.
pub struct Users {}

impl Users {
    /// Adds a user or replaces one. `password` must not be empty.
    pub async fn put(
        &self,
        _account: &str,
        _name: &str,
        _role: Role,
        _groups: Vec<String>,
        _password: &str,
    ) -> Result<Created, Error> {
        todo!()
    }

    pub async fn set_password(
        &self,
        _account: &str,
        _name: &str,
        _password: &str,
    ) -> Result<(), Error> {
        todo!()
    }

    pub async fn remove(&self, _account: &str, _name: &str) -> Result<(), Error> {
        todo!()
    }

    pub async fn list(&self) -> Result<Vec<User>, Error> {
        todo!()
    }

    /// The user as it is now; cheap enough for every request, so nothing is copied.
    pub async fn get(&self, _account: &str, _name: &str) -> Result<Option<Arc<User>>, Error> {
        todo!()
    }

    /// The user, if the password is right. Takes as long for an unknown user as for a wrong
    /// password, and runs at most a few at a time.
    pub async fn verify(
        &self,
        _account: &str,
        _name: &str,
        _password: &str,
    ) -> Result<Option<User>, Error> {
        todo!()
    }

    /// A random secret of the cluster for one purpose; made at its first use.
    pub async fn secret(&self, _purpose: &str) -> Result<[u8; 32], Error> {
        todo!()
    }
}

impl Namespace {
    pub fn users(&self) -> &Users {
        todo!()
    }
}
