//! One replica: the production state machine of Raft on a simulated device. What the driver in `shard` does with threads
//! and files is done here with little more than a delay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId};
use bytes::Bytes;
use parking_lot::Mutex;
use raft::{LogId, Membership, Message, Payload, Raft, Ready, ReplicaId, Role, Start};
use shard::{Error, Led, Shards};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::disk::{Command, Disk, Rows, Stored, at_once};
use super::rows::{Dump, Load, is_query};
use super::shared::{Mail, Shared, Snapshot};
use super::{Bug, SHARDS};
use crate::Wires;

/// Entries that are kept for others that are behind: few, so that snapshots are wanted.
const KEEP_BYTES: usize = 2000;
/// As `shard` has it.
const PROOF_TIME_MAX: Duration = Duration::from_secs(2);
const BEHIND_MAX: u64 = 100;

/// The id of a call.
type Request = (u64, u64);

/// The rows of a state that say what calls were answered.
const DONE: &[u8] = b"\xffdone";

/// Nothing is lost by trying again.
pub(super) const NOT_NOW: Error = Error::Unavailable {
    retry_in: Duration::from_millis(200),
};

pub(super) struct Replica {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) disk: Arc<Disk>,
    shared: Arc<Shared>,
    env: Env,
    wires: Wires,
    inbox: Mutex<Vec<(DeviceId, Message<Command>)>>,
    state: Mutex<State>,
    changed: Notify,
    written: Notify,
}

struct State {
    raft: Raft<Command>,
    /// The rows, in memory.
    machine: Shards,
    /// What the calls were answered that have been done, so that one that is tried again has its effects once.
    done: BTreeMap<Request, Bytes>,
    applied: LogId,
    membership: Membership,
    /// Where replicas are that the membership does not know.
    known: BTreeMap<ReplicaId, DeviceId>,
    proposed: VecDeque<(LogId, oneshot::Sender<Result<Bytes, Error>>)>,
    /// Questions whether this replica is up to date, by their numbers.
    asked: BTreeMap<u64, oneshot::Sender<()>>,
    /// Those that wait for an entry to be done.
    due: Vec<(u64, oneshot::Sender<()>)>,
    sending: BTreeSet<ReplicaId>,
    is_installing: bool,
    is_over: bool,
}

impl State {
    fn end(&mut self) {
        self.is_over = true;
        self.proposed.clear();
        self.asked.clear();
        self.due.clear();
    }

    fn device(&self, id: ReplicaId) -> Option<DeviceId> {
        let member = self.raft.membership().device(id);
        member.or_else(|| self.known.get(&id).copied())
    }
}

/// A shard's rows in memory, and what its calls were answered.
fn machine(env: &Env, shard: ShardId, rows: &Rows) -> (Shards, BTreeMap<Request, Bytes>) {
    let machine = Shards::volatile(env, SHARDS);
    let (done, rows): (Rows, Rows) = rows
        .iter()
        .cloned()
        .partition(|(key, _)| key.starts_with(DONE));
    at_once(machine.get(shard).execute(Load { rows })).expect("they are rows");
    let done = done.into_iter().map(|(key, answer)| {
        let request = postcard::from_bytes(&key[DONE.len()..]).expect("it was written here");
        (request, answer)
    });
    (machine, done.collect())
}

/// Which call of a procedure it is: origin and number, as docs/formats/call.md has them.
fn request_of(call: &[u8]) -> Request {
    let fields = call.get(1..).unwrap_or_default();
    let (request, _) = postcard::take_from_bytes(fields).expect("a call begins with its id");
    request
}

impl Replica {
    /// A replica as it is on its device; it begins to live.
    pub(super) fn start(
        shared: &Arc<Shared>,
        env: &Env,
        wires: &Wires,
        disk: &Arc<Disk>,
        shard: ShardId,
    ) -> Option<Arc<Self>> {
        let id = disk.id_of(shard)?;
        let state = disk.with(shard, id, |stored| {
            let (machine, done) = machine(env, shard, &stored.rows);
            let raft = Raft::new(
                raft::Config {
                    append_bytes: 8 << 10,
                    ..raft::Config::default()
                },
                Start {
                    id,
                    ballot: stored.ballot,
                    base: stored.base,
                    membership: stored.membership.clone(),
                    entries: stored.tail(),
                    seed: shared.draw(),
                    now: env.clock.monotonic(),
                },
            );
            State {
                raft,
                machine,
                done,
                applied: stored.base,
                membership: stored.membership.clone(),
                known: BTreeMap::new(),
                proposed: VecDeque::new(),
                asked: BTreeMap::new(),
                due: Vec::new(),
                sending: BTreeSet::new(),
                is_installing: false,
                is_over: false,
            }
        })?;
        let replica = Arc::new(Self {
            shard,
            id,
            disk: disk.clone(),
            shared: shared.clone(),
            env: env.clone(),
            wires: wires.clone(),
            inbox: Mutex::default(),
            state: Mutex::new(state),
            changed: Notify::new(),
            written: Notify::new(),
        });
        tokio::spawn(replica.clone().drive());
        tokio::spawn(replica.clone().write());
        tokio::spawn(replica.clone().flush());
        Some(replica)
    }

    pub(super) fn stop(&self) {
        self.state.lock().end();
        self.changed.notify_one();
        self.written.notify_one();
    }

    fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    fn stored<T>(&self, look: impl FnOnce(&mut Stored) -> T) -> Option<T> {
        self.disk.with(self.shard, self.id, look)
    }

    pub(super) fn receive(&self, from: DeviceId, message: Message<Command>) {
        self.inbox.lock().push((from, message));
        self.changed.notify_one();
    }

    async fn drive(self: Arc<Self>) {
        loop {
            let deadline = {
                let mut state = self.state.lock();
                if self.disk.is_broken() {
                    state.end();
                }
                if state.is_over {
                    return;
                }
                let now = self.now();
                for (device, message) in std::mem::take(&mut *self.inbox.lock()) {
                    state.known.insert(message.from, device);
                    state.raft.receive(now, message);
                }
                if state.raft.deadline().is_some_and(|at| at <= now) {
                    state.raft.tick(now);
                }
                self.settle(&mut state);
                state.raft.deadline()
            };
            let changed = self.changed.notified();
            match deadline {
                Some(deadline) => {
                    let left = deadline.saturating_sub(self.now());
                    let _ = timeout(left.max(Duration::from_millis(1)), changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Does what the replica wants done.
    fn settle(self: &Arc<Self>, state: &mut State) {
        loop {
            self.apply(state);
            state.raft.pump(self.now());
            let ready = state.raft.ready();
            if state.raft.role() == Role::Leader {
                let (shard, term) = (self.shard, state.raft.term());
                self.shared.checks.lock().leads(shard, self.id, term);
            }
            if ready.is_empty() {
                return;
            }
            self.act(state, ready);
        }
    }

    fn act(self: &Arc<Self>, state: &mut State, ready: Ready<Command>) {
        for message in ready.messages {
            self.shared.note(message.term ^ message.to.0);
            if let Some(to) = state.device(message.to) {
                let mail = Mail::Message(self.disk.id, Box::new(message));
                self.wires.send(to, self.shard, self.shared.post(mail));
            }
        }
        if let Some(last) = ready.persist.last().map(|write| write.seq) {
            self.stored(|stored| stored.pending.extend(ready.persist));
            self.written.notify_one();
            if self.shared.has(Bug::SyncSkipped) {
                state.raft.persisted(self.now(), last);
            }
        }
        for (token, index) in ready.reads {
            let waiter = state.asked.remove(&token);
            if let (Some(waiter), Some(index)) = (waiter, index) {
                state.due.push((index, waiter));
            }
        }
        for to in ready.snapshots {
            if state.sending.insert(to) {
                tokio::spawn(self.clone().send_snapshot(to));
            }
        }
    }

    /// Does what is decided.
    fn apply(&self, state: &mut State) {
        if state.is_installing {
            return;
        }
        for entry in state.raft.to_apply(usize::MAX) {
            let shared = &self.shared;
            shared.checks.lock().applied(self.shard, self.id, &entry);
            let mut answer = Bytes::new();
            match &entry.payload {
                Payload::Blank => {}
                Payload::Data(command) => {
                    let request = request_of(&command.call);
                    answer = match state.done.get(&request) {
                        Some(answer) => answer.clone(),
                        None => self.run(state, &command.name, command.call.clone()),
                    };
                    state.done.insert(request, answer.clone());
                }
                Payload::Membership(membership) => state.membership = membership.clone(),
            }
            state.applied = entry.id;
            state.raft.set_applied(entry.id.index);
            // Terms only grow in a log: what an earlier leader has proposed behind this entry never comes.
            let is_done =
                |(id, _): &mut (LogId, _)| id.index <= entry.id.index || id.term < entry.id.term;
            while let Some((id, waiter)) = state.proposed.pop_front_if(is_done) {
                // Another leader's entry may be in its place.
                let outcome = match id == entry.id {
                    true => Ok(answer.clone()),
                    false => Err(NOT_NOW),
                };
                let _ = waiter.send(outcome);
            }
        }
        let applied = state.raft.applied();
        let (done, left) = std::mem::take(&mut state.due)
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        state.due = left;
        let done: Vec<(u64, oneshot::Sender<()>)> = done;
        for (_, waiter) in done {
            let _ = waiter.send(());
        }
    }

    /// Runs a call on the rows that are here.
    fn run(&self, state: &State, name: &str, call: Bytes) -> Bytes {
        let registry = &self.shared.registry;
        at_once(registry.call(&state.machine, self.shard, name, call))
    }

    fn rows(&self, state: &State) -> Arc<Rows> {
        let rows = at_once(state.machine.get(self.shard).query(Dump {}));
        let mut rows = rows.expect("rows in memory have no damage");
        for (request, answer) in &state.done {
            let key = postcard::to_extend(request, DONE.to_vec()).expect("numbers can be written");
            rows.push((key.into(), answer.clone()));
        }
        Arc::new(rows)
    }

    /// All rows, and up to which entry.
    pub(super) fn all_rows(&self) -> (LogId, Arc<Rows>) {
        let state = self.state.lock();
        (state.applied, self.rows(&state))
    }

    /// What is to be written, is; some time later, and all that came meanwhile at once.
    async fn write(self: Arc<Self>) {
        loop {
            if self.state.lock().is_over || self.disk.is_broken() {
                self.changed.notify_one();
                return;
            }
            let count = self.stored(|stored| stored.pending.len()).unwrap_or(0);
            if count == 0 {
                self.written.notified().await;
                continue;
            }
            sleep(match self.shared.has(Bug::SyncSkipped) {
                true => Duration::from_secs(2),
                false => self.shared.write_time(),
            })
            .await;
            if self.disk.is_broken() {
                continue;
            }
            let mut state = self.state.lock();
            self.write_now(&mut state, count);
            self.settle(&mut state);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn write_now(&self, state: &mut State, count: usize) {
        let written = self.stored(|stored| {
            let count = count.min(stored.pending.len());
            let writes: Vec<_> = stored.pending.drain(..count).collect();
            let last = writes.last().map(|write| write.seq);
            writes.into_iter().for_each(|write| stored.write(write));
            last
        });
        if let Some(last) = written.flatten() {
            state.raft.persisted(self.now(), last);
        }
    }

    /// Now and then the state becomes durable, and the log before it is let go of.
    async fn flush(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(200 + self.shared.below(3000))).await;
            let mut state = self.state.lock();
            if state.is_over || self.disk.is_broken() {
                return;
            }
            if state.is_installing {
                continue;
            }
            let (base, rows) = (state.applied, self.rows(&state));
            let gone = state.raft.compact(base.index, KEEP_BYTES);
            self.stored(|stored| {
                stored.base = base;
                stored.membership = state.membership.clone();
                stored.rows = rows;
                stored.entries.retain(|index, _| *index > gone);
            });
        }
    }

    async fn send_snapshot(self: Arc<Self>, to: ReplicaId) {
        let (device, snapshot) = {
            let state = self.state.lock();
            let snapshot = Snapshot {
                to,
                term: state.raft.term(),
                base: state.applied,
                membership: state.membership.clone(),
                rows: self.rows(&state),
            };
            (state.device(to), snapshot)
        };
        let mut taken = None;
        if let Some(device) = device {
            let piece = self.shared.post(Mail::Snapshot(Box::new(snapshot)));
            let sent = self.wires.send_piece(device, self.shard, piece).await;
            taken = sent.ok().and_then(|bytes| bytes[..].try_into().ok());
        }
        if taken.is_none() {
            // As in production: who is just installing one refuses at once, and would be asked without end.
            sleep(Duration::from_secs(1)).await;
        }
        let mut state = self.state.lock();
        state.sending.remove(&to);
        let (now, index) = (self.now(), taken.map(u64::from_be_bytes));
        state.raft.snapshot_sent(now, to, index);
        self.settle(&mut state);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes a snapshot in place of the state; gives up to where that is.
    pub(super) async fn install(self: &Arc<Self>, snapshot: Snapshot) -> Result<Bytes, Error> {
        let base = snapshot.base;
        let answer = Ok(Bytes::from(base.index.to_be_bytes().to_vec()));
        {
            let mut state = self.state.lock();
            if state.is_over || state.is_installing || snapshot.to != self.id {
                return Err(NOT_NOW);
            }
            let now = self.now();
            let expected = state.raft.expect_snapshot(now, snapshot.term, base);
            state.is_installing = expected.is_some();
            self.settle(&mut state);
            if expected.is_none() {
                return answer;
            }
        }
        sleep(self.shared.write_time() * 2).await;
        let mut state = self.state.lock();
        if state.is_over || self.disk.is_broken() {
            return Err(NOT_NOW);
        }
        self.shared.checks.lock().counts.snapshots += 1;
        // What was to be written before is.
        self.write_now(&mut state, usize::MAX);
        let rows = snapshot.rows.clone();
        self.stored(|stored| {
            stored.base = base;
            stored.membership = snapshot.membership.clone();
            stored.rows = rows;
        });
        (state.machine, state.done) = machine(&self.env, self.shard, &snapshot.rows);
        (state.applied, state.membership) = (base, snapshot.membership.clone());
        // What became of those is not told.
        state.proposed.retain(|(id, _)| id.index > base.index);
        state.raft.installed(base, snapshot.membership);
        state.is_installing = false;
        self.settle(&mut state);
        drop(state);
        self.changed.notify_one();
        answer
    }

    /// Runs a procedure where it is led, or a query anywhere.
    pub(super) async fn answer(self: &Arc<Self>, name: &str, call: Bytes) -> Result<Bytes, Error> {
        if is_query(name) {
            if !self.is_up_to_date().await {
                return Err(NOT_NOW);
            }
            let state = self.state.lock();
            return Ok(self.run(&state, name, call));
        }
        let answer = {
            let mut state = self.state.lock();
            let leads = state.raft.leads().filter(|_| !state.is_over);
            let term = leads.ok_or(NOT_NOW)?;
            let name = name.into();
            let proposed = state.raft.propose(term, Command { name, call });
            let id = proposed.map_err(|_| NOT_NOW)?;
            let (tell, answer) = oneshot::channel();
            state.proposed.push_back((id, tell));
            self.settle(&mut state);
            answer
        };
        self.changed.notify_one();
        answer.await.unwrap_or(Err(Error::Unknown))
    }

    /// Waits until all that was acknowledged before has been done here.
    async fn is_up_to_date(self: &Arc<Self>) -> bool {
        if self.shared.has(Bug::ReadsUnproved) && self.state.lock().raft.leads().is_some() {
            return true;
        }
        let answer = {
            let mut state = self.state.lock();
            if state.is_over {
                return false;
            }
            let (tell, answer) = oneshot::channel();
            let token = self.shared.draw();
            state.asked.insert(token, tell);
            state.raft.read(self.now(), token);
            self.settle(&mut state);
            answer
        };
        self.changed.notify_one();
        matches!(timeout(PROOF_TIME_MAX, answer).await, Ok(Ok(())))
    }

    /// Proves that it leads.
    pub(super) async fn prove(self: &Arc<Self>) -> Result<(), Error> {
        let before = self.term();
        let is_proved = before.is_some() && self.is_up_to_date().await;
        match is_proved && self.term() == before {
            true => Ok(()),
            false => Err(NOT_NOW),
        }
    }

    /// The term in which it may decide.
    pub(super) fn term(&self) -> Option<u64> {
        let state = self.state.lock();
        state.raft.leads().filter(|_| !state.is_over)
    }

    /// The device of who leads, as far as this replica knows.
    pub(super) fn leader(&self) -> Option<DeviceId> {
        let state = self.state.lock();
        state.device(state.raft.leader()?)
    }

    /// What it says of its shard, if it leads: as `shard` says it.
    pub(super) fn led(&self) -> Option<Led> {
        let state = self.state.lock();
        let raft = &state.raft;
        if raft.role() != Role::Leader || state.is_over {
            return None;
        }
        let membership = raft.membership();
        let of = |id: &ReplicaId| membership.device(*id).map(|device| (device, *id));
        let others = raft.others(self.now());
        let last = raft.last().index;
        let ready = others
            .iter()
            .filter(|(_, matched, is_near)| *is_near && matched + BEHIND_MAX >= last);
        let near = others.iter().filter(|(_, _, is_near)| *is_near);
        let near = near.filter_map(|(id, ..)| membership.device(*id));
        Some(Led {
            shard: self.shard,
            leader: self.disk.id,
            term: raft.term(),
            voters: membership.voters().iter().filter_map(of).collect(),
            learners: membership.learners().filter_map(|id| of(&id)).collect(),
            ready: ready
                .filter_map(|(id, ..)| membership.device(*id))
                .collect(),
            near: near.chain([self.disk.id]).collect(),
            is_settled: raft.is_settled(),
        })
    }

    /// Begins to make these the members.
    pub(super) fn change(
        self: &Arc<Self>,
        term: u64,
        voters: &[(DeviceId, ReplicaId)],
        learners: &[(DeviceId, ReplicaId)],
    ) -> bool {
        let mut state = self.state.lock();
        let flipped = |all: &[(DeviceId, ReplicaId)]| {
            let all = all.iter().map(|(device, id)| (*id, *device));
            all.collect::<Vec<_>>()
        };
        let wanted = Membership::new(flipped(voters), flipped(learners));
        let leads = !state.is_over && state.raft.leads() == Some(term);
        let has_begun = leads && state.raft.change(self.now(), &wanted).is_ok();
        self.settle(&mut state);
        drop(state);
        self.changed.notify_one();
        has_begun
    }

    pub(super) fn transfer(self: &Arc<Self>, to: DeviceId) -> bool {
        let mut state = self.state.lock();
        let mut voters = state.raft.membership().voters().iter().copied();
        let heir = voters.find(|id| state.raft.membership().device(*id) == Some(to));
        let now = self.now();
        let has_begun = heir.is_some_and(|heir| state.raft.transfer(now, heir).is_ok());
        self.settle(&mut state);
        drop(state);
        self.changed.notify_one();
        has_begun
    }
}
