//! Objects: what they are, and how they are found.

use std::sync::Arc;

use base::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::View;

use crate::listing::{Keys, Step, Verdict, Window};
use crate::pin::Pin;
use crate::row::{self, Body, ObjectHead, ObjectRead};
use crate::{
    Container, Created, Entry, Error, ListQuery, Metadata, Missing, Namespace, Stored, container,
    key,
};

/// An object as it was when it was looked up. [`Namespace::read`] gives its body, even if the object
/// is deleted or overwritten meanwhile.
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
    pub(crate) place: Place,
}

/// Where the bytes of a looked up object are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The body, if it was fetched.
    Inline(Option<Bytes>),
    Chunks {
        manifest: Bytes,
        _pin: Arc<Pin>,
    },
    Parts {
        version: Timestamp,
        _pin: Arc<Pin>,
    },
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expired {
    Hide,
    Show,
}

/// What must hold for a write to happen; checked under the latch, against the present state. An
/// expired object counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl Condition {
    /// Checks against the MD5 of what is there.
    pub(crate) fn check(&self, current: Option<&[u8; 16]>) -> Result<(), Error> {
        let holds = match (self, current) {
            (Self::None, _) => true,
            (Self::Absent, current) => current.is_none(),
            (Self::Present, current) => current.is_some(),
            (Self::Matches(any), Some(md5)) => any.contains(md5),
            (Self::Matches(_), None) => false,
            (Self::Differs(none), Some(md5)) => !none.contains(md5),
            (Self::Differs(_), None) => true,
        };
        if holds {
            Ok(())
        } else {
            Err(Error::Precondition)
        }
    }
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
#[derive(Serialize, Deserialize)]
pub struct PostObject {
    pub name: String,
    pub content_type: Option<String>,
    pub metadata: Metadata,
    pub delete_at: Option<u64>,
    pub expired: Expired,
}

/// What a PUT answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        account: &str,
        container: &str,
        name: &str,
        expired: Expired,
        fetch: Fetch,
    ) -> Result<Found, Error> {
        let shard = self.container_shard(account, container);
        let view = self.shard(shard).view().await?;
        let container = container::read(&view, account, container)?;
        let object = self.read_object(&view, &container, name, expired, fetch)?;
        Ok(Found { container, object })
    }

    /// The newest object of that name.
    pub async fn object(
        &self,
        container: &Container,
        name: &str,
        expired: Expired,
    ) -> Result<Object, Error> {
        let view = self.shard(container.shard()).view().await?;
        self.read_object(&view, container, name, expired, Fetch::Body)?
            .ok_or(Error::NotFound(Missing::Object))
    }

    fn read_object(
        &self,
        view: &View,
        container: &Container,
        name: &str,
        expired: Expired,
        fetch: Fetch,
    ) -> Result<Option<Object>, Error> {
        let Some(bytes) = view.get(&key::object(container.id, name))? else {
            return Ok(None);
        };
        let row: ObjectRead<'_> = row::decode(&bytes)?;
        if expired == Expired::Hide && row.head.is_expired(self.now()) {
            return Ok(None);
        }
        let pin = |version| Arc::new(self.inner.pins.pin(container.id, version));
        let place = match row.body {
            Body::Inline if row.head.bytes == 0 => Place::Inline(Some(Bytes::new())),
            Body::Inline if fetch == Fetch::Head => Place::Inline(None),
            Body::Inline => Place::Inline(Some(read_inline(view, container, name, &row.head)?)),
            Body::Chunks { version, manifest } => Place::Chunks {
                manifest: bytes.slice_ref(manifest.0),
                _pin: pin(version),
            },
            Body::Parts { version } => Place::Parts {
                version,
                _pin: pin(version),
            },
        };
        Ok(Some(Object {
            name: name.to_owned(),
            created: row.head.created,
            modified: row.head.modified,
            content_type: row.head.content_type.clone().into_owned(),
            md5: row.head.md5,
            bytes: row.head.bytes,
            delete_at: row.head.delete_at,
            metadata: row.metadata.owned(&bytes),
            place,
        }))
    }

    /// Lists the objects of a container. An expired object is not listed, though it is counted until
    /// it is removed.
    pub async fn list_objects(
        &self,
        container: &Container,
        query: &ListQuery,
    ) -> Result<Vec<Entry<ObjectEntry>>, Error> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let now = self.now();
        let base = key::objects(container.id);
        let window = Window::new(query, &base, Keys::Name);
        let view = self.shard(container.shard()).view().await?;
        let mut entries = Vec::new();
        window.scan(&view, |name, _, value| {
            let verdict = window.judge(name);
            if let Verdict::Pass(end) = verdict {
                return Ok(Step::Past(end));
            }
            let (head, _) = row::decode_front::<ObjectHead<'_>>(value)?;
            if verdict == Verdict::Skip || head.is_expired(now) {
                return Ok(Step::Next);
            }
            let step = if let Verdict::RollUp(end) = verdict {
                if !window.was_shown(&name[..end]) {
                    entries.push(Entry::Subdir(name[..end].to_owned()));
                }
                Step::Past(end)
            } else {
                entries.push(Entry::Row(entry(name, head)));
                Step::Next
            };
            Ok(if entries.len() < query.limit {
                step
            } else {
                Step::Stop
            })
        })?;
        Ok(entries)
    }
}

fn entry(name: &str, head: ObjectHead<'_>) -> ObjectEntry {
    ObjectEntry {
        name: name.to_owned(),
        bytes: head.bytes,
        md5: head.md5,
        content_type: head.content_type.into_owned(),
        modified: head.modified,
    }
}

/// The body of an object whose row says that it is inline.
pub(crate) fn read_inline(
    view: &View,
    container: &Container,
    name: &str,
    head: &ObjectHead<'_>,
) -> Result<Bytes, Error> {
    let body = view.get(&key::body(container.id, name))?;
    let body = body.filter(|body| body.len() as u64 == head.bytes);
    body.ok_or_else(|| {
        let id = container.id;
        Error::Damaged(format!("an object in {id} lacks its inline body"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_or_not() {
        let (a, b) = ([1; 16], [2; 16]);
        let cases = [
            (Condition::None, true, true),
            (Condition::Absent, true, false),
            (Condition::Present, false, true),
            (Condition::Matches(vec![b, a]), false, true),
            (Condition::Matches(vec![b]), false, false),
            (Condition::Differs(vec![b, a]), true, false),
            (Condition::Differs(vec![b]), true, true),
        ];
        for (condition, if_absent, if_present) in cases {
            assert_eq!(condition.check(None).is_ok(), if_absent, "{condition:?}");
            assert_eq!(
                condition.check(Some(&a)).is_ok(),
                if_present,
                "{condition:?}"
            );
        }
    }
}
