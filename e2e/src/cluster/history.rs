//! What every client asked for and was answered, outside of the system under test.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::ops::AddAssign;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use testkit::linearizable::{
    Action, Answer, Condition, Error, Moment, Operation, Outcome, Value, check,
};

use super::Number;
use crate::Violation;

/// More than these are not kept: the clients end.
const RECORDS_MAX: usize = 2_000_000;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Answered(Outcome),
    /// It had no effect, whatever was there: it never reached the server, or was told to come again.
    Failed,
    /// It may have an effect, now or later.
    Unknown,
}

/// One request for one object.
#[derive(Clone, Debug)]
struct Record {
    client: usize,
    node: Number,
    /// `container/object`.
    object: String,
    /// Its moments are nanoseconds.
    operation: Operation,
    failed: bool,
    /// The answer in short, or the error.
    said: String,
}

pub(super) struct History {
    start: Instant,
    records: Mutex<Vec<Record>>,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            records: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_nanos()).expect("centuries")
    }

    /// Enters a request before it is sent. Until it is ended it may have its effect at any time.
    pub(super) fn begin(&self, client: usize, node: Number, object: &str, action: Action) -> usize {
        let operation = Operation {
            from: self.now(),
            action,
            answer: None,
        };
        let mut records = self.records.lock();
        records.push(Record {
            client,
            node,
            object: object.to_owned(),
            operation,
            failed: false,
            said: String::new(),
        });
        records.len() - 1
    }

    pub(super) fn end(&self, number: usize, ending: &Ending, said: &str) {
        let at = self.now();
        let record = &mut self.records.lock()[number];
        said.clone_into(&mut record.said);
        match *ending {
            Ending::Answered(outcome) => record.operation.answer = Some(Answer { at, outcome }),
            Ending::Failed => record.failed = true,
            Ending::Unknown => {}
        }
    }

    /// Enters what a listing that was asked for at `from` and has just come says of one object.
    pub(super) fn listed(
        &self,
        client: usize,
        node: Number,
        object: String,
        from: Moment,
        value: Option<Value>,
    ) {
        let answer = Answer {
            at: self.now(),
            outcome: Outcome::Saw(value),
        };
        self.records.lock().push(Record {
            client,
            node,
            object,
            operation: Operation {
                from,
                action: Action::Get,
                answer: Some(answer),
            },
            failed: false,
            said: "listed".to_owned(),
        });
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.lock().len() >= RECORDS_MAX
    }

    /// Every object that was ever asked for.
    pub(super) fn objects(&self) -> Vec<String> {
        let records = self.records.lock();
        let mut objects: Vec<_> = records.iter().map(|record| &record.object).collect();
        objects.sort_unstable();
        objects.dedup();
        objects.into_iter().cloned().collect()
    }

    /// How many requests had an answer, had none, and failed.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in self.records.lock().iter() {
            match record.operation.answer {
                Some(_) => counts.answered += 1,
                None if record.failed => counts.failed += 1,
                None => counts.unknown += 1,
            }
        }
        counts
    }

    /// Fails with a [`Violation`] unless every object's history is linearizable.
    pub(super) fn check(&self) -> Result<()> {
        let records = self.records.lock();
        let mut objects: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in records.iter().filter(|record| !record.failed) {
            objects.entry(&record.object).or_default().push(record);
        }
        for (object, records) in objects {
            let operations: Vec<_> = records.iter().map(|record| record.operation).collect();
            match check(&operations) {
                Ok(()) => {}
                Err(Error::Unexplained { stuck, .. }) => {
                    let story = story(&records, stuck);
                    return Err(Violation(format!(
                        "the history of {object} is not linearizable:\n{story}"
                    ))
                    .into());
                }
                Err(error @ Error::TooHard) => bail!("the history of {object}: {error}"),
            }
        }
        Ok(())
    }

    /// Writes everything as JSON.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let records = self.records.lock();
        let all: Vec<Json> = records.iter().map(Record::to_json).collect();
        serde_json::to_writer(BufWriter::new(File::create(path)?), &all)?;
        Ok(())
    }
}

/// Numbers of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub answered: usize,
    pub unknown: usize,
    pub failed: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.unknown += other.unknown;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            unknown,
            failed,
        } = self;
        write!(
            f,
            "{answered} requests answered, {unknown} of unknown outcome, {failed} failed"
        )
    }
}

/// The last lines before nothing fits any more.
fn story(records: &[&Record], stuck: usize) -> String {
    const LINES: usize = 40;
    let end = records[stuck].operation.answer.map(|answer| answer.at);
    let mut told: Vec<_> = (0..records.len())
        .filter(|index| Some(records[*index].operation.from) <= end)
        .collect();
    told.sort_by_key(|index| records[*index].operation.from);
    let first = told.len().saturating_sub(LINES);
    let line = |index: &usize| match *index == stuck {
        true => format!("{}   <- nothing explains this\n", records[*index]),
        false => format!("{}\n", records[*index]),
    };
    told[first..].iter().map(line).collect()
}

impl Record {
    fn to_json(&self) -> Json {
        json!({
            "client": self.client,
            "node": self.node,
            "object": self.object,
            "from_ns": self.operation.from,
            "to_ns": self.operation.answer.map(|answer| answer.at),
            "asked": asked(self.operation.action),
            "outcome": self.outcome(),
            "said": self.said,
        })
    }

    fn outcome(&self) -> String {
        match self.operation.answer.map(|answer| answer.outcome) {
            Some(Outcome::Done) => "done".to_owned(),
            Some(Outcome::Refused) => "refused".to_owned(),
            Some(Outcome::Saw(Some(value))) => format!("saw {value:x}"),
            Some(Outcome::Saw(None)) => "saw nothing".to_owned(),
            None if self.failed => "failed".to_owned(),
            None => "unknown".to_owned(),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |moment| Duration::from_nanos(moment).as_secs_f64();
        let from = seconds(self.operation.from);
        let to = match self.operation.answer {
            Some(answer) => format!("{:10.6}", seconds(answer.at)),
            None => format!("{:10}", "..."),
        };
        let (client, node) = (self.client, self.node);
        let (asked, outcome) = (asked(self.operation.action), self.outcome());
        let said = &self.said;
        write!(
            f,
            "  {from:10.6} to {to} client {client:2} node {node}: {asked} -> {outcome} ({said})"
        )
    }
}

fn asked(action: Action) -> String {
    match action {
        Action::Get => "get".to_owned(),
        Action::Delete => "delete".to_owned(),
        Action::Put { value, condition } => match condition {
            Condition::Always => format!("put {value:x}"),
            Condition::Absent => format!("put {value:x} if absent"),
            Condition::Holds(held) => format!("put {value:x} if {held:x}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: Value) -> Action {
        Action::Put {
            value,
            condition: Condition::Always,
        }
    }

    /// One request after the other for one object, through as many nodes.
    fn history(requests: &[(Action, Ending)]) -> History {
        let history = History::new();
        for (node, (action, ending)) in requests.iter().enumerate() {
            let number = history.begin(1, node, "c/o", *action);
            history.end(number, ending, "said");
        }
        history
    }

    fn saw(value: impl Into<Option<Value>>) -> Ending {
        Ending::Answered(Outcome::Saw(value.into()))
    }

    #[track_caller]
    fn check_history(requests: &[(Action, Ending)], good: bool) {
        let found = history(requests).check();
        assert_eq!(found.is_ok(), good, "{found:?}");
        if let Err(error) = found {
            assert!(error.is::<Violation>());
        }
    }

    #[test]
    fn a_stale_read_is_found_and_told() {
        let done = Ending::Answered(Outcome::Done);
        let requests = [
            (put(1), done.clone()),
            (put(2), done),
            (Action::Get, saw(1)),
        ];
        check_history(&requests, false);
        let told = history(&requests).check().unwrap_err().to_string();
        assert!(
            told.contains("node 2: get -> saw 1 (said)   <- nothing explains this"),
            "{told}"
        );
    }

    #[test]
    fn what_failed_has_no_effect_and_what_is_unknown_may() {
        check_history(&[(put(1), Ending::Unknown), (Action::Get, saw(1))], true);
        check_history(&[(put(1), Ending::Unknown), (Action::Get, saw(None))], true);
        check_history(&[(put(1), Ending::Failed), (Action::Get, saw(None))], true);
        check_history(&[(put(1), Ending::Failed), (Action::Get, saw(1))], false);
    }

    #[test]
    fn a_listing_is_a_read_of_each_object() {
        let history = history(&[(put(1), Ending::Answered(Outcome::Done))]);
        history.listed(2, 0, "c/o".to_owned(), history.now(), Some(1));
        history.check().unwrap();
        history.listed(2, 0, "c/o".to_owned(), history.now(), None);
        history.check().unwrap_err();
    }

    #[test]
    fn what_is_saved_says_everything() {
        let history = history(&[(put(255), Ending::Unknown), (Action::Get, saw(255))]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.json");
        history.save(&path).unwrap();
        let saved: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(saved[0]["asked"], "put ff");
        assert_eq!(saved[0]["outcome"], "unknown");
        assert_eq!(saved[0]["to_ns"], Json::Null);
        assert_eq!(saved[1]["outcome"], "saw ff");
        assert_eq!(saved[1]["node"], 1);
        assert!(saved[1]["to_ns"].as_u64() >= saved[1]["from_ns"].as_u64());
    }
}
