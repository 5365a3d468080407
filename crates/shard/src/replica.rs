//! One replica of a shard, and how consensus moves it: the driver of a [`raft::Raft`].
//!
//! Whoever proposes does so in its own task, under the replica's lock: the entry goes to the log's writer
//! at once. Everything else (what was written, what others sent, time) is for one task per replica, which
//! also does what is decided and answers those who wait. So a commit makes three hops: to the log's
//! thread, from there to the replica's task, and back to the caller; and all that wait share them.
//!
//! **Invariant:** only the replica's task and the installation of a snapshot change the state, one at a
//! time (`applying`).

mod codec;
mod drive;
mod effects;
mod execute;
mod lead;
mod message;
mod outcomes;
mod read;
mod snapshot;
mod tail;
mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId};
use device::{Kind, Record};
use parking_lot::Mutex;
use raft::{LogId, Persist, Raft, Ready, ReplicaId, Role};
use tokio::sync::{Notify, oneshot};

use crate::budget;
use crate::call::RequestId;
use crate::core::Core;
use crate::host::Host;
use crate::latch::{Held, Latches};
use crate::peers::Post;

pub(crate) use codec::{LogRecord, Memo, StateRecord};
pub(crate) use drive::apply_to;
pub(crate) use effects::Effects;
use lead::OUT_OF_SERVICE;
pub(crate) use lead::{Refusal, Stand, Unseen};
pub(crate) use message::{decode as decode_message, encode as encode_message};
use outcomes::Outcomes;
pub(crate) use snapshot::{SnapshotData, Spool, rows as snapshot_rows};
pub(crate) use tail::Tail;
use transfer::Receiving;

pub(crate) type Entry = raft::Entry<Effects>;
pub(crate) type Message = raft::Message<Effects>;

/// One replica.
pub(crate) struct Replica {
    env: Env,
    device: DeviceId,
    host: Arc<Host>,
    core: Arc<Core>,
    latches: Latches,
    post: Arc<Post>,
    state: Mutex<State>,
    signal: Arc<Signal>,
    /// Held by who changes the state.
    applying: tokio::sync::Mutex<()>,
    /// The only voter leads: what it has is what there is.
    rules: AtomicBool,
    /// It had not what a reader wanted; in microseconds of the monotonic clock.
    lags_until: AtomicU64,
    receiving: tokio::sync::Mutex<Option<Receiving>>,
}

struct State {
    raft: Raft<Effects>,
    /// Whose entries are on their way, in the order of the log.
    waiting: VecDeque<(LogId, Waiter)>,
    outcomes: Outcomes,
    /// Questions what a read must see, by their tokens.
    asking: Vec<(u64, oneshot::Sender<Option<u64>>)>,
    /// Those who wait until an entry has been done.
    watching: Vec<(u64, oneshot::Sender<()>)>,
    tokens: u64,
    /// Those that were counted.
    elections: u64,
    /// To whom snapshots are under way.
    sending: Vec<ReplicaId>,
    /// Where those are who have written, members or not: a new replica knows no members yet.
    senders: BTreeMap<ReplicaId, DeviceId>,
    /// The tree has all up to here.
    in_tree: u64,
    /// The log was let go of up to here.
    gone: u64,
    /// Nothing is written any more, or the replica is no more.
    is_over: bool,
}

/// One procedure that waits for its batch; it holds its latches until then.
struct Waiter {
    request: RequestId,
    held: Held,
    queued: budget::Queued,
    done: oneshot::Sender<Fate>,
}

/// What became of an entry that was proposed.
#[derive(Clone, Copy)]
enum Fate {
    Done,
    /// Another leader's entry has its place: it never takes effect.
    Replaced,
    Unknown,
}

/// What wakes the replica's task.
#[derive(Default)]
struct Signal {
    changed: Notify,
    /// The last write that is durable.
    written: AtomicU64,
    has_failed: AtomicBool,
    inbox: Mutex<VecDeque<(DeviceId, Message)>>,
}

/// Of the log, what a replica that was away for a moment may need. All of it is in memory.
const KEEP_BYTES: usize = 2 << 20;

/// Messages that wait: more than a leader sends ahead. Others are lost, as in a network.
const INBOX_MAX: usize = 256;

impl Replica {
    /// Starts a replica with what its device has of it.
    pub(crate) fn start(
        env: Env,
        host: Arc<Host>,
        core: Arc<Core>,
        tail: Tail,
        post: Arc<Post>,
    ) -> Arc<Self> {
        let memo = core.memo();
        let now = env.clock.monotonic();
        let start = raft::Start {
            id: memo.replica,
            ballot: tail.ballot(),
            base: memo.applied,
            membership: memo.membership,
            entries: tail.into_entries(),
            seed: env.entropy.u64(),
            now,
        };
        let raft = Raft::new(raft::Config::default(), start);
        #[cfg(feature = "canary")]
        let raft = plant(raft);
        let replica = Arc::new(Self {
            device: host.device().id(),
            state: Mutex::new(State {
                raft,
                waiting: VecDeque::new(),
                outcomes: Outcomes::after(memo.applied.index),
                asking: Vec::new(),
                watching: Vec::new(),
                tokens: 0,
                elections: 0,
                sending: Vec::new(),
                senders: BTreeMap::new(),
                in_tree: 0,
                gone: 0,
                is_over: false,
            }),
            env,
            host,
            core,
            latches: Latches::default(),
            post,
            signal: Arc::default(),
            applying: tokio::sync::Mutex::default(),
            rules: AtomicBool::new(false),
            lags_until: AtomicU64::new(0),
            receiving: tokio::sync::Mutex::default(),
        });
        replica.host.introduce(&replica);
        tokio::spawn(replica.clone().drive());
        replica
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.core.id()
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.state.lock().raft.id()
    }

    /// The last entry that has been done here.
    pub(crate) fn position(&self) -> u64 {
        self.core.position()
    }

    /// Gives memory back that is not needed any more. To be called now and then.
    pub(crate) fn tidy(&self) {
        self.state.lock().outcomes.tidy(self.now());
    }

    /// A message of another replica, which is on that device. Never waits.
    pub(crate) fn receive(&self, from: DeviceId, message: Message) {
        {
            let mut inbox = self.signal.inbox.lock();
            if inbox.len() >= INBOX_MAX {
                return;
            }
            inbox.push_back((from, message));
        }
        self.signal.changed.notify_one();
    }

    /// As [`Replica::receive`], from another node. What readers wait for is done here and now, since each task that
    /// has to wake up is time that they wait. Gives what there is to answer at once.
    pub(crate) fn converse(self: &Arc<Self>, from: DeviceId, message: Message) -> Option<Message> {
        // Whoever holds the lock may be sending this.
        let Some(mut state) = self.state.try_lock() else {
            self.receive(from, message);
            return None;
        };
        if !state.raft.is_for_readers(&message) || !self.signal.inbox.lock().is_empty() {
            drop(state);
            self.receive(from, message);
            return None;
        }
        if state.is_over {
            return None;
        }
        let (now, before) = (self.now(), (state.raft.term(), state.raft.role()));
        state.know(message.from, from);
        let asker = message.from;
        state.raft.receive(now, message);
        // Who came meanwhile to read, and what waited for room on the way to the others.
        state.raft.pump(now);
        let mut ready = state.raft.ready();
        let is_answer = |said: &mut Message| said.to == asker && said.is_answer();
        let answer = ready.messages.extract_if(.., is_answer).next();
        self.act_on(&mut state, ready);
        let is_same = before == (state.raft.term(), state.raft.role());
        let has_more = state.raft.commit() > state.raft.applied();
        drop(state);
        if has_more || !is_same {
            self.signal.changed.notify_one();
        }
        answer
    }

    /// The shard was flushed: its log needs no longer begin before that.
    pub(crate) fn flushed(&self, applied: LogId) {
        let mut state = self.state.lock();
        state.in_tree = state.in_tree.max(applied.index);
        self.let_go(&mut state);
    }

    /// Lets go of the log before what the tree has. The tree may have what the replica's task has done and
    /// not yet said so: then this is called again when it has.
    fn let_go(&self, state: &mut State) {
        let gone = state.raft.compact(state.in_tree, KEEP_BYTES);
        if gone > state.gone {
            state.gone = gone;
            self.host.log().release([(self.shard().0, gone)]);
        }
    }

    /// Ends it: nobody waits any longer, and its task lets go of the device.
    pub(crate) fn stop(&self) {
        self.state.lock().end();
        self.rules.store(false, Ordering::Release);
        self.signal.changed.notify_one();
    }

    fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    /// Does what consensus wants done. To be called with the lock held, so that writes go to the log in
    /// their order.
    fn act(self: &Arc<Self>, state: &mut State) {
        let ready = state.raft.ready();
        self.act_on(state, ready);
    }

    fn act_on(self: &Arc<Self>, state: &mut State, ready: Ready<Effects>) {
        if let Some(last) = ready.persist.last() {
            self.write(state.raft.id(), last.seq, &ready.persist);
        }
        for message in ready.messages {
            let member = state.raft.membership().device(message.to);
            let sender = || state.senders.get(&message.to).copied();
            if let Some(to) = member.or_else(sender) {
                self.post.send(self.device, to, self.shard(), message);
            }
        }
        for (token, index) in ready.reads {
            let place = state.asking.iter().position(|(asked, _)| *asked == token);
            if let Some(place) = place {
                // Who asked may be gone.
                let _ = state.asking.swap_remove(place).1.send(index);
            }
        }
        for to in ready.snapshots {
            self.send_snapshot(state, to);
        }
        let rules = state.raft.is_only_voter() && state.raft.leads().is_some();
        self.rules.store(rules, Ordering::Release);
    }

    fn write(&self, id: ReplicaId, seq: u64, writes: &[Persist<Effects>]) {
        let record = |kind, body| Record {
            stream: self.shard().0,
            kind,
            body,
        };
        let mut records = Vec::new();
        for write in writes {
            if let Some(ballot) = write.ballot {
                let state = StateRecord {
                    replica: id,
                    ballot,
                };
                records.push(record(Kind::State, vec![state.encode()]));
            }
            if let Some(cut) = write.cut {
                records.push(record(Kind::Entry(cut), LogRecord::encode_cut(cut)));
            }
            for entry in &write.entries {
                let body = LogRecord::encode_entry(entry);
                records.push(record(Kind::Entry(entry.id.index), body));
            }
        }
        let signal = self.signal.clone();
        self.host.log().append(records, move |answer| {
            match answer {
                Ok(()) => signal.written.fetch_max(seq, Ordering::AcqRel),
                Err(_) => signal.has_failed.swap(true, Ordering::AcqRel).into(),
            };
            signal.changed.notify_one();
        });
    }
}

#[cfg(feature = "canary")]
fn plant(mut raft: Raft<Effects>) -> Raft<Effects> {
    match crate::Canary::planted() {
        Some(crate::Canary::AcknowledgedBeforeQuorum) => raft.plant(raft::Bug::DecidesAlone),
        Some(crate::Canary::ListFromFollower) => raft.plant(raft::Bug::ReadsAlone),
        Some(crate::Canary::RepeatExecuted) | None => {}
    }
    raft
}

impl State {
    /// Nobody learns any more what became of the entries on their way.
    fn end(&mut self) {
        self.is_over = true;
        while let Some((_, waiter)) = self.waiting.pop_front() {
            self.finish(waiter, Fate::Unknown);
        }
        self.asking.clear();
        self.watching.clear();
    }

    fn know(&mut self, sender: ReplicaId, device: DeviceId) {
        /// Those of a few memberships.
        const SENDERS_MAX: usize = 64;
        if self.senders.len() >= SENDERS_MAX {
            self.senders.clear();
        }
        self.senders.insert(sender, device);
    }

    fn is_leader(&self) -> bool {
        !self.is_over && self.raft.role() == Role::Leader
    }

    /// Somebody waits for an entry that was just proposed.
    fn wait(&mut self, id: LogId, waiter: Waiter) {
        // What an earlier reign left at this place and behind it is gone.
        while let Some((_, gone)) = self.waiting.pop_back_if(|(at, _)| at.index >= id.index) {
            self.finish(gone, Fate::Replaced);
        }
        self.outcomes.proposed(waiter.request, id.index);
        self.waiting.push_back((id, waiter));
    }

    /// Entries up to `last` have been done; `fate` says whether the one of this id was among them.
    fn done(&mut self, last: u64, fate: impl Fn(LogId) -> Fate) {
        while let Some((id, waiter)) = self.waiting.pop_front_if(|(id, _)| id.index <= last) {
            self.finish(waiter, fate(id));
        }
        for (_, watcher) in self.watching.extract_if(.., |(index, _)| *index <= last) {
            // Who watched may be gone.
            let _ = watcher.send(());
        }
    }

    fn finish(&mut self, waiter: Waiter, fate: Fate) {
        self.outcomes.settled(&waiter.request);
        waiter.finish(fate);
    }
}

impl Waiter {
    fn finish(self, fate: Fate) {
        // Before the answer: whoever gets it may come back for the same keys at once.
        drop(self.queued);
        drop(self.held);
        // The caller may be gone.
        let _ = self.done.send(fate);
    }
}
