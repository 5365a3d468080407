//! What all nodes of a world share: chance, faults, what is on its way, and the checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{DeviceId, NodeId};
use bytes::Bytes;
use parking_lot::Mutex;
use raft::{LogId, Membership, Message, ReplicaId};
use rpc::{CallError, Lane};
use shard::Registry;
use testkit::Random;
use tokio::sync::oneshot;

use super::Bug;
use super::checks::Checks;
use super::disk::{Command, Rows};
use super::faults::Faults;

/// What one node has to say to another.
pub(super) enum Letter {
    Call(Box<Call>),
    /// The answer to the call of this number.
    Answer(u64, Result<Bytes, CallError>),
}

pub(super) struct Call {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) lane: Lane,
    pub(super) service: u16,
    pub(super) body: Bytes,
    pub(super) left: Duration,
    pub(super) answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// A replica's state on its way to another one.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) to: ReplicaId,
    pub(super) term: u64,
    pub(super) base: LogId,
    pub(super) membership: Membership,
    pub(super) rows: Arc<Rows>,
}

/// What a message stands for: bytes would have to be made and read, which is tested elsewhere.
#[derive(Clone)]
pub(super) enum Mail {
    Message(DeviceId, Box<Message<Command>>),
    Snapshot(Box<Snapshot>),
}

pub(super) struct Shared {
    pub(super) bug: Option<Bug>,
    pub(super) registry: Registry,
    pub(super) checks: Mutex<Checks>,
    pub(super) faults: Mutex<Faults>,
    pub(super) outbox: Mutex<Vec<Letter>>,
    random: Mutex<Random>,
    mail: Mutex<BTreeMap<u64, Mail>>,
    trace: Mutex<u64>,
}

impl Shared {
    pub(super) fn new(seed: u64, bug: Option<Bug>, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            bug,
            registry: super::rows::registry(),
            checks: Mutex::default(),
            faults: Mutex::new(faults),
            outbox: Mutex::default(),
            random: Mutex::new(Random::new(seed)),
            mail: Mutex::default(),
            trace: Mutex::new(seed),
        })
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(super) fn random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock())
    }

    pub(super) fn draw(&self) -> u64 {
        self.random(Random::u64)
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.random(|random| random.below(end))
    }

    pub(super) fn chance(&self, thousandths: u64) -> bool {
        self.random(|random| random.chance(thousandths, 1000))
    }

    /// What a write takes.
    pub(super) fn write_time(&self) -> Duration {
        let max = self.faults.lock().write_max;
        Duration::from_millis(1 + self.below(max))
    }

    /// Something happened: runs are told apart by that.
    pub(super) fn note(&self, what: u64) {
        let mut trace = self.trace.lock();
        *trace = (trace.rotate_left(5) ^ what).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(super) fn trace(&self) -> u64 {
        *self.trace.lock()
    }

    pub(super) fn post(&self, mail: Mail) -> Bytes {
        let mut all = self.mail.lock();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, mail);
        Bytes::from(number.to_be_bytes().to_vec())
    }

    /// It may come more than once.
    pub(super) fn open(&self, bytes: &[u8]) -> Option<Mail> {
        let number = u64::from_be_bytes(bytes.try_into().ok()?);
        self.mail.lock().get(&number).cloned()
    }
}
