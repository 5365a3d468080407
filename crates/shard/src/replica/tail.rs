//! What a replica has in the log of its device, as a start reads it.

use std::collections::VecDeque;

use device::{Kind, Record};
use raft::{Ballot, LogId, ReplicaId};

use super::{Entry, LogRecord, StateRecord};
use crate::Error;

/// The entries behind those that the tree has, and the promises.
pub(crate) struct Tail {
    /// The life of the replica whose memo the tree has.
    replica: ReplicaId,
    /// The last entry that the tree has.
    base: LogId,
    /// Whose records those that are being read are, and its promises. Nothing: the first record that
    /// says so has not been made yet.
    state: Option<StateRecord>,
    entries: VecDeque<Entry>,
}

impl Tail {
    pub(crate) fn after(replica: ReplicaId, base: LogId) -> Self {
        Self {
            replica,
            base,
            state: None,
            entries: VecDeque::new(),
        }
    }

    /// Takes up a record while the log is read.
    pub(crate) fn replay(&mut self, record: Record) -> Result<(), Error> {
        let body = record.body.into_iter().next().unwrap_or_default();
        if record.kind == Kind::State {
            let state = StateRecord::decode(body)?;
            let before = self.state.map(|state| state.replica);
            if before.is_some_and(|before| before != state.replica) {
                // Those were the entries of an earlier life.
                self.entries.clear();
            }
            self.state = Some(state);
            return Ok(());
        }
        match LogRecord::decode(body)? {
            LogRecord::Cut(from) => self.cut(from),
            LogRecord::Entry(entry) if self.is_ours() => self.take(entry)?,
            LogRecord::Entry(_) => {}
        }
        Ok(())
    }

    /// Whether the records are of the life that the tree knows.
    fn is_ours(&self) -> bool {
        self.state.is_none_or(|state| state.replica == self.replica)
    }

    fn take(&mut self, entry: Entry) -> Result<(), Error> {
        if entry.id.index <= self.base.index {
            // The tree has it; but what was behind an entry is gone when another takes its place.
            self.entries.clear();
            return Ok(());
        }
        let next = self.base.index + 1 + self.entries.len() as u64;
        if entry.id.index > next {
            return Err(Error::Damaged(format!(
                "the log goes from entry {next} on with {}",
                entry.id.index
            )));
        }
        self.cut(entry.id.index);
        let before = self.entries.back().map_or(self.base, |last| last.id);
        if entry.id.term < before.term {
            let (id, before) = (entry.id, before);
            return Err(Error::Damaged(format!("the log has {id} behind {before}")));
        }
        self.entries.push_back(entry);
        Ok(())
    }

    fn cut(&mut self, from: u64) {
        let keep = from.saturating_sub(self.base.index + 1);
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Whether the replica that the tree knows has been given up.
    pub(crate) fn is_gone(&self) -> bool {
        !self.is_ours()
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.state.map(|state| state.ballot).unwrap_or_default()
    }

    pub(crate) fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    pub(crate) fn into_entries(self) -> VecDeque<Entry> {
        self.entries
    }
}
