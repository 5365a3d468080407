//! `martlet check`: verifies data directories while no server runs on them, and changes nothing.
//!
//! Each device's records are read first, then the rows of all shards, and the two are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base::env::Env;
use base::{ChunkId, DeviceId, ShardId};
use device::Finding;
use indicatif::{ProgressBar, ProgressStyle};
use namespace::check::{Counter, Record, Report};
use serde::Serialize;
use shard::{Row, View};

use crate::cli::CheckArgs;
use crate::text::{bytes, count, counted};

/// More than these are counted, not kept.
const PROBLEMS_MAX: usize = 1000;

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let env = Env::real();
    let devices = open(&env, &args.data)?;
    let mut outcome = Outcome::default();
    let records = read_records(&devices, &mut outcome)?;
    let (shards, counters) = read_shards(&env, &devices, &mut outcome)?;
    let views = views(&devices, &shards, &mut outcome)?;
    if let Some(views) = views {
        match namespace::check::of_views(&views, counters, records) {
            Ok(report) => outcome.take(report),
            Err(error) => outcome.problem(format!("metadata cannot be read to its end: {error}")),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        print!("{}", outcome.text());
    }
    Ok(if outcome.problems_total == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    accounts: u64,
    containers: u64,
    objects: u64,
    bytes: u64,
    users: u64,
    chunks: u64,
    records: u64,
    record_bytes: u64,
    /// Of deleted objects: the server collects it.
    garbage: u64,
    pending_uploads: u64,
    /// What crashes left behind: the server cleans it up.
    leftovers: u64,
    /// Copies that other devices have taken over.
    left_behind: u64,
    /// Objects of which a chunk has no good copy.
    lost_total: u64,
    /// The first thousand, by their names.
    lost: Vec<String>,
    problems_total: u64,
    /// The first thousand.
    problems: Vec<String>,
    /// Records whose payload is damaged. That is a problem if something refers to the chunk; the
    /// others were torn by a power cut and never acknowledged.
    #[serde(skip)]
    damaged: BTreeMap<ChunkId, String>,
}

impl Outcome {
    fn problem(&mut self, text: String) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }

    fn take(&mut self, report: Report) {
        self.accounts = report.accounts;
        self.containers = report.containers;
        self.objects = report.objects;
        self.bytes = report.bytes;
        self.users = report.users;
        self.chunks = report.chunks;
        self.garbage = report.garbage;
        self.pending_uploads = report.pending_uploads;
        self.leftovers = report.leftover_records + report.leftover_lines;
        self.left_behind = report.left_behind;
        self.lost_total = report.lost_total;
        self.lost = report.lost;
        self.problems_total += report.problems_total;
        let problems = report.problems.iter().map(ToString::to_string);
        let room = PROBLEMS_MAX - self.problems.len();
        let explained: Vec<_> = problems.map(|text| self.explain(text)).take(room).collect();
        self.problems.extend(explained);
    }

    /// Adds what is known of a damaged chunk that a problem names.
    fn explain(&self, problem: String) -> String {
        let damaged = self.damaged.iter();
        let named = damaged.filter(|(chunk, _)| problem.contains(&chunk.to_string()));
        let details: Vec<_> = named.map(|(_, why)| why.as_str()).collect();
        match details.as_slice() {
            [] => problem,
            details => format!("{problem} ({})", details.join("; ")),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Checked {} in {}, {}, {}, {}.\n\
             Read {} records of chunks ({}); {} chunks are in use.\n",
            bytes(self.bytes),
            counted(self.objects, "object"),
            counted(self.containers, "container"),
            counted(self.accounts, "account"),
            counted(self.users, "user"),
            count(self.records),
            bytes(self.record_bytes),
            count(self.chunks)
        );
        let left = self.garbage + self.pending_uploads + self.leftovers;
        if left > 0 {
            text.push_str(&format!(
                "To be cleaned up by the server: {} deleted bodies, {} unfinished uploads, {} leftovers.\n",
                count(self.garbage),
                count(self.pending_uploads),
                count(self.leftovers)
            ));
        }
        if self.left_behind > 0 {
            text.push_str(&format!(
                "Left behind: {} copies on devices that others have taken over from. They take space.\n",
                count(self.left_behind)
            ));
        }
        if self.problems_total == 0 {
            text.push_str("No problems.\n");
            return text;
        }
        text.push_str(&format!("\n{} PROBLEMS:\n", count(self.problems_total)));
        for problem in &self.problems {
            text.push_str(&format!("  {problem}\n"));
        }
        let more = self.problems_total - self.problems.len() as u64;
        if more > 0 {
            text.push_str(&format!("  and {} more\n", count(more)));
        }
        if self.lost_total > 0 {
            let lost = counted(self.lost_total, "object");
            text.push_str(&format!("\n{lost} without a good copy of all chunks:\n"));
            for name in &self.lost {
                text.push_str(&format!("  {name}\n"));
            }
        }
        text
    }
}

fn open(env: &Env, dirs: &[PathBuf]) -> anyhow::Result<Vec<device::Offline>> {
    let open = |dir: &PathBuf| {
        let device = device::Offline::open(env.clone(), dir);
        device.with_context(|| format!("cannot check {}", dir.display()))
    };
    let devices = dirs.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let clusters: BTreeSet<u128> = devices
        .iter()
        .map(|device| device.identity().cluster)
        .collect();
    if clusters.len() > 1 {
        bail!("the directories belong to different servers");
    }
    Ok(devices)
}

/// Reads every record of every device; returns those that are good.
fn read_records(devices: &[device::Offline], outcome: &mut Outcome) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for device in devices {
        let progress = progress(device.dir());
        let id = device.identity().device;
        let verified = device.verify(&mut |finding| {
            take(id, device.dir(), finding, &mut records, outcome);
            progress.set_position(outcome.record_bytes);
        });
        progress.finish_and_clear();
        match verified {
            Ok(()) => {}
            Err(device::Error::Damaged(why)) => outcome.problem(why.to_string()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", device.dir().display()));
            }
        }
    }
    Ok(records)
}

fn take(
    device: DeviceId,
    dir: &Path,
    finding: Finding,
    records: &mut Vec<Record>,
    outcome: &mut Outcome,
) {
    let dir = dir.display();
    match finding {
        Finding::Record(found) => {
            outcome.records += 1;
            outcome.record_bytes += u64::from(found.payload_bytes);
            let owner = &found.label.owner;
            let place = format!("{dir}: segment {} at {}", found.segment, found.offset);
            match found.wrong {
                Some(wrong) if found.live => {
                    let name = format!("{}/{}/{}", owner.account, owner.container, owner.object);
                    outcome
                        .damaged
                        .insert(found.chunk, format!("{place}, of {name}: {wrong}"));
                }
                Some(_) => {}
                None if found.live => records.push(Record {
                    device,
                    chunk: found.chunk,
                    bytes: found.payload_bytes,
                    fragment: found.label.fragment,
                }),
                None => {}
            }
        }
        Finding::Missing {
            chunk,
            segment,
            offset,
            wrong,
        } => outcome.problem(format!(
            "{dir}: chunk {chunk} should be in segment {segment} at {offset}: {wrong}"
        )),
        Finding::BadSegment { segment, wrong } => {
            outcome.problem(format!("{dir}: segment {segment}: {wrong}"));
        }
        Finding::BadIndex { wrong } => outcome.problem(format!(
            "{dir}: the index of chunks is damaged ({wrong}); the next start makes it again"
        )),
    }
}

/// The shards of all devices with their counters, and every damaged row as a problem.
fn read_shards(
    env: &Env,
    devices: &[device::Offline],
    outcome: &mut Outcome,
) -> anyhow::Result<(Vec<shard::Offline>, Vec<Counter>)> {
    let mut all = Vec::new();
    for device in devices {
        match shard::Offline::open(&*env.disk, device.dir()) {
            Ok(shards) => all.push(shards),
            // A device that was added later has none.
            Err(device::Error::NotFound) => {}
            Err(device::Error::Damaged(why)) => outcome.problem(why.to_string()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", device.dir().display()));
            }
        }
    }
    let mut counters = Vec::new();
    for shards in &all {
        for id in shards.shards() {
            // Those of the replica whose rows are looked at.
            let is_first = furthest(&all, id).is_some_and(|one| std::ptr::eq(one, shards));
            let walked = shards.visit(id, &mut |key, row| match row {
                Ok(Row::Counter(value)) if is_first => {
                    let key = key.to_vec().into();
                    counters.push(Counter {
                        shard: id,
                        key,
                        value,
                    });
                }
                Ok(Row::Counter(_) | Row::Value(_)) => {}
                Err(error) => outcome.problem(format!("{id}: {error}")),
            });
            if let Err(error) = walked {
                outcome.problem(format!("{id}: {error}"));
            }
        }
    }
    Ok((all, counters))
}

/// Of several replicas of a shard, the one that would lead it: others may be behind.
fn furthest(shards: &[shard::Offline], id: ShardId) -> Option<&shard::Offline> {
    let mut best = None;
    for one in shards {
        // Of those that go as far, the first.
        let is_further = |best: &shard::Offline| one.position(id) > best.position(id);
        if one.position(id).is_some() && best.is_none_or(is_further) {
            best = Some(one);
        }
    }
    best
}

/// A snapshot of every shard; `None` if damage, which has been noted, keeps one from being read.
fn views(
    devices: &[device::Offline],
    shards: &[shard::Offline],
    outcome: &mut Outcome,
) -> anyhow::Result<Option<Vec<View>>> {
    let count = devices.first().map_or(0, |device| device.identity().shards);
    let mut views = Vec::new();
    for id in (0..count).map(ShardId) {
        match furthest(shards, id).and_then(|shards| shards.view(id)) {
            Some(Ok(view)) => views.push(view),
            Some(Err(error)) => outcome.problem(format!("{id}: {error}")),
            None if outcome.problems_total > 0 => {}
            None => bail!("shard {id} is in none of the directories: name all of the server's"),
        }
    }
    Ok((views.len() == usize::from(count)).then_some(views))
}

/// On standard error, and only if a person looks at it. How much there is to read is not known
/// before.
fn progress(dir: &Path) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{spinner} {prefix}: {binary_bytes} read, {binary_bytes_per_sec}, {elapsed}";
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    ProgressBar::no_length()
        .with_style(style)
        .with_prefix(dir.display().to_string())
}
