//! Bits flip in what a node has stored: it finds that by itself, and the other nodes' copies take their place. Of what
//! has rotted on all nodes, the object is named.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::scenario::Run;
use super::verify::wait_for_service;
use super::{Cluster, Number};
use crate::damage::{find_body, flip, put};
use crate::ledger::{Content, Value};
use crate::promised;
use crate::verify;

const CONTAINER: &str = "rot";
const OBJECTS: usize = 12;
/// Each lies in a segment.
const BYTES: usize = 300_000;

/// So that all of a device is read in a moment, again and again.
pub(super) const SETTINGS: [(&str, &str); 2] = [
    ("MARTLET_SCRUB_INTERVAL", "500ms"),
    ("MARTLET_SCRUB_BYTES_PER_SECOND", "1GiB"),
];

const TIME_MAX: Duration = Duration::from_secs(90);

/// Flips a bit of each body, on one node after the other, and then of one body on all.
pub(super) fn strike(run: &mut Run<'_>) -> Result<()> {
    run.cluster.wait_until_whole()?;
    run.session.call("PUT", CONTAINER, "")?;
    let mut objects = Vec::new();
    for number in 0..OBJECTS {
        let path = format!("{CONTAINER}/{number}");
        let value = put(&mut run.session, &path, BYTES, &mut run.random)?;
        objects.push((path, value));
    }
    for node in 0..run.cluster.size() {
        let before = Instant::now();
        flip_on_node(&mut run.cluster, node, &objects)?;
        wait_for_service(&mut run.cluster, &run.session)?;
        wait_until(&format!("node {node} has good copies of all"), || {
            let data = &run.cluster.nodes[node].launch.data;
            let mut contents = objects.iter().filter_map(|(_, value)| content(value));
            contents.try_fold(true, |all, one| Ok(all && find_body(data, one)?.is_some()))
        })?;
        run.report.slowest_recovery = run.report.slowest_recovery.max(before.elapsed());
        run.report.cycles += 1;
    }
    read_all(run, &objects)?;
    lose(run, &objects[0])
}

pub(super) fn content(value: &Value) -> Option<Content> {
    match value {
        Value::Object { content, .. } => Some(*content),
        _ => None,
    }
}

/// Stops a node, flips, and starts it again.
pub(super) fn flip_on_node(
    cluster: &mut Cluster,
    node: Number,
    objects: &[(String, Value)],
) -> Result<()> {
    let server = cluster.nodes[node].server.take().context("it runs")?;
    promised!(server.stop()?.success(), "node {node} did not stop well");
    let data = &cluster.nodes[node].launch.data;
    for (path, value) in objects {
        let content = content(value).context("it is there")?;
        let found = find_body(data, content)?;
        let (file, offset) = found.with_context(|| format!("node {node} has no copy of {path}"))?;
        flip(&file, offset, 3)?;
    }
    cluster.start(node)?;
    cluster.wait_until_ready(node)
}

fn read_all(run: &mut Run<'_>, objects: &[(String, Value)]) -> Result<()> {
    for node in 0..run.cluster.size() {
        let mut session = run.session.again(run.cluster.endpoint(node).clone());
        for (path, value) in objects {
            let answer = session.call("GET", path, "")?;
            let read = verify::object(path, &answer)?;
            promised!(read == *value, "{path} was {value:?} and is {read:?}");
        }
    }
    Ok(())
}

/// What has rotted everywhere is never served, has a name, and can be deleted.
fn lose(run: &mut Run<'_>, (path, value): &(String, Value)) -> Result<()> {
    // All at once: one that is still good would mend the others.
    let nodes = run.cluster.size();
    for node in 0..nodes {
        let server = run.cluster.nodes[node].server.take().context("it runs")?;
        promised!(server.stop()?.success(), "node {node} did not stop well");
    }
    for node in 0..nodes {
        let data = &run.cluster.nodes[node].launch.data;
        let found = find_body(data, content(value).context("it is there")?)?;
        let (file, offset) = found.context("there is a copy")?;
        flip(&file, offset, 3)?;
    }
    for node in 0..nodes {
        run.cluster.start(node)?;
    }
    for node in 0..nodes {
        run.cluster.wait_until_ready(node)?;
    }
    wait_for_service(&mut run.cluster, &run.session)?;
    for node in 0..nodes {
        wait_until(&format!("node {node} names what is lost"), || {
            let status = run.cluster.whole_status(node)?;
            let lost = status["lost"].as_array().cloned().unwrap_or_default();
            let names = lost.iter().filter_map(|one| one["object"].as_str());
            Ok(names.into_iter().any(|name| name.ends_with(path.as_str())))
        })?;
    }
    let mut session = run.session.again(run.cluster.endpoint(0).clone());
    let read = session.send(&session.request("GET", path, ""));
    if let Ok(answer) = read {
        promised!(answer.status >= 500, "{path} is lost: {answer:?}");
    }
    let answer = session.call("DELETE", path, "")?;
    ensure!(answer.status == 204, "DELETE of {path}: {answer:?}");
    for node in 0..nodes {
        wait_until(&format!("node {node} has nothing lost"), || {
            let status = run.cluster.whole_status(node)?;
            Ok(status["lost"].as_array().is_some_and(Vec::is_empty))
        })?;
    }
    Ok(())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    const STEP: Duration = Duration::from_millis(300);
    let deadline = Instant::now() + TIME_MAX;
    while !is_so()? {
        promised!(Instant::now() < deadline, "not after {TIME_MAX:?}: {what}");
        thread::sleep(STEP);
    }
    Ok(())
}
