//! Martlet beside OpenStack Swift, nginx and the bare machine: one run, one machine, ratios.
//!
//! All three serve from xfs on a loop device of their own in the same folder, over loopback, and `martlet bench`
//! makes the load for each in the same way. What is compared runs in turns, several rounds, and the median counts.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prepares files"
)]

mod cluster;
mod containers;
mod load;
mod machine;
mod report;
mod slow;
mod speed;
mod systems;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::volume;

use report::Report;

/// Compares Martlet with its yardsticks and writes a table of ratios
#[derive(Parser)]
#[command(name = "bench/run")]
struct Arguments {
    /// Only see that everything runs: small counts, and a table that means nothing
    #[arg(long)]
    short: bool,
    /// What to measure [default: everything]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Where the table goes; the figures go beside it as JSON
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// PUT and GET of 4 KiB and 64 MiB against OpenStack Swift, nginx, and the machine's limits
    Speed,
    /// 200 slow uploads at once: memory
    Slow,
    /// A container of a million objects against one of a thousand; start after kill -9
    Containers,
    /// PUT and GET of 4 KiB on three nodes with three copies against one node, and against OpenStack Swift
    Cluster,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    /// Of each measurement.
    duration: Duration,
    /// Of 4 KiB, to read from.
    small_objects: u64,
    /// Of 64 MiB, per measurement.
    large_objects: u64,
    slow_uploads: u64,
    slow_bytes: u64,
    container_objects: u64,
}

const FULL: Effort = Effort {
    rounds: 3,
    duration: Duration::from_secs(10),
    small_objects: 5_000,
    large_objects: 16,
    slow_uploads: 200,
    slow_bytes: 64 << 20,
    container_objects: 1_000_000,
};

const SHORT: Effort = Effort {
    rounds: 1,
    duration: Duration::from_secs(1),
    small_objects: 200,
    large_objects: 2,
    slow_uploads: 50,
    slow_bytes: 4 << 20,
    container_objects: 5_000,
};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(volume::is_possible(), "mounting file systems needs root");
    let effort = if arguments.short { SHORT } else { FULL };
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let bench = systems::Bench::prepare()?;
    let mut report = Report::new(machine::facts(), arguments.short);
    if wanted(Part::Speed) {
        speed::measure(&bench, effort, &mut report).context("speed")?;
    }
    if wanted(Part::Slow) {
        slow::measure(&bench, effort, &mut report).context("slow clients")?;
    }
    if wanted(Part::Containers) {
        containers::measure(&bench, effort, &mut report).context("containers")?;
    }
    if wanted(Part::Cluster) {
        cluster::measure(&bench, effort, &mut report).context("cluster")?;
    }
    let output = arguments.output.clone().unwrap_or_else(|| {
        let folder = if arguments.short {
            bench.work.clone()
        } else {
            systems::folder()
        };
        folder.join("RESULTS.md")
    });
    report.write(&output)?;
    println!("{report}\nwritten to {}", output.display());
    Ok(())
}
