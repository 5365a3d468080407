//! Reads that see all that was acknowledged before them: proof that nobody else leads.
//!
//! A majority that answers a question of this leader had elected nobody else when it did. So all reads that
//! came before the question was sent may be answered, by what was decided then. One question is under
//! way at a time, and whoever comes meanwhile shares the next.

use std::time::Duration;

use super::{Raft, State};
use crate::{Data, ReplicaId};

impl<D: Data> Raft<D> {
    /// Asks for proof that this replica leads; `token` comes back in [`super::Ready::reads`].
    pub fn read(&mut self, now: Duration, token: u64) {
        let is_only_voter = self.is_only_voter();
        let State::Leader(leader) = &mut self.role else {
            self.ready.reads.push((token, None));
            return;
        };
        let is_waiting = !leader.reads.is_empty();
        leader.reads.push_back((leader.round + 1, token));
        if is_only_voter {
            self.answer_reads(now);
        } else if !is_waiting {
            self.ask(now);
        }
        #[cfg(any(test, feature = "canary"))]
        if self.bug == Some(crate::Bug::BelievesItLeads)
            && let State::Leader(leader) = &mut self.role
        {
            let reads = leader
                .reads
                .drain(..)
                .map(|(_, token)| (token, Some(self.commit)));
            self.ready.reads.extend(reads);
        }
    }

    /// Begins another round.
    fn ask(&mut self, now: Duration) {
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
        while let Some((_, token)) = leader.reads.pop_front_if(|(round, _)| *round <= proven) {
            self.ready.reads.push((token, Some(self.commit)));
        }
        let is_next = |(round, _): &(u64, u64)| *round > leader.round;
        if leader.reads.front().is_some_and(is_next) && !is_only_voter {
            self.ask(now);
        }
    }
}
