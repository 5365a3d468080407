//! What a replica remembers of the calls whose entries it has done of late: the id of each and its outcome, so that a
//! call that is tried again is answered and not executed (see [`crate::call`]).
//!
//! Every replica learns them from the entries, also from those that a start reads again, so it does not matter who leads
//! next. Memory: some 100 B and the outcome for each entry, of the last half minute, at most [`BYTES_MAX`] for a shard. Of the
//! entries up to `forgotten` it may not know; behind it, it knows all.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::call::{Call, RequestId};

/// Five seconds of the busiest shard, which is many elections.
pub(super) const BYTES_MAX: usize = 2 << 20;
/// Whoever waits for an answer has given up by then.
pub(super) const AGE_MAX: Duration = Duration::from_secs(30);
/// What an outcome takes beside its own bytes.
const OUTCOME_BYTES: usize = size_of::<Kept>() + 2 * size_of::<(RequestId, u64)>();

#[derive(Debug)]
pub(super) struct Outcomes {
    /// The last entry whose outcome may be forgotten.
    forgotten: u64,
    /// Calls whose entries were proposed here and are not done yet, with their indexes.
    pending: HashMap<RequestId, u64>,
    /// The numbers of the outcomes in `kept`, counted from the first one ever.
    numbers: HashMap<RequestId, u64>,
    kept: VecDeque<Kept>,
    /// The number of the oldest one kept.
    oldest: u64,
    /// The outcomes, one behind the other.
    bytes: VecDeque<u8>,
    /// Bytes that came before those.
    gone: u64,
}

#[derive(Debug)]
struct Kept {
    request: RequestId,
    index: u64,
    at: Duration,
    /// Where its bytes begin, counted from the first one ever.
    start: u64,
    len: u32,
}

/// What is known of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recalled {
    /// None of its tries has been proposed, as far as the log goes.
    Nothing,
    /// An entry of it with this index is on its way.
    Pending(u64),
    /// It was done, and this came of it; nothing if that was too long.
    Outcome(Bytes),
    /// It may have been done.
    Forgotten,
}

impl Outcomes {
    /// Of a replica whose state holds the entries up to `base`.
    pub(super) fn after(base: u64) -> Self {
        Self {
            forgotten: base,
            pending: HashMap::new(),
            numbers: HashMap::new(),
            kept: VecDeque::new(),
            oldest: 0,
            bytes: VecDeque::new(),
            gone: 0,
        }
    }

    pub(super) fn recall(&self, call: &Call) -> Recalled {
        #[cfg(feature = "canary")]
        if crate::Canary::planted() == Some(crate::Canary::RepeatExecuted) {
            return Recalled::Nothing;
        }
        if let Some(index) = self.pending.get(&call.request) {
            return Recalled::Pending(*index);
        }
        match self.outcome(&call.request) {
            Some(outcome) => Recalled::Outcome(outcome),
            None if call.since < self.forgotten => Recalled::Forgotten,
            None => Recalled::Nothing,
        }
    }

    fn outcome(&self, request: &RequestId) -> Option<Bytes> {
        let number = self.numbers.get(request)?;
        let kept = &self.kept[place(number - self.oldest)];
        let start = place(kept.start - self.gone);
        let bytes = self.bytes.range(start..start + kept.len as usize);
        Some(bytes.copied().collect())
    }

    /// An entry of the call was proposed.
    pub(super) fn proposed(&mut self, request: RequestId, index: u64) {
        self.pending.insert(request, index);
    }

    /// What was proposed has been done, or never will be.
    pub(super) fn settled(&mut self, request: &RequestId) {
        self.pending.remove(request);
    }

    /// An entry has been done.
    pub(super) fn done(&mut self, index: u64, request: RequestId, outcome: &[u8], now: Duration) {
        self.numbers
            .insert(request, self.oldest + self.kept.len() as u64);
        self.kept.push_back(Kept {
            request,
            index,
            at: now,
            start: self.gone + self.bytes.len() as u64,
            len: u32::try_from(outcome.len()).expect("an outcome is short"),
        });
        self.bytes.extend(outcome);
        self.evict(now);
    }

    /// Forgets what is old or too much.
    fn evict(&mut self, now: Duration) {
        while let Some(first) = self.kept.front() {
            if self.used_bytes() <= BYTES_MAX && now.saturating_sub(first.at) <= AGE_MAX {
                return;
            }
            self.forgotten = self.forgotten.max(first.index);
            if self.numbers.get(&first.request) == Some(&self.oldest) {
                self.numbers.remove(&first.request);
            }
            self.bytes.drain(..first.len as usize);
            self.gone += u64::from(first.len);
            self.oldest += 1;
            self.kept.pop_front();
        }
    }

    /// Forgets what is old, and gives memory back that is not needed any more.
    pub(super) fn tidy(&mut self, now: Duration) {
        self.evict(now);
        if self.kept.len() < self.kept.capacity() / 4 {
            self.kept.shrink_to(2 * self.kept.len());
            self.numbers.shrink_to(2 * self.numbers.len());
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// A state that holds the entries up to `base` took the place of what was known.
    pub(super) fn replaced(&mut self, base: u64) {
        let pending = std::mem::take(&mut self.pending);
        *self = Self {
            pending,
            ..Self::after(base)
        };
    }

    fn used_bytes(&self) -> usize {
        self.kept.len() * OUTCOME_BYTES + self.bytes.len()
    }
}

fn place(distance: u64) -> usize {
    usize::try_from(distance).expect("it is in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u64) -> RequestId {
        RequestId { origin: 7, number }
    }

    fn call(number: u64, since: u64) -> Call {
        Call {
            request: request(number),
            is_repeat: true,
            since,
        }
    }

    fn outcome(text: impl Into<Bytes>) -> Recalled {
        Recalled::Outcome(text.into())
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_call_is_on_its_way_and_then_done() {
        let mut outcomes = Outcomes::after(10);
        assert_eq!(outcomes.recall(&call(1, 10)), Recalled::Nothing);
        outcomes.proposed(request(1), 11);
        assert_eq!(outcomes.recall(&call(1, 10)), Recalled::Pending(11));
        outcomes.done(11, request(1), b"one", NOW);
        outcomes.settled(&request(1));
        outcomes.done(12, request(2), b"", NOW);
        outcomes.done(13, request(3), b"three", NOW);
        assert_eq!(outcomes.recall(&call(1, 10)), outcome("one"));
        assert_eq!(outcomes.recall(&call(2, 0)), outcome(""));
        assert_eq!(outcomes.recall(&call(3, 12)), outcome("three"));
        assert_eq!(outcomes.recall(&call(4, 10)), Recalled::Nothing);
        // Another leader's entry took its place.
        outcomes.proposed(request(5), 14);
        outcomes.settled(&request(5));
        assert_eq!(outcomes.recall(&call(5, 13)), Recalled::Nothing);
    }

    #[test]
    fn who_may_have_forgotten_says_so() {
        let mut outcomes = Outcomes::after(10);
        assert_eq!(outcomes.recall(&call(1, 9)), Recalled::Forgotten);
        outcomes.done(11, request(1), b"one", NOW);
        outcomes.done(12, request(2), b"two", NOW + AGE_MAX);
        assert_eq!(outcomes.recall(&call(1, 10)), outcome("one"));
        outcomes.tidy(NOW + AGE_MAX + Duration::from_nanos(1));
        assert_eq!(outcomes.recall(&call(1, 10)), Recalled::Forgotten);
        assert_eq!(outcomes.recall(&call(3, 10)), Recalled::Forgotten);
        assert_eq!(outcomes.recall(&call(3, 11)), Recalled::Nothing);
        assert_eq!(outcomes.recall(&call(2, 10)), outcome("two"));

        outcomes.proposed(request(4), 13);
        outcomes.replaced(20);
        assert_eq!(outcomes.recall(&call(2, 11)), Recalled::Forgotten);
        assert_eq!(outcomes.recall(&call(3, 20)), Recalled::Nothing);
        assert_eq!(outcomes.recall(&call(4, 20)), Recalled::Pending(13));
    }

    #[test]
    fn memory_has_a_bound() {
        let mut outcomes = Outcomes::after(0);
        for number in 1..=100_000 {
            let text = format!("{number:0width$}", width = (number % 50) as usize);
            outcomes.done(number, request(number), text.as_bytes(), NOW);
            assert!(outcomes.used_bytes() <= BYTES_MAX);
        }
        let kept = outcomes.kept.len() as u64;
        assert!(kept > 10_000, "{kept}");
        assert_eq!(outcomes.numbers.len() as u64, kept);
        for number in 100_001 - kept..=100_000 {
            let text = format!("{number:0width$}", width = (number % 50) as usize);
            assert_eq!(outcomes.recall(&call(number, 0)), outcome(text));
        }
        let last_gone = 100_000 - kept;
        assert_eq!(outcomes.recall(&call(last_gone, 0)), Recalled::Forgotten);
        let before = call(0, last_gone - 1);
        assert_eq!(outcomes.recall(&before), Recalled::Forgotten);
        assert_eq!(outcomes.recall(&call(0, last_gone)), Recalled::Nothing);

        outcomes.tidy(NOW + 2 * AGE_MAX);
        assert_eq!(outcomes.used_bytes(), 0);
        let left = outcomes.kept.capacity() + outcomes.numbers.capacity();
        assert!(left + outcomes.bytes.capacity() < 100, "{left}");
    }
}
