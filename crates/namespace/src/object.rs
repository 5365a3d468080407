//! Objects.

use base::Timestamp;

use crate::{Container, Created, Error, Metadata, Namespace, Stored};

/// An object as it was when it was looked up. [`Namespace::read`] gives its body.
#[derive(Clone, Debug)]
pub struct Object {
    pub name: String,
    /// The PUT that made it.
    pub created: Timestamp,
    /// The PUT or the last POST.
    pub modified: Timestamp,
    pub content_type: String,
    /// MD5 of the body.
    pub md5: [u8; 16],
    pub bytes: u64,
    /// Seconds since the Unix epoch from which on it is gone.
    pub delete_at: Option<u64>,
    pub metadata: Metadata,
    // The body's place follows: private to the namespace.
}

/// A line of a container's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    pub name: String,
    pub bytes: u64,
    pub md5: [u8; 16],
    pub content_type: String,
    pub modified: Timestamp,
}

/// Whether an expired object that the expirer has not reached yet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    Hide,
    Show,
}

/// What must hold for a write to happen; checked under the latch, against the present state. An
/// expired object counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match`: one of these MD5s.
    Matches(Vec<[u8; 16]>),
    /// `If-None-Match`: absent, or none of these MD5s.
    Differs(Vec<[u8; 16]>),
}

/// Whether the account's quota binds this writer; a reseller's writes are exempt from it. The
/// container's quota binds everyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountQuota {
    #[default]
    Enforced,
    Exempt,
}

/// What a lookup of an object also fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Nothing: for HEAD and for writes.
    Head,
    /// A small body, so that [`Namespace::read`] needs no further trip: for GET.
    Body,
}

/// A container and an object in it, seen at one moment.
#[derive(Clone, Debug)]
pub struct Found {
    pub container: Container,
    /// `None` if there is none of that name.
    pub object: Option<Object>,
}

/// A PUT whose body is already stored.
pub struct PutObject {
    pub name: String,
    pub content_type: String,
    pub metadata: Metadata,
    pub delete_at: Option<u64>,
    pub condition: Condition,
    pub account_quota: AccountQuota,
    pub stored: Stored,
}

/// A POST: replaces metadata and expiry; keeps the content type if none is given.
pub struct PostObject {
    pub name: String,
    pub content_type: Option<String>,
    pub metadata: Metadata,
    pub delete_at: Option<u64>,
    pub expired: Expired,
}

/// What a PUT answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub modified: Timestamp,
    pub created: Created,
}

impl Namespace {
    /// The container and the newest object of that name, in one trip to the shard: the way to begin
    /// a GET or a HEAD of an object. Rights come with the container's metadata; whoever lacks them
    /// must not learn whether there is an object.
    pub async fn find(
        &self,
        _account: &str,
        _container: &str,
        _name: &str,
        _expired: Expired,
        _fetch: Fetch,
    ) -> Result<Found, Error> {
        todo!()
    }

    /// Whether a body of so many bytes (`None`: not known yet) would be refused for a quota now. For
    /// an early refusal, before the body is read; [`Namespace::put_object`] decides.
    pub async fn admit(
        &self,
        _container: &Container,
        _body_bytes: Option<u64>,
        _account_quota: AccountQuota,
    ) -> Result<(), Error> {
        todo!()
    }

    /// The newest object of that name.
    pub async fn object(
        &self,
        _container: &Container,
        _name: &str,
        _expired: Expired,
    ) -> Result<Object, Error> {
        todo!()
    }

    /// Fails with [`Error::Changed`] if the container is another one than `container`, or its
    /// metadata (so perhaps its ACL) has changed since. On any error the stored body is discarded.
    pub async fn put_object(
        &self,
        _container: &Container,
        _put: PutObject,
    ) -> Result<Written, Error> {
        todo!()
    }

    pub async fn post_object(
        &self,
        _container: &Container,
        _post: PostObject,
    ) -> Result<(), Error> {
        todo!()
    }

    /// Deletes; `if_delete_at` is the expirer's guard: [`Error::Precondition`] if it differs from the
    /// object's. An expired object is removed and [`Error::NotFound`] returned.
    pub async fn delete_object(
        &self,
        _container: &Container,
        _name: &str,
        _condition: Condition,
        _if_delete_at: Option<u64>,
    ) -> Result<(), Error> {
        todo!()
    }
}
