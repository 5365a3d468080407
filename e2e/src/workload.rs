//! Many clients who write, read, list and delete until the server is gone, and enter everything into
//! the ledger.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use serde_json::Value as Json;

use crate::http::{Body, Request, Response};
use crate::ledger::{Content, Ledger, Value, etag};
use crate::session::{Session, encode};
use crate::verify::{CONTENT, NOTE, object};
use crate::{Violation, promised};

const CLIENTS: usize = 8;
const CONTAINERS: usize = 3;
/// Paths that one client alone writes to, so that it knows exactly what they hold.
const OWN_OBJECTS: usize = 6;
/// Paths that all clients write to.
const SHARED_OBJECTS: usize = 12;
/// Containers that come and go.
const OWN_CONTAINERS: usize = 2;

/// What all clients of a burst share.
pub struct Load<'a> {
    pub ledger: &'a Ledger,
    pub session: &'a Session,
    pub address: SocketAddr,
    /// Set before anything is broken on purpose: from then on failures are to be expected.
    pub fault: AtomicBool,
    /// Set when the clients shall end.
    pub stop: AtomicBool,
    answered: AtomicUsize,
}

/// How a request ended.
enum Ended {
    Answered(Response),
    /// Failed after the fault; it may have had its effect.
    Unknown,
}

impl<'a> Load<'a> {
    pub fn new(ledger: &'a Ledger, session: &'a Session, address: SocketAddr) -> Self {
        Self {
            ledger,
            session,
            address,
            fault: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
        }
    }

    /// Makes the containers that stay.
    pub fn prepare(&self) -> Result<()> {
        let mut session = self.session.again(self.address);
        for number in 0..CONTAINERS {
            let container = format!("c{number}");
            let intent = self.ledger.intend(&container, Value::Container);
            let answer = session.call("PUT", &container, "")?;
            promised!(
                answer.status == 201,
                "PUT of a new container gives {answer:?}"
            );
            intent.end(true);
        }
        Ok(())
    }

    /// Runs the clients while `fault` runs, which must make the load stop in the end. Gives how many requests
    /// were answered.
    pub fn run(&self, random: &mut Rng, fault: impl FnOnce() -> Result<()>) -> Result<usize> {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let random = random.fork();
                    scope.spawn(move || Client::new(self, number, random).run())
                })
                .collect();
            let done = fault();
            self.stop.store(true, Ordering::SeqCst);
            for client in clients {
                client.join().expect("clients do not panic")?;
            }
            done
        })?;
        Ok(self.answered.load(Ordering::SeqCst))
    }

    fn has_failed(&self) -> bool {
        self.fault.load(Ordering::SeqCst)
    }
}

struct Client<'a> {
    load: &'a Load<'a>,
    ledger: &'a Ledger,
    session: Session,
    number: usize,
    random: Rng,
}

impl<'a> Client<'a> {
    fn new(load: &'a Load<'a>, number: usize, random: Rng) -> Self {
        let session = load.session.again(load.address);
        Self {
            load,
            ledger: load.ledger,
            session,
            number,
            random,
        }
    }

    fn run(mut self) -> Result<()> {
        while !self.load.stop.load(Ordering::SeqCst) {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let own = self.own_object();
        let shared = self.shared_object();
        match self.random.u8(0..100) {
            0..28 => self.put(&own),
            28..42 => self.put(&shared),
            42..50 => self.delete(&own),
            50..54 => self.delete(&shared),
            54..64 => self.post(&own),
            64..70 => self.copy(&own),
            70..78 => self.get(&own),
            78..84 => self.get(&shared),
            84..87 => self.list(),
            87..90 => self.put_with_a_wrong_etag(&own),
            90..93 => self.vanish(&own),
            93..97 => self.make_container(),
            _ => self.remove_container(),
        }
    }

    fn own_object(&mut self) -> String {
        let (container, object) = (
            self.random.usize(0..CONTAINERS),
            self.random.usize(0..OWN_OBJECTS),
        );
        // Of every kind of name: encoded, with slashes, beyond ASCII.
        format!("c{container}/own {}/%/ö{object}", self.number)
    }

    fn shared_object(&mut self) -> String {
        let (container, object) = (
            self.random.usize(0..CONTAINERS),
            self.random.usize(0..SHARED_OBJECTS),
        );
        format!("c{container}/shared-{object}")
    }

    fn own_container(&mut self) -> String {
        format!(
            "come-and-go-{}-{}",
            self.number,
            self.random.usize(0..OWN_CONTAINERS)
        )
    }

    fn put(&mut self, path: &str) -> Result<()> {
        let (request, value) = self.upload(path);
        let body = value.body();
        let request = request.body(match self.random.bool() {
            true => Body::Sized(&body),
            false => Body::Chunked(&body, self.random.usize(1000..100_000)),
        });
        let intent = self.ledger.intend(path, value.as_value());
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(answer.status == 201, "PUT of {path} gives {answer:?}");
            let tag = answer.header("Etag").unwrap_or_default();
            promised!(tag == etag(&body), "PUT of {path} gives the ETag {tag}");
            intent.end(true);
        }
        Ok(())
    }

    /// Must change nothing.
    fn put_with_a_wrong_etag(&mut self, path: &str) -> Result<()> {
        let (request, value) = self.upload(path);
        let body = value.body();
        let request = request
            .header("ETag", etag(b"other"))
            .body(Body::Sized(&body));
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(
                answer.status == 422,
                "PUT of {path} with a wrong ETag gives {answer:?}"
            );
        }
        Ok(())
    }

    /// A client that goes away in the middle of its upload must change nothing.
    fn vanish(&mut self, path: &str) -> Result<()> {
        let (request, value) = self.upload(path);
        let body = value.body();
        if !body.is_empty() {
            let request = request.body(Body::Broken(&body, self.random.usize(0..body.len())));
            let _ = self.session.send(&request);
        }
        Ok(())
    }

    fn post(&mut self, path: &str) -> Result<()> {
        let Some(Value::Object { content, .. }) = self.ledger.certain(path) else {
            return Ok(());
        };
        let note = self.random.u64(..);
        let request = self.session.request("POST", path, "");
        let request = request
            .header(CONTENT, content.to_string())
            .header(NOTE, note.to_string());
        let intent = self.ledger.intend(path, Value::Object { content, note });
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(answer.status == 202, "POST to {path} gives {answer:?}");
            intent.end(true);
        }
        Ok(())
    }

    /// Copies an object of this client over another one of its own.
    fn copy(&mut self, from: &str) -> Result<()> {
        let to = self.own_object();
        let Some(value @ Value::Object { .. }) = self.ledger.certain(from) else {
            return Ok(());
        };
        let request = self
            .session
            .request("PUT", &to, "")
            .header("X-Copy-From", encode(from));
        let request = request.body(Body::Sized(b""));
        let intent = self.ledger.intend(&to, value);
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(
                answer.status == 201,
                "copy of {from} to {to} gives {answer:?}"
            );
            intent.end(true);
        }
        Ok(())
    }

    fn delete(&mut self, path: &str) -> Result<()> {
        let from = self.ledger.now();
        let request = self.session.request("DELETE", path, "");
        let intent = self.ledger.intend(path, Value::Absent);
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(
                matches!(answer.status, 204 | 404),
                "DELETE of {path} gives {answer:?}"
            );
            intent.end(answer.status == 204);
            if answer.status == 404 {
                self.ledger
                    .saw(path, Value::Absent, from, self.ledger.now())?;
            }
        }
        Ok(())
    }

    fn get(&mut self, path: &str) -> Result<()> {
        let from = self.ledger.now();
        let request = self.session.request("GET", path, "");
        if let Ended::Answered(answer) = self.send(&request)? {
            let value = object(path, &answer)?;
            self.ledger.saw(path, value, from, self.ledger.now())?;
        }
        Ok(())
    }

    fn list(&mut self) -> Result<()> {
        let container = format!("c{}", self.random.usize(0..CONTAINERS));
        let from = self.ledger.now();
        let request = self.session.request("GET", &container, "format=json");
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(
                answer.status == 200,
                "listing of {container} gives {answer:?}"
            );
            let entries: Vec<Json> = serde_json::from_slice(&answer.body)?;
            let sizes: Option<BTreeMap<_, _>> = entries
                .iter()
                .map(|entry| {
                    let bytes = usize::try_from(entry["bytes"].as_u64()?).ok()?;
                    Some((entry["name"].as_str()?.to_owned(), bytes))
                })
                .collect();
            let sizes =
                sizes.with_context(|| format!("an entry without name or size: {answer:?}"))?;
            self.ledger
                .listed(&container, &sizes, from, self.ledger.now())?;
        }
        Ok(())
    }

    fn make_container(&mut self) -> Result<()> {
        let container = self.own_container();
        let request = self.session.request("PUT", &container, "");
        let intent = self.ledger.intend(&container, Value::Container);
        if let Ended::Answered(answer) = self.send(&request)? {
            promised!(
                matches!(answer.status, 201 | 202),
                "PUT of {container} gives {answer:?}"
            );
            intent.end(true);
        }
        Ok(())
    }

    fn remove_container(&mut self) -> Result<()> {
        let container = self.own_container();
        self.delete(&container)
    }

    /// A request that uploads new content, still without its body.
    fn upload(&mut self, path: &str) -> (Request<'static>, Upload) {
        let content = Content {
            seed: self.random.u64(..),
            bytes: size(&mut self.random),
        };
        let note = self.random.u64(..);
        let request = self
            .session
            .request("PUT", path, "")
            .header("Content-Type", content.media_type())
            .header(CONTENT, content.to_string())
            .header(NOTE, note.to_string());
        (request, Upload { content, note })
    }

    /// Sends a request. Before the fault everything must be answered, and not with a server's error.
    fn send(&mut self, request: &Request<'_>) -> Result<Ended> {
        let sent = self.session.send(request);
        let failed = match &sent {
            Ok(answer) => answer.status >= 500 || answer.status == 408,
            Err(_) => true,
        };
        if !failed {
            self.load.answered.fetch_add(1, Ordering::SeqCst);
            return Ok(Ended::Answered(sent?));
        }
        if !self.load.has_failed() {
            return Err(self.unexpected(request, &sent).into());
        }
        /// Until the clients are told to stop they must not use up the processor.
        const PAUSE: Duration = Duration::from_millis(1);
        thread::sleep(PAUSE);
        Ok(Ended::Unknown)
    }

    fn unexpected(&self, request: &Request<'_>, sent: &io::Result<Response>) -> Violation {
        let (method, target) = (request.method, &request.target);
        Violation(format!(
            "nothing was broken yet, but {method} {target} gives {sent:?}"
        ))
    }
}

/// What a client is about to upload.
struct Upload {
    content: Content,
    note: u64,
}

impl Upload {
    fn body(&self) -> Vec<u8> {
        self.content.body()
    }

    fn as_value(&self) -> Value {
        Value::Object {
            content: self.content,
            note: self.note,
        }
    }
}

/// Sizes around every limit of the store: nothing, inline, one frame, one chunk, several.
fn size(random: &mut Rng) -> usize {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match random.u8(0..100) {
        0..5 => 0,
        5..30 => random.usize(1..512),
        30..50 => 4 * KIB,
        50..62 => random.usize(16 * KIB - 1..=16 * KIB + 1),
        62..75 => random.usize(1..64 * KIB),
        75..84 => random.usize(128 * KIB - 1..=128 * KIB + 1),
        84..94 => random.usize(200 * KIB..MIB),
        94..97 => random.usize(4 * MIB - 1..=4 * MIB + 1),
        _ => random.usize(5 * MIB..9 * MIB),
    }
}
