//! The keys of all rows, byte by byte in docs/formats/rows.md.
//!
//! A key begins with the letter of its table. Numbers are big-endian, so that keys sort as numbers
//! do. A name that something follows is preceded by its length, or ends with a zero byte where the
//! order of names matters.

use std::borrow::Cow;

use base::{ContainerId, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Longer names are refused.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 256;
pub const CONTAINER_NAME_BYTES_MAX: usize = 256;
pub const OBJECT_NAME_BYTES_MAX: usize = 1024;

/// The row of the map: the first of those of the control group, which have the same letter.
pub(crate) const MAP: &[u8] = b"M";

/// What is counted of a container and of an account's containers in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Count {
    Containers = 0,
    Objects = 1,
    Bytes = 2,
}

/// What is counted of a shard's garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum GarbageCount {
    Bodies = 0,
    Bytes = 1,
}

/// The tables, by their letters.
pub(crate) mod table {
    /// Not ours: docs/formats/control.md.
    pub(crate) const MEMBERSHIP: u8 = b'M';
    pub(crate) const ACCOUNT: u8 = b'A';
    pub(crate) const BODY: u8 = b'B';
    pub(crate) const CONTAINER: u8 = b'C';
    pub(crate) const GARBAGE: u8 = b'G';
    pub(crate) const CONTAINER_COUNT: u8 = b'K';
    pub(crate) const ACCOUNT_CONTAINER: u8 = b'L';
    pub(crate) const CONTAINER_NAME: u8 = b'N';
    pub(crate) const OBJECT: u8 = b'O';
    pub(crate) const PART: u8 = b'P';
    pub(crate) const GARBAGE_COUNT: u8 = b'Q';
    pub(crate) const SECRET: u8 = b'S';
    pub(crate) const ACCOUNT_TOTAL: u8 = b'T';
    pub(crate) const UPLOAD: u8 = b'U';
    pub(crate) const USER: u8 = b'W';
    pub(crate) const EXPIRY: u8 = b'X';
}

fn join(table: u8, parts: &[&[u8]]) -> Bytes {
    let len = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(len);
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key.into()
}

/// The length that stands before a name.
fn len(name: &str) -> [u8; 2] {
    let len = u16::try_from(name.len()).expect("names are checked to be short");
    len.to_be_bytes()
}

fn id(container: ContainerId) -> [u8; 8] {
    container.0.to_be_bytes()
}

pub(crate) fn account(account: &str) -> Bytes {
    join(table::ACCOUNT, &[account.as_bytes()])
}

/// What the keys of all rows of an account's container list begin with.
pub(crate) fn account_containers(account: &str) -> Bytes {
    let parts = [&len(account)[..], account.as_bytes()];
    join(table::ACCOUNT_CONTAINER, &parts)
}

pub(crate) fn account_container(account: &str, name: &str, container: ContainerId) -> Bytes {
    let (len, id) = (len(account), id(container));
    let parts = [&len[..], account.as_bytes(), name.as_bytes(), &[0], &id];
    join(table::ACCOUNT_CONTAINER, &parts)
}

pub(crate) fn account_total(count: Count, account: &str) -> Bytes {
    join(table::ACCOUNT_TOTAL, &[&[count as u8], account.as_bytes()])
}

pub(crate) fn container(account: &str, name: &str) -> Bytes {
    let parts = [&len(account)[..], account.as_bytes(), name.as_bytes()];
    join(table::CONTAINER, &parts)
}

pub(crate) fn container_name(container: ContainerId) -> Bytes {
    join(table::CONTAINER_NAME, &[&id(container)])
}

pub(crate) fn container_count(count: Count, container: ContainerId) -> Bytes {
    join(table::CONTAINER_COUNT, &[&id(container), &[count as u8]])
}

/// What the keys of all objects of a container begin with.
pub(crate) fn objects(container: ContainerId) -> Bytes {
    join(table::OBJECT, &[&id(container)])
}

pub(crate) fn object(container: ContainerId, name: &str) -> Bytes {
    join(table::OBJECT, &[&id(container), name.as_bytes()])
}

pub(crate) fn body(container: ContainerId, name: &str) -> Bytes {
    join(table::BODY, &[&id(container), name.as_bytes()])
}

pub(crate) fn expiry(delete_at: u64, container: ContainerId, name: &str) -> Bytes {
    let (at, id) = (delete_at.to_be_bytes(), id(container));
    join(table::EXPIRY, &[&at, &id, name.as_bytes()])
}

/// What expires before the second `end` lies below this key.
pub(crate) fn expiry_end(end: u64) -> Bytes {
    join(table::EXPIRY, &[&end.to_be_bytes()])
}

pub(crate) fn garbage_count(count: GarbageCount) -> Bytes {
    join(table::GARBAGE_COUNT, &[&[count as u8]])
}

pub(crate) fn user(account: &str, name: &str) -> Bytes {
    let parts = [&len(account)[..], account.as_bytes(), name.as_bytes()];
    join(table::USER, &parts)
}

pub(crate) fn secret(purpose: &str) -> Bytes {
    join(table::SECRET, &[purpose.as_bytes()])
}

/// Which body of which object: what parts, pending uploads and garbage are filed under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BodyId<'a> {
    pub(crate) container: ContainerId,
    pub(crate) name: Cow<'a, str>,
    pub(crate) version: Version,
}

impl BodyId<'_> {
    fn key(&self, table: u8, rest: &[u8]) -> Bytes {
        let (id, len) = (id(self.container), len(&self.name));
        let version = self.version.0.to_be_bytes();
        let parts = [&id[..], &len, self.name.as_bytes(), &version, rest];
        join(table, &parts)
    }

    pub(crate) fn into_owned(self) -> BodyId<'static> {
        BodyId {
            container: self.container,
            name: self.name.into_owned().into(),
            version: self.version,
        }
    }

    pub(crate) fn upload(&self) -> Bytes {
        self.key(table::UPLOAD, &[])
    }

    pub(crate) fn garbage(&self) -> Bytes {
        self.key(table::GARBAGE, &[])
    }

    /// What the keys of all parts of the body's manifest begin with.
    pub(crate) fn parts(&self) -> Bytes {
        self.key(table::PART, &[])
    }

    /// The part of the manifest whose first chunk begins at `offset` of the body.
    pub(crate) fn part(&self, offset: u64) -> Bytes {
        self.key(table::PART, &offset.to_be_bytes())
    }
}

/// Reads a key from its front.
pub(crate) struct Parts<'a> {
    key: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// The parts of `key`, which is of `table`.
    pub(crate) fn of(table: u8, key: &'a [u8]) -> Result<Self, Error> {
        match key.split_first() {
            Some((first, rest)) if *first == table => Ok(Self { key, rest }),
            _ => Err(bad(key)),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (part, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| bad(self.key))?;
        self.rest = rest;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let part = self.take(N)?;
        Ok(part.try_into().expect("N bytes were taken"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn container(&mut self) -> Result<ContainerId, Error> {
        Ok(ContainerId(self.u64()?))
    }

    /// A name that is preceded by its length.
    pub(crate) fn name(&mut self) -> Result<&'a str, Error> {
        let len = u16::from_be_bytes(self.array()?);
        let name = self.take(len.into())?;
        str::from_utf8(name).map_err(|_| bad(self.key))
    }

    /// A name and the container id that ends the key behind a zero byte.
    pub(crate) fn name_and_container(mut self) -> Result<(&'a str, ContainerId), Error> {
        let len = self
            .rest
            .len()
            .checked_sub(9)
            .ok_or_else(|| bad(self.key))?;
        let name = self.take(len)?;
        let name = str::from_utf8(name).map_err(|_| bad(self.key))?;
        if self.take(1)? != [0] {
            return Err(bad(self.key));
        }
        Ok((name, self.container()?))
    }

    /// A name that is all that is left.
    pub(crate) fn last_name(self) -> Result<&'a str, Error> {
        str::from_utf8(self.rest).map_err(|_| bad(self.key))
    }

    pub(crate) fn body_id(&mut self) -> Result<BodyId<'a>, Error> {
        Ok(BodyId {
            container: self.container()?,
            name: self.name()?.into(),
            version: Version(self.u64()?),
        })
    }
}

fn bad(key: &[u8]) -> Error {
    Error::Damaged(format!("no such key: {}", key.escape_ascii()))
}

/// Refuses names that cannot be part of a key. Front doors have their own words for most of this.
pub(crate) fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Error> {
    let refusal = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > bytes_max {
        format!("has more than {bytes_max} bytes")
    } else if name.contains('\0') {
        "contains a zero byte".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Limit(format!("the {what}'s name {refusal}")))
}

/// The first key behind all that begin with `prefix`, which begins with the letter of a table.
pub(crate) fn end_of(prefix: &[u8]) -> Bytes {
    let last = prefix.iter().rposition(|byte| *byte != 0xff);
    let mut end = prefix[..=last.expect("tables are letters")].to_vec();
    *end.last_mut().expect("there is a last byte") += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_give_their_parts_back(
            account in "\\PC{0,20}", name in "[^\0]{0,20}", number: u64, version: u64,
        ) {
            let container = ContainerId(number);
            let key = account_container(&account, &name, container);
            let mut parts = Parts::of(table::ACCOUNT_CONTAINER, &key).unwrap();
            prop_assert_eq!(parts.name().unwrap(), &account);
            prop_assert_eq!(parts.name_and_container().unwrap(), (&*name, container));

            let id = BodyId { container, name: name.into(), version: Version(version) };
            let key = id.part(number);
            let mut parts = Parts::of(table::PART, &key).unwrap();
            prop_assert_eq!(parts.body_id().unwrap(), id.clone());
            prop_assert_eq!(parts.u64().unwrap(), number);
            prop_assert!(key.starts_with(&id.parts()));

            let key = expiry(number, container, &id.name);
            let mut parts = Parts::of(table::EXPIRY, &key).unwrap();
            prop_assert_eq!(parts.u64().unwrap(), number);
            prop_assert_eq!(parts.container().unwrap(), container);
            prop_assert_eq!(parts.last_name().unwrap(), &*id.name);
        }

        #[test]
        fn any_bytes_are_a_key_or_an_error(key: Vec<u8>) {
            for table in [table::PART, table::ACCOUNT_CONTAINER, table::EXPIRY] {
                let mut bytes = vec![table];
                bytes.extend_from_slice(&key);
                let _ = Parts::of(table, &bytes).unwrap().body_id();
                let _ = Parts::of(table, &bytes).unwrap().name();
                let _ = Parts::of(table, &bytes).unwrap().name_and_container();
                let _ = Parts::of(table, &bytes).unwrap().last_name();
            }
        }

        #[test]
        fn the_end_of_a_prefix_is_behind_all_that_begins_with_it(
            mut prefix: Vec<u8>, tail: Vec<u8>, other: Vec<u8>,
        ) {
            prefix.insert(0, table::OBJECT);
            let end = end_of(&prefix);
            prop_assert!([prefix.clone(), tail].concat() < end);
            if other >= prefix && other < end {
                prop_assert!(other.starts_with(&prefix));
            }
        }
    }

    #[test]
    fn an_account_lists_in_the_order_of_names() {
        let keys = ["", "a", "a\x01", "a b", "ab", "b"].map(|name| {
            // The largest id must not push a name behind a longer one.
            account_container("x", name, ContainerId(u64::MAX))
        });
        assert!(keys.is_sorted());
    }
}
