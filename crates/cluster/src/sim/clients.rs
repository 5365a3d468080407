//! What clients do: they write and read registers, and write, read and delete chunks, through any node.

use std::sync::Arc;

use base::{ChunkId, ContainerId, NodeId, ShardId, Version};
use bytes::Bytes;
use chunks::{Chunk, Owner, Span};
use map::Map;
use shard::{Error, Execution};
use testkit::linearizable::{Action, Answer, Condition, Operation, Outcome};

use super::SHARDS;
use super::checks::{Fate, Register};
use super::node::{Machine, NodeClock};
use super::rows::{Get, Put};
use super::shared::Shared;
use super::world::{Event, World};

/// A register is given up after so many requests, or so many without an answer: the check must end.
const OPERATIONS_MAX: usize = 60;
const UNANSWERED_MAX: usize = 6;

impl World {
    pub(super) fn clients(&mut self) {
        if self.is_quiet {
            return;
        }
        let pause = 20 + self.shared.below(150);
        self.after(pause, Event::Clients);
        let number = self.shared.below(self.machines.len() as u64);
        let number = usize::try_from(number).expect("few");
        if self.machines[number].process.is_none() || self.machines[number].is_paused {
            return;
        }
        match self.shared.below(10) {
            0..3 => self.write_register(number),
            3..6 => self.read_register(number),
            6..8 => self.write_chunk(number),
            8 => self.read_chunk(number),
            _ => self.delete_chunks(number),
        }
    }

    /// The register that a shard's clients use now.
    fn register(&mut self) -> Register {
        let shards = u64::from(SHARDS) - 1;
        let shard = u16::try_from(1 + self.shared.below(shards)).expect("few");
        let key = self.keys.entry(ShardId(shard)).or_default();
        let checks = self.shared.checks.lock();
        if let Some(history) = checks.registers.get(&(ShardId(shard), *key)) {
            let unanswered = history.iter().filter(|one| one.answer.is_none());
            if history.len() >= OPERATIONS_MAX || unanswered.count() >= UNANSWERED_MAX {
                *key += 1;
            }
        }
        (ShardId(shard), *key)
    }

    /// Notes that an operation begins.
    fn begin(&self, register: Register, action: Action) -> usize {
        let mut checks = self.shared.checks.lock();
        let history = checks.registers.entry(register).or_default();
        history.push(Operation {
            from: self.now,
            action,
            answer: None,
        });
        history.len() - 1
    }

    fn write_register(&mut self, number: usize) {
        let register = self.register();
        let (shared, value) = (self.shared.clone(), self.next_value);
        self.next_value += 1;
        let condition = Condition::Always;
        let place = self.begin(register, Action::Put { value, condition });
        let (clock, process) = parts(&self.machines[number]);
        let shard = process.shards.get(register.0).clone();
        process.runtime.spawn(async move {
            let key = register.1;
            let put = shard.execute(Put { key, value }).await;
            let mut checks = shared.checks.lock();
            let at = clock.world_ms();
            let operation = &mut checks.registers.get_mut(&register).expect("begun")[place];
            match put {
                Ok(()) => {
                    let outcome = Outcome::Done;
                    operation.answer = Some(Answer { at, outcome });
                    checks.counts.puts += 1;
                }
                // Nothing happened: it counts for nothing.
                Err(Execution::Shard(Error::Unavailable { .. })) => operation.action = Action::Get,
                Err(_) => {}
            }
        });
    }

    pub(super) fn read_register(&mut self, number: usize) {
        let register = self.register();
        self.read(number, register);
    }

    pub(super) fn read(&mut self, number: usize, register: Register) {
        let shared = self.shared.clone();
        let place = self.begin(register, Action::Get);
        let (clock, process) = parts(&self.machines[number]);
        let shard = process.shards.get(register.0).clone();
        process.runtime.spawn(async move {
            let got = shard.query(Get { key: register.1 }).await;
            if let Ok(value) = got {
                let mut checks = shared.checks.lock();
                let (at, outcome) = (clock.world_ms(), Outcome::Saw(value));
                shared.note(value.unwrap_or_default());
                let history = checks.registers.get_mut(&register).expect("begun");
                history[place].answer = Some(Answer { at, outcome });
                checks.counts.gets += 1;
            }
        });
    }

    fn write_chunk(&mut self, number: usize) {
        let (shared, chunks) = (self.shared.clone(), &self.machines[number]);
        let (_, process) = parts(chunks);
        let chunks = process.chunks.clone();
        self.next_value += 1;
        let kinds = process.map.get().policies.kinds();
        // Fragments cost us memory, so there are fewer of them.
        let (policy, copies) = match kinds.last() {
            Some(coded) if self.next_value.is_multiple_of(4) => (*coded, CODED_BYTES / 8),
            _ => (Map::POLICY, 20),
        };
        let body = Bytes::from(self.next_value.to_be_bytes().repeat(copies));
        process.runtime.spawn(async move {
            let mut writer = chunks.writer(owner(), policy);
            if writer.push(body.clone()).await.is_err() {
                return;
            }
            for chunk in writer.finish().await.unwrap_or_default() {
                shared.note(chunk.id.unix_ms());
                let mut checks = shared.checks.lock();
                checks.write_acknowledged(chunk.id, body.clone());
            }
        });
    }

    /// One of those that are there.
    fn chunk(&self) -> Option<Chunk> {
        let checks = self.shared.checks.lock();
        let held = checks.chunks.iter();
        let held: Vec<_> = held.filter_map(held_chunk).collect();
        let at = self.shared.below(held.len().max(1) as u64);
        held.get(usize::try_from(at).expect("few")).copied()
    }

    fn read_chunk(&mut self, number: usize) {
        let Some(chunk) = self.chunk() else { return };
        let (shared, (_, process)) = (self.shared.clone(), parts(&self.machines[number]));
        let chunks = process.chunks.clone();
        process.runtime.spawn(async move {
            // One that cannot be read now may be read later.
            if let Ok(read) = read(&chunks, chunk).await {
                shared.checks.lock().chunk_read(chunk.id, &read);
            }
        });
    }

    /// Deletes one, and tries again what was not deleted everywhere.
    fn delete_chunks(&mut self, number: usize) {
        let doomed: Vec<_> = {
            let fresh = self.chunk().filter(|_| !self.is_calm);
            let mut checks = self.shared.checks.lock();
            if let Some(fate) = fresh.and_then(|one| checks.chunks.get_mut(&one.id)) {
                *fate = Fate::Doomed;
            }
            let doomed = checks.chunks.iter();
            let doomed = doomed.filter(|(_, fate)| **fate == Fate::Doomed);
            doomed.map(|(id, _)| *id).collect()
        };
        let (shared, (_, process)) = (self.shared.clone(), parts(&self.machines[number]));
        let chunks = process.chunks.clone();
        process.runtime.spawn(async move {
            let failed = chunks.delete(&doomed).await;
            let mut checks = shared.checks.lock();
            for id in doomed.iter().filter(|id| !failed.contains(&id.group())) {
                checks.counts.deletes += 1;
                checks.chunks.insert(*id, Fate::Gone);
            }
        });
    }

    /// Everything that was acknowledged is there, through this node.
    pub(super) fn read_all(&mut self, number: usize) {
        let registers: Vec<_> = self
            .shared
            .checks
            .lock()
            .registers
            .keys()
            .copied()
            .collect();
        registers.into_iter().for_each(|one| self.read(number, one));
        let held: Vec<_> = {
            let checks = self.shared.checks.lock();
            checks.chunks.iter().filter_map(held_chunk).collect()
        };
        let node = self.machines[number].id;
        let (shared, (_, process)) = (self.shared.clone(), parts(&self.machines[number]));
        let chunks = process.chunks.clone();
        process.runtime.spawn(async move {
            for chunk in held {
                let id = chunk.id;
                match read(&chunks, chunk).await {
                    Ok(read) => shared.checks.lock().chunk_read(id, &read),
                    Err(error) => complain(&shared, node, id, &error, &chunks.map().get()),
                }
            }
        });
    }
}

fn complain(shared: &Arc<Shared>, node: NodeId, id: ChunkId, error: &chunks::Error, map: &Map) {
    let group = map.groups.get(&id.group());
    let up = group.map(|group| group.devices().map(|id| map.is_up(id)).collect::<Vec<_>>());
    let why = format!("{id} is not read through {node}: {error}, {group:?}, up: {up:?}");
    shared.checks.lock().complain(why);
}

fn parts(machine: &Machine) -> (Arc<NodeClock>, &super::node::Process) {
    let process = machine.process.as_ref().expect("it runs");
    (machine.clock.clone(), process)
}

/// A body that is long enough to be cut into two fragments.
const CODED_BYTES: usize = 72 << 10;

/// A chunk that must be there.
fn held_chunk((id, fate): (&ChunkId, &Fate)) -> Option<Chunk> {
    match fate {
        Fate::Held(body) => Some(Chunk {
            id: *id,
            bytes: u32::try_from(body.len()).expect("it is short"),
        }),
        Fate::Doomed | Fate::Gone => None,
    }
}

async fn read(chunks: &chunks::Chunks, chunk: Chunk) -> Result<Bytes, chunks::Error> {
    let mut reader = chunks.reader();
    reader.push(Span {
        chunk,
        range: 0..chunk.bytes,
    });
    reader.next().await.expect("there is something to be read")
}

fn owner() -> Owner {
    Owner {
        account: "a".into(),
        container: "c".into(),
        container_id: ContainerId(1),
        object: "o".into(),
        version: Version(1),
    }
}
