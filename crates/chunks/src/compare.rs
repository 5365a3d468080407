//! Finds what full members of a group lack.
//!
//! All list the same, page by page in the order of ids, and what one has and another has not is missing there. Nothing is
//! said before all of them have answered: who cannot be asked may have it. Costs a list of ids each, and no bodies.

use std::collections::BTreeSet;

use base::{ChunkId, DeviceId, GroupId};
use futures_util::FutureExt as _;
use futures_util::future::try_join_all;

use crate::{Chunks, Error, LIST_MAX};

/// A part of what a comparison finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Copies that are not there, and a member that has the chunk.
    pub missing: Vec<Missing>,
    /// Where the next part begins; `None`: this was the last one.
    pub next: Option<ChunkId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub chunk: ChunkId,
    pub on: DeviceId,
    pub source: DeviceId,
}

impl Chunks {
    /// Groups that this node is to compare: those whose first full member that is up is here. All members are up.
    pub fn to_compare(&self) -> Vec<GroupId> {
        let map = self.inner.map.load();
        let groups = map.groups.iter().filter(|(_, group)| {
            let mut full = group.full();
            let is_here = full.next().is_some_and(|id| self.inner.devices.is_here(id));
            is_here && full.next().is_some() && group.devices().all(|id| map.is_up(id))
        });
        groups.map(|(id, _)| *id).collect()
    }

    /// Compares the full members' lists behind `after`, as far as the shortest reaches.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub async fn compare(&self, group: GroupId, after: Option<ChunkId>) -> Result<Compared, Error> {
        let full: Vec<DeviceId> = self.group(group).await?.full().collect();
        let lists = full.iter().map(async |id| {
            let device = self.device(*id)?;
            let list = async move { device.list(group, after).await };
            self.inner.hung.wait(*id, list.boxed()).await
        });
        let lists: Vec<Vec<ChunkId>> = try_join_all(lists).await?;
        // Behind the end of a page nothing is known.
        let ends = lists.iter().filter(|list| list.len() >= LIST_MAX);
        let next = ends.filter_map(|list| list.last()).min().copied();
        let is_known = |id: &ChunkId| next.is_none_or(|end| *id <= end);
        let sets: Vec<BTreeSet<ChunkId>> = lists
            .into_iter()
            .map(|list| list.into_iter().filter(is_known).collect())
            .collect();
        let all: BTreeSet<ChunkId> = sets.iter().flatten().copied().collect();
        let mut missing = Vec::new();
        for chunk in all {
            let has = |place: &usize| sets[*place].contains(&chunk);
            let (have, lack): (Vec<_>, Vec<_>) = (0..full.len()).partition(has);
            let source = full[have[0]];
            missing.extend(lack.into_iter().map(|place| Missing {
                chunk,
                on: full[place],
                source,
            }));
        }
        Ok(Compared { missing, next })
    }
}

#[cfg(test)]
mod tests;
