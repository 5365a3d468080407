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
        if let State::Leader(leader) = &mut self.role {
            let reads = leader.reads.drain(..).map(|(_, token)| (token, None));
            self.ready.reads.extend(reads);
        }
        if term > self.ballot.term {
            self.ballot = Ballot { term, voted: None };
            self.write_ballot();
            self.heard = None;
            self.round = 0;
        }
        self.role = State::Follower { leader };
        self.put_off_election(now);
    }

    /// An append has come: its sender leads this term.
    pub(super) fn follow(&mut self, now: Duration, leader: ReplicaId) {
        self.role = State::Follower {
            leader: Some(leader),
        };
        self.heard = Some(now);
        self.put_off_election(now);
    }

    pub(super) fn put_off_election(&mut self, now: Duration) {
        let spread = u64::try_from(self.config.election.as_micros()).unwrap_or(u64::MAX);
        let more = Duration::from_micros(self.draw() % spread.max(1));
        self.election_at = now + self.config.election + more;
    }

    /// Asks whether an election would be won.
    pub(super) fn canvass(&mut self, now: Duration) {
        self.put_off_election(now);
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
        let granted = term > self.ballot.term && last >= self.log.last() && !self.has_leader(now);
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
        self.ballot = Ballot {
            term,
            voted: Some(self.id),
        };
        self.heard = None;
        self.round = 0;
        let own = self.write_ballot();
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
        self.role = State::Leader(Leader::new(first));
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
