//! The register of requests in flight: what each is doing right now.
//!
//! A connection has one slot, and a request at a time uses it; so a request costs two uncontended
//! locks of its own slot, and each step one store. The list of slots is locked only when a
//! connection opens or closes, and by whoever looks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Method, Uri};
use parking_lot::Mutex;

use crate::TransactionId;

/// What a request is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    ReadingHead,
    Authorising,
    ReadingBody,
    WritingChunks,
    Committing,
    Sending,
}

const STATES: [State; 6] = [
    State::ReadingHead,
    State::Authorising,
    State::ReadingBody,
    State::WritingChunks,
    State::Committing,
    State::Sending,
];

/// What a slot holds instead of the index of a state while its connection has no request.
const IDLE: u8 = u8::MAX;

/// A request in flight, as it was when somebody looked.
#[derive(Clone, Debug, serde::Serialize)]
pub struct InFlight {
    /// Empty while the head is still being read.
    pub transaction: String,
    pub method: String,
    pub path: String,
    pub peer: SocketAddr,
    pub state: State,
    /// Since the head was complete.
    #[serde(rename = "age_s", serialize_with = "as_secs")]
    pub age: Duration,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

fn as_secs<S: serde::Serializer>(age: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(age.as_secs_f64())
}

#[derive(Default)]
pub(crate) struct Register {
    slots: Mutex<BTreeMap<u64, Arc<Slot>>>,
    opened: AtomicU64,
}

/// A connection's place in the register.
pub(crate) struct Slot {
    id: u64,
    pub(crate) peer: SocketAddr,
    state: AtomicU8,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    /// The client may still be sending what we will not read.
    pub(crate) linger: AtomicBool,
    /// A request has begun since the last time that all was sent: what is written answers it.
    pub(crate) is_answered: AtomicBool,
    request: Mutex<Option<About>>,
}

/// Which request it is. Cloning copies nothing of any length.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) transaction: TransactionId,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// By the monotonic clock.
    pub(crate) started: Duration,
}

impl Register {
    pub(crate) fn open(&self, peer: SocketAddr) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            id: self.opened.fetch_add(1, Relaxed),
            peer,
            state: AtomicU8::new(IDLE),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            linger: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            request: Mutex::new(None),
        });
        self.slots.lock().insert(slot.id, slot.clone());
        slot
    }

    pub(crate) fn close(&self, slot: &Slot) {
        self.slots.lock().remove(&slot.id);
    }

    /// All requests in flight, those of the oldest connections first.
    pub(crate) fn snapshot(&self, now: Duration) -> Vec<InFlight> {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.look(now)).collect()
    }
}

impl Slot {
    /// `None` between requests.
    pub(crate) fn state(&self) -> Option<State> {
        STATES.get(usize::from(self.state.load(Relaxed))).copied()
    }

    pub(crate) fn enter(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    pub(crate) fn begin(&self, about: About) {
        self.received.store(0, Relaxed);
        self.sent.store(0, Relaxed);
        *self.request.lock() = Some(about);
        self.is_answered.store(true, Relaxed);
        self.enter(State::Authorising);
    }

    pub(crate) fn end(&self) -> Option<About> {
        let about = self.request.lock().take();
        self.state.store(IDLE, Relaxed);
        about
    }

    fn look(&self, now: Duration) -> Option<InFlight> {
        let state = self.state()?;
        let request = self.request.lock().clone();
        let about = request.as_ref();
        Some(InFlight {
            transaction: about.map_or_else(String::new, |a| a.transaction.to_string()),
            method: about.map_or_else(String::new, |a| a.method.to_string()),
            path: about.map_or_else(String::new, |a| a.uri.path().to_owned()),
            peer: self.peer,
            state,
            age: about.map_or(Duration::ZERO, |a| now.saturating_sub(a.started)),
            received_bytes: self.received.load(Relaxed),
            sent_bytes: self.sent.load(Relaxed),
        })
    }
}

/// Through which a request says what it is doing. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<Slot>);

impl Progress {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    pub fn enter(&self, state: State) {
        self.0.enter(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Timestamp;

    #[test]
    fn every_state_is_found_again() {
        let slot = Register::default().open(([127, 0, 0, 1], 1).into());
        assert_eq!(slot.state(), None);
        for state in STATES {
            slot.enter(state);
            assert_eq!(slot.state(), Some(state));
        }
    }

    #[test]
    fn a_request_is_seen_from_begin_to_end() {
        let register = Register::default();
        let slot = register.open(([127, 0, 0, 1], 1).into());
        let now = Duration::from_secs(5);
        assert!(register.snapshot(now).is_empty());

        let env = base::env::Env::real();
        let transactions = crate::transaction::Transactions::new(&*env.entropy);
        slot.begin(About {
            transaction: transactions.next(Timestamp::from_secs(1), None),
            method: Method::PUT,
            uri: "/v1/a/c/o?x".parse().unwrap(),
            started: Duration::from_secs(3),
        });
        slot.enter(State::Committing);
        let seen = register.snapshot(now).remove(0);
        assert_eq!(
            (seen.method.as_str(), seen.path.as_str()),
            ("PUT", "/v1/a/c/o")
        );
        assert_eq!(
            (seen.state, seen.age),
            (State::Committing, Duration::from_secs(2))
        );

        slot.end();
        assert!(register.snapshot(now).is_empty());
        register.close(&slot);
        assert!(register.slots.lock().is_empty());
    }
}
