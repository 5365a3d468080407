//! How a leader is found.

use std::collections::BTreeSet;
use std::time::Duration;

use super::leader::Leader;
use super::{Raft, State};
use crate::message::{Appended, Body, Message};
use crate::{Ballot, Data, LogId, Payload, ReplicaId};

impl<D: Data> Raft<D> {
    /// Brings this replica up to the message's term. Whether the message is to be looked at then.
    pub(super) fn admits(&mut self, now: Duration, message: &Message<D>) -> bool {
        let (from, term) = (message.from, message.term);
        match &message.body {
            // Asks about a term that has not begun.
            Body::Canvass { .. } | Body::CanvassReply { granted: true } => return true,
            // While there is a leader nobody may disturb it but by its own wish.
            Body::Vote {
                is_transfer: false, ..
            } if term > self.ballot.term && self.has_leader(now) => return false,
            _ => {}
        }
        if term > self.ballot.term {
            self.step_down(now, term, None);
        }
        if term == self.ballot.term {
            return true;
        }
        // A sender of the past learns what time it is.
        let body = match &message.body {
            Body::Append { prev, round, .. } => Body::AppendReply {
                round: *round,
                outcome: Appended::Rejected {
                    prev: prev.index,
                    last: 0,
                },
            },
            Body::Vote { .. } => Body::VoteReply { granted: false },
            _ => return false,
        };
        self.promise(from, body);
        false
    }

    /// Whether there is a leader whom others can rely on.
    fn has_leader(&self, now: Duration) -> bool {
        match &self.role {
            State::Leader(_) => true,
            _ => self
                .heard
                .is_some_and(|heard| now < heard + self.config.election),
        }
    }

    /// Follows from now on, in this term.
    pub(super) fn step_down(&mut self, now: Duration, term: u64, leader: Option<ReplicaId>) {
        self.give_up_reads();
        if term > self.ballot.term {
            self.begin_term(Ballot { term, voted: None });
        }
        self.role = State::Follower { leader };
        self.put_off_election(now);
    }

    /// Nothing is known of the term's leader yet. Gives the number of the write that makes it durable.
    fn begin_term(&mut self, ballot: Ballot) -> u64 {
        self.ballot = ballot;
        self.heard = None;
        self.round = 0;
        self.matched = 0;
        self.write_ballot()
    }

    /// An append has come: its sender leads this term.
    pub(super) fn follow(&mut self, now: Duration, leader: ReplicaId) {
        self.role = State::Follower {
            leader: Some(leader),
        };
        self.heard = Some(now);
        self.put_off_election(now);
        self.remind_leader(now);
    }

    pub(super) fn put_off_election(&mut self, now: Duration) {
        let election = self.config.election;
        self.election_at = now + election + self.up_to(election / 2);
    }

    fn up_to(&mut self, spread: Duration) -> Duration {
        let spread = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.draw() % spread.max(1))
    }

    /// Asks whether an election would be won. That disturbs nobody, so it is asked again soon: the others may
    /// have heard of the last leader a little later.
    pub(super) fn canvass(&mut self, now: Duration) {
        self.give_up_reads();
        let heartbeat = self.config.heartbeat;
        self.election_at = now + heartbeat + self.up_to(heartbeat);
        self.role = State::Canvasser {
            granted: BTreeSet::from([self.id]),
        };
        let term = self.ballot.term + 1;
        let last = self.log.last();
        for to in self.other_voters() {
            self.ready.messages.push(Message {
                from: self.id,
                to,
                term,
                body: Body::Canvass { last },
            });
        }
        self.count_canvass(now);
    }

    pub(super) fn canvassed(&mut self, now: Duration, from: ReplicaId, term: u64, last: LogId) {
        let own = self.log.last();
        // Of two who ask at once one gives way, else each would vote for itself.
        let gives_way = match self.role {
            State::Canvasser { .. } => (last, from) > (own, self.id),
            _ => last >= own,
        };
        let granted = term > self.ballot.term && gives_way && !self.has_leader(now);
        let term = match granted {
            true => term,
            false => self.ballot.term,
        };
        let (from, to) = (self.id, from);
        let body = Body::CanvassReply { granted };
        self.ready.messages.push(Message {
            from,
            to,
            term,
            body,
        });
    }

    pub(super) fn canvass_answered(
        &mut self,
        now: Duration,
        from: ReplicaId,
        term: u64,
        yes: bool,
    ) {
        if let State::Canvasser { granted } = &mut self.role
            && yes
            && term == self.ballot.term + 1
        {
            granted.insert(from);
            self.count_canvass(now);
        }
    }

    fn count_canvass(&mut self, now: Duration) {
        if let State::Canvasser { granted } = &self.role
            && self.membership().has_quorum(|id| granted.contains(&id))
        {
            self.elect(now, false);
        }
    }

    /// Stands for election in the next term.
    pub(super) fn elect(&mut self, now: Duration, is_transfer: bool) {
        let term = self.ballot.term + 1;
        self.elections += 1;
        // What hangs on the role that ends is let go of.
        self.step_down(now, self.ballot.term, None);
        let own = self.begin_term(Ballot {
            term,
            voted: Some(self.id),
        });
        self.role = State::Candidate {
            granted: BTreeSet::new(),
            own,
        };
        let last = self.log.last();
        for to in self.other_voters() {
            self.promise(to, Body::Vote { last, is_transfer });
        }
    }

    pub(super) fn asked_for_vote(&mut self, now: Duration, from: ReplicaId, last: LogId) {
        let is_free = self.ballot.voted.is_none_or(|voted| voted == from);
        #[cfg(any(test, feature = "canary"))]
        let is_free = is_free || self.bug == Some(crate::Bug::VotesTwice);
        let granted = is_free && last >= self.log.last() && !matches!(self.role, State::Leader(_));
        if granted {
            if self.ballot.voted.is_none() {
                self.ballot.voted = Some(from);
                self.write_ballot();
            }
            self.put_off_election(now);
        }
        self.promise(from, Body::VoteReply { granted });
    }

    pub(super) fn vote_answered(&mut self, now: Duration, from: ReplicaId, yes: bool) {
        if let State::Candidate { granted, .. } = &mut self.role
            && yes
        {
            granted.insert(from);
        }
        if let State::Candidate { granted, .. } = &self.role
            && self.membership().has_quorum(|id| granted.contains(&id))
        {
            self.lead(now);
        }
    }

    fn lead(&mut self, now: Duration) {
        let first = self.log.last().index + 1;
        self.role = State::Leader(Leader::new(first, now));
        self.know_members(now);
        self.append(Payload::Blank);
        self.pump(now);
        self.advance(now);
    }

    pub(super) fn other_voters(&self) -> Vec<ReplicaId> {
        let membership = self.membership();
        let all = membership.voters().union(membership.outgoing()).copied();
        all.filter(|id| *id != self.id).collect()
    }
}
