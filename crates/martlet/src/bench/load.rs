//! The load itself: connections that each send one request after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base::env::Clock;
use tokio::task::JoinSet;

use super::args::{Kind, Mix, NameArgs};
use super::body::{Pattern, split_mix};
use super::connection::{Connection, Request};
use super::tally::{Fault, Outcome, Sent, Tally};
use super::target::Target;

/// What a run does; the same for all its connections.
pub(super) struct Load {
    pub(super) target: Target,
    pub(super) names: NameArgs,
    pub(super) pattern: Pattern,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) size: u64,
    pub(super) pace: Option<u64>,
    pub(super) work: Work,
    pub(super) connections: u64,
    pub(super) count: u64,
    /// Of the clock: no request starts after it.
    pub(super) deadline: Duration,
    pub(super) timeout: Duration,
    pub(super) started: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) done_bytes: AtomicU64,
}

/// Which requests, on which objects.
pub(super) enum Work {
    /// Each object once, in order.
    Each {
        kind: Kind,
        check: Check,
    },
    /// Reads of the first `among` objects, in random order.
    Random {
        among: u64,
        check: Check,
    },
    Mix {
        among: u64,
        mix: Mix,
    },
    List {
        query: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Bodies,
    Nothing,
}

/// What is known of an object that only one connection touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    Present,
    Absent,
    /// A write was not answered: it may happen at any later time.
    Unsure,
}

/// One request to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    kind: Kind,
    number: u64,
    check: Check,
    known: Known,
}

pub(super) type Tallies = BTreeMap<Kind, Tally>;

/// Runs the connections `first`, `first + step`, ... to their end.
pub(super) async fn run(load: Arc<Load>, first: u64, step: u64) -> Tallies {
    let step_by = usize::try_from(step).unwrap_or(usize::MAX);
    let mut connections = JoinSet::new();
    for id in (first..load.connections).step_by(step_by) {
        connections.spawn(Worker::new(Arc::clone(&load), id).run());
    }
    let mut sum = Tallies::new();
    for tallies in connections.join_all().await {
        merge(&mut sum, &tallies);
    }
    sum
}

pub(super) fn merge(sum: &mut Tallies, tallies: &Tallies) {
    for (kind, tally) in tallies {
        sum.entry(*kind).or_default().merge(tally);
    }
}

struct Worker {
    load: Arc<Load>,
    id: u64,
    connection: Option<Connection>,
    /// Of a mix: what is known of this connection's own objects.
    known: Vec<Known>,
    random: u64,
    tallies: Tallies,
}

impl Worker {
    fn new(load: Arc<Load>, id: u64) -> Self {
        let own = match load.work {
            Work::Mix { among, .. } => among.saturating_sub(id).div_ceil(load.connections),
            _ => 0,
        };
        let own = usize::try_from(own).unwrap_or(usize::MAX);
        Self {
            id,
            connection: None,
            known: vec![Known::Nothing; own],
            random: id,
            tallies: Tallies::new(),
            load,
        }
    }

    async fn run(mut self) -> Tallies {
        /// Then there is no server to load.
        const REFUSALS_MAX: u32 = 20;
        const REFUSAL_PAUSE: Duration = Duration::from_millis(50);
        let mut refusals = 0;
        while refusals < REFUSALS_MAX {
            let Some(step) = self.next() else { break };
            let outcome = self.request(step).await;
            self.learn(step, &outcome);
            self.load.done.fetch_add(1, Relaxed);
            let bytes = outcome.sent.bytes + outcome.received_bytes;
            self.load.done_bytes.fetch_add(bytes, Relaxed);
            self.tallies.entry(step.kind).or_default().add(&outcome);
            if outcome.answer == Err(Fault::Connect) {
                refusals += 1;
                tokio::time::sleep(REFUSAL_PAUSE).await;
            } else {
                refusals = 0;
            }
        }
        self.tallies
    }

    fn next(&mut self) -> Option<Step> {
        let load = Arc::clone(&self.load);
        if load.clock.monotonic() >= load.deadline {
            return None;
        }
        let turn = load.started.fetch_add(1, Relaxed);
        if turn >= load.count {
            return None;
        }
        let step = |kind, number, check| Step {
            kind,
            number: load.names.first + number,
            check,
            known: Known::Present,
        };
        match &load.work {
            Work::Each { kind, check } => Some(step(*kind, turn, *check)),
            Work::Random { among, check } => {
                Some(step(Kind::Get, split_mix(&mut self.random) % among, *check))
            }
            Work::List { .. } => Some(step(Kind::List, 0, Check::Nothing)),
            Work::Mix { mix, .. } if !self.known.is_empty() => {
                let own = split_mix(&mut self.random) % self.known.len() as u64;
                let kind = match split_mix(&mut self.random) % 100 {
                    n if n < mix.puts => Kind::Put,
                    n if n < mix.puts + mix.deletes => Kind::Delete,
                    _ => Kind::Get,
                };
                let known = self.known[usize::try_from(own).expect("below a length")];
                let number = self.id + own * load.connections;
                Some(Step {
                    known,
                    ..step(kind, number, Check::Bodies)
                })
            }
            // More connections than objects: this one has none.
            Work::Mix { .. } => None,
        }
    }

    /// What a mix knows after a request.
    fn learn(&mut self, step: Step, outcome: &Outcome) {
        let Work::Mix { .. } = self.load.work else {
            return;
        };
        let own = (step.number - self.load.names.first - self.id) / self.load.connections;
        let known = &mut self.known[usize::try_from(own).expect("below a length")];
        *known = known_after(step, outcome.answer);
    }

    async fn request(&mut self, step: Step) -> Outcome {
        let load = Arc::clone(&self.load);
        let name = match &load.work {
            Work::List { query } => query.clone(),
            _ => load.names.name(step.number),
        };
        let head = load.target.head(step.kind, &name, load.size);
        let body = load.pattern.body(&name, load.size);
        let request = Request {
            head: &head,
            body: (step.kind == Kind::Put).then_some(&body),
            pace: load.pace,
            is_head: false,
        };
        let (mut matched, mut differs) = (0, false);
        let mut sink = |status: u16, bytes: &[u8]| {
            if step.kind == Kind::Get && status == 200 && step.check == Check::Bodies {
                differs = differs || !body.matches(matched, bytes);
                matched += bytes.len() as u64;
            }
        };
        let began = load.clock.monotonic();
        let mut sent = Sent::default();
        let exchange = async {
            let connection = match &mut self.connection {
                Some(connection) if connection.is_reusable() => connection,
                slot => slot.insert(Connection::open(load.target.address).await?),
            };
            connection.exchange(&request, &mut sent, &mut sink).await
        };
        let answer = tokio::time::timeout(load.timeout, exchange).await;
        let answer = answer.unwrap_or(Err(Fault::Timeout));
        let took = load.clock.monotonic().saturating_sub(began);
        if answer.is_err() {
            self.connection = None;
        }
        let status = answer.map(|answer| answer.status);
        let checked = step.kind == Kind::Get && status == Ok(200) && step.check == Check::Bodies;
        Outcome {
            answer: status,
            expected: status.is_ok_and(|status| is_expected(step, status)),
            body: checked.then_some(!differs && matched == load.size),
            took,
            sent,
            received_bytes: answer.map_or(0, |answer| answer.bytes),
        }
    }
}

fn known_after(step: Step, answer: Result<u16, Fault>) -> Known {
    match (step.kind, answer) {
        _ if step.known == Known::Unsure => Known::Unsure,
        (Kind::Put, Ok(201)) | (Kind::Get, Ok(200)) => Known::Present,
        (Kind::Delete, Ok(204 | 404)) | (Kind::Get, Ok(404)) => Known::Absent,
        (Kind::Get | Kind::List, _) => step.known,
        // A refusal changed nothing; no answer, or one of 5xx, promises nothing.
        (_, Ok(400..=499)) => step.known,
        _ => Known::Unsure,
    }
}

fn is_expected(step: Step, status: u16) -> bool {
    match (step.kind, step.known) {
        (Kind::Put, _) => status == 201,
        (Kind::List, _) => status == 200 || status == 204,
        (Kind::Get, Known::Present) => status == 200,
        (Kind::Delete, Known::Present) => status == 204,
        (Kind::Get | Kind::Delete, Known::Absent) => status == 404,
        (Kind::Get, Known::Nothing | Known::Unsure) => status == 200 || status == 404,
        (Kind::Delete, Known::Nothing | Known::Unsure) => status == 204 || status == 404,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kind: Kind, known: Known) -> Step {
        Step {
            kind,
            number: 0,
            check: Check::Bodies,
            known,
        }
    }

    #[test]
    fn what_was_written_must_be_there_and_what_was_deleted_must_not() {
        let mut known = Known::Nothing;
        for (kind, right, wrong) in [
            (Kind::Get, 404, 401),
            (Kind::Get, 404, 200),
            (Kind::Put, 201, 202),
            (Kind::Get, 200, 404),
            (Kind::Put, 201, 500),
            (Kind::Delete, 204, 404),
            (Kind::Get, 404, 200),
            (Kind::Delete, 404, 204),
        ] {
            let step = step(kind, known);
            assert!(is_expected(step, right), "{step:?} {right}");
            assert!(!is_expected(step, wrong), "{step:?} {wrong}");
            known = known_after(step, Ok(right));
        }
    }

    #[test]
    fn a_write_without_an_answer_leaves_its_object_unsure_for_ever() {
        for answer in [Err(Fault::Timeout), Err(Fault::Closed), Ok(503)] {
            let known = known_after(step(Kind::Put, Known::Present), answer);
            assert_eq!(known, Known::Unsure);
            for (kind, status) in [(Kind::Delete, 204), (Kind::Get, 404), (Kind::Get, 200)] {
                assert!(is_expected(step(kind, known), status));
                assert_eq!(known_after(step(kind, known), Ok(status)), Known::Unsure);
            }
        }
        assert_eq!(
            known_after(step(Kind::Put, Known::Absent), Ok(413)),
            Known::Absent
        );
    }
}
