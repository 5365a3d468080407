//! The entries at hand: those after the last one that has been compacted.

use std::collections::VecDeque;

use crate::{Data, Entry, LogId, Membership, Payload};

pub(crate) struct Log<D> {
    /// The last entry that is gone: what it did is in the state.
    base: LogId,
    entries: VecDeque<Entry<D>>,
    /// What is held in memory.
    bytes: usize,
    /// The membership as of `base`, and those that entries after it made, the newest last.
    memberships: Vec<(u64, Membership)>,
}

impl<D: Data> Log<D> {
    pub(crate) fn new(base: LogId, membership: Membership, entries: VecDeque<Entry<D>>) -> Self {
        let mut log = Self {
            base,
            entries: VecDeque::new(),
            bytes: 0,
            memberships: vec![(base.index, membership)],
        };
        for entry in entries {
            log.push(entry);
        }
        log
    }

    pub(crate) fn base(&self) -> LogId {
        self.base
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.back().map_or(self.base, |entry| entry.id)
    }

    /// The membership in force, and the index of the entry that made it.
    pub(crate) fn membership(&self) -> (u64, &Membership) {
        let (index, membership) = self.memberships.last().expect("there always is one");
        (*index, membership)
    }

    /// Whether `holds` for the membership in force at `index` or for a later one, which may yet come to
    /// nothing.
    pub(crate) fn any_membership(&self, index: u64, holds: impl Fn(&Membership) -> bool) -> bool {
        let in_force = self
            .memberships
            .iter()
            .rposition(|(made, _)| *made <= index);
        let from = in_force.unwrap_or_default();
        self.memberships[from..].iter().any(|(_, one)| holds(one))
    }

    /// The term of the entry, if it is known.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|entry| entry.id.term)
    }

    pub(crate) fn has(&self, id: LogId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    fn get(&self, index: u64) -> Option<&Entry<D>> {
        let place = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    pub(crate) fn push(&mut self, entry: Entry<D>) {
        let last = self.last();
        assert_eq!(entry.id.index, last.index + 1, "a log has no gaps");
        assert!(entry.id.term >= last.term, "terms do not go back in a log");
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.id.index, membership.clone()));
        }
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// Drops the entries from `index` on.
    pub(crate) fn cut(&mut self, index: u64) {
        assert!(index > self.base.index, "what is applied stays");
        while self.last().index >= index {
            let entry = self.entries.pop_back().expect("it is behind the base");
            self.bytes -= entry.bytes();
        }
        self.memberships
            .retain(|(made, _)| *made < index || *made <= self.base.index);
    }

    /// Drops the entries up to `index`, as far as there are any.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.base.index < index {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= entry.bytes();
            self.base = entry.id;
        }
        let in_force = self
            .memberships
            .iter()
            .rposition(|(made, _)| *made <= index);
        self.memberships.drain(..in_force.unwrap_or_default());
    }

    /// Replaces everything by a state.
    pub(crate) fn reset(&mut self, base: LogId, membership: Membership) {
        self.base = base;
        self.entries.clear();
        self.bytes = 0;
        self.memberships = vec![(base.index, membership)];
    }

    /// Entries from `from` on, at least one if there is one: up to `to`, and to so many bytes.
    pub(crate) fn range(&self, from: u64, to: u64, bytes_max: usize) -> Vec<Entry<D>> {
        assert!(from > self.base.index, "what is gone cannot be sent");
        let place = |index: u64| {
            let place = index.saturating_sub(self.base.index + 1);
            usize::try_from(place)
                .unwrap_or(usize::MAX)
                .min(self.entries.len())
        };
        let (start, end) = (place(from), place(to.saturating_add(1)));
        let mut bytes = 0;
        let fit = self
            .entries
            .range(start..end.max(start))
            .take_while(|entry| {
                let fits = bytes < bytes_max;
                bytes += entry.bytes();
                fits
            });
        fit.cloned().collect()
    }

    /// The last index, at most `index`, whose entry is of a term up to `term`: agreement with a log
    /// that has `term` at `index` can begin there at the latest.
    pub(crate) fn last_of(&self, term: u64, index: u64) -> u64 {
        let mut at = index.min(self.last().index);
        while at > self.base.index && self.term(at).is_some_and(|have| have > term) {
            at -= 1;
        }
        at
    }
}
