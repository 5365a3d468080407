//! `cargo xtask dev`: a server in a temporary directory.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;
use e2e::binary::{Build, martlet};

use crate::run;

/// Runs it until it is stopped; its data goes with it.
pub(crate) fn run_server(arguments: &[OsString]) -> Result<()> {
    let binary = martlet(Build::Plain)?;
    let work = tempfile::Builder::new()
        .prefix("dev-")
        .tempdir_in(e2e::scratch()?)?;
    run(Command::new(binary)
        .arg("server")
        .arg("--data")
        .arg(work.path().join("data"))
        .args(arguments))
}
