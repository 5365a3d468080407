//! Bodies on their way in and out.

use std::ops::Range;

use bytes::Bytes;

use crate::{Container, Error, Namespace, Object};

/// A body on its way in. Dropped before [`Upload::finish`], what it wrote is deleted.
pub struct Upload {}

impl Upload {
    /// Takes more of the body; waits while the buffer budget or the devices are busy.
    pub async fn write(&mut self, _bytes: Bytes) -> Result<(), Error> {
        todo!()
    }

    /// Waits until all of it would survive power loss.
    pub async fn finish(self) -> Result<Stored, Error> {
        todo!()
    }
}

/// A body that is stored but belongs to no object yet. Dropped, it is deleted.
pub struct Stored {
    pub bytes: u64,
    pub md5: [u8; 16],
    // Its place follows: private to the namespace.
}

/// A body on its way out: verified piece by piece.
pub struct BodyReader {}

impl BodyReader {
    /// The next piece, at most 1 MiB; `None` at the end. After an error nothing follows.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        todo!()
    }

    /// All that is left, if that needs no waiting and no I/O (an inline body).
    pub fn inline(&self) -> Option<Bytes> {
        todo!()
    }
}

impl Namespace {
    /// Starts to store a body for an object of this name.
    pub fn upload(&self, _container: &Container, _name: &str) -> Upload {
        todo!()
    }

    /// Reads the bytes of `range`, which must lie inside the body.
    pub async fn read(
        &self,
        _container: &Container,
        _object: &Object,
        _range: Range<u64>,
    ) -> Result<BodyReader, Error> {
        todo!()
    }
}
