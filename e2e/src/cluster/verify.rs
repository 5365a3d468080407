//! After a storm: everybody serves again, and what is there is what the history says.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use testkit::linearizable::Action;

use super::history::Ending;
use super::load::{CONTAINERS, Client, Load, OUTSIDE};
use super::{Cluster, Number};
use crate::http::Body;
use crate::session::Session;
use crate::verify::listing;
use crate::{broken, promised};

/// Between two tries.
const STEP: Duration = Duration::from_millis(50);
/// A cluster in which nothing is broken must serve again after so long, on a busy machine.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(60);

/// Makes the containers of a load.
pub(super) fn prepare(session: &mut Session) -> Result<()> {
    for container in 0..CONTAINERS {
        let answer = session.call("PUT", &format!("c{container}"), "")?;
        promised!(
            answer.status == 201,
            "PUT of a new container gives {answer:?}"
        );
    }
    Ok(())
}

/// Waits until every node takes writes and reads of every container. Gives how long the longest took.
pub(super) fn wait_for_service(cluster: &mut Cluster, session: &Session) -> Result<Duration> {
    let start = Instant::now();
    for node in 0..cluster.size() {
        cluster.wait_until_ready(node).map_err(broken)?;
        let mut session = session.again(cluster.endpoint(node).clone());
        for container in 0..CONTAINERS {
            let path = format!("c{container}/{OUTSIDE}{node}");
            while !serves(&mut session, &path) {
                promised!(
                    start.elapsed() < RECOVERY_TIME_MAX,
                    "nothing is broken any more, but after {RECOVERY_TIME_MAX:?} node {node} does \
                     not take or give {path}"
                );
                thread::sleep(STEP);
            }
        }
    }
    Ok(start.elapsed())
}

fn serves(session: &mut Session, path: &str) -> bool {
    let put = session.request("PUT", path, "").body(Body::Sized(b"x"));
    let get = session.request("GET", path, "");
    [put, get].iter().all(|request| {
        session
            .send(request)
            .is_ok_and(|answer| answer.is_success())
    })
}

/// Reads every object, lists every container through every node, and checks the whole history; then the
/// counters. Gives the number of objects.
pub(super) fn everything(
    cluster: &Cluster,
    load: &Load<'_>,
    session: &Session,
    random: &mut Rng,
) -> Result<usize> {
    /// After all others.
    const CLIENT: usize = 99;
    let mut client = Client::new(load, CLIENT, random.fork());
    let objects = load.history.objects();
    for object in &objects {
        let node = random.usize(0..cluster.size());
        until_answered(object, node, || {
            let ending = client.ask(node, object, Action::Get)?;
            Ok(matches!(ending, Ending::Answered(_)))
        })?;
    }
    for node in 0..cluster.size() {
        for container in 0..CONTAINERS {
            let what = format!("the listing of c{container}");
            until_answered(&what, node, || client.list(node, container))?;
        }
    }
    load.history.check()?;
    for container in 0..CONTAINERS {
        let node = random.usize(0..cluster.size());
        let mut session = session.again(cluster.endpoint(node).clone());
        counters_match(&mut session, &format!("c{container}"), random).map_err(broken)?;
    }
    Ok(objects.len())
}

fn until_answered(what: &str, node: Number, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + RECOVERY_TIME_MAX;
    while !ask()? {
        promised!(
            Instant::now() < deadline,
            "nothing is broken any more, but node {node} does not give {what}"
        );
        thread::sleep(STEP);
    }
    Ok(())
}

/// A container's counters are the sums over its listing. A request from before may still take effect meanwhile:
/// then they are compared again.
fn counters_match(session: &mut Session, container: &str, random: &mut Rng) -> Result<()> {
    const TRIES: usize = 20;
    let mut found = (None, None, None);
    for _ in 0..TRIES {
        let before = counters(session, container)?;
        let entries = listing(session, container, random)?;
        let bytes = entries.values().filter_map(|entry| entry["bytes"].as_u64());
        let listed = Some((entries.len() as u64, bytes.sum()));
        let after = counters(session, container)?;
        if before == listed && listed == after {
            return Ok(());
        }
        found = (before, listed, after);
        thread::sleep(STEP);
    }
    let (before, listed, after) = found;
    promised!(
        false,
        "{container} counts {before:?} objects and bytes, lists {listed:?}, then counts {after:?}"
    );
    Ok(())
}

fn counters(session: &mut Session, container: &str) -> Result<Option<(u64, u64)>> {
    let answer = session.call("HEAD", container, "")?;
    let count = |name| answer.header(name)?.parse().ok();
    let objects = count("X-Container-Object-Count");
    Ok(objects.zip(count("X-Container-Bytes-Used")))
}
