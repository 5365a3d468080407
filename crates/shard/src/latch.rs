//! Latches: who may decide about a key.
//!
//! A procedure names its keys; while it holds their latches no other procedure that conflicts is
//! planned. Every claim takes its keys in ascending order, so claims cannot wait for each other in
//! a circle, and each key serves its claims in the order they came: a shared claim that comes after
//! an exclusive one waits behind it.
//!
//! Sketch: one short lock for all keys of a claim and one for their release, no allocation but the
//! table's own unless somebody waits. Whoever releases a key moves the claims behind it along, also
//! onto their further keys, so a claim that waits is woken once, when it holds everything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::Latch;

/// The latches of one shard. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Latches {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    /// The keys that are held.
    held: HashMap<Bytes, Holders>,
    /// Claims that wait for some key. Bounded by the requests in flight.
    waiting: HashMap<ClaimId, Claim>,
    next: ClaimId,
}

type ClaimId = u64;

/// Who holds a key, and who waits for it.
#[derive(Default)]
struct Holders {
    exclusive: bool,
    shared: u32,
    queue: VecDeque<(ClaimId, Mode)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Exclusive,
    Shared,
}

struct Claim {
    /// Ascending by key, without repetition.
    latches: Vec<Latch>,
    /// How many of them are held.
    taken: usize,
    granted: oneshot::Sender<Held>,
}

/// Latches held; given back when dropped.
pub(crate) struct Held {
    table: Latches,
    latches: Vec<Latch>,
}

impl Latches {
    /// Waits until all `latches` are held.
    ///
    /// # Cancel safety
    /// A dropped call holds nothing and waits for nothing.
    pub(crate) async fn hold(&self, mut latches: Vec<Latch>) -> Held {
        // Exclusive first, so that it is what is left of a key that is named in both ways.
        latches.sort_unstable_by(|a, b| {
            let exclusive_first = |l: &Latch| mode(l) == Mode::Shared;
            (key(a), exclusive_first(a)).cmp(&(key(b), exclusive_first(b)))
        });
        latches.dedup_by(|a, b| key(a) == key(b));
        let waiting = {
            let mut table = self.table.lock();
            let id = table.next;
            table.next += 1;
            let taken = table.take(&latches, 0, id);
            if taken == latches.len() {
                drop(table);
                return self.held(latches);
            }
            let (granted, held) = oneshot::channel();
            let claim = Claim {
                latches,
                taken,
                granted,
            };
            table.waiting.insert(id, claim);
            Waiting {
                table: self.clone(),
                id,
                held,
            }
        };
        waiting.held().await
    }

    fn held(&self, latches: Vec<Latch>) -> Held {
        Held {
            table: self.clone(),
            latches,
        }
    }

    /// Changes the table and wakes the claims that the change completed.
    fn change(&self, change: impl FnOnce(&mut Table, &mut Vec<Claim>)) {
        let mut granted = Vec::new();
        change(&mut self.table.lock(), &mut granted);
        for claim in granted {
            // If its caller has gone, this drops the `Held` and so releases the keys again.
            let _ = claim.granted.send(self.held(claim.latches));
        }
    }
}

impl Table {
    /// Takes `latches` from the one numbered `taken` on, as far as they are free, and queues for
    /// the first that is not. Returns how many are taken.
    fn take(&mut self, latches: &[Latch], mut taken: usize, id: ClaimId) -> usize {
        while let Some(latch) = latches.get(taken) {
            let holders = self.held.entry(key(latch).clone()).or_default();
            if !holders.queue.is_empty() || !holders.admits(mode(latch)) {
                holders.queue.push_back((id, mode(latch)));
                break;
            }
            holders.add(mode(latch));
            taken += 1;
        }
        taken
    }

    fn release(&mut self, latches: &[Latch], granted: &mut Vec<Claim>) {
        for latch in latches {
            let holders = self.held.get_mut(key(latch));
            let holders = holders.expect("a held key is in the table");
            match mode(latch) {
                Mode::Exclusive => holders.exclusive = false,
                Mode::Shared => holders.shared -= 1,
            }
            self.admit(key(latch), granted);
        }
    }

    /// Hands `key` to those who wait for it, as far as they go together, and moves them along;
    /// `granted` gets the claims that have everything now.
    fn admit(&mut self, key: &Bytes, granted: &mut Vec<Claim>) {
        loop {
            let holders = self.held.get_mut(key).expect("a held key is in the table");
            let Some((id, mode)) = holders.queue.front().copied() else {
                if holders.admits(Mode::Exclusive) {
                    self.held.remove(key);
                }
                return;
            };
            if !holders.admits(mode) {
                return;
            }
            holders.queue.pop_front();
            holders.add(mode);
            let mut claim = self.waiting.remove(&id).expect("queued claims are waiting");
            claim.taken = self.take(&claim.latches, claim.taken + 1, id);
            if claim.taken == claim.latches.len() {
                granted.push(claim);
            } else {
                self.waiting.insert(id, claim);
            }
        }
    }
}

impl Holders {
    fn admits(&self, mode: Mode) -> bool {
        !self.exclusive && (mode == Mode::Shared || self.shared == 0)
    }

    fn add(&mut self, mode: Mode) {
        match mode {
            Mode::Exclusive => self.exclusive = true,
            Mode::Shared => self.shared += 1,
        }
    }
}

fn key(latch: &Latch) -> &Bytes {
    match latch {
        Latch::Exclusive(key) | Latch::Shared(key) => key,
    }
}

fn mode(latch: &Latch) -> Mode {
    match latch {
        Latch::Exclusive(_) => Mode::Exclusive,
        Latch::Shared(_) => Mode::Shared,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let latches = &self.latches;
        self.table
            .change(|table, granted| table.release(latches, granted));
    }
}

/// A claim that waits; gives up its place when dropped.
struct Waiting {
    table: Latches,
    id: ClaimId,
    held: oneshot::Receiver<Held>,
}

impl Waiting {
    async fn held(mut self) -> Held {
        (&mut self.held)
            .await
            .expect("a claim stays in the table until it is granted or its caller is gone")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let id = self.id;
        self.table.change(|table, granted| {
            // Granted otherwise; if nobody received the `Held`, the channel drops it.
            let Some(claim) = table.waiting.remove(&id) else {
                return;
            };
            let wanted = key(&claim.latches[claim.taken]);
            let holders = table.held.get_mut(wanted);
            let queue = &mut holders.expect("a key with a queue is held").queue;
            queue.retain(|(waiting, _)| *waiting != id);
            table.admit(wanted, granted);
            table.release(&claim.latches[..claim.taken], granted);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// A latch for each letter; capitals are exclusive.
    fn keys(names: &str) -> Vec<Latch> {
        let latch = |name: char| {
            let key = Bytes::from(name.to_ascii_lowercase().to_string());
            match name.is_uppercase() {
                true => Latch::Exclusive(key),
                false => Latch::Shared(key),
            }
        };
        names.chars().map(latch).collect()
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn is_unused(latches: &Latches) -> bool {
        let table = latches.table.lock();
        table.held.is_empty() && table.waiting.is_empty()
    }

    #[test]
    fn what_does_not_conflict_does_not_wait() {
        let latches = Latches::default();
        let ab = poll(pin!(latches.hold(keys("ABx")))).unwrap();
        let cd = poll(pin!(latches.hold(keys("CDDx")))).unwrap();
        let none = poll(pin!(latches.hold(Vec::new()))).unwrap();
        drop((ab, cd, none));
        assert!(is_unused(&latches));
    }

    #[test]
    fn a_key_named_both_ways_is_exclusive() {
        let latches = Latches::default();
        let held = poll(pin!(latches.hold(keys("aA")))).unwrap();
        assert!(poll(pin!(latches.hold(keys("a")))).is_none());
        drop(held);
        assert!(is_unused(&latches));
    }

    #[test]
    fn keys_are_served_in_order() {
        let latches = Latches::default();
        let mut first = pin!(latches.hold(keys("Ab")));
        let mut second = pin!(latches.hold(keys("CB")));
        let mut third = pin!(latches.hold(keys("bD")));
        let mut fourth = pin!(latches.hold(keys("b")));
        let held = poll(first.as_mut()).unwrap();
        assert!(poll(second.as_mut()).is_none());
        // Would go together with the first, but came after the second.
        assert!(poll(third.as_mut()).is_none());
        assert!(poll(fourth.as_mut()).is_none());

        drop(held);
        let held = poll(second.as_mut()).unwrap();
        assert!(poll(third.as_mut()).is_none());
        drop(held);
        let shared = (poll(third.as_mut()).unwrap(), poll(fourth.as_mut()));
        assert!(shared.1.is_some());
        drop(shared);
        assert!(is_unused(&latches));
    }

    #[test]
    fn a_claim_moves_along_from_key_to_key() {
        let latches = Latches::default();
        let a = poll(pin!(latches.hold(keys("A")))).unwrap();
        let b = poll(pin!(latches.hold(keys("B")))).unwrap();
        let mut both = pin!(latches.hold(keys("BA")));
        assert!(poll(both.as_mut()).is_none());
        drop(a);
        assert!(poll(both.as_mut()).is_none());
        drop(b);
        drop(poll(both.as_mut()).unwrap());
        assert!(is_unused(&latches));
    }

    #[test]
    fn a_dropped_claim_leaves_nothing() {
        let latches = Latches::default();
        let b = poll(pin!(latches.hold(keys("b")))).unwrap();
        let mut behind = Box::pin(latches.hold(keys("b")));
        {
            let mut waits = pin!(latches.hold(keys("ABC")));
            assert!(poll(waits.as_mut()).is_none());
            assert!(poll(behind.as_mut()).is_none());
        }
        // Nothing exclusive is in its way any more.
        drop(poll(behind.as_mut()).unwrap());
        drop(poll(pin!(latches.hold(keys("A")))).unwrap());

        // Granted, but its caller leaves before it looks.
        let mut granted = Box::pin(latches.hold(keys("B")));
        assert!(poll(granted.as_mut()).is_none());
        drop(b);
        drop(granted);
        assert!(is_unused(&latches));
    }
}
