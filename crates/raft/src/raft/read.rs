//! Reads that see all that was acknowledged before them, on any member.
//!
//! A leader needs proof that nobody else leads. A majority that answers a question of this leader had elected nobody
//! else when it did. So all reads that came before the question was sent may be answered, by what was decided
//! then. One question is under way at a time, and whoever comes meanwhile shares the next.
//!
//! Another member asks the leader what it must have done to answer, again one question at a time for all who wait.
//! By asking in this term it says that it had elected nobody else when the reads came: so the two of three voters
//! need not ask the third.

use std::time::Duration;

use super::{Raft, State};
use crate::message::Body;
use crate::{Data, ReplicaId};

/// Who waits for a leader's proof.
pub(super) enum Reader {
    Here(u64),
    There { id: ReplicaId, number: u64 },
}

/// What a replica asks of its leader for those who read here.
#[derive(Default)]
pub(super) struct Asking {
    /// Of the question under way. No answer to an earlier one has it, nor one from before a start.
    number: u64,
    sent: Duration,
    /// Whose question it is; nobody if none is under way.
    readers: Vec<u64>,
    /// Who came later.
    next: Vec<u64>,
}

impl<D: Data> Raft<D> {
    /// Asks what must have been done here to answer a read; `token` comes back in [`super::Ready::reads`].
    pub fn read(&mut self, now: Duration, token: u64) {
        #[cfg(any(test, feature = "canary"))]
        if self.reads_wrongly(token) {
            return;
        }
        let is_only_voter = self.is_only_voter();
        match &mut self.role {
            State::Leader(leader) => {
                let is_waiting = !leader.reads.is_empty();
                leader
                    .reads
                    .push_back((leader.round + 1, Reader::Here(token)));
                if is_only_voter {
                    self.answer_reads(now);
                } else if !is_waiting {
                    self.begin_round(now);
                }
            }
            // With the next [`Raft::pump`].
            State::Follower { leader: Some(_) } => self.asking.next.push(token),
            _ => self.ready.reads.push((token, None)),
        }
    }

    #[cfg(any(test, feature = "canary"))]
    fn reads_wrongly(&mut self, token: u64) -> bool {
        use crate::Bug;
        let is_wrong = match self.role {
            State::Leader(_) => self.bug == Some(Bug::BelievesItLeads),
            _ => self.bug == Some(Bug::ReadsAlone),
        };
        if is_wrong {
            self.ready.reads.push((token, Some(self.commit)));
        }
        is_wrong
    }

    /// Asks the others whether they have elected nobody else.
    fn begin_round(&mut self, now: Duration) {
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        leader.round += 1;
        for to in self.other_voters() {
            self.send_append(now, to);
        }
    }

    pub(super) fn answer_reads(&mut self, now: Duration) {
        let is_only_voter = self.is_only_voter();
        let membership = self.log.membership().1;
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        if leader.reads.is_empty() || self.commit < leader.first {
            return;
        }
        let answered = |id: ReplicaId| match id == self.id {
            true => leader.round + 1,
            false => leader.others.get(&id).map_or(0, |one| one.round),
        };
        // The leader alone needs nobody's answer.
        let proven = membership.reached(answered);
        let mut readers = Vec::new();
        while let Some((_, reader)) = leader.reads.pop_front_if(|(round, _)| *round <= proven) {
            readers.push(reader);
        }
        let is_next = |(round, _): &(u64, Reader)| *round > leader.round;
        if leader.reads.front().is_some_and(is_next) && !is_only_voter {
            self.begin_round(now);
        }
        for reader in readers {
            self.answer(reader);
        }
    }

    /// All that was decided until now must have been done.
    fn answer(&mut self, reader: Reader) {
        let index = self.commit;
        match reader {
            Reader::Here(token) => self.ready.reads.push((token, Some(index))),
            Reader::There { id, number } => self.send(id, Body::ReadIndexReply { number, index }),
        }
    }

    /// A member wants to read.
    pub(super) fn asked_for_index(&mut self, now: Duration, from: ReplicaId, number: u64) {
        let membership = self.log.membership().1;
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        let reader = Reader::There { id: from, number };
        let are_enough = membership.has_quorum(|id| id == self.id || id == from);
        if are_enough && self.commit >= leader.first {
            return self.answer(reader);
        }
        let is_waiting = !leader.reads.is_empty();
        leader.reads.push_back((leader.round + 1, reader));
        if !is_waiting {
            self.begin_round(now);
        }
    }

    /// Asks the leader for all who wait, if no question is under way.
    pub(super) fn ask(&mut self, now: Duration) {
        if self.asking.next.is_empty() || !self.asking.readers.is_empty() {
            return;
        }
        self.asking.number = self.draw();
        self.asking.readers = std::mem::take(&mut self.asking.next);
        self.ask_again(now);
    }

    fn ask_again(&mut self, now: Duration) {
        let number = self.asking.number;
        if let State::Follower { leader: Some(to) } = self.role {
            self.asking.sent = now;
            self.send(to, Body::ReadIndex { number });
        }
    }

    /// The leader was heard, so it can be asked again for what may be lost.
    pub(super) fn remind_leader(&mut self, now: Duration) {
        if !self.asking.readers.is_empty() && now >= self.asking.sent + self.config.heartbeat {
            self.ask_again(now);
        }
    }

    pub(super) fn index_answered(&mut self, number: u64, index: u64) {
        if self.asking.readers.is_empty() || self.asking.number != number {
            return;
        }
        // It is decided, if it is here.
        self.commit = self.commit.max(index.min(self.matched));
        let readers = std::mem::take(&mut self.asking.readers);
        let answers = readers.into_iter().map(|token| (token, Some(index)));
        self.ready.reads.extend(answers);
    }

    /// Nobody who reads gets an answer any more from the one who led.
    pub(super) fn give_up_reads(&mut self) {
        let asking = std::mem::take(&mut self.asking);
        let mut tokens = asking.readers;
        tokens.extend(asking.next);
        if let State::Leader(leader) = &mut self.role {
            tokens.extend(
                leader
                    .reads
                    .drain(..)
                    .filter_map(|(_, reader)| match reader {
                        Reader::Here(token) => Some(token),
                        // It hears of another leader.
                        Reader::There { .. } => None,
                    }),
            );
        }
        self.ready
            .reads
            .extend(tokens.into_iter().map(|token| (token, None)));
    }
}
