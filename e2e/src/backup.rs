//! Metadata that is saved from a running server, lost, and put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use tempfile::TempDir;

use crate::damage::{find_body, flip, put};
use crate::files;
use crate::http::Body;
use crate::ledger::{Value, etag};
use crate::promised;
use crate::server::{Launch, Server};
use crate::session::Session;
use crate::verify::{self, NOTE};

const CONTAINERS: usize = 5;
/// Bodies of these lengths are rows; longer ones are chunks.
const SMALL: [usize; 4] = [0, 1, 5000, 16_384];
const LARGE: [usize; 4] = [16_385, 131_072, 200_000, 5 << 20];
/// It is deleted when the backup has been made.
const DOOMED: &str = "c0/doomed";
const CLIENTS: usize = 4;

/// A running server that holds something.
struct Subject {
    work: TempDir,
    launch: Launch,
    server: Server,
    session: Session,
    objects: BTreeMap<String, Value>,
}

impl Subject {
    fn prepare(binary: &Path, random: &mut Rng) -> Result<Self> {
        let work = tempfile::Builder::new()
            .prefix("backup-")
            .tempdir_in(crate::scratch()?)?;
        let launch = Launch::new(binary, &work.path().join("data"), &work.path().join("log"))
            .with("--shards", "4")
            .with("--garbage-delay", "100ms");
        let server = launch.start()?;
        let (user, password) = launch.administrator()?;
        let mut session = Session::login(server.address, &user, &password)?;
        let mut objects = BTreeMap::new();
        for number in 0..CONTAINERS {
            session.call("PUT", &format!("c{number}"), "")?;
            for bytes in SMALL.into_iter().chain(LARGE) {
                let path = format!("c{number}/{bytes}");
                objects.insert(path.clone(), put(&mut session, &path, bytes, random)?);
            }
        }
        put(&mut session, DOOMED, 300_000, random)?;
        Ok(Self {
            work,
            launch,
            server,
            session,
            objects,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn backup(&self, target: &Path) -> Result<Output> {
        Ok(self.backup_command(target).output()?)
    }

    fn backup_command(&self, target: &Path) -> Command {
        let mut command = Command::new(&self.launch.binary);
        command.arg("backup").arg(target);
        command.arg("--data").arg(&self.launch.data);
        command
    }

    /// Waits until what was deleted is gone.
    fn wait_for_the_collector(&self) -> Result<()> {
        loop {
            let mut command = Command::new(&self.launch.binary);
            command.args(["status", "--json", "--data"]);
            let output = command.arg(&self.launch.data).output()?;
            let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            if status["garbage"]["queued"] == 0 {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The exit code, and all that was printed.
fn said(output: &Output) -> Result<(Option<i32>, String)> {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), text.into_owned()))
}

/// Each object must be there as it was put.
fn all_are_there<'a>(
    session: &mut Session,
    objects: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> Result<()> {
    for (path, value) in objects {
        let answer = session.call("GET", path, "")?;
        let found = verify::object(path, &answer)?;
        promised!(found == *value, "{path} is {found:?}, was {value:?}");
    }
    Ok(())
}

/// How many writes of each client were acknowledged.
type Acknowledged = [AtomicU64; CLIENTS];

/// Overwrites a small object again and again, and makes containers.
fn write_until(
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
    client: usize,
    mut session: Session,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let number = acknowledged.load(Ordering::SeqCst) + 1;
        let request = session.request("PUT", &busy(client), "");
        let request = request
            .header(NOTE, number.to_string())
            .body(Body::Sized(b"busy"));
        let answer = session.send(&request)?;
        promised!(answer.status == 201, "PUT gives {answer:?}");
        let answer = session.call("PUT", &container(client, number), "")?;
        promised!(answer.status == 201, "PUT gives {answer:?}");
        acknowledged.store(number, Ordering::SeqCst);
    }
    Ok(())
}

fn busy(client: usize) -> String {
    format!("c{client}/busy")
}

fn container(client: usize, number: u64) -> String {
    format!("busy-{client}-{number}")
}

/// Saves a server under load, loses its log and its tree, and restores them. What was acknowledged before the backup
/// is there, and what was deleted after it is named. Gives how many writes there were before and in all.
pub fn under_load(binary: &Path, random: &mut Rng) -> Result<(u64, u64)> {
    let mut subject = Subject::prepare(binary, random)?;
    let saved = subject.path("saved");
    let (stop, acknowledged) = (AtomicBool::new(false), Acknowledged::default());
    let before = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let session = subject.session.again(subject.server.address);
                let (stop, acknowledged) = (&stop, &acknowledged[client]);
                scope.spawn(move || write_until(stop, acknowledged, client, session))
            })
            .collect();
        // Some writes each.
        while acknowledged
            .iter()
            .any(|one| one.load(Ordering::SeqCst) < 5)
            && !clients.iter().any(thread::ScopedJoinHandle::is_finished)
        {
            thread::sleep(Duration::from_millis(1));
        }
        let before: Vec<_> = acknowledged
            .iter()
            .map(|one| one.load(Ordering::SeqCst))
            .collect();
        let output = subject.backup(&saved);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("clients do not panic")?;
        }
        let (code, text) = said(&output?)?;
        promised!(code == Some(0), "the backup ends with {code:?}: {text}");
        Ok::<_, anyhow::Error>(before)
    })?;
    subject.session.call("DELETE", DOOMED, "")?;
    subject.wait_for_the_collector()?;
    let status = subject.server.stop()?;
    promised!(status.success(), "stopped with {status}");
    for lost in ["log", "tree"] {
        fs::remove_dir_all(subject.launch.data.join(lost))?;
    }
    let restored = Restored {
        launch: &subject.launch,
        session: &subject.session,
        objects: &subject.objects,
    };
    restored.check(&saved, &before)?;
    let all = acknowledged.iter().map(|one| one.load(Ordering::SeqCst));
    Ok((before.iter().sum(), all.sum()))
}

/// What must be there after a restore.
struct Restored<'a> {
    launch: &'a Launch,
    session: &'a Session,
    objects: &'a BTreeMap<String, Value>,
}

impl Restored<'_> {
    fn check(&self, saved: &Path, before: &[u64]) -> Result<()> {
        let (code, text) = restore(self.launch, saved, &self.launch.data)?;
        let is_named = text.contains("main/c0/doomed") || text.contains("/c0/doomed");
        promised!(code == Some(1) && is_named, "restore: {code:?}: {text}");
        for path in self.objects.keys() {
            promised!(!text.contains(path), "{path} is missing: {text}");
        }
        let server = self.launch.start()?;
        let mut session = self.session.again(server.address);
        all_are_there(&mut session, self.objects)?;
        let listed = session.call("GET", "", "")?;
        let listed = String::from_utf8(listed.body).context("names")?;
        for (client, before) in before.iter().enumerate() {
            let answer = session.call("GET", &busy(client), "")?;
            let found: u64 = answer.header(NOTE).unwrap_or_default().parse()?;
            promised!(found >= *before, "write {found} after {before}");
            for number in 1..=*before {
                let name = container(client, number);
                let is_listed = listed.lines().any(|line| line == name);
                let status = session.call("HEAD", &name, "")?.status;
                promised!(is_listed && status == 204, "{name}: {is_listed}, {status}");
            }
        }
        // What is listed is there, also of what was made meanwhile.
        for name in listed.lines() {
            let status = session.call("HEAD", name, "")?.status;
            promised!(status == 204, "{name} is listed, and HEAD gives {status}");
        }
        let answer = session.call("GET", DOOMED, "")?;
        promised!(!answer.is_success(), "{DOOMED} has a body: {answer:?}");
        let answer = session.call("DELETE", DOOMED, "")?;
        promised!(answer.status == 204, "DELETE gives {answer:?}");
        server.stop()?;
        let complaint = self.launch.check()?;
        promised!(complaint.is_none(), "{complaint:?}");
        Ok(())
    }
}

fn restore(launch: &Launch, source: &Path, data: &Path) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(&launch.binary);
    command.arg("restore").arg(source).arg("--data").arg(data);
    said(&command.output()?)
}

/// Restores into an empty directory: small bodies are there, large ones are named as missing and can be deleted. A
/// backup of which any file has a bit flipped is refused before. Gives how many restores were killed half-way.
pub fn without_disks(binary: &Path, random: &mut Rng) -> Result<usize> {
    let subject = Subject::prepare(binary, random)?;
    let saved = subject.path("saved");
    let (code, text) = said(&subject.backup(&saved)?)?;
    promised!(code == Some(0), "the backup ends with {code:?}: {text}");
    let fresh = subject.path("fresh");
    for (name, bytes) in files::sizes(&saved)? {
        let (file, at) = (saved.join(name), random.u64(..bytes));
        let bit = random.u8(..8);
        flip(&file, at, bit)?;
        let (code, text) = restore(&subject.launch, &saved, &fresh)?;
        let is_refused = code == Some(2) && !fresh.exists();
        promised!(is_refused, "{} at {at}: {code:?}: {text}", file.display());
        flip(&file, at, bit)?;
    }
    // The first server goes on, and is no concern of this.
    let mut launch = subject.launch.clone();
    launch.data.clone_from(&fresh);
    let cut = cut_short(&launch, &saved, random)?;
    let (code, text) = restore(&subject.launch, &saved, &fresh)?;
    promised!(code == Some(1), "restore ends with {code:?}: {text}");
    let server = launch.start()?;
    let mut session = subject.session.again(server.address);
    let is_small = |path: &str| {
        let bytes = path
            .split('/')
            .next_back()
            .and_then(|name| name.parse().ok());
        bytes.is_some_and(|bytes| SMALL.contains(&bytes))
    };
    let (small, large): (Vec<_>, Vec<_>) =
        subject.objects.iter().partition(|(path, _)| is_small(path));
    all_are_there(&mut session, small)?;
    for path in large.iter().map(|(path, _)| path.as_str()).chain([DOOMED]) {
        promised!(text.contains(&format!("/{path}\n")), "{path}? {text}");
        let answer = session.call("DELETE", path, "")?;
        promised!(answer.status == 204, "DELETE of {path} gives {answer:?}");
    }
    put(&mut session, "c1/new", 300_000, random)?;
    server.stop()?;
    let complaint = launch.check()?;
    promised!(complaint.is_none(), "{complaint:?}");
    Ok(cut)
}

/// Kills restores at random moments: while one is not done, no server starts on what it left. Gives how many were
/// not.
fn cut_short(launch: &Launch, saved: &Path, random: &mut Rng) -> Result<usize> {
    const ROUNDS: usize = 8;
    let mut cut = 0;
    for _ in 0..ROUNDS {
        let mut command = Command::new(&launch.binary);
        command.arg("restore").arg(saved).arg("--data");
        command.arg(&launch.data).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_micros(random.u64(..60_000)));
        child.kill()?;
        child.wait()?;
        if launch.data.join("restoring").exists() {
            let started = launch.start();
            promised!(started.is_err(), "a server starts on half of a backup");
            cut += 1;
        } else if launch.data.exists() {
            // It was done, or had not begun; here each begins anew.
            fs::remove_dir_all(&launch.data)?;
        }
    }
    Ok(cut)
}

/// Kills the server while it is saved: the backup is whole, or none, and the server loses nothing. Gives how many
/// backups were whole.
pub fn killed(binary: &Path, rounds: usize, random: &mut Rng) -> Result<usize> {
    let mut subject = Subject::prepare(binary, random)?;
    let mut whole = 0;
    for round in 0..rounds {
        let saved = subject.path(&format!("saved-{round}"));
        let mut command = subject.backup_command(&saved);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        thread::sleep(Duration::from_micros(random.u64(..40_000)));
        subject.server.kill()?;
        let output = child.wait_with_output()?;
        let is_complete = saved.join("manifest").exists();
        promised!(
            is_complete == output.status.success(),
            "a manifest: {is_complete}, and {output:?}"
        );
        whole += usize::from(is_complete);
        subject.server = subject.launch.start()?;
        let mut session = subject.session.again(subject.server.address);
        all_are_there(&mut session, &subject.objects)?;
        let fresh = subject.path(&format!("fresh-{round}"));
        if !is_complete {
            let (code, text) = restore(&subject.launch, &saved, &fresh)?;
            promised!(code == Some(2), "restore ends with {code:?}: {text}");
            let (code, text) = said(&subject.backup(&saved)?)?;
            promised!(code == Some(0), "the backup ends with {code:?}: {text}");
        }
        let (code, text) = restore(&subject.launch, &saved, &fresh)?;
        promised!(code == Some(1), "restore ends with {code:?}: {text}");
    }
    subject.server.stop()?;
    let complaint = subject.launch.check()?;
    promised!(complaint.is_none(), "{complaint:?}");
    Ok(whole)
}

/// Loses log, tree and, if told to, the index; flips a bit in one body; and rebuilds. All large bodies but that one are
/// there again, and it is named. Gives how many are there.
pub fn rebuilt(binary: &Path, index: Index, random: &mut Rng) -> Result<usize> {
    let mut subject = Subject::prepare(binary, random)?;
    // What was overwritten and deleted, and collected, is to stay away.
    let path = format!("c1/{}", LARGE[1]);
    let value = put(&mut subject.session, &path, 700_000, random)?;
    subject.objects.insert(path, value);
    subject.session.call("DELETE", DOOMED, "")?;
    subject.wait_for_the_collector()?;
    let status = subject.server.stop()?;
    promised!(status.success(), "stopped with {status}");
    if index == Index::Lost {
        fs::remove_dir_all(subject.launch.data.join("index"))?;
    }
    for lost in ["log", "tree"] {
        fs::remove_dir_all(subject.launch.data.join(lost))?;
    }
    let bytes = |value: &Value| match value {
        Value::Object { content, .. } => content.bytes,
        Value::Absent | Value::Container => 0,
    };
    let is_large = |value: &Value| bytes(value) > SMALL[3];
    let damaged = format!("c2/{}", LARGE[2]);
    let Some(Value::Object { content, .. }) = subject.objects.get(&damaged) else {
        bail!("there is no {damaged}");
    };
    let found = find_body(&subject.launch.data, *content)?;
    let (file, at) = found.context("a large body is in a segment")?;
    flip(&file, at, 3)?;

    let mut command = Command::new(binary);
    command
        .arg("rebuild")
        .arg("--data")
        .arg(&subject.launch.data);
    let (code, text) = said(&command.output()?)?;
    let names: Vec<_> = text.lines().filter(|line| line.contains("/c")).collect();
    let is_named = names.len() == 1 && names[0].contains(&format!("/{damaged}: "));
    promised!(code == Some(1) && is_named, "rebuild: {code:?}: {text}");

    let server = subject.launch.start()?;
    let (user, password) = subject.launch.administrator()?;
    let mut session = Session::login(server.address, &user, &password)?;
    let mut there = 0;
    for (path, value) in &subject.objects {
        let answer = session.call("GET", path, "")?;
        let Value::Object { content, .. } = value else {
            bail!("{path} is no object");
        };
        if !is_large(value) || *path == damaged {
            promised!(answer.status == 404, "GET of {path} gives {answer:?}");
            continue;
        }
        let body = content.body();
        let tag = answer.header("Etag").unwrap_or_default();
        let is_it = answer.body == body && tag == etag(&body);
        promised!(is_it, "{path} is another body: {answer:?}");
        there += 1;
    }
    let answer = session.call("HEAD", "", "")?;
    let counted = answer.header("X-Account-Object-Count");
    promised!(
        counted == Some(there.to_string().as_str()),
        "{there} objects are counted as {counted:?}"
    );
    let answer = session.call("GET", DOOMED, "")?;
    promised!(answer.status == 404, "GET of {DOOMED} gives {answer:?}");
    put(&mut session, "c1/new", 300_000, random)?;
    server.stop()?;
    let complaint = subject.launch.check()?;
    promised!(complaint.is_none(), "{complaint:?}");
    Ok(there)
}

/// What becomes of the index of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    Kept,
    Lost,
}

/// Saves a server into a container of another one, and restores it from there.
pub fn to_a_store(binary: &Path, random: &mut Rng) -> Result<()> {
    let subject = Subject::prepare(binary, random)?;
    let other = Launch::new(binary, &subject.path("store"), &subject.path("store-log"));
    let store = other.start()?;
    let (user, password) = other.administrator()?;
    let url = format!("http://{}/v1/AUTH_main/backups/monday", store.address);
    let in_store = |command: &mut Command| {
        command
            .args(["--user", &user])
            .env("MARTLET_PASSWORD", &password);
        said(&command.output()?)
    };
    let mut backup = subject.backup_command(Path::new(&url));
    let (code, text) = in_store(&mut backup)?;
    promised!(code == Some(0), "the backup ends with {code:?}: {text}");
    let (code, text) = in_store(&mut backup)?;
    promised!(code == Some(2), "one is written over: {code:?}: {text}");

    subject.server.stop()?;
    for lost in ["log", "tree"] {
        fs::remove_dir_all(subject.launch.data.join(lost))?;
    }
    let mut restore = Command::new(binary);
    restore.args(["restore", &url, "--data"]);
    let (code, text) = in_store(restore.arg(&subject.launch.data))?;
    promised!(code == Some(0), "restore ends with {code:?}: {text}");
    let server = subject.launch.start()?;
    let mut session = subject.session.again(server.address);
    all_are_there(&mut session, &subject.objects)?;
    server.stop()?;
    let complaint = subject.launch.check()?;
    promised!(complaint.is_none(), "{complaint:?}");
    Ok(())
}
