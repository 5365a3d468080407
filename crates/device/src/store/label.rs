//! What a record says of its chunk beside its bytes.

use base::{ContainerId, Version};
use serde::{Deserialize, Serialize};

/// For whom a chunk was written: enough to ask whether it is still needed, and to find its object
/// again when all metadata is lost. The three names are at most [`super::OWNER_BYTES_MAX`] together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub account: String,
    pub container: String,
    pub container_id: ContainerId,
    pub object: String,
    /// Which of the bodies that the object had.
    pub version: Version,
}

/// What a chunk is: all that is needed to use it when nothing else is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub owner: Owner,
    /// Where in the body the chunk begins.
    pub offset: u64,
    /// The body ends with this chunk. False if that was not known when it was written.
    pub is_last: bool,
    /// `None`: the whole chunk.
    pub fragment: Option<Fragment>,
}

/// Which part of its chunk a record holds, if the chunk is erasure coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// From 0; the first `data` hold the bytes themselves.
    pub index: u8,
    /// So many fragments are enough to make all others; at least 1.
    pub data: u8,
    pub parity: u8,
    /// The whole chunk's.
    pub chunk_bytes: u32,
}

impl Label {
    /// The number of the fragment; `None` for a whole chunk.
    pub fn index(&self) -> Option<u8> {
        self.fragment.map(|fragment| fragment.index)
    }
}

/// A whole chunk at the beginning of a body.
impl From<Owner> for Label {
    fn from(owner: Owner) -> Self {
        Self {
            owner,
            offset: 0,
            is_last: false,
            fragment: None,
        }
    }
}
