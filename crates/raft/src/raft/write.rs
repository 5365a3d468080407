//! What is on its way to the disk, and what must wait for it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Persist, Raft, State};
use crate::message::{Appended, Body, Message};
use crate::{Data, Entry, LogId, Membership, ReplicaId};

/// Writes are numbered, and end in the order of their numbers.
pub(super) struct Writes<D> {
    pub(super) issued: u64,
    done: u64,
    /// The last entry that each write under way will have made durable.
    flying: VecDeque<(u64, u64)>,
    /// All entries up to here are durable.
    pub(super) durable: u64,
    /// Promises that rest on writes up to a number.
    held: VecDeque<(u64, Message<D>)>,
}

impl<D> Writes<D> {
    pub(super) fn new(durable: u64) -> Self {
        Self {
            issued: 0,
            done: 0,
            flying: VecDeque::new(),
            durable,
            held: VecDeque::new(),
        }
    }

    /// Entries behind `index` are gone, also those that are still being written.
    fn cut(&mut self, index: u64) {
        self.durable = self.durable.min(index);
        for (_, last) in &mut self.flying {
            *last = (*last).min(index);
        }
    }
}

impl<D: Data> Raft<D> {
    /// All writes up to this number are durable.
    pub fn persisted(&mut self, now: Duration, seq: u64) {
        let writes = &mut self.writes;
        writes.done = writes.done.max(seq);
        while let Some((_, last)) = writes.flying.pop_front_if(|(write, _)| *write <= seq) {
            writes.durable = writes.durable.max(last);
        }
        while let Some((_, message)) = writes.held.pop_front_if(|(write, _)| *write <= seq) {
            // What was promised in an earlier term is still true, and its receiver knows the term.
            self.ready.messages.push(message);
        }
        match &self.role {
            State::Candidate { own, .. } if *own <= seq => self.vote_answered(now, self.id, true),
            State::Leader(_) => self.advance(now),
            _ => {}
        }
    }

    /// Sends as soon as all that was to be written until now is durable.
    pub(super) fn promise(&mut self, to: ReplicaId, body: Body<D>) {
        let message = self.message(to, body);
        #[cfg(any(test, feature = "canary"))]
        if self.bug == Some(crate::Bug::PromisesEarly) {
            self.ready.messages.push(message);
            return;
        }
        match self.writes.issued == self.writes.done {
            true => self.ready.messages.push(message),
            false => self.writes.held.push_back((self.writes.issued, message)),
        }
    }

    /// Answers an append. Whether the leader still leads does not rest on what is being written, so those
    /// who wait to read need not wait for that.
    pub(super) fn acknowledge(&mut self, to: ReplicaId, round: u64, outcome: Appended) {
        if round > self.round {
            self.round = round;
            if self.writes.issued != self.writes.done {
                let outcome = Appended::Alive;
                self.send(to, Body::AppendReply { round, outcome });
            }
        }
        self.promise(to, Body::AppendReply { round, outcome });
    }

    pub(super) fn write_ballot(&mut self) -> u64 {
        let seq = self.next_write();
        self.ready.persist.push(Persist {
            seq,
            ballot: Some(self.ballot),
            cut: None,
            entries: Vec::new(),
        });
        seq
    }

    /// The entries are in the log already; those from `cut` on were there before and are not.
    pub(super) fn write_entries(&mut self, entries: Vec<Entry<D>>, cut: Option<u64>) {
        if let Some(cut) = cut {
            self.writes.cut(cut - 1);
        }
        let seq = self.next_write();
        let last = self.log.last().index;
        self.writes.flying.push_back((seq, last));
        // What replaces entries says so by its indexes.
        let cut = cut.filter(|_| entries.is_empty());
        self.ready.persist.push(Persist {
            seq,
            ballot: None,
            cut,
            entries,
        });
    }

    fn next_write(&mut self) -> u64 {
        self.writes.issued += 1;
        self.writes.issued
    }

    /// A snapshot up to `base` has come from a leader of `term`. Whether it is news; if so, what the log has
    /// against it must be written off (up to the write that is given) before the state is replaced.
    pub fn expect_snapshot(&mut self, now: Duration, term: u64, base: LogId) -> Option<u64> {
        if term > self.ballot.term {
            // From now on only those append who have all that the snapshot has.
            self.step_down(now, term, None);
        }
        if term < self.ballot.term || base.index <= self.commit {
            return None;
        }
        let is_contradicted = self.log.last().index >= base.index && !self.log.has(base);
        if is_contradicted {
            // What follows an entry that was not decided was not decided either.
            self.log.cut(base.index);
            self.write_entries(Vec::new(), Some(base.index));
        }
        Some(self.writes.issued)
    }

    /// The state is now, durably, that of a snapshot up to `base`; nothing was done since it was expected.
    pub fn installed(&mut self, base: LogId, membership: Membership) {
        if base.index <= self.applied {
            return;
        }
        if self.log.has(base) {
            self.log.compact(base.index);
        } else {
            assert!(
                base.index > self.commit,
                "what is decided is the same everywhere"
            );
            self.log.reset(base, membership);
            self.writes.cut(base.index);
        }
        self.applied = base.index;
        self.commit = self.commit.max(base.index);
        self.writes.durable = self.writes.durable.max(base.index);
    }

    /// The durable state holds all up to `index`: its entries are no longer needed here. Those that others
    /// may need stay, as long as all together take no more than so many bytes. Gives the last index that went.
    pub fn compact(&mut self, index: u64, keep_bytes: usize) -> u64 {
        let index = index.min(self.applied);
        let gentle = index.min(self.keep().saturating_sub(1));
        self.log.compact(gentle);
        while self.log.base().index < index && self.log.bytes() > keep_bytes {
            self.log.compact(self.log.base().index + 1);
        }
        self.log.base().index
    }
}
