//! The B-tree of one device: an LMDB environment with one database per shard; bytes in
//! docs/formats/tree.md.
//!
//! Written by one thread at a time, in bulk; read through transactions that are kept for the next
//! reader as long as nothing newer was committed, since opening one costs more than most reads.
//! An idle one pins nothing: it is at the newest commit, and is closed at the next.

mod meta;
pub(crate) mod row;

use std::collections::BTreeMap;
use std::ops::{Bound, Deref};
use std::path::Path;
use std::sync::Arc;

use base::ShardId;
use device::{Access, Lmdb, lmdb};
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, CommitToken, OnCommit, RoTxn, RwTxn, WithoutTls};
use parking_lot::{Mutex, RwLock};

use crate::Error;
use crate::replica::Memo;

pub(crate) use row::Found;
pub use row::{Row, whole_pages};

/// The database of one shard, or the one about all of them.
pub(crate) type Database<'e> = heed::Database<'e, Raw, Raw>;

/// The tree of one device.
pub(crate) struct Tree {
    env: Lmdb,
    /// What is known of the tree itself and of each shard.
    meta: Database<'static>,
    shards: RwLock<BTreeMap<ShardId, Database<'static>>>,
    /// Names the log that belongs to this tree.
    log_id: u64,
    readers: Arc<Readers>,
}

/// Shards number at most 1,024 by configuration, and there is one more database.
const DATABASES_MAX: u32 = 1100;

/// Read transactions that are not in use.
struct Readers {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The newest commit.
    newest: usize,
    txns: Vec<RoTxn<'static, WithoutTls>>,
}

/// More readers than this are rarely open at the same time.
const IDLE_MAX: usize = 64;

/// A read transaction: the tree as of one commit.
pub(crate) struct Reader {
    txn: Option<RoTxn<'static, WithoutTls>>,
    readers: Arc<Readers>,
}

/// Databases of one transaction that become valid for all when it is committed.
struct Opened<'e>(Database<'e>, BTreeMap<ShardId, Database<'e>>);

impl OnCommit for Opened<'_> {
    type Committed = (Database<'static>, BTreeMap<ShardId, Database<'static>>);

    fn on_commit(self, token: &CommitToken) -> Self::Committed {
        let shards = self.1.into_iter();
        let shards = shards.map(|(id, database)| (id, database.on_commit(token)));
        (self.0.on_commit(token), shards.collect())
    }
}

/// As [`Opened`], when the tree is there already.
struct Added<'e>(BTreeMap<ShardId, Database<'e>>);

impl OnCommit for Added<'_> {
    type Committed = BTreeMap<ShardId, Database<'static>>;

    fn on_commit(self, token: &CommitToken) -> Self::Committed {
        let shards = self.0.into_iter();
        shards
            .map(|(id, database)| (id, database.on_commit(token)))
            .collect()
    }
}

const META: &str = "meta";

fn name(shard: ShardId) -> String {
    format!("shard-{:04}", shard.0)
}

impl Tree {
    /// Makes a tree with these replicas, all empty, in one commit.
    pub(crate) fn create(
        dir: &Path,
        map_bytes: usize,
        log_id: u64,
        replicas: &BTreeMap<ShardId, Memo>,
    ) -> Result<(), device::Error> {
        let env = lmdb::open(dir, Access::ReadWrite, map_bytes, DATABASES_MAX);
        let env = env.map_err(|error| open_error(dir, error))?;
        let create = || {
            let txn = env.write_txn()?;
            env.create_databases_and_commit(txn, |opener, txn| {
                let database = opener.create_database::<Raw, Raw>(txn, Some(META))?;
                meta::put_tree(&database, txn, log_id)?;
                let mut opened = Opened(database, BTreeMap::new());
                for (shard, memo) in replicas {
                    let database = opener.create_database(txn, Some(&name(*shard)))?;
                    meta::put_memo(&opened.0, txn, *shard, memo)?;
                    opened.1.insert(*shard, database);
                }
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(opened))
            })
        };
        create().map_err(|error: heed::Error| open_error(dir, error))?;
        Ok(())
    }

    /// Opens the tree in `dir`.
    ///
    /// # Errors
    /// [`device::Error::NotFound`] if there is none.
    pub(crate) fn open(
        dir: &Path,
        access: Access,
        map_bytes: usize,
    ) -> Result<Self, device::Error> {
        if !dir.join("data.mdb").exists() {
            return Err(device::Error::NotFound);
        }
        let env = lmdb::open(dir, access, map_bytes, DATABASES_MAX);
        let env = env.map_err(|error| open_error(dir, error))?;
        let txn = env.read_txn().map_err(|error| open_error(dir, error))?;
        let newest = txn.id();
        let mut log_id = None;
        let opened = env.open_databases_and_commit(txn, |opener, txn| {
            let meta = opener.open_database::<Raw, Raw>(txn, Some(META))?;
            let Some(meta) = meta else {
                return Ok(CommitOrAbort::Abort(()));
            };
            log_id = Some(meta::tree(&meta, txn)?);
            let mut opened = Opened(meta, BTreeMap::new());
            for shard in meta::shards(&meta, txn)? {
                let database = opener.open_database(txn, Some(&name(shard)))?;
                let missing = || damaged(format!("the database of {shard} is missing"));
                opened.1.insert(shard, database.ok_or_else(missing)?);
            }
            Ok::<_, Failure>(CommitOrAbort::Commit(opened))
        });
        let opened = opened.map_err(|failure| match failure {
            Failure::Lmdb(error) => open_error(dir, error),
            Failure::Shard(error) => device::Error::damaged(format!("{}: {error}", dir.display())),
        })?;
        let ((meta, shards), log_id) =
            opened.commit().zip(log_id).ok_or(device::Error::NotFound)?;
        let idle = Idle {
            newest,
            txns: Vec::new(),
        };
        Ok(Self {
            env,
            meta,
            shards: RwLock::new(shards),
            log_id,
            readers: Arc::new(Readers {
                idle: Mutex::new(idle),
            }),
        })
    }

    pub(crate) fn log_id(&self) -> u64 {
        self.log_id
    }

    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.shards.read().keys().copied().collect()
    }

    /// The database of a shard that is here.
    pub(crate) fn database(&self, shard: ShardId) -> Database<'static> {
        self.shards.read()[&shard]
    }

    /// Makes an empty shard, in a commit of its own.
    pub(crate) fn add(&self, shard: ShardId, memo: &Memo) -> Result<(), heed::Error> {
        let txn = self.env.write_txn()?;
        let id = txn.id();
        let opened = self.env.create_databases_and_commit(txn, |opener, txn| {
            let database = opener.create_database::<Raw, Raw>(txn, Some(&name(shard)))?;
            // What an earlier one has left.
            database.clear(txn)?;
            meta::put_memo(&self.meta, txn, shard, memo)?;
            let shards = BTreeMap::from([(shard, database)]);
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(Added(shards)))
        })?;
        self.committed(id);
        self.shards
            .write()
            .extend(opened.commit().into_iter().flatten());
        Ok(())
    }

    /// Removes a shard and its rows, in a commit of its own. What is not here is no error.
    pub(crate) fn remove(&self, shard: ShardId) -> Result<(), heed::Error> {
        let Some(database) = self.shards.write().remove(&shard) else {
            return Ok(());
        };
        let mut txn = self.env.write_txn()?;
        let id = txn.id();
        database.clear(&mut txn)?;
        meta::delete_memo(&self.meta, &mut txn, shard)?;
        txn.commit()?;
        self.committed(id);
        Ok(())
    }

    pub(crate) fn memo(&self, txn: &RoTxn, shard: ShardId) -> Result<Memo, Error> {
        meta::memo(&self.meta, txn, shard)
    }

    pub(crate) fn put_memo(
        &self,
        txn: &mut RwTxn,
        shard: ShardId,
        memo: &Memo,
    ) -> Result<(), heed::Error> {
        meta::put_memo(&self.meta, txn, shard, memo)
    }

    /// Begins a write. Waits for another writer to end.
    pub(crate) fn write(&self) -> Result<RwTxn<'_>, heed::Error> {
        self.env.write_txn()
    }

    /// The bytes of the tree's file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.env.real_disk_size().unwrap_or(0)
    }

    /// Opens the newest commit.
    pub(crate) fn read(&self) -> Result<Reader, Error> {
        let idle = self.readers.idle.lock().txns.pop();
        let txn = match idle {
            Some(txn) => txn,
            None => {
                let opened = self.env.clone().static_read_txn();
                opened.map_err(|error| read_error(&error))?
            }
        };
        Ok(Reader {
            txn: Some(txn),
            readers: self.readers.clone(),
        })
    }

    /// The transaction `id` was committed: whoever reads from now on shall see it.
    pub(crate) fn committed(&self, id: usize) {
        let stale = {
            let mut idle = self.readers.idle.lock();
            idle.newest = id;
            std::mem::take(&mut idle.txns)
        };
        drop(stale);
    }
}

impl Deref for Reader {
    type Target = RoTxn<'static, WithoutTls>;

    fn deref(&self) -> &Self::Target {
        self.txn.as_ref().expect("taken only when dropped")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(txn) = self.txn.take() else { return };
        let mut idle = self.readers.idle.lock();
        if txn.id() == idle.newest && idle.txns.len() < IDLE_MAX {
            idle.txns.push(txn);
        }
    }
}

/// A place in the database of one shard.
pub(crate) struct Cursor<'a> {
    database: Database<'static>,
    txn: &'a RoTxn<'static, WithoutTls>,
    range: Option<Range<'a>>,
    at: Option<(&'a [u8], &'a [u8])>,
}

enum Range<'a> {
    Up(heed::RoRange<'a, Raw, Raw>),
    Down(heed::RoRevRange<'a, Raw, Raw>),
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(database: Database<'static>, reader: &'a Reader) -> Self {
        Self {
            database,
            txn: reader,
            range: None,
            at: None,
        }
    }

    /// Goes to the first key at or after `from`; [`Cursor::step`] goes up from there.
    pub(crate) fn seek(&mut self, from: Bound<&[u8]>) -> Result<(), Error> {
        let range = (from, Bound::Unbounded);
        let range = self.database.range(self.txn, &range);
        self.range = Some(Range::Up(range.map_err(|error| read_error(&error))?));
        self.step()
    }

    /// Goes to the last key at or before `to`; [`Cursor::step`] goes down from there.
    pub(crate) fn seek_back(&mut self, to: Bound<&[u8]>) -> Result<(), Error> {
        let range = (Bound::Unbounded, to);
        let range = self.database.rev_range(self.txn, &range);
        self.range = Some(Range::Down(range.map_err(|error| read_error(&error))?));
        self.step()
    }

    pub(crate) fn step(&mut self) -> Result<(), Error> {
        let next = match &mut self.range {
            Some(Range::Up(range)) => range.next(),
            Some(Range::Down(range)) => range.next(),
            None => None,
        };
        self.at = next.transpose().map_err(|error| read_error(&error))?;
        Ok(())
    }

    /// Where the cursor is, the row as it is stored; `None` past the end.
    pub(crate) fn row(&self) -> Option<(&'a [u8], &'a [u8])> {
        self.at
    }
}

/// Why the tree could not be opened or written.
pub(crate) enum Failure {
    Lmdb(heed::Error),
    Shard(Error),
}

impl From<heed::Error> for Failure {
    fn from(error: heed::Error) -> Self {
        Self::Lmdb(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Shard(error)
    }
}

fn open_error(dir: &Path, error: heed::Error) -> device::Error {
    let dir = dir.display();
    match lmdb::is_corrupt(&error) {
        true => device::Error::damaged(format!("the tree in {dir} is damaged: {error}")),
        false => device::Error::io(format!("opening the tree in {dir}"), lmdb::into_io(error)),
    }
}

/// What a failed read means: nothing but damage is expected here.
pub(crate) fn read_error(error: &heed::Error) -> Error {
    damaged(format!("reading the tree: {error}"))
}

fn damaged(what: String) -> Error {
    Error::Damaged(what)
}
