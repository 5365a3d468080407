//! One replica of a log.

mod change;
mod election;
mod leader;
mod read;
mod replicate;
mod write;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::log::Log;
use crate::message::{Body, Message};
use crate::{Ballot, Data, Entry, LogId, Membership, Payload, ReplicaId};
use leader::Leader;
use read::Asking;
use write::Writes;

/// Times and sizes. All replicas of a group have the same times.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often a leader lets the others hear of it.
    pub heartbeat: Duration,
    /// Who has not heard of a leader for this long, up to half as long again, wants to lead; a leader that has
    /// not heard of a majority for this long leads no more.
    pub election: Duration,
    /// An append ends with the entry that reaches this.
    pub append_bytes: usize,
    /// Entries are kept for replicas that were heard of in this time.
    pub keep_for: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(500),
            append_bytes: 256 << 10,
            keep_for: Duration::from_secs(60),
        }
    }
}

/// What a replica is when it starts.
pub struct Start<D> {
    pub id: ReplicaId,
    pub ballot: Ballot,
    /// The last entry that is in the durable state, and the membership there.
    pub base: LogId,
    pub membership: Membership,
    /// Those after it that are in the log.
    pub entries: VecDeque<Entry<D>>,
    /// For the spread of election timeouts.
    pub seed: u64,
    pub now: Duration,
}

/// What a replica does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
}

/// Why a leader's business is refused. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another replica may lead, or soon will; or it leads in another term.
    NotLeader,
    /// A change is under way, or its term has just begun.
    Busy,
    /// That is no membership that can be had, or no voter that can lead.
    Impossible,
}

/// What is to be written to the log, in this order: then [`Raft::persisted`] is told `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist<D> {
    pub seq: u64,
    pub ballot: Option<Ballot>,
    /// The entries from here on are gone.
    pub cut: Option<u64>,
    /// They take the place of those of the same indexes and of all behind them.
    pub entries: Vec<Entry<D>>,
}

/// What is to be done. The order of the fields does not matter: what must wait is not here yet.
#[derive(Debug)]
pub struct Ready<D> {
    pub persist: Vec<Persist<D>>,
    pub messages: Vec<Message<D>>,
    /// Answers to [`Raft::read`]: what must be applied first; `None` if this replica cannot tell.
    pub reads: Vec<(u64, Option<u64>)>,
    /// They need a snapshot; told again until [`Raft::snapshot_sent`].
    pub snapshots: Vec<ReplicaId>,
}

impl<D> Default for Ready<D> {
    fn default() -> Self {
        Self {
            persist: Vec::new(),
            messages: Vec::new(),
            reads: Vec::new(),
            snapshots: Vec::new(),
        }
    }
}

impl<D> Ready<D> {
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.messages.is_empty()
            && self.reads.is_empty()
            && self.snapshots.is_empty()
    }
}

/// One replica. Time is whatever the driver's monotonic clock says, the same in all calls.
pub struct Raft<D> {
    config: Config,
    id: ReplicaId,
    ballot: Ballot,
    log: Log<D>,
    /// All up to here is decided.
    commit: u64,
    /// All up to here has been done.
    applied: u64,
    role: State,
    /// When the leader of this term was last heard.
    heard: Option<Duration>,
    /// When it is time to want to lead.
    election_at: Duration,
    /// What the leader has said about entries that others need.
    keep: u64,
    /// The newest question of this term's leader that has been answered.
    round: u64,
    /// The log is as this term's leader has it up to here.
    matched: u64,
    /// What this term's leader is asked.
    asking: Asking,
    random: u64,
    elections: u64,
    writes: Writes<D>,
    ready: Ready<D>,
    #[cfg(any(test, feature = "canary"))]
    bug: Option<crate::Bug>,
}

enum State {
    Follower {
        leader: Option<ReplicaId>,
    },
    /// Asks whether an election would be won.
    Canvasser {
        granted: BTreeSet<ReplicaId>,
    },
    Candidate {
        granted: BTreeSet<ReplicaId>,
        /// Its own vote counts when this is written.
        own: u64,
    },
    Leader(Leader),
}

impl<D: Data> Raft<D> {
    /// A replica as its durable state and log say. The only voter begins to lead at once.
    pub fn new(config: Config, start: Start<D>) -> Self {
        let log = Log::new(start.base, start.membership, start.entries);
        let last = log.last().index;
        let mut raft = Self {
            config,
            id: start.id,
            ballot: start.ballot,
            commit: start.base.index,
            applied: start.base.index,
            role: State::Follower { leader: None },
            heard: None,
            election_at: Duration::ZERO,
            keep: 0,
            round: 0,
            matched: 0,
            asking: Asking::default(),
            random: start.seed ^ start.id.0,
            elections: 0,
            writes: Writes::new(last),
            ready: Ready::default(),
            log,
            #[cfg(any(test, feature = "canary"))]
            bug: None,
        };
        raft.put_off_election(start.now);
        if raft.is_only_voter() {
            raft.elect(start.now, false);
        }
        raft
    }

    /// From now on the replica does this wrong.
    #[cfg(any(test, feature = "canary"))]
    pub fn plant(&mut self, bug: crate::Bug) {
        self.bug = Some(bug);
    }

    pub fn id(&self) -> ReplicaId {
        self.id
    }

    pub fn term(&self) -> u64 {
        self.ballot.term
    }

    pub fn role(&self) -> Role {
        match self.role {
            State::Follower { .. } => Role::Follower,
            State::Canvasser { .. } | State::Candidate { .. } => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Who leads, as far as this replica knows.
    pub fn leader(&self) -> Option<ReplicaId> {
        match &self.role {
            State::Follower { leader } => *leader,
            State::Canvasser { .. } | State::Candidate { .. } => None,
            State::Leader(_) => Some(self.id),
        }
    }

    /// The membership in force, which may not be committed yet.
    pub fn membership(&self) -> &Membership {
        self.log.membership().1
    }

    /// Whether nobody else has a say. A leader that goes may be in a group whose only voter is another one.
    pub fn is_only_voter(&self) -> bool {
        let membership = self.membership();
        membership.is_alone() && membership.is_voter(self.id)
    }

    /// Whether the membership is committed and none other under way.
    pub fn is_settled(&self) -> bool {
        let (made, membership) = self.log.membership();
        made <= self.commit && !membership.is_joint()
    }

    /// The place of the last entry.
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// How often it has stood for election.
    pub fn elections(&self) -> u64 {
        self.elections
    }

    pub fn commit(&self) -> u64 {
        self.commit
    }

    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The entries that are decided and not yet done, the oldest first, up to about so many bytes.
    pub fn to_apply(&self, bytes_max: usize) -> Vec<Entry<D>> {
        match self.applied < self.commit {
            true => self.log.range(self.applied + 1, self.commit, bytes_max),
            false => Vec::new(),
        }
    }

    /// All entries up to `index` have been done.
    pub fn set_applied(&mut self, index: u64) {
        assert!(index <= self.commit, "only what is decided is done");
        self.applied = self.applied.max(index);
    }

    /// The term in which this replica leads, if it may decide what to propose: all that earlier leaders
    /// left has been done, so its state is what its log says.
    pub fn leads(&self) -> Option<u64> {
        match &self.role {
            State::Leader(leader) => (self.applied >= leader.first).then_some(self.ballot.term),
            _ => None,
        }
    }

    /// What this replica, leading in `term`, wants to be done. It goes to the others with the next
    /// [`Raft::pump`].
    pub fn propose(&mut self, term: u64, data: D) -> Result<LogId, Refused> {
        let State::Leader(leader) = &self.role else {
            return Err(Refused::NotLeader);
        };
        if self.ballot.term != term {
            return Err(Refused::NotLeader);
        }
        if leader.transfer.is_some() {
            return Err(Refused::Busy);
        }
        Ok(self.append(Payload::Data(data)))
    }

    /// Makes an entry of this term.
    fn append(&mut self, payload: Payload<D>) -> LogId {
        let id = LogId {
            term: self.ballot.term,
            index: self.log.last().index + 1,
        };
        let entry = Entry { id, payload };
        self.log.push(entry.clone());
        self.write_entries(vec![entry], None);
        id
    }

    /// What to do now. To be asked after every other call.
    pub fn ready(&mut self) -> Ready<D> {
        std::mem::take(&mut self.ready)
    }

    /// When [`Raft::tick`] wants to be called at the latest; `None` if there is nothing to wait for.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.role {
            State::Leader(leader) => leader.deadline(self.config.heartbeat),
            // The only voter has been elected as soon as its vote is written.
            State::Candidate { .. } if self.is_only_voter() => None,
            _ => self.is_voter().then_some(self.election_at),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        match &self.role {
            State::Leader(_) => self.tick_leader(now),
            _ if now >= self.election_at && self.is_voter() => self.canvass(now),
            _ => {}
        }
    }

    /// A message has come. What does not fit, or is not for this replica, changes nothing.
    pub fn receive(&mut self, now: Duration, message: Message<D>) {
        if message.to != self.id || !message.is_sound() || !self.admits(now, &message) {
            return;
        }
        let Message {
            from, term, body, ..
        } = message;
        match body {
            Body::Canvass { last } => self.canvassed(now, from, term, last),
            Body::CanvassReply { granted } => self.canvass_answered(now, from, term, granted),
            Body::Vote { last, .. } => self.asked_for_vote(now, from, last),
            Body::VoteReply { granted } => self.vote_answered(now, from, granted),
            // A term has one leader: nobody can have sent that.
            Body::Append { .. } if self.role() == Role::Leader => {}
            Body::Append {
                prev,
                entries,
                commit,
                keep,
                round,
            } => {
                self.follow(now, from);
                self.keep = keep;
                let outcome = self.take_entries(prev, entries, commit);
                self.acknowledge(from, round, outcome);
            }
            Body::AppendReply { round, outcome } => self.append_answered(now, from, round, outcome),
            Body::TakeOver if self.is_voter() => self.elect(now, true),
            Body::TakeOver => {}
            Body::ReadIndex { number } => self.asked_for_index(now, from, number),
            Body::ReadIndexReply { number, index } => self.index_answered(number, index),
        }
    }

    /// Whether somebody waits to read for what the message says or asks, and no disk is waited for on its account.
    pub fn is_for_readers(&self, message: &Message<D>) -> bool {
        match (&message.body, &self.role) {
            (Body::ReadIndex { .. } | Body::ReadIndexReply { .. }, _) => true,
            (Body::Append { entries, .. }, _) => entries.is_empty(),
            (Body::AppendReply { .. }, State::Leader(leader)) => !leader.reads.is_empty(),
            _ => false,
        }
    }

    /// Whether it may have to lead: also when it is on its way out, as long as that is not decided. Perhaps
    /// nobody else has all that is.
    fn is_voter(&self) -> bool {
        let id = self.id;
        self.log.any_membership(self.commit, |one| one.is_voter(id))
    }

    /// Gives a number that differs between replicas and times (splitmix64).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Sends at once; for what promises nothing.
    fn send(&mut self, to: ReplicaId, body: Body<D>) {
        let message = self.message(to, body);
        self.ready.messages.push(message);
    }

    fn message(&self, to: ReplicaId, body: Body<D>) -> Message<D> {
        Message {
            from: self.id,
            to,
            term: self.ballot.term,
            body,
        }
    }
}
