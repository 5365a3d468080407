//! The chunk store.

use std::ops::Range;
use std::sync::Arc;

use base::{ChunkId, ContainerId, Timestamp};
use bytes::Bytes;

use crate::Error;

/// Each frame of a payload has its own checksum.
pub const FRAME_BYTES: usize = 128 * 1024;

/// The most that a chunk holds.
pub const CHUNK_BYTES_MAX: usize = 32 * FRAME_BYTES;

/// The most that one read returns.
pub const READ_BYTES_MAX: usize = 8 * FRAME_BYTES;

/// For whom a chunk was written: enough to ask whether it is still needed, and to find its object
/// again when all metadata is lost. The three names are at most 3,800 bytes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub account: String,
    pub container: String,
    pub container_id: ContainerId,
    pub object: String,
    /// When the upload began.
    pub version: Timestamp,
}

/// The chunks of one device. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub chunks: u64,
    /// Records of chunks that exist, with their headers.
    pub live_bytes: u64,
    /// What deleted chunks still occupy.
    pub dead_bytes: u64,
    pub segments: u64,
}

impl Store {
    /// Writes a new chunk. On `Ok` it survives power loss. Pieces of a multiple of 4 KiB in memory
    /// aligned to 4 KiB (the last may be shorter) are written without being copied.
    ///
    /// # Errors
    /// [`Error::Full`] below the reserve: nothing happened. After any other the chunk may come to
    /// exist: nobody refers to it, and the scrubber removes it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the whole chunk or none of it.
    pub async fn write(&self, id: ChunkId, owner: &Owner, payload: &[Bytes]) -> Result<(), Error> {
        let _ = (id, owner, payload);
        todo!()
    }

    /// Reads `range` of a chunk's payload: verified, in one piece. The range is not empty, at most
    /// [`READ_BYTES_MAX`] long, and inside the payload. Cheapest at multiples of [`FRAME_BYTES`],
    /// since whole frames are read and verified. The memory is recycled when the answer is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`] if this copy cannot be read or is wrong.
    pub async fn read(&self, id: ChunkId, range: Range<u32>) -> Result<Bytes, Error> {
        let _ = (id, range);
        todo!()
    }

    /// Deletes chunks; those that do not exist are skipped. On `Ok` they stay deleted after power
    /// loss. Waits for the index to be written, so give many at once, or call it many times at once.
    pub async fn delete(&self, ids: &[ChunkId]) -> Result<(), Error> {
        let _ = ids;
        todo!()
    }

    /// Whether the chunk exists; says nothing about the state of its bytes.
    pub fn contains(&self, id: ChunkId) -> Result<bool, Error> {
        let _ = id;
        todo!()
    }

    pub fn usage(&self) -> Usage {
        todo!()
    }
}
