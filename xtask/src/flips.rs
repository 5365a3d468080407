//! `cargo xtask flips`: flipped bits, as many as there is time for.

use anyhow::Result;
use clap::Args;
use e2e::binary::{Build, martlet};
use e2e::damage::Subject;
use fastrand::Rng;

use crate::interrupt;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many bits flip, one at a time
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Repeats a run [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(e2e::seed);
    println!("{} flips, seed {seed}", arguments.count);
    let mut random = Rng::with_seed(seed);
    let binary = martlet(Build::Plain)?;
    interrupt::listen()?;
    let subject = Subject::prepare(&binary, &mut random)?;
    println!("{}", subject.flip_many(arguments.count, &mut random)?);
    Ok(())
}
