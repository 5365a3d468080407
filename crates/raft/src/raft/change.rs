//! How the membership changes: one change at a time, by way of both memberships if voters are others.

use std::time::Duration;

use super::{Raft, State};
use crate::progress::Progress;
use crate::{Data, LogId, Membership, Payload, Refused};

impl<D: Data> Raft<D> {
    /// Makes this the membership. The change is complete when [`Raft::is_settled`] and it is in force.
    pub fn change(&mut self, now: Duration, wanted: &Membership) -> Result<LogId, Refused> {
        let State::Leader(leader) = &self.role else {
            return Err(Refused::NotLeader);
        };
        if wanted.voters().is_empty() || wanted.is_joint() {
            return Err(Refused::Impossible);
        }
        // Before its first entry is decided a leader may not know of its predecessor's last change.
        if !self.is_settled() || self.commit < leader.first || leader.transfer.is_some() {
            return Err(Refused::Busy);
        }
        let next = self.membership().towards(wanted);
        Ok(self.begin_membership(now, next))
    }

    fn begin_membership(&mut self, now: Duration, membership: Membership) -> LogId {
        let id = self.append(Payload::Membership(membership));
        self.know_members(now);
        self.pump(now);
        // The only voter may have made itself one of many, or the other way round.
        self.advance(now);
        id
    }

    /// Begins to send to whoever is a member now, and no longer to others.
    pub(super) fn know_members(&mut self, now: Duration) {
        let next = self.log.last().index + 1;
        let membership = self.log.membership().1;
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        leader.others.retain(|id, _| membership.is_member(*id));
        for (id, _) in membership.members().filter(|(id, _)| *id != self.id) {
            leader.others.entry(id).or_insert_with(|| {
                let mut one = Progress::new(next, now);
                // It is given the time of an election to answer.
                one.heard = Some(now);
                one
            });
        }
    }

    /// A change is decided: on to the next step.
    pub(super) fn go_on_with_change(&mut self, now: Duration) {
        let (made, membership) = self.log.membership();
        let State::Leader(leader) = &self.role else {
            return;
        };
        if made > self.commit || self.commit < leader.first {
            return;
        }
        if membership.is_joint() {
            let settled = membership.settled();
            self.begin_membership(now, settled);
        } else if !membership.is_voter(self.id) {
            // Its last act was to go. The others hear of that from the one they elect.
            self.pump(now);
            self.step_down(now, self.ballot.term, None);
        }
    }
}
