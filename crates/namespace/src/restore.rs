//! What puts saved rows into empty shards, and makes of them a cluster that is whole: docs/backup.md.
//!
//! Nothing of this runs while a server does. The shards were read at different moments, so what lies in two of them may
//! disagree: [`mend`] settles that.

use std::collections::{BTreeMap, BTreeSet};

use base::{ContainerId, DeviceId, GroupId, NodeId, ShardId, Timestamp};
use bytes::Bytes;
use chunks::Fragment;
use map::{Device, Fill, Group, Map, Member, Node, Policy};
use serde::{Deserialize, Serialize};
use shard::{Batch, Execution, Exported, Latch, Procedure, Shards, View};

use crate::key::{self, Parts, table};
use crate::row::{self, AccountContainerRow, AccountRow, ContainerHead};
use crate::{Error, map_row, placement};

/// A commit takes so much, but for its last row: the log takes far more.
const COMMIT_BYTES: usize = 1 << 20;

/// Writes rows whatever they mean.
#[derive(Serialize, Deserialize)]
struct PutRows {
    rows: Vec<(Bytes, Exported)>,
}

impl Procedure for PutRows {
    const NAME: &'static str = "restore.rows";

    type Output = ();
    type Error = Error;

    fn latches(&self) -> Vec<Latch> {
        Vec::new()
    }

    fn plan(&self, _: Timestamp, _: &View) -> Result<(Batch, ()), Execution<Error>> {
        let mut batch = Batch::new();
        for (key, row) in &self.rows {
            match row {
                Exported::Row(value) => batch.put(key.clone(), value.clone()),
                Exported::Counter(sum) => batch.add(key.clone(), *sum),
            }
        }
        Ok((batch, ()))
    }
}

/// Puts rows into a shard in which none of them is yet.
pub async fn put(
    shards: &Shards,
    shard: ShardId,
    rows: Vec<(Bytes, Exported)>,
) -> Result<(), Error> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for (key, row) in rows {
        let value_bytes = match &row {
            Exported::Row(value) => value.len(),
            Exported::Counter(_) => size_of::<i64>(),
        };
        bytes += key.len() + value_bytes;
        some.push((key, row));
        if bytes >= COMMIT_BYTES {
            commit(shards, shard, std::mem::take(&mut some)).await?;
            bytes = 0;
        }
    }
    commit(shards, shard, some).await
}

async fn commit(
    shards: &Shards,
    shard: ShardId,
    rows: Vec<(Bytes, Exported)>,
) -> Result<(), Error> {
    let put = shards.get(shard).execute(PutRows { rows });
    Ok(put.await?)
}

/// Takes the map out of saved rows, if it is among them: another one is to take its place.
pub fn take_map(rows: &mut Vec<(Bytes, Exported)>) -> Result<Option<Map>, Error> {
    let at = rows.iter().position(|(key, _)| key == key::MAP);
    match at.map(|at| rows.remove(at)) {
        Some((_, Exported::Row(row))) => map_row::decode(&row).map(Some),
        Some((_, Exported::Counter(_))) => Err(Error::Damaged("the map is a counter".into())),
        None => Ok(None),
    }
}

/// Writes the map.
pub async fn put_map(shards: &Shards, map: &Map) -> Result<(), Error> {
    let row = Exported::Row(map.encode().into());
    commit(
        shards,
        ShardId::CONTROL,
        vec![(Bytes::from_static(key::MAP), row)],
    )
    .await
}

/// Where chunks of each group were found, and what they were there: whole ones, or which fragments.
pub type Places = BTreeMap<GroupId, BTreeMap<DeviceId, Option<Fragment>>>;

/// The map of one node that has these devices and no others.
///
/// A chunk's id names its group for ever, so all groups stay that there were `before`, and those of which something was
/// `found`. Members are the devices where something was; a group of which nothing was found gets one by turns.
///
/// # Panics
/// If there are no devices.
#[must_use]
pub fn map_of(before: &Map, devices: &[DeviceId], found: &Places) -> Map {
    let mut map = Map {
        epoch: before.epoch.next(),
        last_node: before.last_node.max(NodeId::FIRST),
        nodes: [(NodeId::FIRST, Node::default())].into(),
        policies: before.policies.clone(),
        ..Map::default()
    };
    let new = |id: &DeviceId| (*id, Device::new(NodeId::FIRST, 0));
    map.devices = devices.iter().map(new).collect();
    let epoch = map.epoch;
    let group = |members: Vec<(DeviceId, Option<Fragment>)>| Group {
        policy: policy_of(&members),
        epoch,
        members: members.into_iter().map(full).collect(),
        is_spare: false,
    };
    let ids: BTreeSet<_> = before.groups.keys().chain(found.keys()).copied().collect();
    let mut turns = devices.iter().cycle();
    for id in ids {
        let has_some = found.get(&id).into_iter().flatten();
        let has_some = has_some.map(|(device, what)| (*device, *what));
        let mut members: Vec<_> = has_some
            .filter(|(device, _)| map.devices.contains_key(device))
            .collect();
        if members.is_empty() {
            members.extend(turns.next().map(|device| (*device, None)));
        }
        map.groups.insert(id, group(members));
    }
    for device in devices {
        if !map.groups.values().any(|group| group.is_member(*device)) {
            let alone = group(vec![(*device, None)]);
            map.groups.insert(map.next_group(), alone);
        }
    }
    map
}

/// How a group keeps its chunks, by what its members have.
fn policy_of(members: &[(DeviceId, Option<Fragment>)]) -> Policy {
    let coded = members.iter().find_map(|(_, what)| *what);
    coded.map_or(Map::POLICY, |fragment| Policy::Coded {
        data: fragment.data,
        parity: fragment.parity,
    })
}

fn full((device, what): (DeviceId, Option<Fragment>)) -> Member {
    Member {
        device,
        index: what.map_or(0, |fragment| fragment.index),
        fill: Fill::Full,
    }
}

/// What was made to agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    pub accounts: u64,
    /// Of accounts' lists of containers.
    pub lines: u64,
}

/// Gives each container its account and its line in the account's list. Lines that lead nowhere are left to the
/// sweeper. Needs some 300 bytes of memory for each container.
pub async fn mend(shards: &Shards) -> Result<Mended, Error> {
    let mut found = Found::default();
    for id in (0..shards.count()).map(ShardId) {
        let view = shards.get(id).view().await?;
        found.read(&view)?;
    }
    let mut mended = Mended::default();
    for (shard, rows) in found.missing(shards.count(), &mut mended) {
        put(shards, shard, rows).await?;
    }
    Ok(mended)
}

/// What the shards say of accounts and containers.
#[derive(Default)]
struct Found {
    accounts: BTreeSet<String>,
    lines: BTreeSet<(String, String, ContainerId)>,
    containers: Vec<(String, String, ContainerHead)>,
}

impl Found {
    fn read(&mut self, view: &View) -> Result<(), Error> {
        each_of(view, table::ACCOUNT, |key, _| {
            let name = Parts::of(table::ACCOUNT, key)?.last_name()?;
            self.accounts.insert(name.to_owned());
            Ok(())
        })?;
        each_of(view, table::ACCOUNT_CONTAINER, |key, _| {
            let mut parts = Parts::of(table::ACCOUNT_CONTAINER, key)?;
            let account = parts.name()?;
            let (name, id) = parts.name_and_container()?;
            self.lines.insert((account.to_owned(), name.to_owned(), id));
            Ok(())
        })?;
        each_of(view, table::CONTAINER, |key, value| {
            let mut parts = Parts::of(table::CONTAINER, key)?;
            let (account, name) = (parts.name()?.to_owned(), parts.last_name()?.to_owned());
            let (head, _) = ContainerHead::decode(value)?;
            self.containers.push((account, name, head));
            Ok(())
        })
    }

    /// The rows that should be there.
    fn missing(
        mut self,
        shards: u16,
        mended: &mut Mended,
    ) -> BTreeMap<ShardId, Vec<(Bytes, Exported)>> {
        let mut missing: BTreeMap<ShardId, Vec<_>> = BTreeMap::new();
        for (account, name, head) in self.containers {
            let rows = missing
                .entry(placement::of_account(&account, shards))
                .or_default();
            let line = (account.clone(), name.clone(), head.id);
            if !self.lines.contains(&line) {
                let listed = head.created;
                let row = row::encode(&AccountContainerRow { listed });
                let key = key::account_container(&account, &name, head.id);
                rows.push((key, Exported::Row(row)));
                mended.lines += 1;
            }
            if !self.accounts.contains(&account) {
                let row = row::encode(&AccountRow::new(head.created));
                rows.push((key::account(&account), Exported::Row(row)));
                self.accounts.insert(account);
                mended.accounts += 1;
            }
        }
        missing.retain(|_, rows| !rows.is_empty());
        missing
    }
}

/// Visits the rows of a table.
fn each_of(
    view: &View,
    table: u8,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    crate::scan::rows(view, &[table], &[table + 1], |key, value| {
        visit(key, value)?;
        Ok(std::ops::ControlFlow::Continue(()))
    })
}

#[cfg(test)]
mod tests;
