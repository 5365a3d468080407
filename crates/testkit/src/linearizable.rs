//! Whether what clients saw of one object can be explained by one copy of it.
//!
//! A history is *linearizable* if each operation can be given a moment between its request and its answer so
//! that, in the order of those moments, every answer is what a single register would have given. An operation
//! without an answer may have taken effect at any later moment, or never.
//!
//! The search is that of Wing and Gong, with Lowe's memory of where it has been: at each step it lets one of the
//! operations take effect that began before the first answer still to be explained, and goes back where
//! none fits. Those that change nothing are no choices: they take effect as soon as they fit. Its cost is small for as long as few operations overlap. One without an answer overlaps with all
//! that come after it, so an object should be given up after some ten of those.

use std::collections::HashSet;
use std::fmt;

/// On the clock of whoever records the history, in any unit.
pub type Moment = u64;

/// What an object holds. Each write should have a value of its own, or the check sees less.
pub type Value = u64;

/// One request of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub from: Moment,
    pub action: Action,
    /// Nothing if there was none, or none that tells what happened.
    pub answer: Option<Answer>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Put { value: Value, condition: Condition },
    Delete,
    Get,
}

/// When a put is to take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`
    Holds(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub at: Moment,
    pub outcome: Outcome,
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The put or the delete took place.
    Done,
    /// The put's condition did not hold; there was nothing to delete.
    Refused,
    /// This was read, or that there is nothing.
    Saw(Option<Value>),
}

/// Why a history was not found to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No order explains it.
    Unexplained {
        /// As far as any order explained it: indexes of operations.
        explained: Vec<usize>,
        /// Where that order ended: the operation whose answer fits no more.
        stuck: usize,
    },
    /// Given up after [`STATES_MAX`].
    TooHard,
}

/// Some 200 MB of memory, and seconds.
pub const STATES_MAX: usize = 1_000_000;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexplained { explained, stuck } => write!(
                f,
                "not linearizable: an order explains {} operations, and then none explains \
                 operation {stuck}",
                explained.len()
            ),
            Self::TooHard => write!(f, "not decided after {STATES_MAX} states"),
        }
    }
}

impl std::error::Error for Error {}

impl Condition {
    fn holds(self, held: Option<Value>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => held.is_none(),
            Self::Holds(value) => held == Some(value),
        }
    }
}

impl Operation {
    /// What the object holds after this operation if it held `held` before; nothing if a register
    /// would have answered otherwise.
    fn step(&self, held: Option<Value>) -> Option<Option<Value>> {
        let (after, outcome) = self.action.perform(held);
        match self.answer {
            Some(answer) if answer.outcome != outcome => None,
            _ => Some(after),
        }
    }
}

impl Action {
    /// What a register that holds `held` would hold then, and answer.
    pub fn perform(self, held: Option<Value>) -> (Option<Value>, Outcome) {
        match self {
            Self::Put { value, condition } if condition.holds(held) => (Some(value), Outcome::Done),
            Self::Put { .. } => (held, Outcome::Refused),
            Self::Delete if held.is_some() => (None, Outcome::Done),
            Self::Delete => (held, Outcome::Refused),
            Self::Get => (held, Outcome::Saw(held)),
        }
    }
}

/// Explains the history of an object that held nothing at first, in any order of recording.
///
/// # Errors
/// [`Error::Unexplained`] if nothing can; [`Error::TooHard`] if nobody knows.
pub fn check(history: &[Operation]) -> Result<(), Error> {
    Search::new(history).run()
}

/// A request or an answer.
#[derive(Clone, Copy)]
enum Event {
    /// Of the operation with this index.
    Call(usize),
    Answer(usize),
}

/// The events that are still to be explained, in order of time: a list linked by indexes, from which an
/// operation is taken out when it takes effect and put back when the search returns.
struct Events {
    events: Vec<Event>,
    /// Of each event; the list begins and ends at [`Events::end`].
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each operation.
    calls: Vec<usize>,
    answers: Vec<Option<usize>>,
}

impl Events {
    fn new(history: &[Operation]) -> Self {
        let mut events: Vec<(Moment, Event)> = Vec::new();
        for (index, operation) in history.iter().enumerate() {
            match operation.answer {
                Some(answer) => {
                    events.push((operation.from, Event::Call(index)));
                    events.push((answer.at, Event::Answer(index)));
                }
                // A read that nobody heard of explains nothing.
                None if operation.action == Action::Get => {}
                None => events.push((operation.from, Event::Call(index))),
            }
        }
        // Of two at the same moment the request comes first: they may have overlapped.
        events.sort_by_key(|(at, event)| (*at, matches!(event, Event::Answer(_))));
        let events: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();

        let mut calls = vec![0; history.len()];
        let mut answers = vec![None; history.len()];
        for (place, event) in events.iter().enumerate() {
            match event {
                Event::Call(index) => calls[*index] = place,
                Event::Answer(index) => answers[*index] = Some(place),
            }
        }
        let ring = events.len() + 1;
        Self {
            events,
            next: (0..ring).map(|place| (place + 1) % ring).collect(),
            previous: (0..ring).map(|place| (place + ring - 1) % ring).collect(),
            calls,
            answers,
        }
    }

    /// One behind the last.
    fn end(&self) -> usize {
        self.events.len()
    }

    fn first(&self) -> usize {
        self.next[self.end()]
    }

    fn take_out(&mut self, operation: usize) {
        self.unlink(self.calls[operation]);
        if let Some(place) = self.answers[operation] {
            self.unlink(place);
        }
    }

    /// Undoes the latest [`Events::take_out`] that is not undone yet.
    fn put_back(&mut self, operation: usize) {
        if let Some(place) = self.answers[operation] {
            self.relink(place);
        }
        self.relink(self.calls[operation]);
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn relink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        self.previous[after] = place;
    }
}

/// A set of operations.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Box<[u64]>);

impl Set {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

struct Search<'a> {
    history: &'a [Operation],
    events: Events,
    /// Answers still to be explained.
    answers: usize,
    held: Option<Value>,
    /// What has taken effect, and the same in order, each with what was held before it.
    done: Set,
    order: Vec<(usize, Option<Value>)>,
    seen: HashSet<(Set, Option<Value>)>,
    /// The longest order so far, and what it could not explain.
    best: (Vec<usize>, usize),
}

impl<'a> Search<'a> {
    fn new(history: &'a [Operation]) -> Self {
        let events = Events::new(history);
        Self {
            answers: events.answers.iter().flatten().count(),
            events,
            held: None,
            done: Set(vec![0; history.len().div_ceil(64)].into()),
            order: Vec::new(),
            seen: HashSet::new(),
            best: (Vec::new(), 0),
            history,
        }
    }

    fn run(mut self) -> Result<(), Error> {
        self.absorb();
        let mut place = self.events.first();
        while self.answers > 0 {
            if self.seen.len() > STATES_MAX {
                return Err(Error::TooHard);
            }
            let event = self.events.events[place];
            place = match event {
                Event::Call(operation) if self.advance(operation) => self.events.first(),
                Event::Call(_) => self.events.next[place],
                // Whatever may take effect before this answer has been tried.
                Event::Answer(stuck) => {
                    self.remember(stuck);
                    let Some(operation) = self.go_back() else {
                        let (explained, stuck) = self.best;
                        return Err(Error::Unexplained { explained, stuck });
                    };
                    self.events.next[self.events.calls[operation]]
                }
            };
        }
        Ok(())
    }

    /// Lets an operation change what is held, if it can and that leads where the search has not been.
    fn advance(&mut self, operation: usize) -> bool {
        let after = self.history[operation].step(self.held);
        let Some(after) = after.filter(|after| *after != self.held) else {
            return false;
        };
        self.take_effect(operation, after);
        self.absorb();
        let new = self.seen.insert((self.done.clone(), self.held));
        if !new {
            self.go_back();
        }
        new
    }

    /// Lets everything take effect that has an answer, fits, and changes nothing: later it would explain
    /// no more than now. What has no answer and would change nothing need not happen at all.
    fn absorb(&mut self) {
        let mut place = self.events.first();
        while let Some(Event::Call(operation)) = self.events.events.get(place).copied() {
            place = self.events.next[place];
            let fits = self.history[operation].step(self.held) == Some(self.held);
            if fits && let Some(answer) = self.events.answers[operation] {
                if place == answer {
                    place = self.events.next[answer];
                }
                self.take_effect(operation, self.held);
            }
        }
    }

    fn take_effect(&mut self, operation: usize, after: Option<Value>) {
        self.order.push((operation, self.held));
        self.held = after;
        self.done.flip(operation);
        self.events.take_out(operation);
        self.answers -= usize::from(self.events.answers[operation].is_some());
    }

    /// Takes back the latest change and what was absorbed after it; gives whose it was.
    fn go_back(&mut self) -> Option<usize> {
        while let Some((operation, before)) = self.order.pop() {
            self.answers += usize::from(self.events.answers[operation].is_some());
            self.events.put_back(operation);
            self.done.flip(operation);
            if before != self.held {
                self.held = before;
                return Some(operation);
            }
        }
        None
    }

    fn remember(&mut self, stuck: usize) {
        if self.order.len() >= self.best.0.len() {
            let order = self.order.iter().map(|(operation, _)| *operation);
            self.best = (order.collect(), stuck);
        }
    }
}

#[cfg(test)]
mod tests;
