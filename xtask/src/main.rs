//! Our own tooling: what a change must pass, and how Martlet is proved.

mod check;
mod conformance;
mod tidy;

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
    /// Other people's test suites
    #[command(subcommand)]
    Conformance(conformance::Api),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.task {
        Task::Check => check::run_all(),
        Task::Tidy => tidy::run(),
        Task::Conformance(api) => conformance::run(&api),
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

/// Where all that is built, fetched or measured goes.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
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
