//! Users, kept in the control shard.
//!
//! What a request needs of a user is remembered in memory and forgotten with every change.

mod password;

use std::collections::HashMap;
use std::sync::Arc;

use base::env::Env;
use base::{ShardId, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Latch, Procedure, Shard, Shards, View};

use crate::cache::{Cache, Life};
use crate::key::{self, Parts, table};
use crate::row::{self, SecretRow, UserRow};
use crate::users::password::Passwords;
use crate::{Created, Error, Missing, patience, rows};

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
    /// Random, and another one with each password, so that old tokens die: also those of a user of
    /// the same name that was removed.
    pub generation: u64,
}

impl User {
    fn new(account: &str, name: &str, row: &UserRow) -> Self {
        Self {
            account: account.to_owned(),
            name: name.to_owned(),
            role: row.role,
            groups: row.groups.clone(),
            generation: row.generation,
        }
    }
}

/// The users of one account, by name.
type OfAccount = HashMap<String, Arc<User>>;

/// The users of the cluster.
pub struct Users {
    env: Env,
    shards: Arc<Shards>,
    known: Cache<Arc<OfAccount>>,
    passwords: Passwords,
}

fn read(view: &View, key: &[u8]) -> Result<Option<UserRow>, Error> {
    let row = view.get(key)?;
    row.map(|row| row::decode_owned(&row)).transpose()
}

/// What becomes of a user.
#[derive(Serialize, Deserialize)]
enum Change {
    Put(UserRow),
    /// Of one who must be there.
    Password {
        generation: u64,
        verifier: String,
    },
    Remove,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Write {
    key: Bytes,
    change: Change,
}

impl Procedure for Write {
    const NAME: &'static str = "user.write";

    type Output = Created;
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.key.clone())]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, Created), Execution<Error>> {
        let before = read(view, &self.key)?;
        let created = match &before {
            Some(_) => Created::Existed,
            None => Created::New,
        };
        let missing = || Error::NotFound(Missing::User);
        let mut batch = Batch::new();
        match &self.change {
            Change::Put(row) => batch.put(self.key.clone(), row::encode(row)),
            Change::Password {
                generation,
                verifier,
            } => {
                let row = UserRow {
                    generation: *generation,
                    verifier: verifier.clone(),
                    ..before.ok_or_else(missing)?
                };
                batch.put(self.key.clone(), row::encode(&row));
            }
            Change::Remove => {
                before.ok_or_else(missing)?;
                batch.delete(self.key.clone());
            }
        }
        Ok((batch, created))
    }
}

/// Reads a secret, or makes this one the secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct Secret {
    key: Bytes,
    fresh: SecretRow,
}

impl Procedure for Secret {
    const NAME: &'static str = "secret.make";

    type Output = [u8; 32];
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        vec![Latch::Exclusive(self.key.clone())]
    }

    fn plan(&self, _: Timestamp, view: &View) -> Result<(Batch, [u8; 32]), Execution<Error>> {
        let mut batch = Batch::new();
        let SecretRow { secret } = match view.get(&self.key)? {
            Some(row) => row::decode_owned(&row)?,
            None => {
                batch.put(self.key.clone(), row::encode(&self.fresh));
                self.fresh
            }
        };
        Ok((batch, secret))
    }
}

impl Users {
    pub(crate) fn new(env: Env, shards: Arc<Shards>, life: Life) -> Self {
        Self {
            passwords: Passwords::new(env.clone()),
            env,
            shards,
            known: Cache::new(life),
        }
    }

    fn control(&self) -> &Shard {
        self.shards.get(ShardId::CONTROL)
    }

    async fn write(&self, account: &str, name: &str, change: Change) -> Result<Created, Error> {
        let write = Write {
            key: key::user(account, name),
            change,
        };
        let written = patience::execute(self.control(), write).await;
        // Also if the outcome is unknown.
        self.known.forget(account);
        written
    }

    /// Adds a user or replaces one. `password` must not be empty.
    pub async fn put(
        &self,
        account: &str,
        name: &str,
        role: Role,
        groups: Vec<String>,
        password: &str,
    ) -> Result<Created, Error> {
        key::check_name("account", account, key::ACCOUNT_NAME_BYTES_MAX)?;
        key::check_name("user", name, key::ACCOUNT_NAME_BYTES_MAX)?;
        let row = UserRow {
            role,
            groups,
            generation: self.env.entropy.u64(),
            verifier: self.passwords.protect(password).await?,
        };
        self.write(account, name, Change::Put(row)).await
    }

    pub async fn set_password(
        &self,
        account: &str,
        name: &str,
        password: &str,
    ) -> Result<(), Error> {
        let change = Change::Password {
            generation: self.env.entropy.u64(),
            verifier: self.passwords.protect(password).await?,
        };
        self.write(account, name, change).await?;
        Ok(())
    }

    pub async fn remove(&self, account: &str, name: &str) -> Result<(), Error> {
        self.write(account, name, Change::Remove).await?;
        Ok(())
    }

    /// All users, by account and name.
    pub async fn list(&self) -> Result<Vec<User>, Error> {
        let mut users = Vec::new();
        let add = |user| users.push(user);
        self.visit(Bytes::from_static(&[table::USER]), add).await?;
        users.sort_by(|a, b| (&a.account, &a.name).cmp(&(&b.account, &b.name)));
        Ok(users)
    }

    /// Whether there is no user yet: the first start.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        let from = Bytes::from_static(&[table::USER]);
        let to = key::end_of(&from);
        let first = rows::page(self.control(), from, to).await?;
        Ok(first.rows.is_empty())
    }

    /// The user as it is now, or was within the last second if another node has changed it; cheap
    /// enough for every request, so nothing is copied.
    pub async fn get(&self, account: &str, name: &str) -> Result<Option<Arc<User>>, Error> {
        let users = match self.known.get(account) {
            Ok(users) => users,
            Err(epoch) => {
                let users = Arc::new(self.load(account).await?);
                self.known.insert(epoch, account, users.clone());
                users
            }
        };
        Ok(users.get(name).cloned())
    }

    async fn load(&self, account: &str) -> Result<OfAccount, Error> {
        let mut users = OfAccount::new();
        if account.len() > key::ACCOUNT_NAME_BYTES_MAX {
            return Ok(users);
        }
        let add = |user: User| {
            users.insert(user.name.clone(), Arc::new(user));
        };
        self.visit(key::user(account, ""), add).await?;
        Ok(users)
    }

    /// Visits the users whose keys begin with `prefix`.
    async fn visit(&self, prefix: Bytes, mut visit: impl FnMut(User)) -> Result<(), Error> {
        let to = key::end_of(&prefix);
        let mut from = Some(prefix);
        while let Some(next) = from {
            let page = rows::page(self.control(), next, to.clone()).await?;
            for (key, value) in &page.rows {
                let (account, name) = names(key)?;
                visit(User::new(account, name, &row::decode_owned(value)?));
            }
            from = page.next;
        }
        Ok(())
    }

    /// The user, if the password is right. Takes as long for an unknown user as for a wrong
    /// password, and runs at most a few at a time.
    pub async fn verify(
        &self,
        account: &str,
        name: &str,
        password: &str,
    ) -> Result<Option<User>, Error> {
        let lens = [account.len(), name.len()];
        let row: Option<UserRow> = if lens.iter().all(|len| *len <= key::ACCOUNT_NAME_BYTES_MAX) {
            rows::get(self.control(), key::user(account, name)).await?
        } else {
            None
        };
        let verifier = row.as_ref().map(|row| row.verifier.clone());
        let is_right = self.passwords.verify(verifier, password).await?;
        let row = row.filter(|_| is_right);
        Ok(row.map(|row| User::new(account, name, &row)))
    }

    /// A random secret of the cluster for one purpose; made at its first use.
    pub async fn secret(&self, purpose: &str) -> Result<[u8; 32], Error> {
        let mut fresh = SecretRow { secret: [0; 32] };
        self.env.entropy.fill(&mut fresh.secret);
        let key = key::secret(purpose);
        patience::execute(self.control(), Secret { key, fresh }).await
    }
}

/// The account and the name of a user's key.
fn names(key: &[u8]) -> Result<(&str, &str), Error> {
    let mut parts = Parts::of(table::USER, key)?;
    Ok((parts.name()?, parts.last_name()?))
}

#[cfg(test)]
mod tests;
