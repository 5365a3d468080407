//! Bits that flip while the server is down.
//!
//! Whatever bit it is, no answer may hold anything else than what was stored: a read gives the right
//! object or fails. And whenever anything cannot be read any more, `martlet check` has said so.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::files;
use crate::ledger::{Content, Value};
use crate::progress::Progress;
use crate::promised;
use crate::server::{Launch, Server};
use crate::session::Session;
use crate::verify::{self, CONTENT, NOTE};

/// What many flips did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub flips: usize,
    /// That `martlet check` found.
    pub found: usize,
    /// After which the server did not start.
    pub refused: usize,
    /// Objects that could not be read, over all flips.
    pub unreadable: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flips,
            found,
            refused,
            unreadable,
        } = self;
        write!(
            f,
            "{flips} flips: {found} found by the check, {refused} kept the server from starting, {unreadable} \
             reads refused, none wrong"
        )
    }
}

/// A stopped server's directory and what it holds.
pub struct Subject {
    work: tempfile::TempDir,
    launch: Launch,
    session: Session,
    objects: Vec<(String, Value)>,
}

const CONTAINER: &str = "c";

impl Subject {
    /// Fills a new server with objects of many sizes and stops it.
    pub fn prepare(binary: &Path, random: &mut Rng) -> Result<Self> {
        let work = tempfile::Builder::new()
            .prefix("damage-")
            .tempdir_in(crate::scratch()?)?;
        let launch = Launch::new(binary, &work.path().join("data"), &work.path().join("log"))
            .with("--shards", "2");
        let server = launch.start()?;
        let (user, password) = launch.administrator()?;
        let mut session = Session::login(server.address, &user, &password)?;
        session.call("PUT", CONTAINER, "")?;
        let mut objects = Vec::new();
        for bytes in [
            0,
            1,
            100,
            4096,
            16_384,
            16_385,
            70_000,
            131_072,
            200_000,
            1 << 20,
            5 << 20,
        ] {
            for number in 0..4 {
                let path = format!("{CONTAINER}/{bytes}-{number}");
                objects.push((path.clone(), put(&mut session, &path, bytes, random)?));
            }
        }
        promised!(server.stop()?.success(), "the server did not stop well");
        files::copy(&launch.data, &work.path().join("pristine"))?;
        Ok(Self {
            work,
            launch,
            session,
            objects,
        })
    }

    /// Flips one random bit at a time, anywhere that is not empty.
    pub fn flip_many(&self, flips: usize, random: &mut Rng) -> Result<Report> {
        let mut report = Report::default();
        let mut progress = Progress::new("flips", flips);
        for _ in 0..flips {
            progress.step(|| {
                self.restore()?;
                let flipped = self.flip_somewhere(random)?;
                self.observe(&mut report)
                    .with_context(|| format!("bit flipped: {flipped}"))
            })?;
        }
        report.flips = progress.done();
        Ok(report)
    }

    /// Flips a bit in the body of each object that is not inline, one after the other: each must become
    /// unreadable, and the check must find each.
    pub fn flip_bodies(&self) -> Result<usize> {
        let mut flipped = 0;
        for (path, value) in &self.objects {
            let Value::Object { content, .. } = value else {
                continue;
            };
            self.restore()?;
            let Some((file, offset)) = find_body(&self.launch.data, *content)? else {
                continue;
            };
            flip(&file, offset, 0)?;
            let mut report = Report::default();
            self.observe(&mut report)
                .with_context(|| format!("body of {path} flipped"))?;
            let Report {
                found,
                unreadable,
                refused,
                ..
            } = report;
            promised!(
                found == 1 && refused == 0 && unreadable == 1,
                "a bit of the body of {path} was flipped: {report:?}"
            );
            flipped += 1;
        }
        Ok(flipped)
    }

    fn restore(&self) -> Result<()> {
        files::copy(&self.work.path().join("pristine"), &self.launch.data)
    }

    fn flip_somewhere(&self, random: &mut Rng) -> Result<String> {
        const BLOCK: usize = 4096;
        let sizes = files::sizes(&self.launch.data)?;
        let names: Vec<_> = sizes
            .into_iter()
            .filter(|(name, size)| *size > 0 && is_data(name))
            .collect();
        loop {
            let (name, size) = &names[random.usize(0..names.len())];
            let path = self.launch.data.join(name);
            let start = random.u64(0..*size) / BLOCK as u64 * BLOCK as u64;
            let mut block = [0; BLOCK];
            let read = File::open(&path)?.read_at(&mut block, start)?;
            // Most of a log is empty, and nobody reads that.
            if block[..read].iter().all(|byte| *byte == 0) {
                continue;
            }
            let (offset, bit) = (start + random.u64(0..read as u64), random.u8(0..8));
            flip(&path, offset, bit)?;
            return Ok(format!("{name} at {offset}, bit {bit}"));
        }
    }

    fn observe(&self, report: &mut Report) -> Result<()> {
        let complaint = self.launch.check()?;
        report.found += usize::from(complaint.is_some());
        let mut server = self.launch.spawn()?;
        let unreadable = match server.wait_until_ready() {
            Ok(()) => self.read_everything(&server)?,
            Err(error) => {
                let message = format!("{error:#}");
                promised!(!message.contains("signal"), "the server crashed: {message}");
                report.refused += 1;
                self.objects.len()
            }
        };
        promised!(
            unreadable == 0 || complaint.is_some(),
            "the check is content; {unreadable} reads fail"
        );
        report.unreadable += unreadable;
        server.kill()
    }

    /// Gives how many objects cannot be read.
    fn read_everything(&self, server: &Server) -> Result<usize> {
        let mut session = self.session.again(server.address);
        let mut unreadable = 0;
        for (path, value) in &self.objects {
            let request = session.request("GET", path, "");
            match session.send(&request) {
                Ok(answer) if answer.status == 200 => {
                    let read = verify::object(path, &answer)?;
                    promised!(read == *value, "{path} was {value:?} and is {read:?}");
                }
                // Told, or cut off in the middle of the body.
                Ok(answer) if answer.status >= 400 => unreadable += 1,
                Err(error) if error.kind() != io::ErrorKind::TimedOut => unreadable += 1,
                other => promised!(false, "{path}: {other:?}"),
            }
        }
        Ok(unreadable)
    }
}

pub(crate) fn put(
    session: &mut Session,
    path: &str,
    bytes: usize,
    random: &mut Rng,
) -> Result<Value> {
    let content = Content {
        seed: random.u64(..),
        bytes,
    };
    let note = random.u64(..);
    let body = content.body();
    let request = session
        .request("PUT", path, "")
        .header("Content-Type", content.media_type())
        .header(CONTENT, content.to_string())
        .header(NOTE, note.to_string())
        .body(crate::http::Body::Sized(&body));
    let answer = session.send(&request)?;
    promised!(answer.status == 201, "PUT of {path} gives {answer:?}");
    Ok(Value::Object { content, note })
}

/// Where the middle of a body lies in a data directory, unless it is in no segment.
pub(crate) fn find_body(data: &Path, content: Content) -> Result<Option<(PathBuf, u64)>> {
    const NEEDLE: usize = 32;
    let body = content.body();
    let Some(needle) = body.get(body.len() / 2..body.len() / 2 + NEEDLE) else {
        return Ok(None);
    };
    let folder = data.join("segments");
    for name in files::sizes(&folder)?.keys() {
        let path = folder.join(name);
        let bytes = std::fs::read(&path)?;
        if let Some(at) = memchr::memmem::find(&bytes, needle) {
            return Ok(Some((path, at as u64)));
        }
    }
    Ok(None)
}

pub(crate) fn flip(path: &Path, offset: u64, bit: u8) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], offset)?;
    Ok(())
}

/// Whether a file holds what clients stored, or what leads there: not the lock or the credentials.
fn is_data(name: &str) -> bool {
    ["log/", "tree/", "segments/", "index/"]
        .iter()
        .any(|folder| name.starts_with(folder))
}
