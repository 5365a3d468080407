//! One shard's part of the device's log, as openraft sees it.
//!
//! All entries that are not purged are in memory: they are those that the tree does not have yet,
//! and their bytes are shared with the memtable, whose size is bounded.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use base::ShardId;
use device::{Kind, Log, Record};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::codec::{decode_vote, encode_vote};
use super::{Entry, LogId, LogRecord, Proposal, StorageError, Types, Vote};
use crate::Error;

/// Cheap to clone; all clones are one store.
#[derive(Clone)]
pub(crate) struct LogStore {
    shard: ShardId,
    log: Log,
    cache: Arc<Mutex<Cache>>,
}

/// What a shard has in the log.
#[derive(Default)]
pub(crate) struct Cache {
    vote: Option<Vote>,
    /// The last entry that is gone because the tree has it.
    purged: Option<LogId>,
    /// The entries after it, without gaps.
    entries: VecDeque<Entry>,
}

impl Cache {
    /// For a shard whose tree has the entries up to `applied`.
    pub(crate) fn after(applied: Option<LogId>) -> Self {
        Self {
            purged: applied,
            ..Self::default()
        }
    }

    /// Takes up a record while the log is read.
    pub(crate) fn replay(&mut self, record: Record) -> Result<(), Error> {
        let body = record.body.into_iter().next().unwrap_or_default();
        if record.kind == Kind::State {
            self.vote = Some(decode_vote(body)?);
            return Ok(());
        }
        match LogRecord::decode(body)? {
            LogRecord::Cut(from) => self.cut(from.index),
            LogRecord::Entry(entry) => {
                let (index, next) = (entry.log_id.index, self.next_index());
                if index > next {
                    return Err(Error::Damaged(format!(
                        "the log goes from entry {next} on with {index}"
                    )));
                }
                if index >= self.first_index() {
                    self.cut(index);
                    self.entries.push_back(entry);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    fn last(&self) -> Option<LogId> {
        self.entries
            .back()
            .map(|entry| entry.log_id)
            .or(self.purged)
    }

    fn is_new(&self) -> bool {
        self.vote.is_none() && self.last().is_none()
    }

    fn first_index(&self) -> u64 {
        let first = self.entries.front().map(|entry| entry.log_id.index);
        first.unwrap_or_else(|| self.next_index())
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn cut(&mut self, from: u64) {
        self.entries.truncate(self.place(from));
    }

    fn purge(&mut self, upto: LogId) {
        let count = self.place(upto.index + 1).min(self.entries.len());
        self.entries.drain(..count);
        self.purged = Some(upto);
    }

    /// The position of an index among the entries.
    fn place(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first_index())).unwrap_or(usize::MAX)
    }

    fn range(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let end = self.place(end).min(self.entries.len());
        let start = self.place(start).min(end);
        self.entries.range(start..end).cloned().collect()
    }
}

impl LogStore {
    pub(crate) fn new(shard: ShardId, log: Log, cache: Cache) -> Self {
        Self {
            shard,
            log,
            cache: Arc::new(Mutex::new(cache)),
        }
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.cache.lock().last()
    }

    /// Whether nothing was ever written here.
    pub(crate) fn is_new(&self) -> bool {
        self.cache.lock().is_new()
    }

    fn record(&self, kind: Kind, body: Vec<bytes::Bytes>) -> Record {
        Record {
            stream: self.shard.0,
            kind,
            body,
        }
    }

    /// Appends and waits until the record is durable.
    async fn append_one(&self, record: Record) -> Result<(), io::Error> {
        let (done, result) = oneshot::channel();
        self.log.append(vec![record], move |answer| {
            let _ = done.send(answer);
        });
        match result.await {
            Ok(answer) => answer.map_err(io::Error::other),
            Err(gone) => Err(io::Error::other(gone)),
        }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.cache.lock().range(range))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let cache = self.cache.lock();
        Ok(LogState {
            last_purged_log_id: cache.purged,
            last_log_id: cache.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let record = self.record(Kind::State, vec![encode_vote(vote)]);
        let saved = self.append_one(record).await;
        saved.map_err(|error| StorageIOError::write_vote(&error))?;
        self.cache.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.cache.lock().vote)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut mine = Vec::new();
        {
            let mut cache = self.cache.lock();
            for entry in entries {
                let kind = Kind::Entry(entry.log_id.index);
                records.push(self.record(kind, LogRecord::encode_entry(&entry)));
                mine.extend(own(&entry));
                cache.entries.push_back(entry);
            }
        }
        self.log.append(records, move |answer| {
            let failed = answer.is_err();
            flushed.log_io_completed(answer.map_err(io::Error::other));
            for local in mine.iter().filter_map(Proposal::local) {
                if failed {
                    // Openraft stops now and would leave those who wait alone.
                    local.finish(&Err(Error::Unknown));
                }
                // The next entry is there when openraft looks.
                local.logged();
            }
        });
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let record = self.record(Kind::Entry(from.index), LogRecord::encode_cut(from));
        let cut = self.append_one(record).await;
        cut.map_err(|error| StorageIOError::write_logs(&error))?;
        self.cache.lock().cut(from.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.cache.lock().purge(upto);
        self.log.release([(self.shard.0, upto.index)]);
        Ok(())
    }
}

/// The proposal in the entry, if it was proposed here; from now on it may happen.
fn own(entry: &Entry) -> Option<Proposal> {
    let EntryPayload::Normal(proposal) = &entry.payload else {
        return None;
    };
    proposal.local()?.appending();
    Some(proposal.clone())
}
