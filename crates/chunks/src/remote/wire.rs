//! The bytes of calls to a device and of their answers; docs/formats/chunks.md is their page.
//!
//! Decoding bounds everything before it is used: what a device is asked for can be answered, and what
//! an answer holds is no more than was asked for.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base::checksum::crc32c_of;
use base::{ChunkId, DeviceId, GroupId};
use bytes::Bytes;
use device::{CHUNK_BYTES_MAX, Label, OWNER_BYTES_MAX, READ_BYTES_MAX};
use map::Epoch;

use crate::{Description, LIST_MAX, StorageError};

/// The first byte of a call; its answer is of the same version.
const VERSION: u8 = 2;

/// Half a MiB of ids: the small lane takes one.
pub(super) const DELETE_MAX: usize = 32 * 1024;

/// Three names with their lengths, and numbers.
const LABEL_BYTES_MAX: usize = OWNER_BYTES_MAX + 96;

/// The index of a fragment that stands for a whole chunk.
const WHOLE: u8 = u8::MAX;

/// Of a refusal's text, what is kept.
const TEXT_BYTES_MAX: usize = 1024;

/// What a device is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call<'a> {
    Write {
        epoch: Epoch,
        id: ChunkId,
        label: Cow<'a, Label>,
        payload: Cow<'a, [Bytes]>,
    },
    Read {
        id: ChunkId,
        index: Option<u8>,
        range: Range<u32>,
    },
    Delete {
        ids: Cow<'a, [ChunkId]>,
    },
    List {
        group: GroupId,
        after: Option<ChunkId>,
    },
    Describe {
        id: ChunkId,
    },
}

/// Bytes that say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(Cow<'static, str>);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Malformed {
    const SHORT: Self = Self(Cow::Borrowed("too short"));
    const LONG: Self = Self(Cow::Borrowed("too long"));
    const LABEL: Self = Self(Cow::Borrowed("no label"));
    const BOUNDS: Self = Self(Cow::Borrowed("out of bounds"));
    const CHECKSUM: Self = Self(Cow::Borrowed("a payload that was damaged on its way"));
}

/// A call; the pieces of a payload are referred to, not copied.
pub(super) fn encode(device: DeviceId, call: &Call<'_>) -> Vec<Bytes> {
    let operation = match call {
        Call::Write { .. } => 1,
        Call::Read { .. } => 2,
        Call::Delete { .. } => 3,
        Call::List { .. } => 4,
        Call::Describe { .. } => 5,
    };
    let mut head = vec![VERSION, operation];
    head.extend(device.0.to_le_bytes());
    match call {
        Call::Write {
            epoch,
            id,
            label,
            payload,
        } => {
            head.extend(epoch.0.to_le_bytes());
            head.extend(id.0.to_le_bytes());
            head.extend(checksum(payload).to_le_bytes());
            let label = postcard::to_stdvec(&**label).expect("a label is names and numbers");
            let bytes = u16::try_from(label.len()).expect("a device takes no longer names");
            head.extend(bytes.to_le_bytes());
            head.extend(label);
            let mut body = vec![head.into()];
            body.extend(payload.iter().cloned());
            return body;
        }
        Call::Read { id, index, range } => {
            head.extend(id.0.to_le_bytes());
            head.push(index.unwrap_or(WHOLE));
            head.extend(range.start.to_le_bytes());
            head.extend(range.end.to_le_bytes());
        }
        Call::Delete { ids } => head.extend(ids.iter().flat_map(|id| id.0.to_le_bytes())),
        Call::List { group, after } => {
            head.extend(group.0.to_le_bytes());
            head.extend(after.iter().flat_map(|id| id.0.to_le_bytes()));
        }
        Call::Describe { id } => head.extend(id.0.to_le_bytes()),
    }
    vec![head.into()]
}

/// A payload of what was decoded is a part of `body`.
pub(super) fn decode(body: Bytes) -> Result<(DeviceId, Call<'static>), Malformed> {
    let mut fields = Fields(body);
    let [version, operation] = fields.take()?;
    if version != VERSION {
        return Err(Malformed(format!("of version {version}").into()));
    }
    let device = DeviceId(u128::from_le_bytes(fields.take()?));
    let call = match operation {
        1 => decode_write(&mut fields)?,
        2 => Call::Read {
            id: fields.chunk_id()?,
            index: fields.index()?,
            range: fields.range()?,
        },
        3 => Call::Delete {
            ids: fields.chunk_ids(DELETE_MAX)?.into(),
        },
        4 => Call::List {
            group: GroupId(u32::from_le_bytes(fields.take()?)),
            after: fields.chunk_ids(1)?.pop(),
        },
        5 => Call::Describe {
            id: fields.chunk_id()?,
        },
        other => return Err(Malformed(format!("operation {other} is not known").into())),
    };
    fields.end()?;
    Ok((device, call))
}

fn decode_write(fields: &mut Fields) -> Result<Call<'static>, Malformed> {
    let epoch = Epoch(u64::from_le_bytes(fields.take()?));
    let id = fields.chunk_id()?;
    let sum = fields.take()?;
    let label_bytes = usize::from(u16::from_le_bytes(fields.take()?));
    let label = decode_label(&fields.slice(label_bytes)?)?;
    let payload = fields.rest();
    if payload.is_empty() || payload.len() > CHUNK_BYTES_MAX {
        return Err(Malformed::BOUNDS);
    }
    Ok(Call::Write {
        epoch,
        id,
        label: Cow::Owned(label),
        payload: vec![verified(payload, sum)?].into(),
    })
}

fn decode_label(bytes: &[u8]) -> Result<Label, Malformed> {
    if bytes.len() > LABEL_BYTES_MAX {
        return Err(Malformed::LABEL);
    }
    match postcard::take_from_bytes::<Label>(bytes) {
        Ok((label, [])) => {
            let owner = &label.owner;
            let names = [&owner.account, &owner.container, &owner.object];
            let bytes: usize = names.into_iter().map(String::len).sum();
            match bytes <= OWNER_BYTES_MAX {
                true => Ok(label),
                false => Err(Malformed::LABEL),
            }
        }
        Ok(_) | Err(_) => Err(Malformed::LABEL),
    }
}

fn checksum(payload: &[Bytes]) -> u32 {
    let pieces: Vec<&[u8]> = payload.iter().map(Bytes::as_ref).collect();
    crc32c_of(&pieces)
}

fn verified(payload: Bytes, sum: [u8; 4]) -> Result<Bytes, Malformed> {
    match checksum(std::slice::from_ref(&payload)).to_le_bytes() == sum {
        true => Ok(payload),
        false => Err(Malformed::CHECKSUM),
    }
}

pub(super) fn encode_payload(payload: Bytes) -> Vec<Bytes> {
    let sum = checksum(std::slice::from_ref(&payload));
    vec![Bytes::copy_from_slice(&sum.to_le_bytes()), payload]
}

/// The answer to a read of so many bytes.
pub(super) fn decode_payload(answer: Bytes, bytes: u32) -> Result<Bytes, Malformed> {
    let mut fields = Fields(answer);
    let sum = fields.take()?;
    let payload = fields.rest();
    if u32::try_from(payload.len()) != Ok(bytes) {
        return Err(Malformed::BOUNDS);
    }
    verified(payload, sum)
}

pub(super) fn encode_list(ids: &[ChunkId]) -> Vec<Bytes> {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.0.to_le_bytes()).collect();
    vec![bytes.into()]
}

/// The answer to a list: only what belongs there, or whoever goes through the pages would never
/// come to an end.
pub(super) fn decode_list(
    answer: &Bytes,
    group: GroupId,
    after: Option<ChunkId>,
) -> Result<Vec<ChunkId>, Malformed> {
    let ids = Fields(answer.clone()).chunk_ids(LIST_MAX)?;
    let mut before = after;
    for id in &ids {
        if id.group() != group || before.is_some_and(|before| before >= *id) {
            return Err(Malformed::BOUNDS);
        }
        before = Some(*id);
    }
    Ok(ids)
}

pub(super) fn encode_description(description: &Description) -> Vec<Bytes> {
    let mut bytes = description.bytes.to_le_bytes().to_vec();
    bytes.extend(postcard::to_stdvec(&description.label).expect("a label is names and numbers"));
    vec![bytes.into()]
}

pub(super) fn decode_description(answer: &Bytes) -> Result<Description, Malformed> {
    let mut fields = Fields(answer.clone());
    let bytes = u32::from_le_bytes(fields.take()?);
    match usize::try_from(bytes) {
        Ok(1..=CHUNK_BYTES_MAX) => Ok(Description {
            label: decode_label(&fields.rest())?,
            bytes,
        }),
        Ok(_) | Err(_) => Err(Malformed::BOUNDS),
    }
}

pub(super) fn encode_refusal(mut error: StorageError) -> Bytes {
    match &mut error {
        StorageError::Full
        | StorageError::Missing
        | StorageError::Stale
        | StorageError::Overdue => {}
        StorageError::Damaged(text)
        | StorageError::Unavailable(text)
        | StorageError::Unreached(text) => text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX)),
    }
    let bytes = postcard::to_stdvec(&error).expect("an error is a number and a text");
    bytes.into()
}

/// What cannot be read says only that it is no yes.
pub(super) fn decode_refusal(refusal: &[u8]) -> StorageError {
    match postcard::take_from_bytes(refusal) {
        Ok((error, [])) => error,
        Ok(_) | Err(_) => StorageError::Unavailable("refused in words that are not known".into()),
    }
}

/// Bytes that are taken from the front.
struct Fields(Bytes);

impl Fields {
    fn slice(&mut self, bytes: usize) -> Result<Bytes, Malformed> {
        match bytes <= self.0.len() {
            true => Ok(self.0.split_to(bytes)),
            false => Err(Malformed::SHORT),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let slice = self.slice(N)?;
        Ok(*slice.first_chunk().expect("it has N bytes"))
    }

    fn chunk_id(&mut self) -> Result<ChunkId, Malformed> {
        Ok(ChunkId(u128::from_le_bytes(self.take()?)))
    }

    /// All that follows.
    fn chunk_ids(&mut self, max: usize) -> Result<Vec<ChunkId>, Malformed> {
        let bytes = self.rest();
        let (ids, left) = bytes.as_chunks::<16>();
        if ids.len() > max || !left.is_empty() {
            return Err(Malformed::BOUNDS);
        }
        let ids = ids.iter().map(|id| ChunkId(u128::from_le_bytes(*id)));
        Ok(ids.collect())
    }

    fn index(&mut self) -> Result<Option<u8>, Malformed> {
        let [index] = self.take()?;
        Ok((index != WHOLE).then_some(index))
    }

    /// A range that a device may be asked for.
    fn range(&mut self) -> Result<Range<u32>, Malformed> {
        let start = u32::from_le_bytes(self.take()?);
        let end = u32::from_le_bytes(self.take()?);
        let size = |n: u32| usize::try_from(n).expect("32 bits fit");
        let bytes = size(end.saturating_sub(start));
        match bytes > 0 && bytes <= READ_BYTES_MAX && size(end) <= CHUNK_BYTES_MAX {
            true => Ok(start..end),
            false => Err(Malformed::BOUNDS),
        }
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    fn end(&self) -> Result<(), Malformed> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed::LONG),
        }
    }
}

#[cfg(test)]
mod tests;
