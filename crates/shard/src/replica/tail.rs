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
        if entry.id.term < self.base.term {
            // It was behind an entry that another leader's took the place of, which the tree has.
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::Payload;

    use super::*;

    fn entry(term: u64, index: u64) -> Record {
        let id = LogId { term, index };
        let payload = Payload::Blank;
        Record {
            stream: 0,
            kind: Kind::Entry(index),
            body: vec![
                LogRecord::encode_entry(&Entry { id, payload })
                    .concat()
                    .into(),
            ],
        }
    }

    fn state(replica: u64) -> Record {
        let state = StateRecord {
            replica: ReplicaId(replica),
            ballot: Ballot::default(),
        };
        Record {
            stream: 0,
            kind: Kind::State,
            body: vec![state.encode()],
        }
    }

    #[track_caller]
    fn check(records: Vec<Record>, expected: &[(u64, u64)]) -> Tail {
        let mut tail = Tail::after(ReplicaId(1), LogId { term: 3, index: 10 });
        for record in records {
            tail.replay(record).unwrap();
        }
        let entries = tail
            .entries()
            .iter()
            .map(|entry| (entry.id.term, entry.id.index));
        assert_eq!(entries.collect::<Vec<_>>(), expected);
        tail
    }

    #[test]
    fn what_is_behind_a_replaced_entry_is_gone() {
        check(
            vec![entry(3, 10), entry(3, 11), entry(4, 12)],
            &[(3, 11), (4, 12)],
        );
        check(vec![entry(3, 11), entry(3, 12), entry(4, 11)], &[(4, 11)]);
        // The tree has the entry that took the place of another one.
        check(vec![entry(2, 10), entry(2, 11), entry(3, 10)], &[]);
        let cut = Record {
            body: LogRecord::encode_cut(12),
            ..entry(0, 12)
        };
        check(vec![entry(3, 11), entry(3, 12), cut], &[(3, 11)]);
    }

    #[test]
    fn entries_of_another_life_are_skipped() {
        let tail = check(
            vec![state(9), entry(1, 11), state(1), entry(3, 11)],
            &[(3, 11)],
        );
        assert!(!tail.is_gone());
        let tail = check(vec![state(1), entry(3, 11), state(0)], &[]);
        assert!(tail.is_gone());
    }

    #[test]
    fn what_cannot_have_been_written_is_damage() {
        for records in [
            vec![entry(3, 12)],
            vec![entry(4, 11), entry(3, 12)],
            vec![Record {
                body: vec![Bytes::from_static(b"\x01")],
                ..entry(3, 11)
            }],
        ] {
            let mut tail = Tail::after(ReplicaId(1), LogId { term: 3, index: 10 });
            let replayed: Result<Vec<()>, Error> = records
                .into_iter()
                .map(|record| tail.replay(record))
                .collect();
            assert!(matches!(replayed, Err(Error::Damaged(_))), "{replayed:?}");
        }
    }
}
