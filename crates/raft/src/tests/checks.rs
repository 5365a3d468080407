//! What must hold whatever happens.

use std::collections::BTreeMap;

use crate::{Entry, LogId, ReplicaId};

/// All that anybody outside has seen.
#[derive(Default)]
pub(super) struct Checks {
    /// The entries that some replica has done: every other one must do the same.
    pub(super) decided: BTreeMap<u64, Entry<u64>>,
    leaders: BTreeMap<u64, ReplicaId>,
    /// What was acknowledged to clients.
    pub(super) acknowledged: BTreeMap<u64, LogId>,
    /// Reads under way, each with the last entry that was acknowledged before it.
    reads: BTreeMap<u64, u64>,
    pub(super) reads_answered: u64,
}

impl Checks {
    pub(super) fn applied(&mut self, by: ReplicaId, entry: &Entry<u64>) -> Result<(), String> {
        let decided = self
            .decided
            .entry(entry.id.index)
            .or_insert_with(|| entry.clone());
        match decided == entry {
            true => Ok(()),
            false => Err(format!("{by} does {entry:?}, another one did {decided:?}")),
        }
    }

    pub(super) fn leads(&mut self, replica: ReplicaId, term: u64) -> Result<(), String> {
        let leader = *self.leaders.entry(term).or_insert(replica);
        match leader == replica {
            true => Ok(()),
            false => Err(format!("{leader} and {replica} lead in term {term}")),
        }
    }

    pub(super) fn acknowledge(&mut self, id: LogId) -> Result<(), String> {
        let is_decided = self.decided.get(&id.index).is_some_and(|e| e.id == id);
        self.acknowledged.insert(id.index, id);
        match is_decided {
            true => Ok(()),
            false => Err(format!("{id} is acknowledged and not decided")),
        }
    }

    fn last_acknowledged(&self) -> u64 {
        self.acknowledged.keys().last().copied().unwrap_or_default()
    }

    pub(super) fn read_begins(&mut self, token: u64) {
        self.reads.insert(token, self.last_acknowledged());
    }

    pub(super) fn read_ends(&mut self, token: u64, index: Option<u64>) -> Result<(), String> {
        let Some(at_least) = self.reads.remove(&token) else {
            return Ok(());
        };
        match index {
            Some(index) if index < at_least => Err(format!(
                "a read sees entry {index}, {at_least} was acknowledged before"
            )),
            Some(_) => {
                self.reads_answered += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
