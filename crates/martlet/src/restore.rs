//! `martlet restore`: makes a cluster of one node out of a backup, while no server runs.
//!
//! The backup is verified to its end first; then directories are prepared (`ground`), rows are put into their shards as they
//! were, the map is made anew for these devices, and what is missing is looked for and said.

mod ground;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base::env::Env;
use base::{DeviceId, GroupId, ShardId};
use device::Device;
use map::Map;
use namespace::check::{self, Record};
use namespace::restore;
use shard::Shards;

use crate::backup::{Saved, Target};
use crate::cli::RestoreArgs;
pub(crate) use ground::{Ground, MARK};
use outcome::Outcome;

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
    let present = present(&ready.devices).await?;
    let devices: Vec<_> = ready.devices.iter().map(Device::id).collect();
    let map = restore::map_of(&before, &devices, &groups_of(&present));
    restore::put_map(&ready.shards, &map).await?;
    restore::mend(&ready.shards).await?;
    let report = check::run(&ready.shards, present).await?;
    ready.close(env).await?;
    Ok(Outcome { rows, report })
}

/// The chunks that the devices have, as their indexes say.
async fn present(devices: &[Device]) -> anyhow::Result<Vec<Record>> {
    const PAGE: usize = 10_000;
    let mut present = Vec::new();
    for device in devices {
        let store = device.store();
        store.flush().await?;
        let mut after = None;
        loop {
            let page = store.list_all(after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = Some(*last);
            present.extend(page.into_iter().map(|(chunk, bytes)| Record {
                device: device.id(),
                chunk,
                bytes,
            }));
        }
    }
    Ok(present)
}

/// Which devices have chunks of each group.
fn groups_of(present: &[Record]) -> BTreeMap<GroupId, BTreeSet<DeviceId>> {
    let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for record in present {
        let group = groups.entry(record.chunk.group()).or_default();
        group.insert(record.device);
    }
    groups
}

/// Devices with empty shards, into which metadata is put.
pub(crate) struct Ready {
    pub(crate) devices: Vec<Device>,
    pub(crate) shards: Shards,
    ground: Ground,
}

impl Ready {
    /// Writes everything back; from then on a server may use the directories.
    async fn close(self, env: &Env) -> anyhow::Result<()> {
        let closed = self.shards.shutdown().await;
        closed.context("writing the metadata back")?;
        for device in &self.devices {
            let closed = device.close().await;
            closed.with_context(|| format!("closing {}", device.dir().display()))?;
        }
        drop(self.devices);
        self.ground.done(env)
    }
}
