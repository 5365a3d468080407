//! Devices come and go while clients write: each node gets a second one, which is filled, emptied and removed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

use super::load::{Expect, Load};
use super::scenario::Run;
use super::{Cluster, Number};
use crate::promised;

/// Until a device has something, and until it has nothing any more.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Gives each node another device and takes it away again.
pub(super) fn come_and_go(run: &mut Run<'_>) -> Result<()> {
    run.cluster.wait_until_whole()?;
    run.round(Expect::Truth, |run, load, _| {
        for node in 0..run.cluster.size() {
            if load.has_stopped() {
                return Ok(());
            }
            come(run, node)?;
        }
        for node in 0..run.cluster.size() {
            if load.has_stopped() {
                return Ok(());
            }
            go(run, load, node).with_context(|| format!("the device of node {node}"))?;
        }
        Ok(())
    })
}

fn come(run: &mut Run<'_>, node: Number) -> Result<()> {
    let further = run.folder.join(format!("node{node}")).join("further");
    run.cluster.restart_with(node, Some(further))?;
    wait_until(&run.cluster, node, "in use", |devices| {
        devices.len() == 2 && devices.iter().all(|device| device["groups"] != 0)
    })
}

fn go(run: &mut Run<'_>, load: &Load<'_>, node: Number) -> Result<()> {
    let devices = of_node(&run.cluster, node)?;
    let first = first_device(run, node)?;
    let other = devices.iter().find(|device| device["device"] != *first);
    let other = other.context("there are two")?["device"].clone();
    let other = other.as_str().context("an id")?;
    command(&run.cluster, &["device", "drain", other])?;
    // It holds something still, or it is empty and goes: both are said.
    let early = command(&run.cluster, &["device", "remove", other]);
    if early.is_err() {
        wait_until(&run.cluster, node, "empty", |devices| {
            let is_empty = |one: &&Json| one["groups"] == 0 && one["shards"] == 0;
            let mut other = devices.iter().filter(|one| one["device"] == *other);
            other.next().is_some_and(|one| is_empty(&one))
        })?;
        command(&run.cluster, &["device", "remove", other])?;
    }
    if load.has_stopped() {
        return Ok(());
    }
    // Nobody has told the node yet: what it has is of no use, and does no harm.
    run.cluster.restart_with(node, None)?;
    run.cluster.wait_until_whole()?;
    let left = of_node(&run.cluster, node)?;
    promised!(left.len() == 1, "node {node} has {left:?}");
    run.report.cycles += 1;
    Ok(())
}

/// The id of the device in a node's first directory, as the node says.
fn first_device(run: &Run<'_>, node: Number) -> Result<String> {
    let status = run.cluster.whole_status(node)?;
    let id = status["devices"][0]["id"].as_str();
    Ok(id.context("the status has devices")?.to_owned())
}

/// What the cluster says of a node's devices.
fn of_node(cluster: &Cluster, node: Number) -> Result<Vec<Json>> {
    let status = cluster.status(0)?;
    let devices = status["nodes"][node]["devices"].as_array();
    Ok(devices.cloned().unwrap_or_default())
}

pub(super) fn command(cluster: &Cluster, words: &[&str]) -> Result<()> {
    let output = cluster.ask(0, words).output()?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(())
}

/// Waits until this is so of a node's devices.
fn wait_until(
    cluster: &Cluster,
    node: Number,
    what: &str,
    is_so: impl Fn(&[Json]) -> bool,
) -> Result<()> {
    const STEP: Duration = Duration::from_millis(200);
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let devices = of_node(cluster, node)?;
        if is_so(&devices) {
            return Ok(());
        }
        promised!(
            Instant::now() < deadline,
            "node {node}: not {what} after {TIME_MAX:?}: {devices:?}"
        );
        thread::sleep(STEP);
    }
}
