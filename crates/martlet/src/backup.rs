//! `martlet backup`: saves the metadata of a running server or cluster, while it serves.
//!
//! The server gives the rows, shard by shard, each as of one moment; this command makes parts of them and the
//! manifest. docs/backup.md says what is saved and what that is good for.

mod directory;
mod saved;
mod source;
mod store;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use base::ShardId;
use base::env::Env;
use namespace::backup::{MANIFEST_NAME, Manifest, Part, ShardParts, part_name};

use crate::cli::{BackupArgs, ServerChoice};
use crate::client::Client;
use crate::text::{bytes, count, counted};
pub(crate) use saved::Saved;
use source::{Lost, Source};
pub(crate) use target::{Place, Target};

/// A node that dies costs one try of each shard that it leads; a view that a backup left open is closed within a
/// minute.
const TRIES_MAX: u32 = 75;
/// Another replica leads by then, or soon.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let env = Env::real();
    let client = Client::new(&ServerChoice {
        data: args.data.clone(),
        server: None,
    })?;
    let target = Target::open(&env, &args.target, &args.user)?;
    target.make_ready()?;
    let saved = save(&env, &client, &target, PAUSE)?;
    println!(
        "Saved {} rows of {} ({}) in {}.\n\
         It holds the key of the tokens and what passwords are checked against: keep it as you keep \
         the data.\nBodies of more than 16 KiB are not in it.",
        count(saved.rows),
        counted(saved.shards, "shard"),
        bytes(saved.bytes),
        args.target
    );
    Ok(ExitCode::SUCCESS)
}

/// What was saved.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    shards: u64,
    rows: u64,
    bytes: u64,
}

/// Saves all shards, one after the other, and then the manifest.
fn save(
    env: &Env,
    source: &impl Source,
    target: &Target,
    pause: Duration,
) -> anyhow::Result<Tally> {
    let mut id = [0; 16];
    env.entropy.fill(&mut id);
    let scope = source.scope()?;
    let mut manifest = Manifest {
        id: u128::from_le_bytes(id),
        cluster: scope.cluster,
        began: env.clock.now(),
        ended: env.clock.now(),
        shards: Vec::new(),
    };
    let mut saved = Tally::default();
    for shard in (0..scope.shards).map(ShardId) {
        let (parts, rows) = save_shard(source, target, manifest.id, shard, pause)
            .with_context(|| format!("saving shard {}", shard.0))?;
        saved.shards += 1;
        saved.rows += rows;
        let parts_bytes = parts.parts.iter().map(|part| u64::from(part.bytes));
        saved.bytes += parts_bytes.sum::<u64>();
        manifest.shards.push(parts);
    }
    manifest.ended = env.clock.now();
    target.complete(MANIFEST_NAME, &manifest.encode())?;
    Ok(saved)
}

/// Saves a shard; from its beginning again if the view of it is lost.
fn save_shard(
    source: &impl Source,
    target: &Target,
    backup: u128,
    shard: ShardId,
    pause: Duration,
) -> anyhow::Result<(ShardParts, u64)> {
    let mut tries = 1;
    loop {
        match save_view(source, target, backup, shard) {
            Err(error) if error.is::<Lost>() && tries < TRIES_MAX => tries += 1,
            saved => return saved,
        }
        std::thread::sleep(pause);
    }
}

fn save_view(
    source: &impl Source,
    target: &Target,
    backup: u128,
    shard: ShardId,
) -> anyhow::Result<(ShardParts, u64)> {
    let view = source.open(shard)?;
    let mut saved = ShardParts {
        position: view.position,
        parts: Vec::new(),
    };
    let mut write = |part: Part| {
        let name = part_name(shard, number(&saved.parts));
        let (bytes, sum) = part.seal();
        target.put(&name, &bytes)?;
        saved.parts.push(sum);
        Ok::<_, anyhow::Error>(number(&saved.parts))
    };
    let mut part = Part::new(backup, shard, 0);
    let (mut after, mut rows) = (String::new(), 0);
    loop {
        let page = source.read(shard, &view, &after)?;
        for (key, row) in &page.rows {
            if !part.push(key, row) {
                let next = write(part)?;
                part = Part::new(backup, shard, next);
                part.push(key, row);
            }
        }
        rows += page.rows.len() as u64;
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    write(part)?;
    Ok((saved, rows))
}

fn number<T>(parts: &[T]) -> u32 {
    u32::try_from(parts.len()).expect("parts are counted in 32 bits")
}

#[cfg(test)]
mod tests;
