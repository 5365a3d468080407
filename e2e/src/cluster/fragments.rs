//! Erasure coding: bodies in fragments on six nodes, of which two at a time are gone. Everything is read through each that is
//! left, and written all the same; then bits of fragments flip, and nobody is needed to mend them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::devices::command;
use super::rot::{content, flip_on_node};
use super::scenario::Run;
use super::verify::wait_for_service;
use super::{Cluster, Number};
use crate::damage::{find_body, put};
use crate::ledger::Value;
use crate::promised;
use crate::verify;

const CONTAINER: &str = "fragments";
const POLICY: &str = "cold";
/// Of two chunks, the second of which is short.
const BYTES: usize = (5 << 20) + 54_321;
const OBJECTS: usize = 4;

/// A node that is gone is soon replaced where it can be, and rot is found in a moment.
pub(super) const SETTINGS: [(&str, &str); 3] = [
    ("MARTLET_OUT_AFTER", "4s"),
    ("MARTLET_SCRUB_INTERVAL", "500ms"),
    ("MARTLET_SCRUB_BYTES_PER_SECOND", "1GiB"),
];

const TIME_MAX: Duration = Duration::from_secs(180);

type Objects = Vec<(String, Value)>;

pub(super) fn strike(run: &mut Run<'_>) -> Result<()> {
    let mut objects = begin(run)?;
    for _ in 0..run.plan.cycles {
        let before = Instant::now();
        lose_two(run, &mut objects)?;
        run.report.slowest_recovery = run.report.slowest_recovery.max(before.elapsed());
        run.report.cycles += 1;
    }
    rot(run, &objects)?;
    read_all(run, &objects)
}

/// Adds the policy, and puts the first objects as soon as there are groups for them.
fn begin(run: &mut Run<'_>) -> Result<Objects> {
    run.cluster.wait_until_whole()?;
    command(&run.cluster, &["policy", "add", POLICY, "ec:4+2"])?;
    let create = run.session.request("PUT", CONTAINER, "");
    let answer = run
        .session
        .send(&create.header("X-Storage-Policy", POLICY))?;
    ensure!(answer.status == 201, "PUT of the container: {answer:?}");
    let mut objects = Objects::new();
    // Until there are groups, bodies are kept in whole copies.
    let deadline = Instant::now() + TIME_MAX;
    loop {
        add(run, 0, &mut objects)?;
        let (_, value) = objects.last().context("one was added")?;
        if holders(run, value)?.len() == 1 {
            break;
        }
        let status = run.cluster.status(0)?;
        promised!(
            Instant::now() < deadline,
            "no groups of fragments: {status}"
        );
    }
    for _ in 1..OBJECTS {
        add(run, 0, &mut objects)?;
        let (path, value) = objects.last().context("one was added")?;
        let holders = holders(run, value)?;
        promised!(holders.len() == 1, "the middle of {path} is on {holders:?}");
    }
    run.cluster.wait_until_whole()?;
    Ok(objects)
}

fn add(run: &mut Run<'_>, node: Number, objects: &mut Objects) -> Result<()> {
    let path = format!("{CONTAINER}/{}", objects.len());
    let mut session = run.session.again(run.cluster.endpoint(node).clone());
    let value = put(&mut session, &path, BYTES, &mut run.random)?;
    objects.push((path, value));
    Ok(())
}

/// The nodes that have what lies in the middle of a body.
fn holders(run: &Run<'_>, value: &Value) -> Result<Vec<Number>> {
    let content = content(value).context("it is there")?;
    let mut holders = Vec::new();
    for node in 0..run.cluster.size() {
        if find_body(&run.cluster.nodes[node].launch.data, content)?.is_some() {
            holders.push(node);
        }
    }
    Ok(holders)
}

/// One after the other, so that the shards can move; then both come back.
fn lose_two(run: &mut Run<'_>, objects: &mut Objects) -> Result<()> {
    let nodes = run.cluster.size();
    // Node 0 is asked how things are.
    let one = run.random.usize(1..nodes);
    let other = (1..nodes).filter(|node| *node != one);
    let other: Vec<_> = other.collect();
    let other = other[run.random.usize(0..other.len())];
    for dead in [one, other] {
        run.cluster.kill(dead)?;
        wait_until(run, "what the dead node had can be had again", |cluster| {
            let status = cluster.status(0)?;
            let is_out = status["nodes"][dead]["state"] == "out";
            Ok(is_out && status["shards_unsettled"] == 0)
        })?;
    }
    let alive: Vec<_> = (0..nodes)
        .filter(|node| ![one, other].contains(node))
        .collect();
    let through = alive[run.random.usize(0..alive.len())];
    add(run, through, objects)?;
    for node in alive {
        read_through(run, node, objects)?;
    }
    for dead in [one, other] {
        run.cluster.start(dead)?;
    }
    wait_for_service(&mut run.cluster, &run.session)?;
    run.cluster.wait_until_whole()?;
    read_all(run, objects)
}

/// The middles of all bodies rot, on one node after the other.
fn rot(run: &mut Run<'_>, objects: &Objects) -> Result<()> {
    let mut held: BTreeMap<Number, Objects> = BTreeMap::new();
    for (path, value) in objects {
        // What was written while two were gone is in whole copies, of which some may be about to go.
        if let [node] = holders(run, value)?[..] {
            held.entry(node).or_default().push((path.clone(), *value));
        }
    }
    promised!(!held.is_empty(), "no body is in fragments");
    for (node, here) in held {
        flip_on_node(&mut run.cluster, node, &here)?;
        wait_for_service(&mut run.cluster, &run.session)?;
        wait_until(run, "the fragments are good again", |cluster| {
            let data = &cluster.nodes[node].launch.data;
            let mut contents = here.iter().filter_map(|(_, value)| content(value));
            contents.try_fold(true, |all, one| Ok(all && find_body(data, one)?.is_some()))
        })?;
    }
    Ok(())
}

fn read_all(run: &Run<'_>, objects: &Objects) -> Result<()> {
    (0..run.cluster.size()).try_for_each(|node| read_through(run, node, objects))
}

fn read_through(run: &Run<'_>, node: Number, objects: &Objects) -> Result<()> {
    let mut session = run.session.again(run.cluster.endpoint(node).clone());
    for (path, value) in objects {
        let answer = session.call("GET", path, "")?;
        let read = verify::object(path, &answer)?;
        promised!(read == *value, "{path} was {value:?} and is {read:?}");
    }
    Ok(())
}

fn wait_until(run: &Run<'_>, what: &str, is_so: impl Fn(&Cluster) -> Result<bool>) -> Result<()> {
    const STEP: Duration = Duration::from_millis(500);
    let deadline = Instant::now() + TIME_MAX;
    while !is_so(&run.cluster)? {
        promised!(
            Instant::now() < deadline,
            "not after {TIME_MAX:?}: {what}: {}",
            run.cluster.status(0)?
        );
        thread::sleep(STEP);
    }
    Ok(())
}
