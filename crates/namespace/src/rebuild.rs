//! Objects made again from the headers of their chunks, when all rows are lost: docs/backup.md.
//!
//! What the headers say is put together by [`Rebuild`], and only a body that was read to its end, each byte verified,
//! becomes an object again. Needs some 200 bytes of memory for each chunk.

mod pieces;

use std::collections::{BTreeMap, HashSet};

use base::{ChunkId, ContainerId, ShardId, Timestamp, Version};
use bytes::Bytes;
use chunks::{Chunk, Owner, Span};
use shard::Exported;

use crate::hash::Hasher;
use crate::key::{self, BodyId, Count};
use crate::manifest::{self, INLINE_CHUNKS_MAX, PART_CHUNKS_MAX};
use crate::row::{
    self, Body, ContainerHead, ContainerNameRow, ContainerRow, ObjectHead, ObjectRow, PartRow, Raw,
};
use crate::write::signed;
use crate::{Error, Metadata, Namespace, placement, restore};
pub use pieces::Piece;
use pieces::{Gap, Pieces};

/// More names than this are counted, not kept.
const NAMES_MAX: usize = 1000;

/// What the headers of all records say.
#[derive(Default)]
pub struct Rebuild {
    containers: BTreeMap<ContainerId, Container>,
}

#[derive(Default)]
struct Container {
    account: String,
    name: String,
    objects: BTreeMap<String, BTreeMap<Version, Pieces>>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    pub containers: u64,
    pub objects: u64,
    pub bytes: u64,
    /// The first thousand bodies that could not be made whole, with the reason.
    pub incomplete: Vec<String>,
    pub incomplete_total: u64,
}

impl Rebuilt {
    fn note(&mut self, name: &str, why: impl std::fmt::Display) {
        self.incomplete_total += 1;
        if self.incomplete.len() < NAMES_MAX {
            self.incomplete.push(format!("{name}: {why}"));
        }
    }
}

/// Guesses the type of an object by its name.
type Guess = fn(&str) -> &'static str;

/// A body that was read to its end.
struct Whole {
    chunks: Vec<Chunk>,
    bytes: u64,
    md5: [u8; 16],
}

impl Rebuild {
    /// Takes what a header says. The same chunk may come from several devices.
    pub fn add(&mut self, owner: Owner, piece: Piece) {
        let Owner {
            account,
            container,
            container_id,
            object,
            version,
        } = owner;
        let known = self
            .containers
            .entry(container_id)
            .or_insert_with(|| Container {
                account,
                name: container,
                objects: BTreeMap::new(),
            });
        let versions = known.objects.entry(object).or_default();
        versions.entry(version).or_default().add(piece);
    }

    /// Reads all bodies, the newest of each object first, and writes the rows of those that are whole. The shards hold
    /// nothing but a map, with which the chunks can be read.
    pub async fn put(self, namespace: &Namespace, guess: Guess) -> Result<Rebuilt, Error> {
        let mut rebuilt = Rebuilt::default();
        for (id, container) in self.newest(&mut rebuilt) {
            let mut rows = Rows::of(id, &container, namespace.shard_count());
            for (name, versions) in container.objects {
                let path = format!("{}/{}/{name}", container.account, container.name);
                for (version, pieces) in versions.into_iter().rev() {
                    match whole(namespace, &pieces).await {
                        Ok(whole) => {
                            rebuilt.objects += 1;
                            rebuilt.bytes += whole.bytes;
                            rows.object(&name, version, &whole, guess(&name));
                            break;
                        }
                        Err(gap) => rebuilt.note(&path, gap),
                    }
                }
                rows.write(namespace, WRITE_BYTES).await?;
            }
            rebuilt.containers += u64::from(rows.objects > 0);
            rows.end(namespace).await?;
        }
        Ok(rebuilt)
    }

    /// Of several containers with one name, which were there one after the other, the one that was written to last.
    fn newest(self, rebuilt: &mut Rebuilt) -> BTreeMap<ContainerId, Container> {
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, container) in self.containers {
            let name = (container.account.clone(), container.name.clone());
            by_name.entry(name).or_default().push((id, container));
        }
        let mut newest = BTreeMap::new();
        for mut all in by_name.into_values() {
            all.sort_by_key(|(_, container)| container.written());
            newest.extend(all.pop());
            for (_, older) in all {
                for name in older.objects.keys() {
                    let path = format!("{}/{}/{name}", older.account, older.name);
                    rebuilt.note(&path, "its container was deleted and made again since");
                }
            }
        }
        newest
    }
}

impl Container {
    /// The newest version of any object.
    fn written(&self) -> Option<Version> {
        let versions = self.objects.values().flat_map(BTreeMap::keys);
        versions.max().copied()
    }
}

/// Reads a body; chunks that cannot be read are done without, if there are others in their place.
async fn whole(namespace: &Namespace, pieces: &Pieces) -> Result<Whole, Gap> {
    let mut bad = HashSet::new();
    loop {
        let chunks = pieces.chain(&bad)?;
        match read(namespace, &chunks).await {
            Ok(md5) => {
                let bytes = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
                return Ok(Whole { chunks, bytes, md5 });
            }
            Err(chunk) => bad.insert(chunk),
        };
    }
}

/// The MD5 of these chunks; or the one that cannot be read.
async fn read(namespace: &Namespace, chunks: &[Chunk]) -> Result<[u8; 16], ChunkId> {
    let mut hasher = Hasher::new();
    for chunk in chunks {
        let mut reader = namespace.chunks().reader();
        reader.push(Span {
            chunk: *chunk,
            range: 0..chunk.bytes,
        });
        while let Some(read) = reader.next().await {
            let bytes = read.map_err(|error| {
                tracing::warn!(chunk = %chunk.id, %error, "a chunk cannot be read");
                chunk.id
            })?;
            let hashed = hasher.push(bytes).await;
            hashed.map_err(|_| chunk.id)?;
        }
    }
    let last = chunks.last().map_or(ChunkId(0), |chunk| chunk.id);
    hasher.finish().await.map_err(|_| last)
}

/// Rows wait for each other until they are so many.
const WRITE_BYTES: usize = 1 << 20;

/// The rows of a container, on their way to its shard.
struct Rows {
    shard: ShardId,
    id: ContainerId,
    account: String,
    name: String,
    rows: Vec<(Bytes, Exported)>,
    waiting_bytes: usize,
    objects: u64,
    bytes: u64,
    newest: Timestamp,
    oldest: Timestamp,
}

impl Rows {
    fn of(id: ContainerId, container: &Container, shards: u16) -> Self {
        let (account, name) = (container.account.clone(), container.name.clone());
        Self {
            shard: placement::of_container(&account, &name, shards),
            id,
            account,
            name,
            rows: Vec::new(),
            waiting_bytes: 0,
            objects: 0,
            bytes: 0,
            newest: Timestamp::from_ticks(0),
            oldest: Timestamp::from_ticks(u64::MAX),
        }
    }

    fn put(&mut self, key: Bytes, row: Bytes) {
        self.waiting_bytes += key.len() + row.len();
        self.rows.push((key, Exported::Row(row)));
    }

    fn object(&mut self, name: &str, version: Version, whole: &Whole, content_type: &str) {
        let began = version.began();
        let manifest = manifest::encode(&whole.chunks);
        let is_long = whole.chunks.len() > INLINE_CHUNKS_MAX;
        let body = match is_long {
            true => Body::Parts { version },
            false => Body::Chunks {
                version,
                manifest: Raw(&manifest),
            },
        };
        let row = ObjectRow {
            head: ObjectHead {
                modified: began,
                created: began,
                bytes: whole.bytes,
                md5: whole.md5,
                content_type: content_type.into(),
                delete_at: None,
            },
            metadata: &Metadata::new(),
            body,
        };
        self.put(key::object(self.id, name), row::encode(&row));
        if is_long {
            self.parts(name, version, &whole.chunks);
        }
        self.objects += 1;
        self.bytes += whole.bytes;
        self.newest = self.newest.max(began);
        self.oldest = self.oldest.min(began);
    }

    fn parts(&mut self, name: &str, version: Version, chunks: &[Chunk]) {
        let id = BodyId {
            container: self.id,
            name: name.into(),
            version,
        };
        let mut offset = 0;
        for chunks in chunks.chunks(PART_CHUNKS_MAX) {
            let manifest = manifest::encode(chunks);
            let part = PartRow {
                manifest: Raw(&manifest),
            };
            self.put(id.part(offset), row::encode(&part));
            offset += chunks
                .iter()
                .map(|chunk| u64::from(chunk.bytes))
                .sum::<u64>();
        }
    }

    /// Writes what waits, if it is as much as that.
    async fn write(&mut self, namespace: &Namespace, bytes_min: usize) -> Result<(), Error> {
        if self.waiting_bytes < bytes_min || self.rows.is_empty() {
            return Ok(());
        }
        self.waiting_bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        restore::put(&namespace.inner.shards, self.shard, rows).await
    }

    /// Writes the container itself and its counters, if it has objects.
    async fn end(mut self, namespace: &Namespace) -> Result<(), Error> {
        if self.objects == 0 {
            return Ok(());
        }
        let (account, name) = (self.account.clone(), self.name.clone());
        let head = ContainerHead {
            id: self.id,
            created: self.oldest,
            modified: self.newest,
            changed: self.oldest,
            policy: 0,
        };
        let container = ContainerRow {
            head,
            metadata: Metadata::new(),
        };
        self.put(key::container(&account, &name), container.encode());
        let of_id = ContainerNameRow {
            account: account.clone(),
            name,
        };
        self.put(key::container_name(self.id), row::encode(&of_id));
        let (objects, bytes) = (signed(self.objects), signed(self.bytes));
        for (key, sum) in [
            (key::container_count(Count::Objects, self.id), objects),
            (key::container_count(Count::Bytes, self.id), bytes),
            (key::account_total(Count::Containers, &account), 1),
            (key::account_total(Count::Objects, &account), objects),
            (key::account_total(Count::Bytes, &account), bytes),
        ] {
            self.rows.push((key, Exported::Counter(sum)));
        }
        self.write(namespace, 0).await
    }
}

#[cfg(test)]
mod tests;
