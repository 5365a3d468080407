//! Our own tooling: what a change must pass, and how Martlet is proved.

#![expect(
    clippy::disallowed_methods,
    reason = "the seams are for the server; tooling uses files and clocks as they are"
)]

mod bench;
mod check;
mod ci;
mod clients;
mod cluster;
mod conformance;
mod crash;
mod dev;
mod flips;
mod interrupt;
mod tidy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks, proves and measures Martlet")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// All that a change must pass: format, lints, tests, docs, tidy
    Check,
    /// The rules that no other tool knows: arrows, sizes, module heads, dead links
    Tidy,
    /// Everything in its short form, and a count: what `.ci/run` calls
    Ci,
    /// A server in a temporary directory; takes the arguments of `martlet server`
    #[command(disable_help_flag = true)]
    Dev {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Crashes and power cuts under load
    Crash(crash::Arguments),
    /// Several nodes under load, and faults of every kind
    Cluster(cluster::Arguments),
    /// Bits that flip while the server is down
    Flips(flips::Arguments),
    /// swift and rclone with a large tree, and a kill -9 in the middle
    Clients(clients::Arguments),
    /// Other people's test suites
    #[command(subcommand)]
    Conformance(conformance::Api),
    /// Martlet beside OpenStack Swift and nginx
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.task {
        Task::Check => check::run_all(),
        Task::Tidy => tidy::run(),
        Task::Ci => ci::run(),
        Task::Dev { arguments } => dev::run_server(&arguments),
        Task::Crash(arguments) => crash::run_all(&arguments),
        Task::Cluster(arguments) => cluster::run_all(&arguments),
        Task::Flips(arguments) => flips::run(&arguments),
        Task::Clients(arguments) => clients::run(&arguments),
        Task::Conformance(api) => conformance::run(&api),
        Task::Bench { arguments } => bench::run_with(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
}

fn target() -> PathBuf {
    e2e::binary::target()
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs `command` after showing it; fails unless it succeeds.
fn run(command: &mut Command) -> Result<()> {
    let mut line = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .display()
        .to_string();
    for argument in command.get_args() {
        line += &format!(" {}", argument.display());
    }
    eprintln!("$ {line}");
    let status = command
        .status()
        .with_context(|| format!("starting {line}"))?;
    if !status.success() {
        bail!("`{line}` failed");
    }
    Ok(())
}
