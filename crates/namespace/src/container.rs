//! Containers.

use base::{ContainerId, Timestamp};

use crate::{
    Entry, Error, ListQuery, Metadata, MetadataChange, MetadataLimits, Namespace, ObjectEntry,
};

/// Whether a PUT made something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    Existed,
}

/// A container as it was when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub account: String,
    pub name: String,
    pub id: ContainerId,
    pub created: Timestamp,
    /// The last PUT or POST of the container itself.
    pub modified: Timestamp,
    pub metadata: Metadata,
    pub objects: u64,
    pub bytes: u64,
}

impl Namespace {
    pub async fn container(&self, _account: &str, _container: &str) -> Result<Container, Error> {
        todo!()
    }

    /// Makes the container (and its account) or merges metadata into the one that is there.
    pub async fn put_container(
        &self,
        _account: &str,
        _container: &str,
        _change: MetadataChange,
        _limits: MetadataLimits,
    ) -> Result<Created, Error> {
        todo!()
    }

    /// Merges metadata into a container that must exist.
    pub async fn post_container(
        &self,
        _account: &str,
        _container: &str,
        _change: MetadataChange,
        _limits: MetadataLimits,
    ) -> Result<(), Error> {
        todo!()
    }

    pub async fn delete_container(&self, _account: &str, _container: &str) -> Result<(), Error> {
        todo!()
    }

    pub async fn list_objects(
        &self,
        _container: &Container,
        _query: &ListQuery,
    ) -> Result<Vec<Entry<ObjectEntry>>, Error> {
        todo!()
    }
}
