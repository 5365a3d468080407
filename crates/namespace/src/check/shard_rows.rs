//! The rows of one shard: whether each is what its key says, and those agree that belong together.

use std::ops::{Bound, ControlFlow};

use base::ShardId;
use bytes::Bytes;
use shard::{Scan, View};

use super::{Check, Counted, Need};
use crate::key::{self, BodyId, GarbageCount, Parts, table};
use crate::manifest::Manifest;
use crate::reader::each_chunk;
use crate::row::{
    self, AccountContainerRow, AccountRow, Body, ContainerHead, ContainerNameRow, ContainerRow,
    GarbageRow, ObjectHead, ObjectRead, PartRow, Raw, SecretRow, UploadRow, UserRow,
};
use crate::write::signed;
use crate::{Error, map_row, placement, scan};

pub(super) struct ShardRows<'a> {
    check: &'a mut Check,
    shard: ShardId,
    shards: u16,
    view: &'a View,
    garbage_bytes: i64,
    garbage_bodies: i64,
}

/// What is wrong with a row.
type Wrong = Error;

fn wrong(why: impl Into<String>) -> Wrong {
    Error::Damaged(why.into())
}

impl<'a> ShardRows<'a> {
    pub(super) fn new(check: &'a mut Check, shard: ShardId, shards: u16, view: &'a View) -> Self {
        Self {
            check,
            shard,
            shards,
            view,
            garbage_bytes: 0,
            garbage_bodies: 0,
        }
    }

    /// Visits every row. A row that is wrong is a problem; that rows cannot be read is an error.
    pub(super) fn check(mut self) -> Result<(), Error> {
        let view = self.view;
        let mut outcome = Ok(());
        view.scan(Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            match self.row(key, value) {
                Ok(()) => {}
                Err(Error::Damaged(why)) => {
                    self.check
                        .problem(Some(self.shard), key.escape_ascii(), why);
                }
                Err(other) => {
                    outcome = Err(other);
                    return Scan::Stop;
                }
            }
            Scan::Next
        })?;
        outcome?;
        self.garbage_counters()
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        match key.first().copied().unwrap_or_default() {
            table::ACCOUNT => self.account(key, value),
            table::BODY => self.inline_body(key, value),
            table::CONTAINER => self.container(key, value),
            table::GARBAGE => self.garbage(key, value),
            table::ACCOUNT_CONTAINER => self.line(key, value),
            table::CONTAINER_NAME => self.container_name(key, value),
            table::OBJECT => self.object(key, value),
            table::PART => self.part(key, value),
            table::SECRET => self.control::<SecretRow>(value),
            table::UPLOAD => self.upload(key, value),
            table::USER => {
                self.check.report.users += 1;
                self.control::<UserRow>(value)
            }
            table::EXPIRY => self.expiry(key, value),
            table::MEMBERSHIP => {
                if key == key::MAP {
                    map_row::decode(value)?;
                }
                self.belongs_to(ShardId::CONTROL)
            }
            _ => Err(wrong("there is no such table")),
        }
    }

    /// A row that only the control shard has.
    fn control<T: serde::de::DeserializeOwned>(&self, value: &[u8]) -> Result<(), Wrong> {
        row::decode_owned::<T>(value)?;
        self.belongs_to(ShardId::CONTROL)
    }

    fn belongs_to(&self, shard: ShardId) -> Result<(), Wrong> {
        if shard == self.shard {
            Ok(())
        } else {
            Err(wrong(format!("belongs to shard {shard}")))
        }
    }

    fn account(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let name = Parts::of(table::ACCOUNT, key)?.last_name()?;
        row::decode_owned::<AccountRow>(value)?;
        self.check.report.accounts += 1;
        self.check.accounts.insert(name.to_owned());
        self.belongs_to(placement::of_account(name, self.shards))
    }

    fn line(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let mut parts = Parts::of(table::ACCOUNT_CONTAINER, key)?;
        let account = parts.name()?;
        let (name, id) = parts.name_and_container()?;
        row::decode::<AccountContainerRow>(value)?;
        let line = (account.to_owned(), name.to_owned(), id);
        self.check.lines.insert(line);
        self.belongs_to(placement::of_account(account, self.shards))
    }

    fn container(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let mut parts = Parts::of(table::CONTAINER, key)?;
        let (account, name) = (parts.name()?, parts.last_name()?);
        let row = ContainerRow::decode(value)?;
        let counted = Counted {
            account: account.to_owned(),
            name: name.to_owned(),
            objects: 0,
            bytes: 0,
        };
        let id = row.head.id;
        self.check.report.containers += 1;
        if self.check.containers.insert(id, counted).is_some() {
            return Err(wrong(format!("another container has the id {id}")));
        }
        self.belongs_to(placement::of_container(account, name, self.shards))?;
        self.belongs_to(placement::of_id(id))?;
        match self.view.get(&key::container_name(id))? {
            Some(_) => Ok(()),
            None => Err(wrong("nothing leads from its id to its name")),
        }
    }

    fn container_name(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let id = Parts::of(table::CONTAINER_NAME, key)?.container()?;
        let row: ContainerNameRow = row::decode_owned(value)?;
        let container = self.view.get(&key::container(&row.account, &row.name))?;
        let head = container.map(|row| ContainerHead::decode(&row).map(|(head, _)| head));
        match head.transpose()? {
            Some(head) if head.id == id => Ok(()),
            _ => Err(wrong("leads to no container of this id")),
        }
    }

    fn object(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let mut parts = Parts::of(table::OBJECT, key)?;
        let (container, name) = (parts.container()?, parts.last_name()?);
        let row: ObjectRead<'_> = row::decode(value)?;
        self.check.report.objects += 1;
        self.check.report.bytes += row.head.bytes;
        let Some(counted) = self.check.containers.get_mut(&container) else {
            return Err(wrong(format!("there is no container {container}")));
        };
        counted.objects += 1;
        counted.bytes += row.head.bytes;
        if let Some(at) = row.head.delete_at
            && self.view.get(&key::expiry(at, container, name))?.is_none()
        {
            return Err(wrong(format!(
                "is not in the index of what expires at {at}"
            )));
        }
        let version = match row.body {
            Body::Inline { end } => {
                return self.has_inline_body(&row.head, &key::body(container, name), end);
            }
            Body::Chunks { version, .. } | Body::Parts { version } => version,
        };
        let id = BodyId {
            container,
            name: name.into(),
            version,
        };
        let bytes = self.chunks(key, &id, &row.body, Need::All)?;
        same_bytes(bytes, row.head.bytes)
    }

    fn has_inline_body(
        &self,
        head: &ObjectHead<'_>,
        body: &[u8],
        end: Raw<'_>,
    ) -> Result<(), Wrong> {
        match self.view.get(body)? {
            None if head.bytes == 0 => Ok(()),
            Some(_) if head.bytes == 0 => Err(wrong("is empty and has a body")),
            Some(body) => same_bytes((body.len() + end.0.len()) as u64, head.bytes),
            None => Err(wrong("its body is missing")),
        }
    }

    /// Notes the chunks of a body and returns their length.
    fn chunks(
        &mut self,
        key: &[u8],
        id: &BodyId<'_>,
        body: &Body<'_>,
        need: Need,
    ) -> Result<u64, Wrong> {
        let what = key.escape_ascii().to_string();
        let mut bytes = 0;
        each_chunk(self.view, id, body, |chunk| {
            bytes += u64::from(chunk.bytes);
            self.check.refer(self.shard, &what, chunk, need);
            ControlFlow::Continue(())
        })?;
        if let Body::Parts { .. } = body {
            self.parts_are_contiguous(id)?;
        }
        Ok(bytes)
    }

    fn parts_are_contiguous(&self, id: &BodyId<'_>) -> Result<(), Wrong> {
        let from = id.parts();
        let to = key::end_of(&from);
        let mut end = None;
        scan::rows(self.view, &from, &to, |key, value| {
            let mut parts = Parts::of(table::PART, key)?;
            parts.body_id()?;
            let offset = parts.u64()?;
            // The collector removes the parts of garbage from the front.
            if end.is_some_and(|end| end != offset) {
                return Err(wrong("its manifest has a gap"));
            }
            let part: PartRow<'_> = row::decode(value)?;
            end = Some(offset + Manifest::decode(part.manifest.0)?.bytes());
            Ok(ControlFlow::Continue(()))
        })
    }

    fn inline_body(&mut self, key: &[u8], _: &[u8]) -> Result<(), Wrong> {
        let mut parts = Parts::of(table::BODY, key)?;
        let (container, name) = (parts.container()?, parts.last_name()?);
        match self.view.get(&key::object(container, name))? {
            Some(row) if row::decode::<ObjectRead<'_>>(&row)?.body.is_inline() => Ok(()),
            _ => Err(wrong("there is no object with an inline body")),
        }
    }

    fn expiry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let mut parts = Parts::of(table::EXPIRY, key)?;
        let (at, container, name) = (parts.u64()?, parts.container()?, parts.last_name()?);
        let object = self.view.get(&key::object(container, name))?;
        let object = object.ok_or_else(|| wrong("there is no such object"))?;
        let (head, _) = row::decode_front::<ObjectHead<'_>>(&object)?;
        match head.delete_at == Some(at) && value.is_empty() {
            true => Ok(()),
            false => Err(wrong("the object does not expire then")),
        }
    }

    fn garbage(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let id = Parts::of(table::GARBAGE, key)?.body_id()?;
        let row: GarbageRow<'_> = row::decode(value)?;
        self.check.report.garbage += 1;
        self.garbage_bodies += 1;
        self.garbage_bytes += signed(row.bytes);
        let bytes = self.chunks(key, &id, &row.body, Need::None)?;
        match row.body {
            Body::Chunks { .. } => same_bytes(bytes, row.bytes),
            // Some parts may be collected already.
            Body::Parts { .. } => Ok(()),
            Body::Inline { .. } => Err(wrong("an inline body is no garbage")),
        }
    }

    fn garbage_counters(&mut self) -> Result<(), Error> {
        let counted = [
            (GarbageCount::Bodies, self.garbage_bodies),
            (GarbageCount::Bytes, self.garbage_bytes),
        ];
        for (count, sum) in counted {
            let key = key::garbage_count(count);
            let counted = self.view.counter(&key)?;
            if counted != sum {
                let why = format!("counts {counted} where there are {sum}");
                self.check
                    .problem(Some(self.shard), key.escape_ascii(), why);
            }
        }
        Ok(())
    }

    fn upload(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let id = Parts::of(table::UPLOAD, key)?.body_id()?;
        let row: UploadRow = row::decode(value)?;
        self.check.report.pending_uploads += 1;
        let version = id.version;
        let bytes = self.chunks(key, &id, &Body::Parts { version }, Need::All)?;
        same_bytes(bytes, row.bytes)
    }

    /// Whether the body that a part is of is known. Its chunks are noted with that body.
    fn part(&mut self, key: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let mut parts = Parts::of(table::PART, key)?;
        let id = parts.body_id()?;
        parts.u64()?;
        let part: PartRow<'_> = row::decode(value)?;
        Manifest::decode(part.manifest.0)?;
        let get = |key: Bytes| self.view.get(&key);
        if get(id.garbage())?.is_some() || get(id.upload())?.is_some() {
            return Ok(());
        }
        let object = get(key::object(id.container, &id.name))?;
        let version = id.version;
        match object.as_deref().map(row::decode::<ObjectRead<'_>>) {
            Some(row)
                if row
                    .as_ref()
                    .is_ok_and(|row| row.body == Body::Parts { version }) =>
            {
                Ok(())
            }
            _ => Err(wrong("there is no body with such a manifest")),
        }
    }
}

fn same_bytes(found: u64, expected: u64) -> Result<(), Wrong> {
    if found == expected {
        Ok(())
    } else {
        Err(wrong(format!("has {found} bytes of {expected}")))
    }
}
