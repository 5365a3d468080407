//! A node that does not know the newest map goes on with an upload.
//!
//! It hears all others but the one that leads the control group, so its map stays as it was, while all that another node
//! holds is moved elsewhere. What it then writes to the old members must be refused: the new ones have copied already.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

use super::scenario::Run;
use super::verify::wait_for_service;
use super::{Cluster, Drain, Number};
use crate::http::Body;
use crate::ledger::Content;
use crate::network::Link;
use crate::promised;

/// More than the memory of sockets and the two chunks that are on their way: when so much has been taken, some
/// chunks have been written.
const UPLOAD_BYTES: usize = 32 << 20;
/// Before the node is cut off.
const FIRST_BYTES: usize = 64 << 10;
/// The members of a group, the leader, the late writer and one to move from.
const NODES_MIN: usize = 5;

/// Lets this happen so many times, and looks after each whether all copies are there.
pub(super) fn strike(run: &mut Run<'_>) -> Result<()> {
    let nodes = run.cluster.size();
    ensure!(nodes >= NODES_MIN, "{nodes} nodes are too few");
    for cycle in 0..run.plan.cycles {
        run.cluster.wait_until_whole()?;
        let drained = late_upload(run, cycle)?;
        run.cluster.check()?;
        let recovery = wait_for_service(&mut run.cluster, &run.session)?;
        run.report.slowest_recovery = run.report.slowest_recovery.max(recovery);
        run.cluster.drain(0, drained, Drain::End)?;
        run.report.cycles += 1;
    }
    Ok(())
}

/// Gives the node that was emptied.
fn late_upload(run: &mut Run<'_>, cycle: usize) -> Result<Number> {
    let leader = run.cluster.leader()?;
    let mut others: Vec<Number> = (0..run.cluster.size())
        .filter(|node| *node != leader)
        .collect();
    run.random.shuffle(&mut others);
    let (writer, drained) = (others[0], others[1]);

    let body = Content {
        seed: run.random.u64(..),
        bytes: UPLOAD_BYTES,
    }
    .body();
    let session = run.session.again(run.cluster.endpoint(writer).clone());
    let request = session.request("PUT", &format!("c0/late{cycle}"), "");
    let request = request.body(Body::Sized(&body));
    let mut upload = session.begin(&request, FIRST_BYTES)?;
    // Until it has been found to be allowed: that is asked of the control group. If it takes longer, the upload fails.
    thread::sleep(Duration::from_millis(500));

    let network = run.cluster.network().context("there is a network")?;
    network.set(leader, writer, Link::CUT);
    network.set(writer, leader, Link::CUT);
    // Or else something would be moved to it, and wait for it.
    wait_until(&run.cluster, leader, writer, "down", |node| {
        node["state"] == "down"
    })?;
    run.cluster.drain(leader, drained, Drain::Begin)?;
    wait_until(&run.cluster, leader, drained, "empty", is_empty)?;
    let gone_on = upload.go_on(1);
    network.heal();
    let recovery = wait_for_service(&mut run.cluster, &run.session)?;
    run.report.slowest_recovery = run.report.slowest_recovery.max(recovery);
    // Whether it succeeds is not promised: only that it is kept if it does.
    let answer = gone_on.and_then(|()| upload.finish());
    if let Ok(answer) = answer {
        promised!(
            answer.is_success() || answer.status >= 500,
            "a late upload gives {answer:?}"
        );
    }
    Ok(drained)
}

/// Whether no group has a member on a node.
fn is_empty(node: &Json) -> bool {
    let devices = node["devices"].as_array();
    devices.is_some_and(|all| all.iter().all(|device| device["groups"] == 0))
}

/// Waits until another node says this of a node.
fn wait_until(
    cluster: &Cluster,
    asked: Number,
    node: Number,
    what: &str,
    is_so: impl Fn(&Json) -> bool,
) -> Result<()> {
    const STEP: Duration = Duration::from_millis(200);
    /// Less than the server waits for the rest of an upload.
    const TIME_MAX: Duration = Duration::from_secs(40);
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let status = cluster.status(asked)?;
        if is_so(&status["nodes"][node]) {
            return Ok(());
        }
        promised!(
            Instant::now() < deadline,
            "node {node} is not {what} after {TIME_MAX:?}: {status}"
        );
        thread::sleep(STEP);
    }
}
