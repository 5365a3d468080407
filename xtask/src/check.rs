//! `cargo xtask check`: all that a change must pass, cheapest first.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, run, tidy};

pub(crate) fn run_all() -> Result<()> {
    rules()?;
    tests().iter_mut().try_for_each(run)
}

/// Tidy, format, lints and docs.
pub(crate) fn rules() -> Result<()> {
    tidy::run()?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(cargo()
        .args([
            "doc",
            "--workspace",
            "--no-deps",
            // Our docs are for those who read the code.
            "--document-private-items",
            "--quiet",
        ])
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// The commands that run all tests. nextest is faster and clearer, but a fresh machine does not have it.
pub(crate) fn tests() -> Vec<Command> {
    let command = |arguments: &[&str]| {
        let mut command = cargo();
        command.args(arguments);
        command
    };
    let asked = command(&["nextest", "--version"]).output();
    if asked.is_ok_and(|output| output.status.success()) {
        return vec![
            command(&["nextest", "run", "--workspace", "--no-fail-fast"]),
            command(&["test", "--workspace", "--doc", "--quiet"]),
        ];
    }
    vec![command(&["test", "--workspace", "--no-fail-fast"])]
}
