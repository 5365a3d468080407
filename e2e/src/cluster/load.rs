//! Clients who write, read and list through all nodes, whatever happens, and enter everything into the
//! history.
//!
//! Few objects at a time, so that requests for the same one meet; an object is given up for a new one before its
//! history becomes too hard to check.

mod client;

pub(super) use client::Client;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use parking_lot::{Mutex, RwLock};
use testkit::linearizable::{Action, Outcome, Value};

use super::Number;
use super::history::{Ending, History};
use crate::http::Endpoint;
use crate::session::Session;

const CLIENTS: usize = 12;
/// More than there are shards, so that most of those have one.
pub(super) const CONTAINERS: usize = 6;
/// Objects at a time.
const SLOTS: usize = 8;
const OPERATIONS_MAX: usize = 120;
/// Each of these overlaps with all that comes after it.
const UNKNOWN_MAX: usize = 6;
/// Names of objects that are for trying whether there is service begin so.
pub(super) const OUTSIDE: &str = "outside/";

/// What clients may expect of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// An answer, and a true one; if it is that the cluster cannot, then later.
    Truth,
    /// What was asked for, at the second try.
    Service,
}

/// What all clients share.
pub(super) struct Load<'a> {
    pub(super) history: History,
    session: &'a Session,
    /// Names of other loads are others.
    round: usize,
    expect: Expect,
    /// Longer than any answer may take.
    patience: Duration,
    nodes: RwLock<Vec<Arc<Node>>>,
    slots: Vec<Mutex<Slot>>,
    /// What was put, for each value.
    contents: Mutex<HashMap<Value, Known>>,
    stop: AtomicBool,
}

/// A node, as clients know it.
struct Node {
    endpoint: Endpoint,
    /// How often it was paused and resumed: odd while it is paused.
    pauses: AtomicUsize,
}

/// An object, until the next.
#[derive(Default)]
struct Slot {
    generation: usize,
    operations: usize,
    unknown: usize,
    /// What somebody last saw or put there: a good guess.
    last: Option<Value>,
}

/// A choice of an object.
struct Choice {
    slot: usize,
    generation: usize,
    name: String,
    last: Option<Value>,
}

impl Choice {
    fn container(&self) -> usize {
        self.slot % CONTAINERS
    }
}

#[derive(Clone)]
struct Known {
    bytes: usize,
    etag: String,
}

impl<'a> Load<'a> {
    /// For clients who know no node yet. None waits for an answer longer than `patience`. `round` is another
    /// one for each load of a cluster.
    pub(super) fn new(
        session: &'a Session,
        round: usize,
        expect: Expect,
        patience: Duration,
    ) -> Self {
        Self {
            history: History::new(),
            session,
            round,
            expect,
            patience,
            nodes: RwLock::default(),
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            contents: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Tells the clients of another node.
    pub(super) fn add_node(&self, endpoint: &Endpoint) {
        self.nodes.write().push(Arc::new(Node {
            endpoint: endpoint.clone(),
            pauses: AtomicUsize::new(0),
        }));
    }

    pub(super) fn nodes(&self) -> usize {
        self.nodes.read().len()
    }

    /// To be called when a node was paused and when it was resumed: it cannot answer in between.
    pub(super) fn paused_or_resumed(&self, node: Number) {
        let nodes = self.nodes.read();
        nodes[node].pauses.fetch_add(1, Ordering::SeqCst);
    }

    /// Runs the clients while `meanwhile` runs.
    pub(super) fn run(
        &self,
        random: &mut Rng,
        meanwhile: impl FnOnce(&mut Rng) -> Result<()>,
    ) -> Result<()> {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let client = Client::new(self, number, random.fork());
                    scope.spawn(move || client.run())
                })
                .collect();
            let done = meanwhile(random);
            self.stop();
            for client in clients {
                client.join().expect("clients do not panic")?;
            }
            done
        })
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether a client has found something, or all is over.
    pub(super) fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn choose(&self, random: &mut Rng) -> Choice {
        let number = random.usize(0..SLOTS);
        let mut slot = self.slots[number].lock();
        if slot.operations > OPERATIONS_MAX || slot.unknown > UNKNOWN_MAX {
            *slot = Slot {
                generation: slot.generation + 1,
                ..Slot::default()
            };
        }
        slot.operations += 1;
        Choice {
            slot: number,
            generation: slot.generation,
            name: self.name(number, slot.generation),
            last: slot.last,
        }
    }

    fn learn(&self, choice: &Choice, action: Action, ending: &Ending) {
        let mut slot = self.slots[choice.slot].lock();
        if slot.generation != choice.generation {
            return;
        }
        match (action, ending) {
            (_, Ending::Answered(Outcome::Saw(seen))) => slot.last = *seen,
            (Action::Put { value, .. }, Ending::Answered(Outcome::Done)) => slot.last = Some(value),
            (Action::Put { .. } | Action::Delete, Ending::Unknown) => slot.unknown += 1,
            _ => {}
        }
    }

    /// All names in a container that were ever chosen.
    fn names(&self, container: usize) -> Vec<String> {
        let slots = (0..SLOTS).filter(|slot| slot % CONTAINERS == container);
        let names = slots.flat_map(|slot| {
            let newest = self.slots[slot].lock().generation;
            (0..=newest).map(move |generation| self.name(slot, generation))
        });
        names.collect()
    }

    /// As `container/object`.
    fn name(&self, slot: usize, generation: usize) -> String {
        let container = slot % CONTAINERS;
        format!("c{container}/{}s{slot}.{generation:04}", self.prefix())
    }

    /// What the names of all objects of this load begin with.
    fn prefix(&self) -> String {
        format!("r{}.", self.round)
    }
}
