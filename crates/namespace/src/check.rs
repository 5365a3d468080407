//! Offline verification: whether everything that is stored fits together.
//!
//! All shards are read from end to end, then the records of all devices are compared with what the
//! rows refer to. Needs some 400 bytes of memory for each container, most of it for its counters, and 40
//! for each chunk.
//!
//! What a crash may leave behind (chunks that nothing refers to, lines of account lists that lead
//! nowhere, pending uploads) is counted, and is no problem: the server cleans it up by itself.

mod shard_rows;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;

use base::{ChunkId, ContainerId, DeviceId, ShardId};
use bytes::Bytes;
use chunks::{Chunk, Fragment};
use map::{Group, Map};
use shard::{Shards, View};

use crate::check::shard_rows::ShardRows;
use crate::key::{self, BodyId, Count, GarbageCount, Parts, table};
use crate::reader::each_chunk;
use crate::row::{self, ObjectRead};
use crate::{Error, map_row, placement, scan};

/// More problems than this are counted, not kept.
const PROBLEMS_MAX: usize = 1000;

/// A record that a device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub device: DeviceId,
    pub chunk: ChunkId,
    /// The length of the payload.
    pub bytes: u32,
    /// `None`: a whole chunk.
    pub fragment: Option<Fragment>,
}

/// A counter that a shard has, and that is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    pub shard: ShardId,
    pub key: Bytes,
    pub value: i64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub accounts: u64,
    pub containers: u64,
    pub objects: u64,
    /// Of all objects.
    pub bytes: u64,
    pub users: u64,
    /// Deleted bodies whose chunks are still to be collected.
    pub garbage: u64,
    pub pending_uploads: u64,
    /// Chunks that something refers to.
    pub chunks: u64,
    /// Records to which nothing refers: of interrupted uploads, for the scrubber.
    pub leftover_records: u64,
    /// Lines of account lists that lead nowhere, for the sweeper.
    pub leftover_lines: u64,
    /// Copies in a cluster on devices that are no members of their groups any more.
    pub left_behind: u64,
    /// The first thousand objects of which a chunk has too few good copies to be read: account, container and object.
    pub lost: Vec<String>,
    pub lost_total: u64,
    /// The first thousand.
    pub problems: Vec<Problem>,
    pub problems_total: u64,
}

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The shard whose row shows it.
    pub shard: Option<ShardId>,
    /// The key, printable; or the chunk.
    pub what: String,
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, what, why } = self;
        match shard {
            Some(shard) => write!(f, "{shard}: {what}: {why}"),
            None => write!(f, "{what}: {why}"),
        }
    }
}

/// A container, as its row says, and what its objects add up to.
struct Counted {
    account: String,
    name: String,
    objects: u64,
    bytes: u64,
}

/// The state of a check.
#[derive(Default)]
struct Check {
    report: Report,
    map: Map,
    accounts: BTreeSet<String>,
    containers: HashMap<ContainerId, Counted>,
    /// The lines of account lists.
    lines: BTreeSet<(String, String, ContainerId)>,
    chunks: HashMap<ChunkId, Referred>,
}

/// A chunk that something refers to.
struct Referred {
    bytes: u32,
    need: Need,
    /// How many were found.
    copies: usize,
}

/// How many copies there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    All,
    /// It is garbage: the collector deletes chunks before the row that names them, and may have been
    /// interrupted in between.
    None,
}

/// Checks all rows of `shards` and `records`, which are all records of all devices. Counters that belong to
/// nothing are not seen.
///
/// # Errors
/// Only if a shard cannot be read at all.
pub async fn run(
    shards: &Shards,
    records: impl IntoIterator<Item = Record>,
) -> Result<Report, Error> {
    let mut views = Vec::new();
    for id in (0..shards.count()).map(ShardId) {
        views.push(shards.get(id).view().await?);
    }
    of_views(&views, [], records)
}

/// As [`run`], on snapshots of all shards in their order, and with all their counters.
pub fn of_views(
    views: &[View],
    counters: impl IntoIterator<Item = Counter>,
    records: impl IntoIterator<Item = Record>,
) -> Result<Report, Error> {
    let count = u16::try_from(views.len()).expect("shards are counted in 16 bits");
    let mut check = Check::default();
    check.read_map(&views[usize::from(ShardId::CONTROL.0)])?;
    for (id, view) in (0..).map(ShardId).zip(views) {
        ShardRows::new(&mut check, id, count, view).check()?;
    }
    for (id, view) in (0..).map(ShardId).zip(views) {
        check.counters(id, view)?;
    }
    for counter in counters {
        if let Some(why) = check.foreign(&counter) {
            check.problem(Some(counter.shard), counter.key.escape_ascii(), why);
        }
    }
    check.lists();
    for record in records {
        check.record(record);
    }
    let lost = check.copies();
    if !lost.is_empty() {
        for view in views {
            check.name_lost(view, &lost)?;
        }
    }
    Ok(check.report)
}

impl Check {
    fn problem(&mut self, shard: Option<ShardId>, what: impl fmt::Display, why: impl Into<String>) {
        self.report.problems_total += 1;
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem {
                shard,
                what: what.to_string(),
                why: why.into(),
            });
        }
    }

    fn read_map(&mut self, control: &View) -> Result<(), Error> {
        match control.get(key::MAP)?.as_deref().map(map_row::decode) {
            Some(Ok(map)) => self.map = map,
            Some(Err(Error::Damaged(why))) => self.problem(Some(ShardId::CONTROL), "M", why),
            Some(Err(other)) => return Err(other),
            None => self.problem(Some(ShardId::CONTROL), "M", "there is no map"),
        }
        Ok(())
    }

    /// Notes that something refers to a chunk.
    fn refer(&mut self, shard: ShardId, what: &str, chunk: Chunk, need: Need) {
        let referred = Referred {
            bytes: chunk.bytes,
            need,
            copies: 0,
        };
        if self.chunks.insert(chunk.id, referred).is_some() {
            let why = format!("chunk {} is referred to twice", chunk.id);
            self.problem(Some(shard), what, why);
        }
    }

    /// Compares what is counted in a shard with what its rows add up to.
    fn counters(&mut self, shard: ShardId, view: &View) -> Result<(), Error> {
        let mut totals: HashMap<&str, [u64; 3]> = HashMap::new();
        for account in &self.accounts {
            totals.insert(account, [0; 3]);
        }
        let mut expected = Vec::new();
        for (id, container) in &self.containers {
            if placement::of_id(*id) != shard {
                continue;
            }
            let total = totals.entry(&container.account).or_default();
            let Counted { objects, bytes, .. } = container;
            for (sum, more) in total.iter_mut().zip([1, *objects, *bytes]) {
                *sum += more;
            }
            expected.push((key::container_count(Count::Objects, *id), *objects));
            expected.push((key::container_count(Count::Bytes, *id), *bytes));
        }
        for (account, total) in totals {
            for (count, sum) in [Count::Containers, Count::Objects, Count::Bytes]
                .into_iter()
                .zip(total)
            {
                expected.push((key::account_total(count, account), sum));
            }
        }
        for (key, sum) in expected {
            let counted = view.counter(&key)?;
            if u64::try_from(counted) != Ok(sum) {
                let why = format!("counts {counted} where there are {sum}");
                self.problem(Some(shard), key.escape_ascii(), why);
            }
        }
        Ok(())
    }

    /// Why nothing has such a counter there, unless something does: its value is compared elsewhere then.
    fn foreign(&self, counter: &Counter) -> Option<String> {
        let Counter { shard, key, value } = counter;
        let gone = |what: &str| Some(format!("counts {value} for {what} that is not there"));
        match key.first().copied().unwrap_or_default() {
            table::CONTAINER_COUNT => {
                let id = Parts::of(table::CONTAINER_COUNT, key).and_then(|mut p| p.container());
                let counts = [Count::Objects, Count::Bytes];
                let is_one = |id| {
                    counts
                        .iter()
                        .any(|one| key::container_count(*one, id) == *key)
                };
                match id {
                    Ok(id) if !is_one(id) => gone("a number"),
                    Ok(id) if placement::of_id(id) != *shard => {
                        gone("a container of another shard")
                    }
                    Ok(id) if self.containers.contains_key(&id) => None,
                    Ok(_) | Err(_) => gone("a container"),
                }
            }
            table::ACCOUNT_TOTAL => {
                let name = key.get(2..).and_then(|name| std::str::from_utf8(name).ok());
                let counts = [Count::Containers, Count::Objects, Count::Bytes];
                let is_one = |name| {
                    counts
                        .iter()
                        .any(|one| key::account_total(*one, name) == *key)
                };
                match name {
                    Some(name) if self.accounts.contains(name) && is_one(name) => None,
                    Some(_) | None => gone("an account"),
                }
            }
            _ if [GarbageCount::Bodies, GarbageCount::Bytes]
                .iter()
                .any(|one| key::garbage_count(*one) == *key) =>
            {
                None
            }
            _ => gone("a table"),
        }
    }

    /// Compares containers with the lists of their accounts.
    fn lists(&mut self) {
        let mut problems = Vec::new();
        for (id, container) in &self.containers {
            let Counted { account, name, .. } = container;
            if !self.accounts.contains(account) {
                problems.push((*id, "its account is missing"));
            }
            if !self.lines.remove(&(account.clone(), name.clone(), *id)) {
                problems.push((*id, "its account does not list it"));
            }
        }
        self.report.leftover_lines = self.lines.len() as u64;
        for (id, why) in problems {
            self.problem(Some(placement::of_id(id)), format!("container {id}"), why);
        }
    }

    fn record(&mut self, record: Record) {
        let Record {
            device,
            chunk,
            bytes,
            fragment,
        } = record;
        let Some(referred) = self.chunks.get_mut(&chunk) else {
            self.report.leftover_records += 1;
            return;
        };
        let expected = referred.bytes;
        let group = self.map.groups.get(&chunk.group());
        let belongs = group.is_some_and(|group| group.is_member(device));
        if !belongs && self.map.nodes.len() > 1 {
            // Others have taken it over; it counts as no copy.
            self.report.left_behind += 1;
        } else if !belongs {
            self.problem(None, chunk, format!("does not belong on device {device}"));
        } else if let Some(why) = group.and_then(|group| misfit(group, &record, expected)) {
            self.problem(None, chunk, why);
        } else if fragment.is_none() && bytes != expected {
            let why = format!("has {bytes} bytes on device {device} instead of {expected}");
            self.problem(None, chunk, why);
        } else {
            referred.copies += 1;
        }
    }

    /// Compares the copies that were found with those that there should be. Gives the chunks of which too
    /// few are left to read them.
    fn copies(&mut self) -> HashSet<ChunkId> {
        self.report.chunks = self.chunks.len() as u64;
        let mut missing = Vec::new();
        for (id, referred) in &self.chunks {
            let group = self.map.groups.get(&id.group());
            let full = group.map_or(1, |group| group.full().count());
            if referred.need == Need::All && referred.copies < full {
                missing.push((*id, referred.copies, full));
            }
        }
        for (id, copies, full) in &missing {
            self.problem(None, id, format!("{copies} good copies of {full}"));
        }
        let needed = |id: &ChunkId| {
            let group = self.map.groups.get(&id.group());
            group.map_or(1, |group| group.policy.needed())
        };
        let lost = missing
            .into_iter()
            .filter(|(id, copies, _)| *copies < needed(id));
        lost.map(|(id, ..)| id).collect()
    }

    /// Notes the objects that lost chunks belong to.
    fn name_lost(&mut self, view: &View, lost: &HashSet<ChunkId>) -> Result<(), Error> {
        let from = [table::OBJECT];
        scan::rows(view, &from, &key::end_of(&from), |key, value| {
            // What cannot be read is a problem already.
            if let Ok((id, name)) = lost_object(view, key, value, lost)
                && let Some(name) = name
            {
                self.report.lost_total += 1;
                if self.report.lost.len() < PROBLEMS_MAX {
                    let container = self.containers.get(&id);
                    let container = container.map_or_else(
                        || id.to_string(),
                        |container| format!("{}/{}", container.account, container.name),
                    );
                    self.report.lost.push(format!("{container}/{name}"));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// The container of an object, and its name if one of its chunks is lost.
fn lost_object<'a>(
    view: &View,
    key: &'a [u8],
    value: &[u8],
    lost: &HashSet<ChunkId>,
) -> Result<(ContainerId, Option<&'a str>), Error> {
    let mut parts = Parts::of(table::OBJECT, key)?;
    let (container, name) = (parts.container()?, parts.last_name()?);
    let row: ObjectRead<'_> = row::decode(value)?;
    let Some(version) = row.body.version() else {
        return Ok((container, None));
    };
    let id = BodyId {
        container,
        name: name.into(),
        version,
    };
    let mut is_lost = false;
    each_chunk(view, &id, &row.body, |chunk| {
        is_lost = lost.contains(&chunk.id);
        match is_lost {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok((container, is_lost.then_some(name)))
}

/// Why a record is not the fragment that its device should have of a chunk of so many bytes.
fn misfit(group: &Group, record: &Record, chunk_bytes: u32) -> Option<String> {
    let Record { device, bytes, .. } = record;
    let index = record.fragment.map(|fragment| fragment.index);
    let expected = group.part(*device);
    if index != expected {
        let name = |index: Option<u8>| {
            index.map_or("a whole copy".to_owned(), |i| format!("fragment {i}"))
        };
        return Some(format!(
            "is {} on device {device} instead of {}",
            name(index),
            name(expected)
        ));
    }
    let fragment = record.fragment?;
    let is_right =
        fragment.chunk_bytes == chunk_bytes && *bytes == chunks::fragment_bytes(&fragment);
    (!is_right).then(|| {
        format!(
            "has {bytes} bytes in fragment {} on device {device}, of {chunk_bytes}",
            fragment.index
        )
    })
}

#[cfg(test)]
mod tests;
