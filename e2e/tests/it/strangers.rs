//! Who has no business in a cluster is kept out, and who was away for long learns what it has missed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use e2e::binary::{Build, martlet};
use e2e::cluster::{Cluster, Setup};
use e2e::http::Body;
use e2e::server::{Launch, free_address};
use e2e::session::Session;

/// A server that can be a node, and where others would find it.
fn node(folder: &Path, name: &str) -> Result<(Launch, String)> {
    let binary = martlet(Build::Plain)?;
    let (data, log) = (folder.join(name), folder.join(format!("{name}.log")));
    let address = free_address()?.to_string();
    let launch = Launch::new(&binary, &data, &log)
        .with("--shards", "4")
        .with("--node-listen", &address);
    Ok((launch, address))
}

fn join_token(member: &Launch) -> Result<String> {
    token_command(member, &["create"])
}

/// What `martlet token` prints.
fn token_command(member: &Launch, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(&member.binary);
    command.arg("token").args(arguments);
    let output = command.arg("--data").arg(&member.data).output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn joining(launch: &Launch, address: &str, token: &str) -> Launch {
    let launch = launch.clone().with("--join", address);
    launch.with("--token", token)
}

/// Starts a server that must refuse to run, and says why.
#[track_caller]
fn check_refused(launch: &Launch, why: &str) {
    match launch.start() {
        Ok(_) => panic!("it runs"),
        Err(error) => assert!(format!("{error:#}").contains(why), "{error:#}"),
    }
}

#[test]
fn a_token_lets_one_node_in_and_no_other() -> Result<()> {
    let folder = tempfile::tempdir_in(e2e::scratch()?)?;
    let (first, address) = node(folder.path(), "first")?;
    let (second, _) = node(folder.path(), "second")?;
    let (third, _) = node(folder.path(), "third")?;
    let _first = first.start()?;
    let token = join_token(&first)?;
    let member = joining(&second, &address, &token).start()?;
    check_refused(&joining(&third, &address, &token), "joining through");
    // Nothing came of it: with a token of its own it is let in.
    let _third = joining(&third, &address, &join_token(&first)?).start()?;
    // And the one that has used the token needs none any more.
    assert!(member.stop()?.success());
    let _second = second.start()?;
    Ok(())
}

#[test]
fn a_token_that_was_taken_back_lets_nobody_in() -> Result<()> {
    let folder = tempfile::tempdir_in(e2e::scratch()?)?;
    let (first, address) = node(folder.path(), "first")?;
    let (second, _) = node(folder.path(), "second")?;
    let _first = first.start()?;
    let token = join_token(&first)?;
    let list = token_command(&first, &["list"])?;
    let (id, state) = list.split_once("  ").expect("an id and a state");
    assert!(state.starts_with("good for"), "{list}");
    token_command(&first, &["remove", id])?;
    assert_eq!(token_command(&first, &["list"])?, "");
    check_refused(&joining(&second, &address, &token), "joining through");
    Ok(())
}

#[test]
fn a_node_with_the_identity_of_another_cluster_does_not_start() -> Result<()> {
    let folder = tempfile::tempdir_in(e2e::scratch()?)?;
    let (ours, _) = node(folder.path(), "ours")?;
    let (theirs, address) = node(folder.path(), "theirs")?;
    assert!(ours.start()?.stop()?.success());
    let other = theirs.start()?;
    // It has data, and is a cluster already: it is not made a part of another one.
    let token = join_token(&theirs)?;
    let alone = joining(&ours, &address, &token).start()?;
    assert!(alone.stop()?.success());
    let (newcomer, _) = node(folder.path(), "newcomer")?;
    let newcomer = joining(&newcomer, &address, &token).start()?;
    assert!(newcomer.stop()?.success(), "the token was not used up");
    assert!(other.stop()?.success());

    // The certificate of one beside the data of the other.
    let certificate = Path::new("node/credentials.pem");
    fs::copy(theirs.data.join(certificate), ours.data.join(certificate))?;
    check_refused(&ours, "are of two clusters");
    Ok(())
}

/// A container's objects, by their names.
type Objects = BTreeMap<String, Vec<u8>>;

fn put(session: &mut Session, objects: &mut Objects, name: &str, body: Vec<u8>) -> Result<()> {
    let request = session.request("PUT", &format!("c/{name}"), "");
    let answer = session.send(&request.body(Body::Sized(&body)))?;
    assert_eq!(answer.status, 201, "{answer:?}");
    objects.insert(name.to_owned(), body);
    Ok(())
}

fn delete(session: &mut Session, objects: &mut Objects, name: &str) -> Result<()> {
    let answer = session.call("DELETE", &format!("c/{name}"), "")?;
    assert_eq!(answer.status, 204, "{answer:?}");
    objects.remove(name);
    Ok(())
}

#[track_caller]
fn check_same(session: &mut Session, objects: &Objects) -> Result<()> {
    let listing = session.call("GET", "c", "")?;
    let listing = String::from_utf8(listing.body)?;
    let names: Vec<_> = objects.keys().map(String::as_str).collect();
    assert_eq!(listing.lines().collect::<Vec<_>>(), names);
    for (name, body) in objects {
        let answer = session.call("GET", &format!("c/{name}"), "")?;
        assert_eq!((answer.status, answer.body == *body), (200, true), "{name}");
    }
    Ok(())
}

/// How many replicas of shards were sent to other nodes as a whole.
fn snapshots(folder: &Path) -> usize {
    let log = |node| fs::read_to_string(folder.join(format!("node{node}/log")));
    let logs = (0..3).map(|node| log(node).expect("each node has a log"));
    logs.map(|log| log.matches("snapshot installed").count())
        .sum()
}

/// Waits until nothing that was deleted waits for the collector.
#[track_caller]
fn wait_until_collected(cluster: &Cluster) -> Result<()> {
    /// More than the collector leaves alone what may still be read, on a busy machine.
    const TRIES: usize = 600;
    const STEP: Duration = Duration::from_millis(200);
    let mut queued = None;
    for _ in 0..TRIES {
        queued = cluster.garbage()?;
        if queued == Some(0) {
            return Ok(());
        }
        thread::sleep(STEP);
    }
    panic!("garbage stays: {queued:?}");
}

/// What a week does to a node that was away: the log of its shards no longer begins where it left off, and most
/// of what it holds is gone.
#[test]
fn a_node_that_missed_deletes_brings_nothing_back() -> Result<()> {
    /// Metadata that no replica keeps in its log for others.
    const SMALL_BYTES: usize = 16_000;
    const SMALL: usize = 300;
    const LARGE_BYTES: usize = 200_000;
    const LARGE: usize = 12;
    let folder = tempfile::tempdir_in(e2e::scratch()?)?;
    let setup = Setup {
        binary: martlet(Build::Plain)?,
        seed: 0,
        power_cuts: false,
        environment: Vec::new(),
    };
    let mut cluster = Cluster::form(&setup, folder.path())?;
    cluster.grow_to(3)?;
    cluster.wait_until_whole()?;
    let mut session = cluster.login()?;
    assert_eq!(session.call("PUT", "c", "")?.status, 201);
    let mut objects = Objects::new();
    for number in 0..LARGE {
        put(
            &mut session,
            &mut objects,
            &format!("large{number:03}"),
            vec![1; LARGE_BYTES],
        )?;
    }
    for number in 0..LARGE {
        put(
            &mut session,
            &mut objects,
            &format!("small{number:03}"),
            vec![1; SMALL_BYTES],
        )?;
    }

    cluster.kill(2)?;
    for number in 0..SMALL {
        put(
            &mut session,
            &mut objects,
            &format!("small{number:03}"),
            vec![2; SMALL_BYTES],
        )?;
    }
    for number in (0..LARGE).filter(|number| number % 3 != 0) {
        delete(&mut session, &mut objects, &format!("large{number:03}"))?;
    }
    for number in (0..SMALL).filter(|number| number % 3 != 0) {
        delete(&mut session, &mut objects, &format!("small{number:03}"))?;
    }
    // The trees are written every five seconds, and the log before them let go of.
    thread::sleep(Duration::from_secs(6));

    let before = snapshots(folder.path());
    cluster.start(2)?;
    cluster.wait_until_ready(2)?;
    cluster.wait_until_whole()?;
    check_same(&mut session.again(cluster.endpoint(2).clone()), &objects)?;
    // Also when it is needed for a majority.
    cluster.kill(1)?;
    let survivor = session.again(cluster.endpoint(2).clone());
    let mut survivor = survivor.with_patience(Duration::from_secs(30));
    wait_until_listed(&mut survivor);
    check_same(&mut survivor, &objects)?;
    assert!(
        snapshots(folder.path()) > before,
        "it was away for too short"
    );
    cluster.start(1)?;
    cluster.wait_until_ready(1)?;
    cluster.wait_until_whole()?;
    wait_until_collected(&cluster)?;
    cluster.stop()
}

/// Waits until the container is served again.
#[track_caller]
fn wait_until_listed(session: &mut Session) {
    const TRIES: usize = 300;
    for _ in 0..TRIES {
        if session
            .call("GET", "c", "")
            .is_ok_and(|answer| answer.status == 200)
        {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("two of three nodes do not serve");
}
