//! `cargo xtask bench`: Martlet beside its yardsticks.

use std::ffi::OsString;

use anyhow::Result;

use crate::{cargo, run};

/// Runs the benchmark with these arguments; `--help` shows which there are.
pub(crate) fn run_with(arguments: &[OsString]) -> Result<()> {
    run(cargo()
        .args(["run", "--quiet", "--release", "--package", "bench", "--"])
        .args(arguments))
}

/// Sees that it runs.
pub(crate) fn short() -> Result<()> {
    run_with(&["--short".into()])
}
