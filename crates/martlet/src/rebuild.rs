//! `martlet rebuild`: makes metadata again from the headers of the records, when it is lost and there is no backup.
//!
//! Headers are read first, in the order of ids; then the bodies, object by object, as a server reads them: so copies and
//! fragments stand in for each other.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::Env;
use chunks::{Chunk, Storage};
use device::{Device, Label};
use map::{Current, Map};
use namespace::Namespace;
use namespace::check::{Record, Report};
use namespace::rebuild::{Piece, Rebuild, Rebuilt};

use crate::cli::RebuildArgs;
use crate::restore::{self, Ground, Ready};
use crate::text::{bytes, count, counted};

pub(crate) fn run(args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let env = Env::real();
    let first = args.data.first().context("a directory is wanted")?;
    let identity = Device::inspect(&env, first)?;
    let identity = identity.with_context(|| format!("{} is no device", first.display()))?;
    let ground = Ground::of(&env, &args.data, identity.shards)?;
    if let Some(dir) = ground.first_new() {
        bail!("{} is no device that has served", dir.display());
    }
    let outcome = restore::runtime()?.block_on(rebuild(&env, ground))?;
    print!("{}", outcome.text());
    Ok(match outcome.is_whole() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn rebuild(env: &Env, ground: Ground) -> anyhow::Result<Outcome> {
    let ready = ground.make_ready(env).await?;
    let mut headers = Headers::default();
    for device in &ready.devices {
        headers.read(device).await?;
    }
    let Headers {
        bodies,
        records,
        unreadable,
    } = headers;
    let map = ready.put_map(&Map::default(), &records).await?;
    let namespace = namespace(env, &ready, map);
    let rebuilt = bodies.put(&namespace, swift::guess_content_type).await?;
    namespace.chunks().settle_repairs().await;
    drop(namespace);
    let report = ready.close(env, records).await?;
    Ok(Outcome {
        rebuilt,
        unreadable,
        report,
    })
}

/// What reads the chunks as a server does; nothing runs in the background.
fn namespace(env: &Env, ready: &Ready, map: Map) -> Namespace {
    let devices = ready.devices.iter();
    let storage = devices.map(|device| Arc::new(device.clone()) as Arc<dyn Storage>);
    Namespace::open(
        env.clone(),
        Arc::clone(&ready.shards),
        Current::new(map),
        chunks::here(storage),
        namespace::Config::default(),
    )
}

/// What the headers of all records say.
#[derive(Default)]
struct Headers {
    bodies: Rebuild,
    records: Vec<Record>,
    /// Records whose header cannot be read.
    unreadable: u64,
}

impl Headers {
    async fn read(&mut self, device: &Device) -> anyhow::Result<()> {
        for (chunk, _) in restore::chunks_of(device).await? {
            let described = device.store().describe(chunk).await;
            let (label, bytes) = match described {
                Ok(described) => described,
                Err(error) => {
                    tracing::warn!(%chunk, %error, "a header cannot be read");
                    self.unreadable += 1;
                    continue;
                }
            };
            let Label {
                owner,
                offset,
                is_last,
                fragment,
            } = label;
            self.records.push(Record {
                device: device.id(),
                chunk,
                bytes,
                fragment,
            });
            let bytes = fragment.map_or(bytes, |fragment| fragment.chunk_bytes);
            let piece = Piece {
                chunk: Chunk { id: chunk, bytes },
                offset,
                is_last,
            };
            self.bodies.add(owner, piece);
        }
        Ok(())
    }
}

/// What became of a rebuild.
struct Outcome {
    rebuilt: Rebuilt,
    unreadable: u64,
    report: Report,
}

impl Outcome {
    fn is_whole(&self) -> bool {
        let problems = self.report.problems_total + self.unreadable;
        self.rebuilt.incomplete_total + problems == 0
    }

    fn text(&self) -> String {
        let Self {
            rebuilt,
            unreadable,
            report,
        } = self;
        let mut text = format!(
            "Rebuilt {} in {}, {}, {}.\n\
             Bodies of 16 KiB and less, users, ACLs and metadata were not in records and are gone.\n\
             The server can be started; it makes an administrator.\n",
            bytes(rebuilt.bytes),
            counted(rebuilt.objects, "object"),
            counted(rebuilt.containers, "container"),
            counted(report.accounts, "account"),
        );
        if *unreadable > 0 {
            let unreadable = counted(*unreadable, "record");
            text.push_str(&format!(
                "{unreadable} with a header that cannot be read.\n"
            ));
        }
        if rebuilt.incomplete_total > 0 {
            let what = match rebuilt.incomplete_total {
                1 => "body is",
                _ => "bodies are",
            };
            let number = count(rebuilt.incomplete_total);
            text.push_str(&format!("\n{number} {what} not whole:\n"));
            restore::list(&mut text, &rebuilt.incomplete, rebuilt.incomplete_total);
        }
        if report.problems_total > 0 {
            let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
            let total = counted(report.problems_total, "problem");
            text.push_str(&format!("\n{total} of chunks and rows:\n"));
            restore::list(&mut text, &problems, report.problems_total);
        }
        text
    }
}
