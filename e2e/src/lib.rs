//! Proof by use: everything here drives the real binary from outside, as a client or as a fault
//! would, and knows nothing of its insides.
//!
//! `docs/proof.md` says what is proved by which part, and how to run each.

#![expect(
    clippy::disallowed_methods,
    reason = "the seams are for the server; these tests stand outside of it"
)]

pub mod backup;
pub mod binary;
pub mod clients;
pub mod cluster;
pub mod conformance;
pub mod crash;
pub mod damage;
pub mod files;
pub mod http;
pub mod ledger;
pub mod network;
mod process;
pub mod progress;
pub mod raw;
pub mod server;
pub mod session;
pub mod verify;
pub mod volume;
pub mod workload;

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

/// The server broke a promise. All other errors mean that a test could not be made.
#[derive(Debug)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promise broken: {}", self.0)
    }
}

impl std::error::Error for Violation {}

/// Whatever a server fails at when nothing is broken any more, it has promised.
fn broken(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Violation>() {
        return error;
    }
    Violation(format!("{error:#}")).into()
}

/// Fails with a [`Violation`] unless the condition holds.
macro_rules! promised {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::Violation(format!($($what)+)).into());
        }
    };
}

use promised;

/// Where tests put their data: beside what is built, because `/tmp` may be too small or in memory.
pub fn scratch() -> Result<PathBuf> {
    let path = binary::target().join("e2e/scratch");
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Says loudly that a test does not run where it cannot. `E2E_SKIP=never` makes that a failure, so
/// that the machine which must run everything cannot skip by accident.
pub fn may_skip(possible: bool, why: &str) -> bool {
    if !possible {
        let never = std::env::var("E2E_SKIP").is_ok_and(|skip| skip == "never");
        assert!(!never, "cannot run: {why}");
        eprintln!("SKIPPED: {why}");
    }
    possible
}

/// Where a random test starts: `E2E_SEED`, or a number that is drawn and should be shown.
pub fn seed() -> u64 {
    match std::env::var("E2E_SEED") {
        Ok(seed) => seed.parse().expect("E2E_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}
