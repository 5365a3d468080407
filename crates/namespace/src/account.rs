//! Accounts.

use std::sync::Arc;

use base::Timestamp;

use crate::{Entry, Error, ListQuery, Metadata, MetadataChange, MetadataLimits, Namespace};

/// An account as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub created: Timestamp,
    pub metadata: Metadata,
}

/// What an account holds: exact, summed over its containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub containers: u64,
    pub objects: u64,
    pub bytes: u64,
}

/// A line of an account's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEntry {
    pub name: String,
    pub objects: u64,
    pub bytes: u64,
    /// The container's last PUT or POST.
    pub modified: Timestamp,
}

impl Namespace {
    /// The account as it is now, `None` if nothing was ever stored in it. Cheap enough for every
    /// request, so nothing is copied.
    pub async fn account(&self, _account: &str) -> Result<Option<Arc<Account>>, Error> {
        todo!()
    }

    pub async fn usage(&self, _account: &str) -> Result<Usage, Error> {
        todo!()
    }

    /// Merges metadata, making the account if it is missing.
    pub async fn update_account(
        &self,
        _account: &str,
        _change: MetadataChange,
        _limits: MetadataLimits,
    ) -> Result<crate::Created, Error> {
        todo!()
    }

    /// Deletes an account that holds no container; [`Error::NotEmpty`] otherwise.
    pub async fn delete_account(&self, _account: &str) -> Result<(), Error> {
        todo!()
    }

    pub async fn list_containers(
        &self,
        _account: &str,
        _query: &ListQuery,
    ) -> Result<Vec<Entry<ContainerEntry>>, Error> {
        todo!()
    }
}
