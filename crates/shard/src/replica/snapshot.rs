//! A shard's rows on their way to another replica; bytes in docs/formats/tree.md.
//!
//! Sent piece by piece from a read transaction of the tree, and received into a file, so neither
//! side holds more than a piece in memory. The transaction pins pages of the tree as long as the
//! sending takes: the network has to give up on a receiver that is too slow.

use std::io::{self, IoSlice};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::ShardId;
use base::checksum::crc64_of;
use base::env::{Disk, File, Open};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Memo;
use super::codec::{get_piece, put_piece};
use crate::Error;
use crate::tree::{Cursor, Database, Found, Reader, Tree};

/// A snapshot on its way.
pub(crate) enum SnapshotData {
    /// To be sent.
    Tree(TreeSnapshot),
    /// Received.
    Spool(Spool),
}

/// A piece ends with the row that reaches this.
const PIECE_BYTES: usize = 256 << 10;
/// Length and checksum.
const HEAD_BYTES: usize = 12;

pub(crate) struct TreeSnapshot {
    database: Database<'static>,
    reader: Reader,
    /// The last row of the piece before.
    last: Option<Vec<u8>>,
}

/// A file that a snapshot is received into; removed when dropped.
pub(crate) struct Spool {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn File>,
    written: u64,
    read: u64,
}

impl SnapshotData {
    pub(crate) fn of_tree(tree: &Tree, shard: ShardId) -> Result<(Memo, Self), Error> {
        let reader = tree.read()?;
        let memo = tree.memo(&reader, shard)?;
        let snapshot = TreeSnapshot {
            database: tree.database(shard),
            reader,
            last: None,
        };
        Ok((memo, Self::Tree(snapshot)))
    }

    /// The next piece, in the form that [`Spool::push`] takes; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Tree(tree) => tree.next_piece(),
            Self::Spool(spool) => spool.next_piece(),
        }
    }
}

impl TreeSnapshot {
    fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        let mut rows = BytesMut::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        let mut cursor = Cursor::new(self.database, &self.reader);
        let from = self.last.as_deref();
        cursor.seek(from.map_or(Bound::Unbounded, Bound::Excluded))?;
        let mut last = None;
        while let Some((key, stored)) = cursor.row() {
            // What is damaged here must not be spread.
            Found { key, stored }.check()?;
            put_piece(&mut rows, &[key]);
            put_piece(&mut rows, &[stored]);
            last = Some(key.to_vec());
            if rows.len() >= PIECE_BYTES {
                break;
            }
            cursor.step()?;
        }
        let Some(last) = last else { return Ok(None) };
        self.last = Some(last);
        Ok(Some(seal(rows)))
    }
}

fn seal(rows: BytesMut) -> Bytes {
    let mut piece = BytesMut::with_capacity(HEAD_BYTES + rows.len());
    piece.put_u32_le(u32::try_from(rows.len()).expect("a piece is far smaller than 4 GiB"));
    piece.put_u64_le(crc64_of(&[&rows]));
    piece.put_slice(&rows);
    piece.freeze()
}

/// Gives the rows of a piece to `each`: the key, and the row as it is stored.
///
/// # Errors
/// [`Error::Damaged`] if the piece is not as it was sealed; and what `each` says.
pub(crate) fn rows<E: From<Error>>(
    mut piece: Bytes,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let damaged = || Error::Damaged("a piece of a snapshot".into());
    let len = piece.try_get_u32_le().map_err(|_| damaged())?;
    let crc = piece.try_get_u64_le().map_err(|_| damaged())?;
    if piece.len() != len as usize || crc64_of(&[&piece]) != crc {
        return Err(damaged().into());
    }
    while !piece.is_empty() {
        let key = get_piece(&mut piece).ok_or_else(damaged)?;
        let stored = get_piece(&mut piece).ok_or_else(damaged)?;
        let (key, stored) = (&*key, &*stored);
        Found { key, stored }.check()?;
        each(key, stored)?;
    }
    Ok(())
}

impl Spool {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, Open::Write)?;
        file.truncate(0)?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            file,
            written: 0,
            read: 0,
        })
    }

    /// Takes the next piece of the snapshot.
    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_at(&[IoSlice::new(piece)], self.written)?;
        self.written += piece.len() as u64;
        Ok(())
    }

    fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        /// One row may be as large as an entry of the log.
        const PIECE_BYTES_MAX: usize = 1 << 30;

        if self.read == self.written {
            return Ok(None);
        }
        let read = |buffer: &mut [u8], at: u64| match self.file.read_at(buffer, at) {
            Ok(bytes) if bytes == buffer.len() => Ok(()),
            Ok(_) => Err(Error::Damaged("a received snapshot ends early".into())),
            Err(error) => Err(Error::Damaged(format!("a received snapshot: {error}"))),
        };
        let mut head = [0; HEAD_BYTES];
        read(&mut head, self.read)?;
        let len = (&head[..]).get_u32_le() as usize;
        if len > PIECE_BYTES_MAX {
            return Err(Error::Damaged("a piece of a received snapshot".into()));
        }
        let mut piece = vec![0; HEAD_BYTES + len];
        read(&mut piece, self.read)?;
        self.read += piece.len() as u64;
        Ok(Some(piece.into()))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // A leftover is overwritten by the next snapshot of the shard.
        let _ = self.disk.remove(&self.path);
    }
}
