//! The values of all rows: a version byte, then the fields as postcard writes them. Byte by byte in
//! docs/formats/rows.md; examples of every version are in tests/golden/.
//!
//! An object's row has in front what a listing shows, so that a listing decodes nothing else, and
//! borrows everything from the row's bytes.

use std::borrow::Cow;

use base::{ContainerId, Timestamp, Version};
use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Metadata, Role};

/// The version of every row there is but a container's.
const VERSION: u8 = 1;
/// A container's row says how its bodies are kept.
const CONTAINER_VERSION: u8 = 2;

/// Most rows are smaller, and so cost one allocation.
const ROW_BYTES_USUAL: usize = 384;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountRow {
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) metadata: Metadata,
}

impl AccountRow {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            created: now,
            modified: now,
            metadata: Metadata::new(),
        }
    }
}

/// A line of an account's container list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountContainerRow {
    /// When the line was written, just before the container is made.
    pub(crate) listed: Timestamp,
}

/// What stands in front of a container's row: all that a write of an object looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerHead {
    pub(crate) id: ContainerId,
    pub(crate) created: Timestamp,
    /// The last PUT or POST of the container.
    pub(crate) modified: Timestamp,
    /// The last change of its metadata.
    pub(crate) changed: Timestamp,
    /// How its bodies are kept: the place among the policies of the map. Version 1 lacks it, and means the first.
    pub(crate) policy: u16,
}

impl ContainerHead {
    /// Reads the front of a container's row, and gives what follows.
    pub(crate) fn decode(row: &[u8]) -> Result<(Self, &[u8]), Error> {
        if row.first() != Some(&VERSION) {
            return decode_front_of(CONTAINER_VERSION, row);
        }
        let ((id, created, modified, changed), rest) = decode_front(row)?;
        let head = Self {
            id,
            created,
            modified,
            changed,
            policy: 0,
        };
        Ok((head, rest))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRow {
    pub(crate) head: ContainerHead,
    pub(crate) metadata: Metadata,
}

impl ContainerRow {
    pub(crate) fn encode(&self) -> Bytes {
        encode_as(CONTAINER_VERSION, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (head, rest) = ContainerHead::decode(bytes)?;
        match postcard::take_from_bytes(rest) {
            Ok((metadata, [])) => Ok(Self { head, metadata }),
            Ok((_, rest)) => Err(too_long(rest)),
            Err(error) => Err(malformed(bytes, &error)),
        }
    }
}

/// Whose id a container's is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerNameRow {
    pub(crate) account: String,
    pub(crate) name: String,
}

/// What a listing shows of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectHead<'a> {
    pub(crate) modified: Timestamp,
    pub(crate) created: Timestamp,
    pub(crate) bytes: u64,
    pub(crate) md5: [u8; 16],
    #[serde(borrow)]
    pub(crate) content_type: Cow<'a, str>,
    pub(crate) delete_at: Option<u64>,
}

impl ObjectHead<'_> {
    /// Whether the object is gone at `now`, though its row may still be there.
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.delete_at.is_some_and(|at| at <= now.secs())
    }
}

/// `M` is [`Metadata`] when a row is written, [`RawMetadata`] when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRow<'a, M> {
    #[serde(borrow)]
    pub(crate) head: ObjectHead<'a>,
    pub(crate) metadata: M,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

/// An object's row as it is read.
pub(crate) type ObjectRead<'a> = ObjectRow<'a, RawMetadata<'a>>;

/// Where the bytes of a body are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body<'a> {
    /// In a row of its own; an empty body has none.
    Inline {
        /// The end of the body, if the other row lacks it: see [`shard::whole_pages`].
        #[serde(borrow)]
        end: Raw<'a>,
    },
    Chunks {
        version: Version,
        #[serde(borrow)]
        manifest: Raw<'a>,
    },
    /// In chunks that the rows of the manifest's parts name.
    Parts { version: Version },
}

impl Body<'_> {
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self, Self::Inline { .. })
    }

    /// That of a body that is not inline.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Inline { .. } => None,
            Self::Chunks { version, .. } | Self::Parts { version } => Some(*version),
        }
    }
}

/// A body that belongs to no object any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GarbageRow<'a> {
    /// When it was queued, or when a reader on another node has asked for it to be kept.
    pub(crate) queued: Timestamp,
    pub(crate) bytes: u64,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

/// A part of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRow<'a> {
    #[serde(borrow)]
    pub(crate) manifest: Raw<'a>,
}

/// An upload that has parts of its manifest here, or has gone on for long, and is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRow {
    /// When it last wrote a part, or said that it goes on.
    pub(crate) touched: Timestamp,
    /// What its parts hold.
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserRow {
    pub(crate) role: Role,
    pub(crate) groups: Vec<String>,
    pub(crate) generation: u64,
    /// A PHC string: algorithm, parameters, salt and hash.
    pub(crate) verifier: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretRow {
    pub(crate) secret: [u8; 32],
}

/// Bytes that are written and read at once, and borrowed when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes to borrow")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed).map(Raw)
    }
}

/// Metadata as it lies in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RawMetadata<'a>(#[serde(borrow)] Vec<(&'a str, Raw<'a>)>);

impl RawMetadata<'_> {
    /// The metadata, whose values stay part of `row`, which must be what this was read from.
    pub(crate) fn owned(&self, row: &Bytes) -> Metadata {
        let pairs = self.0.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), row.slice_ref(value.0)))
            .collect()
    }
}

/// The bytes of a row.
pub(crate) fn encode<T: Serialize>(row: &T) -> Bytes {
    encode_as(VERSION, row)
}

fn encode_as<T: Serialize>(version: u8, row: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(ROW_BYTES_USUAL);
    bytes.push(version);
    postcard::serialize_with_flavor(row, Append(bytes))
        .expect("rows hold nothing that postcard cannot write")
        .into()
}

/// Reads a row.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match decode_front(bytes)? {
        (row, []) => Ok(row),
        (_, rest) => Err(too_long(rest)),
    }
}

fn too_long(rest: &[u8]) -> Error {
    Error::Damaged(format!("{} bytes too many in a row", rest.len()))
}

fn malformed(bytes: &[u8], error: &postcard::Error) -> Error {
    Error::Damaged(format!("row of {} bytes: {error}", bytes.len()))
}

/// Reads what stands in front of a row, and gives what follows.
pub(crate) fn decode_front<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Error> {
    decode_front_of(VERSION, bytes)
}

fn decode_front_of<'a, T: Deserialize<'a>>(
    expected: u8,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Error> {
    match bytes.split_first() {
        Some((version, rest)) if *version == expected => {
            postcard::take_from_bytes(rest).map_err(|error| malformed(bytes, &error))
        }
        Some((version, _)) => Err(Error::Damaged(format!("row of version {version}"))),
        None => Err(Error::Damaged("empty row".to_owned())),
    }
}

/// Reads a row that borrows nothing.
pub(crate) fn decode_owned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    decode(bytes)
}

/// Lets postcard write to a vector that has its room already.
struct Append(Vec<u8>);

impl Flavor for Append {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests;
