//! What a leader knows of another replica.

use std::time::Duration;

/// Appends under way to one replica: enough to fill a round trip, few enough to send again.
const APPENDS_MAX: usize = 16;

/// How the leader sends to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One append at a time, until it is known where the logs agree.
    Probe,
    /// One after the other, without waiting for answers.
    Stream,
    /// It needs entries that are gone; a snapshot is to be sent.
    Snapshot,
}

#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// It has everything up to here, durable.
    pub(crate) matched: u64,
    /// The next entry to be sent.
    pub(crate) next: u64,
    pub(crate) mode: Mode,
    /// The last entries of the appends under way.
    pub(crate) flying: Vec<u64>,
    /// Since when a probe is under way.
    pub(crate) probing: Option<Duration>,
    /// When anything of this term was last heard of it.
    pub(crate) heard: Option<Duration>,
    /// The newest question whether the leader leads that it has answered.
    pub(crate) round: u64,
    /// When it was last sent anything.
    pub(crate) sent: Duration,
}

impl Progress {
    pub(crate) fn new(next: u64, now: Duration) -> Self {
        Self {
            matched: 0,
            next,
            mode: Mode::Probe,
            flying: Vec::new(),
            probing: None,
            heard: None,
            round: 0,
            sent: now,
        }
    }

    /// Whether entries may be sent now.
    pub(crate) fn may_send(&self) -> bool {
        match self.mode {
            Mode::Probe => self.probing.is_none(),
            Mode::Stream => self.flying.len() < APPENDS_MAX,
            Mode::Snapshot => false,
        }
    }

    pub(crate) fn sent_entries(&mut self, now: Duration, last: u64) {
        match self.mode {
            Mode::Probe => self.probing = Some(now),
            Mode::Stream => {
                self.flying.push(last);
                self.next = last + 1;
            }
            Mode::Snapshot => {}
        }
    }

    /// It has everything up to `index`. Returns whether that is news.
    pub(crate) fn matched(&mut self, index: u64) -> bool {
        self.flying.retain(|last| *last > index);
        let is_news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched + 1);
        if self.mode != Mode::Stream {
            self.mode = Mode::Stream;
            self.next = self.matched + 1;
            self.flying.clear();
        }
        self.probing = None;
        is_news
    }

    /// It does not have `prev`; the logs may agree at `last`.
    pub(crate) fn rejected(&mut self, prev: u64, last: u64) {
        if prev <= self.matched {
            // An old answer.
            return;
        }
        match self.mode {
            Mode::Probe if prev + 1 == self.next => {
                self.next = last.min(prev - 1).max(self.matched) + 1;
                self.probing = None;
            }
            Mode::Stream => {
                self.mode = Mode::Probe;
                self.next = self.matched + 1;
                self.flying.clear();
                self.probing = None;
            }
            Mode::Probe | Mode::Snapshot => {}
        }
    }

    /// From now on it gets a snapshot.
    pub(crate) fn needs_snapshot(&mut self) {
        self.mode = Mode::Snapshot;
        self.flying.clear();
        self.probing = None;
    }

    /// What was sent to it is lost, or may be: begin again where it is known to be.
    pub(crate) fn begin_again(&mut self, next: u64) {
        self.mode = Mode::Probe;
        self.next = next.max(self.matched + 1);
        self.flying.clear();
        self.probing = None;
    }
}
