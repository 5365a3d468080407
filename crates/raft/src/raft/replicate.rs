//! How entries get from the leader to the others.

use std::time::Duration;

use super::{Raft, State};
use crate::message::{Appended, Body};
use crate::progress::Mode;
use crate::{Data, Entry, LogId, ReplicaId};

impl<D: Data> Raft<D> {
    /// Sends to everybody what can be sent now: all proposals since the last time travel together, and
    /// all reads of who follows share one question.
    pub fn pump(&mut self, now: Duration) {
        let State::Leader(leader) = &self.role else {
            return self.ask(now);
        };
        let others: Vec<_> = leader.others.keys().copied().collect();
        for to in others {
            self.pump_to(now, to);
        }
    }

    fn pump_to(&mut self, now: Duration, to: ReplicaId) {
        let last = self.log.last().index;
        while let State::Leader(leader) = &self.role
            && let Some(one) = leader.others.get(&to)
            && one.next <= last
            && one.may_send()
        {
            self.send_append(now, to);
        }
    }

    /// Sends the next entries, or at least a sign of life.
    pub(super) fn send_append(&mut self, now: Duration, to: ReplicaId) {
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(one) = leader.others.get_mut(&to) else {
            return;
        };
        if one.mode != Mode::Snapshot && one.next <= self.log.base().index {
            one.needs_snapshot();
        }
        if one
            .probing
            .is_some_and(|since| now >= since + self.config.heartbeat)
        {
            // It is lost, or its answer.
            one.probing = None;
        }
        one.sent = now;
        let mut prev = LogId::default();
        let mut entries = Vec::new();
        if one.mode == Mode::Snapshot {
            self.ready.snapshots.push(to);
        } else {
            let term = self
                .log
                .term(one.next - 1)
                .expect("it is not before the base");
            prev = LogId {
                term,
                index: one.next - 1,
            };
            if one.may_send() {
                entries = self.log.range(one.next, u64::MAX, self.config.append_bytes);
                if let Some(last) = entries.last() {
                    one.sent_entries(now, last.id.index);
                }
            }
        }
        let (round, commit) = (leader.round, self.commit);
        let keep = self.keep();
        self.send(
            to,
            Body::Append {
                prev,
                entries,
                commit,
                keep,
                round,
            },
        );
    }

    /// Takes what the leader of this term sends.
    pub(super) fn take_entries(
        &mut self,
        prev: LogId,
        entries: Vec<Entry<D>>,
        commit: u64,
    ) -> Appended {
        if prev.index == 0 && entries.is_empty() {
            return Appended::Alive;
        }
        let is_known = prev.index <= self.commit || self.log.has(prev);
        if !is_known {
            return Appended::Rejected {
                prev: prev.index,
                last: self.log.last_of(prev.term, prev.index - 1),
            };
        }
        let last = prev.index + entries.len() as u64;
        // What is decided is the same everywhere.
        let decided = self.commit.max(self.log.base().index);
        let fresh = entries
            .into_iter()
            .skip_while(|entry| entry.id.index <= decided || self.log.has(entry.id));
        let fresh: Vec<_> = fresh.collect();
        if let Some(first) = fresh.first() {
            let LogId { term, index: first } = first.id;
            if self.log.term(first - 1).is_none_or(|before| before > term) {
                // No leader of ours sends that: it would contradict what is decided.
                return Appended::Alive;
            }
            let cut = (first <= self.log.last().index).then_some(first);
            if let Some(cut) = cut {
                self.log.cut(cut);
            }
            for entry in &fresh {
                self.log.push(entry.clone());
            }
            self.write_entries(fresh, cut);
        }
        self.matched = self.matched.max(last);
        self.commit = self.commit.max(commit.min(last));
        Appended::Matched(last)
    }

    pub(super) fn append_answered(
        &mut self,
        now: Duration,
        from: ReplicaId,
        round: u64,
        outcome: Appended,
    ) {
        let last = self.log.last().index;
        let State::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(one) = leader.others.get_mut(&from) else {
            return;
        };
        one.heard = one.heard.max(Some(now));
        one.round = one.round.max(round.min(leader.round));
        match outcome {
            // What it had before it needed a snapshot is no news.
            Appended::Matched(index)
                if one.mode == Mode::Snapshot && index < self.log.base().index => {}
            Appended::Matched(index) if index <= last => {
                if one.matched(index) {
                    self.advance(now);
                    self.hand_over(from);
                }
            }
            Appended::Rejected { prev, last } => one.rejected(prev, last),
            Appended::Matched(_) | Appended::Alive => {}
        }
        self.answer_reads(now);
        self.pump_to(now, from);
    }

    /// Decides what a majority has.
    pub(super) fn advance(&mut self, now: Duration) {
        let State::Leader(leader) = &self.role else {
            return;
        };
        let durable = self.writes.durable;
        #[cfg(any(test, feature = "canary"))]
        let durable = match self.bug {
            Some(crate::Bug::CountsUnwritten) => self.log.last().index,
            _ => durable,
        };
        let has = |id: ReplicaId| match id == self.id {
            true => durable,
            false => leader.others.get(&id).map_or(0, |one| one.matched),
        };
        let reached = self.membership().reached(has);
        #[cfg(any(test, feature = "canary"))]
        let reached = match self.bug {
            Some(crate::Bug::DecidesAlone) => durable,
            _ => reached,
        };
        let is_of_term = self.log.term(reached) == Some(self.ballot.term);
        if reached <= self.commit || !is_of_term {
            return;
        }
        self.commit = reached;
        self.go_on_with_change(now);
        self.answer_reads(now);
    }

    /// A snapshot up to `index` has been sent and installed; `None` if that failed.
    pub fn snapshot_sent(&mut self, now: Duration, to: ReplicaId, index: Option<u64>) {
        if let State::Leader(leader) = &mut self.role
            && let Some(one) = leader.others.get_mut(&to)
            && one.mode == Mode::Snapshot
        {
            one.begin_again(index.map_or(0, |index| index + 1));
            if index.is_some() {
                self.pump_to(now, to);
            }
        }
    }
}
