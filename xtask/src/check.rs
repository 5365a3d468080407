//! `cargo xtask check`: all that a change must pass, cheapest first.

use anyhow::Result;

use crate::{cargo, run, tidy};

pub(crate) fn run_all() -> Result<()> {
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
        .args(["doc", "--workspace", "--no-deps", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    if nextest() {
        run(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]))?;
        return run(cargo().args(["test", "--workspace", "--doc", "--quiet"]));
    }
    run(cargo().args(["test", "--workspace", "--no-fail-fast"]))
}

/// nextest is faster and clearer, but a fresh machine does not have it.
fn nextest() -> bool {
    let asked = cargo().args(["nextest", "--version"]).output();
    asked.is_ok_and(|output| output.status.success())
}
