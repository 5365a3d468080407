//! `martlet restore`: makes a cluster of one node out of a backup, while no server runs.
//!
//! The backup is verified to its end first; then directories are prepared (`ground`), rows are put into their shards as they
//! were, the map is made anew for these devices, and what is missing is looked for and said.

mod ground;
mod outcome;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use base::env::Env;
use base::{ChunkId, GroupId, ShardId};
use device::Device;
use map::Map;
use namespace::check::{self, Record, Report};
use namespace::restore::{self, Places};
use shard::Shards;

use crate::backup::{Saved, Target};
use crate::cli::RestoreArgs;
pub(crate) use ground::{Ground, MARK};
use outcome::Outcome;
pub(crate) use outcome::list;

pub(crate) fn run(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let env = Env::real();
    let source = Target::open(&env, &args.source, &args.user)?;
    let saved = Saved::open(source).with_context(|| args.source.to_string())?;
    let outcome = runtime()?.block_on(restore(&env, &saved, &args.data))?;
    print!("{}", outcome.text());
    Ok(match outcome.is_whole() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.context("starting threads")
}

/// Puts a backup into directories; on an error they keep their mark, and it is to be done again.
async fn restore(env: &Env, saved: &Saved, dirs: &[PathBuf]) -> anyhow::Result<Outcome> {
    saved.read(async |_, _| Ok(())).await?;
    let shard_count = u16::try_from(saved.manifest().shards.len());
    let shard_count = shard_count.expect("they were counted in 16 bits");
    let ground = Ground::of(env, dirs, shard_count)?;
    if let Some(cluster) = ground.cluster()
        && cluster != saved.manifest().cluster
    {
        bail!("the directories belong to another cluster than the backup");
    }
    let ready = ground.make_ready(env).await?;
    let (mut before, mut rows) = (Map::default(), 0);
    let put = saved.read(async |shard, mut some| {
        rows += some.len() as u64;
        if shard == ShardId::CONTROL
            && let Some(map) = restore::take_map(&mut some)?
        {
            before = map;
        }
        Ok(restore::put(&ready.shards, shard, some).await?)
    });
    put.await?;
    let records = present(&ready.devices).await?;
    ready.put_map(&before, &records).await?;
    let report = ready.close(env, records).await?;
    Ok(Outcome { rows, report })
}

/// The chunks that the devices have, as their indexes say. Headers are read where fragments are: only they say which.
async fn present(devices: &[Device]) -> anyhow::Result<Vec<Record>> {
    let mut present = Vec::new();
    for device in devices {
        // What the group's first chunk is, the others are.
        let mut coded: BTreeMap<GroupId, bool> = BTreeMap::new();
        for (chunk, bytes) in chunks_of(device).await? {
            let mut record = Record {
                device: device.id(),
                chunk,
                bytes,
                fragment: None,
            };
            if coded.get(&chunk.group()).copied().unwrap_or(true) {
                // One that cannot be read says nothing, and is missed by who looks for it.
                if let Ok((label, _)) = device.store().describe(chunk).await {
                    record.fragment = label.fragment;
                    coded.insert(chunk.group(), record.fragment.is_some());
                }
            }
            present.push(record);
        }
    }
    Ok(present)
}

/// The ids and lengths of all records of a device.
pub(crate) async fn chunks_of(device: &Device) -> anyhow::Result<Vec<(ChunkId, u32)>> {
    const PAGE: usize = 10_000;
    let store = device.store();
    store.flush().await?;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_all(after, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(all);
        };
        after = Some(*last);
        all.extend(page);
    }
}

/// Where something of each group is.
fn places_of(records: &[Record]) -> Places {
    let mut places = Places::new();
    for record in records {
        let group = places.entry(record.chunk.group()).or_default();
        let what = group.entry(record.device).or_default();
        *what = what.or(record.fragment);
    }
    places
}

/// Devices with empty shards, into which metadata is put.
pub(crate) struct Ready {
    pub(crate) devices: Vec<Device>,
    pub(crate) shards: Arc<Shards>,
    ground: Ground,
}

impl Ready {
    /// Writes the map of these devices, which have these records. Gives it.
    pub(crate) async fn put_map(&self, before: &Map, records: &[Record]) -> anyhow::Result<Map> {
        let devices: Vec<_> = self.devices.iter().map(Device::id).collect();
        let map = restore::map_of(before, &devices, &places_of(records));
        restore::put_map(&self.shards, &map).await?;
        Ok(map)
    }

    /// Makes everything agree, looks for what is missing, and writes everything back; from then on a server may use
    /// the directories.
    pub(crate) async fn close(self, env: &Env, records: Vec<Record>) -> anyhow::Result<Report> {
        restore::mend(&self.shards).await?;
        let report = check::run(&self.shards, records).await?;
        // Whoever read with them has ended.
        let shards = Arc::try_unwrap(self.shards);
        let shards = shards.map_err(|_| anyhow!("the shards are still in use"))?;
        let closed = shards.shutdown().await;
        closed.context("writing the metadata back")?;
        for device in &self.devices {
            let closed = device.close().await;
            closed.with_context(|| format!("closing {}", device.dir().display()))?;
        }
        drop(self.devices);
        self.ground.done(env)?;
        Ok(report)
    }
}
