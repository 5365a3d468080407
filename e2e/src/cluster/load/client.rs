//! One client: what it asks for next, and what it makes of the answer.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use serde_json::Value as Json;
use testkit::linearizable::{Action, Condition, Outcome, Value};

use super::{CONTAINERS, Choice, Expect, Known, Load};
use crate::cluster::Number;
use crate::cluster::history::Ending;
use crate::http::{Body, Request, Response};
use crate::ledger::{self, Content, etag};
use crate::session::Session;
use crate::verify::{CONTENT, NOTE, object};
use crate::{Violation, promised};

/// One of many.
pub(in crate::cluster) struct Client<'a> {
    load: &'a Load<'a>,
    number: usize,
    random: Rng,
    /// To each node.
    sessions: Vec<Session>,
}

/// How a request ended, before anybody looked at the answer.
enum Sent {
    Answered(Response),
    /// It had no effect.
    Failed(String),
    /// It may have an effect, now or later.
    Unknown(String),
}

impl<'a> Client<'a> {
    pub(in crate::cluster) fn new(load: &'a Load<'a>, number: usize, random: Rng) -> Self {
        Self {
            load,
            number,
            random,
            sessions: Vec::new(),
        }
    }

    /// Asks for one thing after the other until the load is stopped; stops it when it finds something.
    pub(super) fn run(mut self) -> Result<()> {
        let done = self.run_until_stopped();
        if done.is_err() {
            self.load.stop();
        }
        done
    }

    fn run_until_stopped(&mut self) -> Result<()> {
        /// Between two requests: the servers are to be busy, not the machine.
        const PAUSE_MS_MAX: u64 = 12;
        while !self.load.has_stopped() && !self.load.history.is_full() {
            let node = self.random.usize(0..self.load.nodes());
            if self.random.u8(0..100) < 4 {
                let container = self.random.usize(0..CONTAINERS);
                self.list(node, container)?;
            } else {
                self.ask_for_some_object(node)?;
            }
            thread::sleep(Duration::from_millis(self.random.u64(0..PAUSE_MS_MAX)));
        }
        Ok(())
    }

    fn ask_for_some_object(&mut self, node: Number) -> Result<()> {
        let choice = self.load.choose(&mut self.random);
        let action = self.some_action(choice.last);
        let ending = self.ask(node, &choice.name, action)?;
        self.load.learn(&choice, action, &ending);
        if let Ending::Answered(outcome) = ending {
            return self.look_elsewhere(&choice, outcome);
        }
        /// What a client waits that was told nothing.
        const PAUSE_MS: std::ops::Range<u64> = 50..150;
        thread::sleep(Duration::from_millis(self.random.u64(PAUSE_MS)));
        if self.load.expect == Expect::Service {
            let other = self.random.usize(0..self.load.nodes());
            let ending = self.ask(other, &choice.name, action)?;
            self.load.learn(&choice, action, &ending);
            promised!(
                matches!(ending, Ending::Answered(_)),
                "{action:?} of {} failed twice, through nodes {node} and {other}",
                choice.name
            );
        }
        Ok(())
    }

    /// Now and then who has just changed something looks at once whether another node lists it.
    fn look_elsewhere(&mut self, choice: &Choice, outcome: Outcome) -> Result<()> {
        if outcome == Outcome::Done && self.random.u8(0..8) == 0 {
            let node = self.random.usize(0..self.load.nodes());
            self.list(node, choice.container())?;
        }
        Ok(())
    }

    fn some_action(&mut self, last: Option<Value>) -> Action {
        let condition = match (self.random.u8(0..100), last) {
            (0..42, _) => return Action::Get,
            (42..52, _) => return Action::Delete,
            (52..62, _) => Condition::Absent,
            (62..80, Some(value)) => Condition::Holds(value),
            _ => Condition::Always,
        };
        let value = self.random.u64(1..);
        let content = Content {
            seed: value,
            bytes: size(&mut self.random),
        };
        let known = Known {
            bytes: content.bytes,
            etag: etag(&content.body()),
        };
        self.load.contents.lock().insert(value, known);
        Action::Put { value, condition }
    }

    /// Makes one request for an object and enters it.
    pub(in crate::cluster) fn ask(
        &mut self,
        node: Number,
        path: &str,
        action: Action,
    ) -> Result<Ending> {
        let history = &self.load.history;
        let number = history.begin(self.number, node, path, action);
        let sent = match action {
            Action::Get => self.send(node, |session| session.request("GET", path, "")),
            Action::Delete => self.send(node, |session| session.request("DELETE", path, "")),
            Action::Put { value, condition } => self.put(node, path, value, condition),
        }?;
        let (ending, said) = match sent {
            Sent::Failed(said) => (Ending::Failed, said),
            Sent::Unknown(said) => (Ending::Unknown, said),
            Sent::Answered(answer) => {
                let outcome = outcome(path, action, &answer)?;
                (Ending::Answered(outcome), answer.status.to_string())
            }
        };
        history.end(number, &ending, &said);
        Ok(ending)
    }

    fn put(
        &mut self,
        node: Number,
        path: &str,
        value: Value,
        condition: Condition,
    ) -> Result<Sent> {
        let known = |value| {
            let contents = self.load.contents.lock();
            contents.get(&value).cloned().context("put by somebody")
        };
        let content = Content {
            seed: value,
            bytes: known(value)?.bytes,
        };
        let (name, tag) = match condition {
            Condition::Always => ("If-None-Match", None),
            Condition::Absent => ("If-None-Match", Some("*".to_owned())),
            Condition::Holds(held) => ("If-Match", Some(format!("\"{}\"", known(held)?.etag))),
        };
        let body = content.body();
        let sent = self.pace(&body);
        self.send(node, |session| {
            let mut request = session
                .request("PUT", path, "")
                .header("Content-Type", content.media_type())
                .header(CONTENT, content.to_string())
                .header(NOTE, "0")
                .body(sent);
            if let Some(tag) = tag {
                request = request.header(name, tag);
            }
            request
        })
    }

    /// Some take their time, so that what was true when a request began may not be when it is committed. What is
    /// not small may be answered and cut off before all has come.
    fn pace<'b>(&mut self, body: &'b [u8]) -> Body<'b> {
        const SMALL_BYTES_MAX: usize = 16 << 10;
        const PAUSE_MS_MAX: u64 = 300;
        match self.random.u8(0..4) {
            0 if body.len() <= SMALL_BYTES_MAX => {
                let pause = Duration::from_millis(self.random.u64(0..PAUSE_MS_MAX));
                Body::Slow(body, pause)
            }
            _ => Body::Sized(body),
        }
    }

    /// Lists a container and enters what that says of each object. Tells whether there was an answer.
    pub(in crate::cluster) fn list(&mut self, node: Number, container: usize) -> Result<bool> {
        let from = self.load.history.now();
        let container_name = format!("c{container}");
        let ask = |session: &Session| session.request("GET", &container_name, "format=json");
        let Sent::Answered(answer) = self.send(node, ask)? else {
            return Ok(false);
        };
        promised!(
            answer.status == 200,
            "listing of {container_name} gives {answer:?}"
        );
        let entries: Vec<Json> = serde_json::from_slice(&answer.body)?;
        let prefix = self.load.prefix();
        let mut seen = HashMap::new();
        for entry in &entries {
            let object = entry["name"].as_str().context("an entry without name")?;
            if object.starts_with(&prefix) {
                let name = format!("{container_name}/{object}");
                seen.insert(name, self.listed_value(entry)?);
            }
        }
        for name in self.load.names(container) {
            let value = seen.remove(&name);
            let history = &self.load.history;
            history.listed(self.number, node, name, from, value);
        }
        promised!(
            seen.is_empty(),
            "{container_name} lists what was never written: {seen:x?}"
        );
        Ok(true)
    }

    /// Which of the values that were put an entry of a listing shows.
    fn listed_value(&self, entry: &Json) -> Result<Value, Violation> {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let seed = text("content_type").strip_prefix("application/x-");
        let value = seed.and_then(|seed| Value::from_str_radix(seed, 16).ok());
        let contents = self.load.contents.lock();
        let put = value.filter(|value| {
            let known = contents.get(value);
            known.is_some_and(|known| known.etag == text("hash") && entry["bytes"] == known.bytes)
        });
        put.ok_or_else(|| Violation(format!("{entry} is listed, and was never put")))
    }

    /// Sends a request and waits for its answer.
    fn send<'r>(
        &mut self,
        node: Number,
        request: impl FnOnce(&Session) -> Request<'r>,
    ) -> Result<Sent> {
        let target = Arc::clone(&self.load.nodes.read()[node]);
        let pauses = target.pauses.load(Ordering::SeqCst);
        let session = self.session(node);
        let request = request(session);
        let sent = session.send(&request);
        let hangs = matches!(&sent, Err(error) if is_timeout(error));
        let paused = pauses % 2 == 1 || target.pauses.load(Ordering::SeqCst) != pauses;
        promised!(
            !hangs || paused,
            "node {node} hangs: {} {}",
            request.method,
            request.target
        );
        Ok(Sent::from(sent))
    }

    fn session(&mut self, node: Number) -> &mut Session {
        let nodes = self.load.nodes.read();
        for target in &nodes[self.sessions.len()..] {
            let session = self.load.session.again(target.endpoint.clone());
            self.sessions
                .push(session.with_patience(self.load.patience));
        }
        &mut self.sessions[node]
    }
}

impl From<io::Result<Response>> for Sent {
    fn from(sent: io::Result<Response>) -> Self {
        match sent {
            // "Come again" is what a server says that has done nothing, unless it says that it does not know.
            Ok(answer)
                if answer.status == 503
                    && answer.header("Retry-After").is_some()
                    && !answer.body.starts_with(b"It is not known") =>
            {
                Self::Failed("503, Retry-After".to_owned())
            }
            Ok(answer) if answer.status >= 500 || matches!(answer.status, 408 | 499) => {
                Self::Unknown(answer.status.to_string())
            }
            Ok(answer) => Self::Answered(answer),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Self::Failed(error.to_string())
            }
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// What an answer says of the object.
fn outcome(path: &str, action: Action, answer: &Response) -> Result<Outcome> {
    if action == Action::Get {
        let seen = match object(path, answer)? {
            ledger::Value::Object { content, .. } => Some(content.seed),
            ledger::Value::Absent | ledger::Value::Container => None,
        };
        return Ok(Outcome::Saw(seen));
    }
    match (action, answer.status) {
        (Action::Put { .. }, 201) | (Action::Delete, 204) => Ok(Outcome::Done),
        (Action::Put { condition, .. }, 412) if condition != Condition::Always => {
            Ok(Outcome::Refused)
        }
        (Action::Delete, 404) => Ok(Outcome::Refused),
        _ => Err(Violation(format!("{action:?} of {path} gives {answer:?}")).into()),
    }
}

/// Mostly small, which is where metadata is; some with chunks of their own.
fn size(random: &mut Rng) -> usize {
    const KIB: usize = 1 << 10;
    match random.u8(0..100) {
        0..70 => random.usize(1..KIB),
        70..85 => random.usize(KIB..16 * KIB),
        85..98 => random.usize(16 * KIB..200 * KIB),
        _ => random.usize(KIB * KIB..3 * KIB * KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Response {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Response {
            status,
            headers: headers.iter().map(owned).collect(),
            body: Vec::new(),
        }
    }

    /// Whether it was answered, failed, or nobody knows.
    #[track_caller]
    fn check_sent(sent: io::Result<Response>, expected: &str) {
        let kind = match Sent::from(sent) {
            Sent::Answered(_) => "answered",
            Sent::Failed(_) => "failed",
            Sent::Unknown(_) => "unknown",
        };
        assert_eq!(kind, expected);
    }

    #[test]
    fn only_what_surely_had_no_effect_has_failed() {
        check_sent(Ok(answer(201, &[])), "answered");
        check_sent(Ok(answer(404, &[])), "answered");
        check_sent(Ok(answer(503, &[("retry-after", "1")])), "failed");
        let unknown = Response {
            body: b"It is not known whether this was done.".to_vec(),
            ..answer(503, &[("retry-after", "1")])
        };
        check_sent(Ok(unknown), "unknown");
        check_sent(Ok(answer(503, &[])), "unknown");
        check_sent(Ok(answer(500, &[("retry-after", "1")])), "unknown");
        check_sent(Err(io::ErrorKind::ConnectionRefused.into()), "failed");
        check_sent(Err(io::ErrorKind::ConnectionReset.into()), "unknown");
        check_sent(Err(io::ErrorKind::TimedOut.into()), "unknown");
    }

    #[test]
    fn answers_that_make_no_sense_are_violations() {
        let put = |condition| Action::Put {
            value: 1,
            condition,
        };
        let outcome = |action, status| outcome("c/o", action, &answer(status, &[])).ok();
        assert_eq!(outcome(put(Condition::Always), 201), Some(Outcome::Done));
        assert_eq!(outcome(put(Condition::Always), 412), None);
        assert_eq!(outcome(put(Condition::Absent), 412), Some(Outcome::Refused));
        assert_eq!(outcome(put(Condition::Absent), 404), None);
        assert_eq!(outcome(Action::Delete, 404), Some(Outcome::Refused));
        assert_eq!(outcome(Action::Get, 404), Some(Outcome::Saw(None)));
        assert_eq!(outcome(Action::Get, 200), None);
    }
}
