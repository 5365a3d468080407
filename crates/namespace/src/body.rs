//! Bodies on their way in, and what becomes of those that no object gets.
//!
//! A small body is collected in memory and goes into the commit. A larger one is copied into pieces
//! of the upload budget, which are hashed and written to devices while the next ones fill.
//!
//! Memory: one piece of 128 KiB for a slow client, some 12 MiB for a fast one, and 20 KiB for the
//! manifest, whatever the size of the body: what is longer is written to the shard as it grows, with a
//! row that says that an upload is pending. If that upload is never committed, the row leads the
//! reaper to the chunks. An upload that goes on for hours has such a row as well, whatever its size, and
//! signs it again and again: so other nodes know of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{ContainerId, NodeId, ShardId, Timestamp, Version};
use bytes::{Buf as _, Bytes};
use chunks::{Chunk, Owner, Piece, Writer};
use map::Policy;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::hash::{self, Hasher};
use crate::key::BodyId;
use crate::manifest::{INLINE_CHUNKS_MAX, PART_CHUNKS_MAX};
use crate::pending::{Sign, WritePart};
use crate::{Container, Error, Namespace, placement};

/// An upload signs so often: long before its oldest chunk is a day old and the scrubber asks for it, and
/// long before the reaper takes it for dead.
const SIGN_AFTER: Duration = Duration::from_secs(6 * 3600);

/// After a failure it tries again so soon,
const SIGN_RETRY: Duration = Duration::from_secs(60);

/// and gives up when so much time has passed: others may soon take it for dead.
const SIGN_WITHIN: Duration = Duration::from_secs(20 * 3600);

/// A body on its way in. Dropped before [`Upload::finish`], what it wrote is deleted.
pub struct Upload {
    namespace: Namespace,
    owner: Owner,
    policy: Policy,
    bytes: u64,
    state: State,
    _counted: Counted,
}

enum State {
    Small(Vec<u8>),
    Large(Box<Large>),
}

/// A body that is too large for a row.
struct Large {
    piece: Option<Piece>,
    hasher: Hasher,
    writer: Writer,
    chunked: Chunked,
    /// When the upload was last known to be pending, or began; and when it has to say so again.
    signed: Timestamp,
    sign_at: Timestamp,
}

/// A body that is stored but belongs to no object yet. Dropped, it is deleted.
pub struct Stored {
    pub bytes: u64,
    pub md5: [u8; 16],
    pub(crate) body: StoredBody,
}

pub(crate) enum StoredBody {
    Inline(Bytes),
    Chunked(Chunked),
}

/// The chunks of a body without an object: deleted when this is dropped, unless it is kept.
pub(crate) struct Chunked {
    namespace: Namespace,
    pub(crate) parts: Parts,
    is_kept: bool,
    _active: Active,
}

/// The manifest of a body, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) container: ContainerId,
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Whether a row says that the upload is pending.
    pub(crate) is_pending: bool,
    /// What the parts that are written to the shard hold.
    pub(crate) offset: u64,
    /// What follows them.
    pub(crate) chunks: Vec<Chunk>,
}

impl Parts {
    pub(crate) fn id(&self) -> BodyId<'_> {
        BodyId {
            container: self.container,
            name: self.name.as_str().into(),
            version: self.version,
        }
    }

    pub(crate) fn shard(&self) -> ShardId {
        placement::of_id(self.container)
    }

    /// Whether the manifest is too long for the object's row.
    pub(crate) fn is_long(&self) -> bool {
        self.offset > 0 || self.chunks.len() > INLINE_CHUNKS_MAX
    }
}

impl Chunked {
    /// The chunks are an object's now, or may be.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Chunked {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let chunks = self.namespace.chunks();
        chunks.discard(self.parts.chunks.iter().map(|chunk| chunk.id));
        if self.parts.is_pending {
            self.namespace.abandon(&self.parts);
        }
    }
}

impl Namespace {
    /// Starts to store a body for an object of this name.
    pub fn upload(&self, container: &Container, name: &str) -> Upload {
        self.inner.metrics.uploads.add(1);
        Upload {
            namespace: self.clone(),
            owner: Owner {
                account: container.account.clone(),
                container: container.name.clone(),
                container_id: container.id,
                object: name.to_owned(),
                version: Version::default(),
            },
            policy: self.chunks().map().load().policies.at(container.policy),
            bytes: 0,
            state: State::Small(Vec::new()),
            _counted: Counted(self.clone()),
        }
    }
}

impl Upload {
    /// Takes more of the body; waits while the buffer budget or the devices are busy.
    ///
    /// # Errors
    /// After any the upload is lost.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        if let State::Small(body) = &mut self.state {
            if body.len() + bytes.len() <= self.namespace.inner.config.inline_bytes_max() {
                // Copied, so that a small body in a memtable does not hold on to a socket's buffer.
                body.reserve_exact(bytes.len());
                body.extend_from_slice(&bytes);
                return Ok(());
            }
            let body = std::mem::take(body);
            self.state = State::Large(Box::new(self.enlarge()));
            self.write_large(body.into()).await?;
        }
        if let State::Large(large) = &mut self.state {
            large.sign().await?;
        }
        self.write_large(bytes).await
    }

    /// Waits until all of it would survive power loss.
    pub async fn finish(self) -> Result<Stored, Error> {
        match self.state {
            State::Small(body) => Ok(Stored {
                bytes: self.bytes,
                md5: hash::md5(&body),
                body: StoredBody::Inline(body.into()),
            }),
            State::Large(large) => large.finish(self.bytes).await,
        }
    }

    fn enlarge(&self) -> Large {
        let mut owner = self.owner.clone();
        let uploads = &self.namespace.inner.uploads;
        let now = self.namespace.now();
        let active = uploads.begin(owner.container_id, now);
        owner.version = active.version;
        Large {
            piece: None,
            hasher: Hasher::new(),
            chunked: Chunked {
                namespace: self.namespace.clone(),
                parts: Parts {
                    container: owner.container_id,
                    name: owner.object.clone(),
                    version: owner.version,
                    is_pending: false,
                    offset: 0,
                    chunks: Vec::new(),
                },
                is_kept: false,
                _active: active,
            },
            writer: self.namespace.chunks().writer(owner, self.policy),
            signed: now,
            sign_at: now.after(SIGN_AFTER),
        }
    }

    async fn write_large(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        let State::Large(large) = &mut self.state else {
            return Ok(());
        };
        while !bytes.is_empty() {
            let piece = match &mut large.piece {
                Some(piece) => piece,
                None => {
                    let piece = large.take_piece().await?;
                    large.piece.insert(piece)
                }
            };
            bytes.advance(piece.fill(&bytes));
            if piece.is_full() {
                large.pass_on().await?;
            }
        }
        Ok(())
    }
}

impl Large {
    async fn take_piece(&mut self) -> Result<Piece, Error> {
        let pool = self.chunked.namespace.chunks().pool();
        if let Some(piece) = pool.try_take() {
            return Ok(piece);
        }
        // What this upload has filled must not wait for the piece that is to follow it.
        self.hasher.flush().await?;
        self.writer.cut().await?;
        Ok(self.chunked.namespace.chunks().pool().take().await?)
    }

    /// Gives the piece to the hasher and to the writer.
    async fn pass_on(&mut self) -> Result<(), Error> {
        let Some(piece) = self.piece.take() else {
            return Ok(());
        };
        let piece = piece.freeze();
        self.hasher.push(piece.clone()).await?;
        self.writer.push(piece).await?;
        if self.writer.written() >= PART_CHUNKS_MAX {
            self.write_part().await?;
        }
        Ok(())
    }

    /// Says in the shard that this upload goes on, when it is time for that.
    async fn sign(&mut self) -> Result<(), Error> {
        let Chunked {
            namespace, parts, ..
        } = &mut self.chunked;
        let now = namespace.now();
        if now < self.sign_at {
            return Ok(());
        }
        let signed = namespace.execute(parts.shard(), Sign::new(parts)).await;
        match signed {
            Ok(()) => {
                parts.is_pending = true;
                self.signed = now;
                self.sign_at = now.after(SIGN_AFTER);
            }
            // The row of a first sign may be there or not, so a commit would not know what to expect.
            Err(Error::Unavailable { .. }) if now.since(self.signed) < SIGN_WITHIN => {
                self.sign_at = now.after(SIGN_RETRY);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Moves what is known of the manifest to the shard.
    async fn write_part(&mut self) -> Result<(), Error> {
        let Chunked {
            namespace, parts, ..
        } = &mut self.chunked;
        parts.chunks.extend(self.writer.take_written());
        let write = WritePart {
            parts: parts.clone(),
        };
        parts.offset = namespace.execute(parts.shard(), write).await?;
        parts.chunks.clear();
        parts.is_pending = true;
        self.signed = namespace.now();
        self.sign_at = self.signed.after(SIGN_AFTER);
        Ok(())
    }

    async fn finish(mut self, bytes: u64) -> Result<Stored, Error> {
        self.pass_on().await?;
        let (md5, written) = tokio::join!(self.hasher.finish(), self.writer.finish());
        let mut chunked = self.chunked;
        chunked.parts.chunks.extend(written?);
        Ok(Stored {
            bytes,
            md5: md5?,
            body: StoredBody::Chunked(chunked),
        })
    }
}

/// Uploads of this process that have written, or may write, chunks.
pub(crate) struct Uploads {
    node: NodeId,
    active: Arc<Mutex<HashSet<(ContainerId, Version)>>>,
    newest: AtomicU64,
}

/// An upload that goes on, until it is dropped.
struct Active {
    active: Arc<Mutex<HashSet<(ContainerId, Version)>>>,
    container: ContainerId,
    version: Version,
}

impl Uploads {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            active: Arc::default(),
            newest: AtomicU64::default(),
        }
    }

    /// Begins an upload, under a version that no other has.
    fn begin(&self, container: ContainerId, now: Timestamp) -> Active {
        let later = |newest: u64| Some(now.ticks().max(newest + 1));
        let before = self
            .newest
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later)
            .expect("there always is a later time");
        let began = Timestamp::from_ticks(now.ticks().max(before + 1));
        let version = Version::new(began, self.node);
        self.active.lock().insert((container, version));
        Active {
            active: self.active.clone(),
            container,
            version,
        }
    }

    pub(crate) fn is_active(&self, container: ContainerId, version: Version) -> bool {
        self.active.lock().contains(&(container, version))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut active = self.active.lock();
        active.remove(&(self.container, self.version));
    }
}

/// Counts an upload until it is dropped.
struct Counted(Namespace);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.inner.metrics.uploads.sub(1);
    }
}
