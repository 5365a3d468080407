//! `martlet bench`, which makes the load for every system alike.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Whom the load is for: everything that all requests of a run share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) arguments: Vec<String>,
    pub(crate) password: String,
}

/// What came out of a run.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Figures {
    pub(crate) answered_per_second: f64,
    pub(crate) sent_bytes_per_second: f64,
    pub(crate) received_bytes_per_second: f64,
    pub(crate) latency_ms: Latency,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Runs `martlet bench` with `arguments`, which blanks divide. Fails unless every request was answered
/// as it should be.
pub(crate) fn run(martlet: &Path, target: &Target, arguments: &str) -> Result<Figures> {
    let mut command = Command::new(martlet);
    command
        .arg("bench")
        .args(arguments.split_whitespace())
        .arg("--json")
        .args(&target.arguments)
        .env("MARTLET_PASSWORD", &target.password)
        .stderr(Stdio::inherit());
    let output = command.output().context("starting the load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {text}",
        output.status
    );
    serde_json::from_str(&text).with_context(|| format!("{command:?} printed {text}"))
}
