//! `martlet bench`: a load generator that counts exactly and checks what it reads.
//!
//! It is light, since it runs beside the server that it measures: one thread by default, one system
//! call out and one in for a small request, bodies that are neither copied nor remembered.

mod args;
mod body;
mod connection;
mod files;
mod load;
mod report;
mod tally;
mod target;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use base::env::Env;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use args::BenchArgs;
use args::{Kind, LoadArgs, NameArgs, ObjectArgs, Operation};
use body::Pattern;
use load::{Check, Load, Tallies, Work};
use report::Report;
use target::Target;

/// A run, read from the command line.
struct Run {
    name: &'static str,
    load: LoadArgs,
    names: NameArgs,
    size: u64,
    seed: u64,
    pace: Option<u64>,
    work: Work,
    /// Plain GETs of these addresses.
    url: Option<String>,
}

pub(crate) fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let run = match args.operation {
        Operation::Files {
            dir,
            objects,
            count,
        } => {
            files::write(&dir, &objects, count)?;
            return Ok(ExitCode::SUCCESS);
        }
        operation => Run::of(operation),
    };
    let target = run.target()?;
    let (json, connections, name) = (run.load.json, run.load.connections, run.name);
    let report = measure(name, connections, run.load.threads, run.into_load(target))?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Run {
    fn of(operation: Operation) -> Self {
        let on = |name, objects: ObjectArgs, load, work| Self {
            name,
            load,
            names: objects.names,
            size: objects.size,
            seed: objects.seed,
            pace: None,
            work,
            url: None,
        };
        let each = |kind, check| Work::Each { kind, check };
        match operation {
            Operation::Put {
                objects,
                pace,
                load,
            } => Self {
                pace,
                ..on("put", objects, load, each(Kind::Put, Check::Nothing))
            },
            Operation::Get {
                objects,
                among,
                url,
                no_check,
                load,
            } => {
                let check = if no_check {
                    Check::Nothing
                } else {
                    Check::Bodies
                };
                let work = match among {
                    Some(among) => Work::Random { among, check },
                    None => each(Kind::Get, check),
                };
                Self {
                    url,
                    ..on("get", objects, load, work)
                }
            }
            Operation::Delete { objects, load } => {
                on("delete", objects, load, each(Kind::Delete, Check::Nothing))
            }
            Operation::Mix {
                objects,
                among,
                mix,
                load,
            } => on("mix", objects, load, Work::Mix { among, mix }),
            Operation::List(list) => {
                let query = list.query();
                let objects = ObjectArgs {
                    names: list.names,
                    size: 0,
                    seed: 0,
                };
                on("list", objects, list.load, Work::List { query })
            }
            Operation::Files { .. } => unreachable!("writing files is no load"),
        }
    }

    fn target(&self) -> anyhow::Result<Target> {
        if let Some(url) = &self.url {
            return Target::plain(url);
        }
        let password = crate::credentials::password(&self.load.user, &self.load.data)?;
        let target = Target::swift(&self.load, &self.names, password.reveal())?;
        if matches!(
            self.work,
            Work::Each {
                kind: Kind::Put,
                ..
            } | Work::Mix { .. }
        ) {
            target.make_container()?;
        }
        Ok(target)
    }

    fn into_load(self, target: Target) -> Load {
        let clock = Env::real().clock;
        let forever = Duration::MAX;
        let deadline = self
            .load
            .duration
            .map_or(forever, |time| clock.monotonic() + time);
        Load {
            target,
            names: self.names,
            pattern: Pattern::new(self.seed),
            clock,
            size: self.size,
            pace: self.pace,
            work: self.work,
            connections: self.load.connections,
            count: self.load.count.unwrap_or(u64::MAX),
            deadline,
            timeout: self.load.timeout,
            started: AtomicU64::new(0),
            done: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
        }
    }
}

/// Runs the load on its threads and waits for the last answer.
fn measure(
    name: &'static str,
    connections: u64,
    threads: u64,
    load: Load,
) -> anyhow::Result<Report> {
    let load = Arc::new(load);
    let began = load.clock.monotonic();
    let capacity = usize::try_from(threads).context("so many threads")?;
    let (sender, receiver) = mpsc::sync_channel::<(Tallies, Duration)>(capacity);
    for first in 0..threads {
        let (load, sender) = (Arc::clone(&load), sender.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || {
            let tallies = runtime.block_on(load::run(Arc::clone(&load), first, threads));
            // Nobody listens any more only if the command itself is over.
            let _ = sender.send((tallies, load.clock.monotonic()));
        });
    }
    drop(sender);
    let (tallies, ended) = gather(name, &load, &receiver);
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = Duration::try_from(cpu).unwrap_or_default();
    let elapsed = ended.saturating_sub(began);
    Ok(Report::new(name, connections, elapsed, cpu, &tallies))
}

fn gather(
    name: &'static str,
    load: &Load,
    receiver: &mpsc::Receiver<(Tallies, Duration)>,
) -> (Tallies, Duration) {
    const REDRAW: Duration = Duration::from_millis(200);
    let progress = progress(name, load.count);
    let (mut sum, mut ended) = (Tallies::new(), Duration::ZERO);
    loop {
        match receiver.recv_timeout(REDRAW) {
            Ok((tallies, end)) => {
                load::merge(&mut sum, &tallies);
                ended = ended.max(end);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                progress.set_position(load.done.load(Relaxed));
                progress.set_message(crate::text::bytes(load.done_bytes.load(Relaxed)));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    progress.finish_and_clear();
    (sum, ended)
}

/// On standard error, and only if a person looks at it.
fn progress(name: &'static str, count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (progress, template) = match count {
        u64::MAX => (
            ProgressBar::no_length(),
            "{prefix} {human_pos} requests, {per_sec}, {msg}, {elapsed}",
        ),
        count => (
            ProgressBar::new(count),
            "{prefix} [{wide_bar}] {human_pos}/{human_len}, {per_sec}, {msg}, {eta} left",
        ),
    };
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    progress
        .with_style(style.progress_chars("=> "))
        .with_prefix(name)
}
