//! What a leader keeps in mind, and what time does to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::read::Reader;
use super::{Raft, State};
use crate::message::Body;
use crate::progress::Progress;
use crate::{Data, Refused, ReplicaId};

pub(super) struct Leader {
    /// The first entry of its term. Once that is decided, so is all that earlier leaders left.
    pub(super) first: u64,
    pub(super) others: BTreeMap<ReplicaId, Progress>,
    /// Counts the questions whether it still leads.
    pub(super) round: u64,
    /// Reads, each with the question whose answer it waits for.
    pub(super) reads: VecDeque<(u64, Reader)>,
    /// Whom it wants to lead instead, and until when it tries.
    pub(super) transfer: Option<(ReplicaId, Duration)>,
    /// When it last looked at the time. One that sends all the time must do so, too.
    ticked: Duration,
}

impl Leader {
    pub(super) fn new(first: u64, now: Duration) -> Self {
        Self {
            first,
            others: BTreeMap::new(),
            round: 0,
            reads: VecDeque::new(),
            transfer: None,
            ticked: now,
        }
    }

    pub(super) fn deadline(&self, heartbeat: Duration) -> Option<Duration> {
        let sent = self.others.values().map(|one| one.sent).min()?;
        Some(sent.min(self.ticked) + heartbeat)
    }

    /// Whether it was heard of this one in time.
    fn is_near(&self, id: ReplicaId, now: Duration, election: Duration) -> bool {
        let heard = self.others.get(&id).and_then(|one| one.heard);
        heard.is_some_and(|heard| now < heard + election)
    }
}

impl<D: Data> Raft<D> {
    pub(super) fn tick_leader(&mut self, now: Duration) {
        let election = self.config.election;
        let membership = self.log.membership().1;
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        leader.ticked = now;
        let is_near = |id| id == self.id || leader.is_near(id, now, election);
        if !membership.has_quorum(is_near) {
            // Others may have a leader by now.
            self.step_down(now, self.ballot.term, None);
            return;
        }
        if leader.transfer.is_some_and(|(_, until)| now >= until) {
            leader.transfer = None;
        }
        let due = |one: &Progress| now >= one.sent + self.config.heartbeat;
        let others = leader.others.iter().filter(|(_, one)| due(one));
        let silent: Vec<_> = others.map(|(id, _)| *id).collect();
        for to in silent {
            self.send_append(now, to);
        }
        self.pump(now);
    }

    /// Makes another voter lead, as soon as it has all entries; until then nothing is proposed. Given up
    /// after an election's time; refused if that voter does not answer this leader.
    pub fn transfer(&mut self, now: Duration, to: ReplicaId) -> Result<(), Refused> {
        let is_voter = self.membership().voters().contains(&to);
        let State::Leader(leader) = &mut self.role else {
            return Err(Refused::NotLeader);
        };
        if !is_voter || to == self.id {
            return Err(Refused::Impossible);
        }
        let has_answered = leader.others.get(&to).is_some_and(|one| one.matched > 0);
        let answers = has_answered && leader.is_near(to, now, self.config.election);
        if leader.transfer.is_some() || !answers {
            return Err(Refused::Busy);
        }
        leader.transfer = Some((to, now + self.config.election));
        self.hand_over(to);
        Ok(())
    }

    /// Tells the one who is to lead that it can.
    pub(super) fn hand_over(&mut self, to: ReplicaId) {
        let last = self.log.last().index;
        if let State::Leader(leader) = &self.role
            && leader.transfer.is_some_and(|(wanted, _)| wanted == to)
            && leader
                .others
                .get(&to)
                .is_some_and(|one| one.matched == last)
        {
            self.send(to, Body::TakeOver);
        }
    }

    /// How far others are behind: the first entry that one needs who was heard of lately.
    pub(super) fn keep(&self) -> u64 {
        let State::Leader(leader) = &self.role else {
            return match self.is_only_voter() {
                true => u64::MAX,
                false => self.keep,
            };
        };
        let now = leader.others.values().filter_map(|one| one.heard).max();
        let since = now.map(|now| now.saturating_sub(self.config.keep_for));
        let lately = leader.others.values().filter(|one| one.heard >= since);
        lately.map(|one| one.matched + 1).min().unwrap_or(u64::MAX)
    }

    /// What is known of the other members: which of them, the last entry that is durable there, and whether
    /// it was heard of within an election's time.
    pub fn others(&self, now: Duration) -> Vec<(ReplicaId, u64, bool)> {
        let State::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let is_near = |one: &Progress| {
            one.heard
                .is_some_and(|heard| now < heard + self.config.election)
        };
        let others = leader.others.iter();
        others
            .map(|(id, one)| (*id, one.matched, is_near(one)))
            .collect()
    }
}
