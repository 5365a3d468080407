//! Objects: what they are, and how they are found.

use std::sync::Arc;

use base::{ContainerId, Timestamp, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shard::{Execution, Query, View};

use crate::listing::{Keys, Step, Verdict, Window};
use crate::pin::Pin;
use crate::row::{self, Body, ObjectHead, ObjectRead, Raw};
use crate::{
    Container, Created, Entry, Error, ListQuery, Metadata, Missing, Namespace, Stored, container,
    key,
};

/// The most that one answer lists, but for its last line: all that front doors ask for, unless names are
/// very long.
const LISTED_ROWS_MAX: usize = 10_000;
const LISTED_BYTES_MAX: usize = if cfg!(test) { 200 } else { 4 << 20 };

/// An object as it was when it was looked up. [`Namespace::read`] gives its body, even if the object
/// is deleted or overwritten meanwhile.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Of this node.
    #[serde(skip)]
    pub(crate) pin: Option<Arc<Pin>>,
}

/// Where the bytes of a looked up object are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// The body, if it was fetched.
    Inline(Option<Bytes>),
    Chunks {
        version: Version,
        manifest: Bytes,
    },
    Parts {
        version: Version,
    },
}

/// A line of a container's listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetch {
    /// Nothing: for HEAD and for writes.
    Head,
    /// A small body, so that [`Namespace::read`] needs no further trip: for GET.
    Body,
}

/// A container and an object in it, seen at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// The container of a name, and an object in it, at one moment.
#[derive(Serialize, Deserialize)]
pub(crate) struct Find {
    account: String,
    container: String,
    name: String,
    look: Look,
}

/// How an object is looked for.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Look {
    expired: Expired,
    /// By the clock of the node that asks.
    now: Timestamp,
    fetch: Fetch,
}

impl Query for Find {
    const NAME: &'static str = "object.find";

    type Output = Found;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Found, Execution<Error>> {
        let container = container::read(view, &self.account, &self.container)?;
        let object = self.look.read(view, container.id, &self.name)?;
        Ok(Found { container, object })
    }
}

/// An object of a container that is known.
#[derive(Serialize, Deserialize)]
pub(crate) struct Get {
    container: ContainerId,
    name: String,
    look: Look,
}

impl Query for Get {
    const NAME: &'static str = "object.get";

    type Output = Option<Object>;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Option<Object>, Execution<Error>> {
        Ok(self.look.read(view, self.container, &self.name)?)
    }
}

impl Look {
    fn read(self, view: &View, id: ContainerId, name: &str) -> Result<Option<Object>, Error> {
        let Some(bytes) = view.get(&key::object(id, name))? else {
            return Ok(None);
        };
        let row: ObjectRead<'_> = row::decode(&bytes)?;
        if self.expired == Expired::Hide && row.head.is_expired(self.now) {
            return Ok(None);
        }
        let place = match row.body {
            Body::Inline { .. } if row.head.bytes == 0 => Place::Inline(Some(Bytes::new())),
            Body::Inline { .. } if self.fetch == Fetch::Head => Place::Inline(None),
            Body::Inline { end } => {
                Place::Inline(Some(read_inline(view, id, name, &row.head, end)?))
            }
            Body::Chunks { version, manifest } => Place::Chunks {
                version,
                manifest: bytes.slice_ref(manifest.0),
            },
            Body::Parts { version } => Place::Parts { version },
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
            pin: None,
        }))
    }
}

/// The small body of an object that was looked up without it.
#[derive(Serialize, Deserialize)]
pub(crate) struct GetInline {
    pub(crate) container: ContainerId,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
}

impl Query for GetInline {
    const NAME: &'static str = "object.inline";

    type Output = Bytes;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Bytes, Execution<Error>> {
        let row = view.get(&key::object(self.container, &self.name))?;
        let row = row.ok_or(Error::NotFound(Missing::Object))?;
        let row: ObjectRead<'_> = row::decode(&row)?;
        match row.body {
            Body::Inline { end } if row.head.created == self.created => Ok(read_inline(
                view,
                self.container,
                &self.name,
                &row.head,
                end,
            )?),
            _ => Err(Error::Changed.into()),
        }
    }
}

/// The next lines of a container's listing.
#[derive(Serialize, Deserialize)]
pub(crate) struct List {
    container: ContainerId,
    query: ListQuery,
    now: Timestamp,
}

/// Lines in their order, all of one moment.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    entries: Vec<Entry<ObjectEntry>>,
    /// Whether nothing follows within the limit; otherwise the last entry is the next marker.
    is_all: bool,
}

impl Query for List {
    const NAME: &'static str = "object.list";

    type Output = Listed;
    type Error = Error;

    fn answer(&self, view: &View) -> Result<Listed, Execution<Error>> {
        let Self { query, now, .. } = self;
        let base = key::objects(self.container);
        let window = Window::new(query, &base, Keys::Name);
        let (mut entries, mut bytes, mut is_all) = (Vec::new(), 0, true);
        window.scan(view, |name, _, value| {
            let verdict = window.judge(name);
            if let Verdict::Pass(end) = verdict {
                return Ok(Step::Past(end));
            }
            let (head, _) = row::decode_front::<ObjectHead<'_>>(value)?;
            if verdict == Verdict::Skip || head.is_expired(*now) {
                return Ok(Step::Next);
            }
            let step = if let Verdict::RollUp(end) = verdict {
                if !window.was_shown(&name[..end]) {
                    bytes += end;
                    entries.push(Entry::Subdir(name[..end].to_owned()));
                }
                Step::Past(end)
            } else {
                bytes += name.len() + head.content_type.len();
                entries.push(Entry::Row(entry(name, head)));
                Step::Next
            };
            if entries.len() >= query.limit {
                return Ok(Step::Stop);
            }
            if bytes >= LISTED_BYTES_MAX || entries.len() >= LISTED_ROWS_MAX {
                is_all = false;
                return Ok(Step::Stop);
            }
            Ok(step)
        })?;
        Ok(Listed { entries, is_all })
    }
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
        self.chunks().serves_client();
        let shard = self.container_shard(account, container);
        let find = Find {
            account: account.to_owned(),
            container: container.to_owned(),
            name: name.to_owned(),
            look: self.look(expired, fetch),
        };
        let mut found = self.query(shard, find).await?;
        if let Some(object) = &mut found.object {
            self.pin(found.container.id, object);
        }
        Ok(found)
    }

    /// The newest object of that name.
    pub async fn object(
        &self,
        container: &Container,
        name: &str,
        expired: Expired,
    ) -> Result<Object, Error> {
        let get = Get {
            container: container.id,
            name: name.to_owned(),
            look: self.look(expired, Fetch::Body),
        };
        let object = self.query(container.shard(), get).await?;
        let mut object = object.ok_or(Error::NotFound(Missing::Object))?;
        self.pin(container.id, &mut object);
        Ok(object)
    }

    fn look(&self, expired: Expired, fetch: Fetch) -> Look {
        let now = self.now();
        Look {
            expired,
            now,
            fetch,
        }
    }

    /// Keeps the chunks of an object from being collected as long as it is looked at.
    fn pin(&self, container: ContainerId, object: &mut Object) {
        let version = match object.place {
            Place::Inline(_) => return,
            Place::Chunks { version, .. } | Place::Parts { version } => version,
        };
        let now = self.inner.env.clock.monotonic();
        let pin = self.inner.pins.pin(container, version, &object.name, now);
        object.pin = Some(Arc::new(pin));
    }

    /// Lists the objects of a container. An expired object is not listed, though it is counted until
    /// it is removed. A listing of up to 10,000 lines and 4 MiB is of one moment.
    pub async fn list_objects(
        &self,
        container: &Container,
        query: &ListQuery,
    ) -> Result<Vec<Entry<ObjectEntry>>, Error> {
        let mut entries: Vec<Entry<ObjectEntry>> = Vec::new();
        let (now, mut query) = (self.now(), query.clone());
        while query.limit > 0 {
            let list = List {
                container: container.id,
                query: query.clone(),
                now,
            };
            let listed = self.query(container.shard(), list).await?;
            query.limit = query.limit.saturating_sub(listed.entries.len());
            entries.extend(listed.entries);
            match entries.last() {
                Some(last) if !listed.is_all => query.marker = last.name().to_owned(),
                _ => break,
            }
        }
        Ok(entries)
    }
}

impl Entry<ObjectEntry> {
    fn name(&self) -> &str {
        match self {
            Self::Row(row) => &row.name,
            Self::Subdir(subdir) => subdir,
        }
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

/// The body of an object whose row says that it is inline, and how it ends.
fn read_inline(
    view: &View,
    id: ContainerId,
    name: &str,
    head: &ObjectHead<'_>,
    end: Raw<'_>,
) -> Result<Bytes, Error> {
    let body = view.get(&key::body(id, name))?;
    let body = body.map(|body| match end.0 {
        [] => body,
        end => [&body[..], end].concat().into(),
    });
    let body = body.filter(|body| body.len() as u64 == head.bytes);
    body.ok_or_else(|| Error::Damaged(format!("an object in {id} lacks its inline body")))
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
