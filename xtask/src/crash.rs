//! `cargo xtask crash`: crashes and power cuts, as many as there is time for.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use e2e::binary::{Build, martlet};
use e2e::crash::{Fault, Plan, run};
use e2e::progress::Interrupted;
use e2e::volume::Kind;

use crate::interrupt;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often each fault strikes
    #[arg(long, default_value_t = 100)]
    cycles: usize,
    /// Repeats a run's choices [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// What strikes [default: all]; power cuts need root and loop devices
    #[arg(value_enum)]
    faults: Vec<Strike>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Strike {
    /// SIGKILL
    Kill,
    /// A power cut under ext4
    Ext4,
    /// A power cut under xfs
    Xfs,
}

pub(crate) fn run_all(arguments: &Arguments) -> Result<()> {
    let binary = martlet(Build::Plain)?;
    interrupt::listen()?;
    let faults = if arguments.faults.is_empty() {
        Strike::value_variants()
    } else {
        &arguments.faults
    };
    let mut failed = 0;
    for fault in faults {
        let fault = match fault {
            Strike::Kill => Fault::Kill,
            Strike::Ext4 => Fault::PowerCut(Kind::Ext4),
            Strike::Xfs => Fault::PowerCut(Kind::Xfs),
        };
        let seed = arguments.seed.unwrap_or_else(e2e::seed);
        println!("{fault:?}, {} cycles, seed {seed}", arguments.cycles);
        let (binary, cycles) = (binary.clone(), arguments.cycles);
        match run(&Plan {
            binary,
            fault,
            cycles,
            seed,
            environment: Vec::new(),
        }) {
            Ok(report) => println!("{report}"),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                println!("FAILED: {error:?}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} faults were too much");
    }
    Ok(())
}
