//! What happens in the world.

use super::node::Node;
use super::world::{Event, Faults, MS, SECOND, Snapshot, World};
use crate::message::Message;
use crate::raft::{Ready, Role};
use crate::{LogId, Membership, ReplicaId};

type Checked = Result<(), String>;

/// How a complaint begins that says nothing of broken promises, only of progress.
pub(super) const AT_REST: &str = "at rest: ";

impl World {
    /// Faults for their time, and then peace, in which everything must come to rest.
    pub(super) fn run(&mut self, faults: &Faults) -> Checked {
        self.begin(faults)?;
        while self.now < faults.duration {
            self.one_event(faults)?;
        }
        self.calm()?;
        let peace = Faults {
            lost: 0,
            doubled: 0,
            delay_max: MS,
            write_max: MS,
            ..faults.clone()
        };
        for changes in [20 * SECOND, 0] {
            self.is_changing = changes > 0;
            let until = self.now + changes.max(10 * SECOND);
            while self.now < until {
                self.one_event(&peace)?;
            }
        }
        self.is_at_rest().map_err(|why| format!("{AT_REST}{why}"))
    }

    fn begin(&mut self, faults: &Faults) -> Checked {
        for number in 0..faults.nodes {
            let node = Node::new(number, &mut self.rng);
            self.nodes.push(node);
        }
        let first = &mut self.nodes[0];
        first.disk.base = LogId { term: 0, index: 1 };
        first.disk.membership = Membership::alone(first.id, first.device);
        for number in 0..faults.nodes {
            self.start(number)?;
        }
        self.after(0, Event::Clients);
        for (mean, event) in [
            (faults.crash_every, Event::Crash),
            (faults.pause_every, Event::Pause),
            (faults.cut_every, Event::Cut),
            (faults.change_every / 4, Event::Change),
            (faults.flush_every, Event::Flush),
        ] {
            let delay = self.soon(mean);
            self.after(delay, event);
        }
        Ok(())
    }

    fn start(&mut self, number: usize) -> Checked {
        let now = self.now;
        self.nodes[number].start(now, self.bug);
        self.settle(number, &Faults::drawn(0))
    }

    /// Ends all faults.
    fn calm(&mut self) -> Checked {
        self.is_calm = true;
        self.cut.clear();
        for number in 0..self.nodes.len() {
            self.nodes[number].is_paused = false;
            if self.nodes[number].raft.is_none() {
                self.start(number)?;
            }
            let life = self.nodes[number].life;
            self.after(0, Event::Tick { node: number, life });
        }
        Ok(())
    }

    /// After a long peace there is a leader, and all members have all that was decided.
    fn is_at_rest(&self) -> Checked {
        let leaders = self.nodes.iter().filter(|node| {
            node.raft
                .as_ref()
                .is_some_and(|raft| raft.leads().is_some())
        });
        let newest = leaders.max_by_key(|node| node.raft.as_ref().map(|raft| raft.term()));
        let leader = newest.ok_or_else(|| format!("nobody leads: {}", self.describe()))?;
        let raft = leader.raft.as_ref().expect("it leads");
        if !raft.is_settled() {
            return Err(format!("{:?} is not settled", raft.membership()));
        }
        let last = *self
            .checks
            .decided
            .keys()
            .last()
            .ok_or("nothing was decided")?;
        for (id, _) in raft.membership().members() {
            let node = self.number(id).map(|number| &self.nodes[number]);
            let has = node.map(|node| node.state.0.index).unwrap_or_default();
            // Clients go on to the end.
            if has + 50 < last {
                return Err(format!(
                    "{id} has {has} of {last}, {:?}",
                    raft.others(leader.clock(self.now))
                ));
            }
        }
        if self.checks.reads_answered == 0 {
            return Err("no read was answered".into());
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let nodes = self.nodes.iter().filter_map(|node| {
            let raft = node.raft.as_ref()?;
            let (id, role, term) = (node.id, raft.role(), raft.term());
            let (last, commit, of) = (raft.last(), raft.commit(), raft.membership());
            let writing = node.writing.len();
            Some(format!(
                "{id} {role:?} of {term}, {last}, {commit} decided, {writing} writes, {of:?}"
            ))
        });
        nodes.collect::<Vec<_>>().join("\n")
    }

    fn one_event(&mut self, faults: &Faults) -> Checked {
        let event = self.next_event().ok_or("nothing happens any more")?;
        match event {
            Event::Arrives(message) => self.arrive(*message, faults),
            Event::Written { node, life } => self.written(node, life, faults),
            Event::Tick { node, life } => self.tick(node, life, faults),
            Event::Snapshot(snapshot) => self.snapshot(snapshot, faults),
            Event::Install(snapshot, life) => self.install(&snapshot, life, faults),
            Event::Clients => self.clients(faults),
            Event::Flush => {
                let number = self.rng.usize(0..self.nodes.len());
                if !self.nodes[number].is_paused {
                    self.nodes[number].flush(faults.keep_bytes);
                }
                self.again(faults.flush_every, Event::Flush);
                Ok(())
            }
            Event::Change if self.is_changing => self.change(faults),
            Event::Change => Ok(()),
            Event::Restart { node } if self.nodes[node].raft.is_none() => self.start(node),
            Event::Restart { .. } => Ok(()),
            Event::Resume { node } => {
                self.nodes[node].is_paused = false;
                let life = self.nodes[node].life;
                self.tick(node, life, faults)
            }
            Event::Mend => {
                self.cut.clear();
                Ok(())
            }
            Event::Crash | Event::Pause | Event::Cut if self.is_calm => Ok(()),
            Event::Crash => self.crash(faults),
            Event::Pause => {
                let node = self.rng.usize(0..self.nodes.len());
                self.nodes[node].is_paused = true;
                let long = self.rng.u64(10 * MS..5 * SECOND);
                self.after(long, Event::Resume { node });
                self.again(faults.pause_every, Event::Pause);
                Ok(())
            }
            Event::Cut => {
                for _ in 0..self.rng.usize(1..=self.nodes.len() * 2) {
                    let ends = (
                        self.rng.usize(0..self.nodes.len()),
                        self.rng.usize(0..self.nodes.len()),
                    );
                    self.cut.insert(ends);
                }
                let long = self.rng.u64(10 * MS..4 * SECOND);
                self.after(long, Event::Mend);
                self.again(faults.cut_every, Event::Cut);
                Ok(())
            }
        }
    }

    fn again(&mut self, mean: u64, event: Event) {
        let delay = self.soon(mean);
        self.after(delay, event);
    }

    /// Mostly one node; sometimes all at once.
    fn crash(&mut self, faults: &Faults) -> Checked {
        let all = self.rng.u8(0..5) == 0;
        let one = self.rng.usize(0..self.nodes.len());
        for node in 0..self.nodes.len() {
            if all || node == one {
                self.nodes[node].crash(&mut self.rng);
                let long = self.rng.u64(MS..3 * SECOND);
                self.after(long, Event::Restart { node });
            }
        }
        self.again(faults.crash_every, Event::Crash);
        Ok(())
    }

    fn arrive(&mut self, message: Message<u64>, faults: &Faults) -> Checked {
        let Some(number) = self.number(message.to) else {
            return Ok(());
        };
        if self.nodes[number].is_paused {
            // It waits in the socket.
            self.after(50 * MS, Event::Arrives(Box::new(message)));
            return Ok(());
        }
        let clock = self.nodes[number].clock(self.now);
        if let Some(raft) = &mut self.nodes[number].raft {
            raft.receive(clock, message);
        }
        self.settle(number, faults)
    }

    fn written(&mut self, number: usize, life: u64, faults: &Faults) -> Checked {
        let node = &mut self.nodes[number];
        if node.life != life {
            return Ok(());
        }
        if node.is_paused {
            self.after(50 * MS, Event::Written { node: number, life });
            return Ok(());
        }
        let clock = node.clock(self.now);
        if let Some(write) = node.writing.pop_front() {
            node.disk.write(&write);
            let raft = node.raft.as_mut().expect("it lives as it did");
            raft.persisted(clock, write.seq);
        }
        if !node.writing.is_empty() {
            self.write_next(number, faults);
        }
        self.settle(number, faults)
    }

    fn write_next(&mut self, number: usize, faults: &Faults) {
        let life = self.nodes[number].life;
        let delay = self.rng.u64(10..=faults.write_max);
        self.after(delay, Event::Written { node: number, life });
    }

    fn tick(&mut self, number: usize, life: u64, faults: &Faults) -> Checked {
        let node = &mut self.nodes[number];
        if node.life != life || node.is_paused {
            return Ok(());
        }
        let clock = node.clock(self.now);
        if let Some(raft) = &mut node.raft {
            raft.tick(clock);
        }
        self.settle(number, faults)?;
        let node = &self.nodes[number];
        let next = node.raft.as_ref().and_then(|raft| raft.deadline());
        // The driver looks often enough; how often does not matter to what is promised.
        let wait = next.map_or(200 * MS, |at| {
            u64::try_from(at.saturating_sub(clock).as_micros()).unwrap_or(u64::MAX)
        });
        self.after(wait.clamp(MS, 100 * MS), Event::Tick { node: number, life });
        Ok(())
    }

    /// Does what the replica wants done.
    fn settle(&mut self, number: usize, faults: &Faults) -> Checked {
        loop {
            self.apply(number)?;
            let clock = self.nodes[number].clock(self.now);
            let Some(raft) = &mut self.nodes[number].raft else {
                return Ok(());
            };
            raft.pump(clock);
            let ready = raft.ready();
            if raft.role() == Role::Leader {
                let (id, term) = (raft.id(), raft.term());
                self.checks.leads(id, term)?;
            }
            if ready.is_empty() {
                break;
            }
            self.act(number, ready, faults)?;
        }
        // A start has no timer yet.
        let node = &self.nodes[number];
        if node.raft.is_some() && node.life_has_no_timer() {
            let life = node.life;
            self.nodes[number].timer_of = life;
            self.after(MS, Event::Tick { node: number, life });
        }
        Ok(())
    }

    fn act(&mut self, number: usize, ready: Ready<u64>, faults: &Faults) -> Checked {
        for message in ready.messages {
            self.note(message.term ^ message.to.0);
            self.post(number, message, faults);
        }
        if !ready.persist.is_empty() {
            let was_idle = self.nodes[number].writing.is_empty();
            self.nodes[number].writing.extend(ready.persist);
            if was_idle {
                self.write_next(number, faults);
            }
        }
        for (token, index) in ready.reads {
            self.checks.read_ends(token, index)?;
        }
        for to in ready.snapshots {
            self.send_snapshot(number, to, faults);
        }
        Ok(())
    }

    fn post(&mut self, from: usize, message: Message<u64>, faults: &Faults) {
        let Some(to) = self.number(message.to) else {
            return;
        };
        if self.cut.contains(&(from, to)) || self.rng.u32(0..1000) < faults.lost {
            return;
        }
        if self.rng.u32(0..1000) < faults.doubled {
            let delay = self.rng.u64(10..=faults.delay_max * 3);
            self.after(delay, Event::Arrives(Box::new(message.clone())));
        }
        let delay = self.rng.u64(10..=faults.delay_max);
        self.after(delay, Event::Arrives(Box::new(message)));
    }

    fn send_snapshot(&mut self, number: usize, to: ReplicaId, faults: &Faults) {
        let node = &mut self.nodes[number];
        if node.sending.contains(&to) {
            return;
        }
        node.sending.push(to);
        let snapshot = Snapshot {
            from: node.id,
            to,
            term: node
                .raft
                .as_ref()
                .map(|raft| raft.term())
                .unwrap_or_default(),
            // What is durable is what is sent.
            base: node.disk.base,
            membership: node.disk.membership.clone(),
        };
        let delay = self.rng.u64(MS..=faults.delay_max * 5);
        self.after(delay, Event::Snapshot(Box::new(snapshot)));
    }

    fn snapshot(&mut self, snapshot: Box<Snapshot>, faults: &Faults) -> Checked {
        let lost = self.rng.u32(0..1000) < faults.lost;
        let receiver = self.number(snapshot.to).filter(|_| !lost);
        let Some(number) = receiver.filter(|number| !self.nodes[*number].is_paused) else {
            return self.snapshot_ended(&snapshot, None, faults);
        };
        let clock = self.nodes[number].clock(self.now);
        let node = &mut self.nodes[number];
        let Some(raft) = node.raft.as_mut().filter(|_| !node.is_installing) else {
            return self.snapshot_ended(&snapshot, None, faults);
        };
        if raft
            .expect_snapshot(clock, snapshot.term, snapshot.base)
            .is_none()
        {
            self.settle(number, faults)?;
            return self.snapshot_ended(&snapshot, Some(snapshot.base.index), faults);
        }
        self.nodes[number].is_installing = true;
        self.settle(number, faults)?;
        let life = self.nodes[number].life;
        let delay = self.rng.u64(MS..=faults.write_max * 3);
        self.after(delay, Event::Install(snapshot, life));
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot, life: u64, faults: &Faults) -> Checked {
        let receiver = self.number(snapshot.to);
        let Some(number) = receiver.filter(|number| self.nodes[*number].life == life) else {
            return self.snapshot_ended(snapshot, None, faults);
        };
        // What was to be written before is.
        while let Some(write) = self.nodes[number].writing.pop_front() {
            self.nodes[number].disk.write(&write);
            let clock = self.nodes[number].clock(self.now);
            if let Some(raft) = &mut self.nodes[number].raft {
                raft.persisted(clock, write.seq);
            }
        }
        let node = &mut self.nodes[number];
        let raft = node.raft.as_mut().expect("it lives as it did");
        node.disk.base = snapshot.base;
        node.disk.membership = snapshot.membership.clone();
        // Installing ends before or after a crash; half of it is the disk's business.
        node.state = (snapshot.base, snapshot.membership.clone());
        raft.installed(snapshot.base, snapshot.membership.clone());
        node.is_installing = false;
        self.settle(number, faults)?;
        self.snapshot_ended(snapshot, Some(snapshot.base.index), faults)
    }

    fn snapshot_ended(
        &mut self,
        snapshot: &Snapshot,
        index: Option<u64>,
        faults: &Faults,
    ) -> Checked {
        let Some(number) = self.number(snapshot.from) else {
            return Ok(());
        };
        let clock = self.nodes[number].clock(self.now);
        let node = &mut self.nodes[number];
        node.sending.retain(|to| *to != snapshot.to);
        if let Some(raft) = &mut node.raft {
            raft.snapshot_sent(clock, snapshot.to, index);
        }
        self.settle(number, faults)
    }

    fn apply(&mut self, number: usize) -> Checked {
        let node = &mut self.nodes[number];
        let Some(raft) = node.raft.as_mut().filter(|_| !node.is_installing) else {
            return Ok(());
        };
        let entries = raft.to_apply(usize::MAX);
        let Some(last) = entries.last() else {
            return Ok(());
        };
        raft.set_applied(last.id.index);
        let (id, life) = (node.id, node.life);
        for entry in &entries {
            node.apply(entry);
            self.checks.applied(id, entry)?;
            if self.proposed.get(&entry.id) == Some(&(number, life)) {
                self.proposed.remove(&entry.id);
                self.checks.acknowledge(entry.id)?;
            }
        }
        Ok(())
    }

    /// Somebody writes, somebody reads, through whoever believes to lead.
    fn clients(&mut self, faults: &Faults) -> Checked {
        for number in 0..self.nodes.len() {
            let clock = self.nodes[number].clock(self.now);
            let node = &mut self.nodes[number];
            let Some(raft) = node.raft.as_mut().filter(|_| !node.is_paused) else {
                continue;
            };
            if let Some(term) = raft.leads()
                && let Ok(id) = raft.propose(term, self.next_value)
            {
                self.proposed.insert(id, (number, node.life));
            }
            self.next_value += 1;
            let token = self.next_value;
            self.checks.read_begins(token);
            raft.read(clock, token);
            self.settle(number, faults)?;
        }
        let delay = self.rng.u64(MS..60 * MS);
        self.after(delay, Event::Clients);
        Ok(())
    }

    /// The leader makes some nodes voters and some learners; who is neither begins a new life now and then.
    fn change(&mut self, faults: &Faults) -> Checked {
        self.again(faults.change_every, Event::Change);
        let decided = self.membership();
        let leader = (0..self.nodes.len()).find(|number| {
            let node = &self.nodes[*number];
            let raft = node.raft.as_ref().filter(|_| !node.is_paused);
            raft.is_some_and(|raft| raft.leads().is_some())
        });
        let Some(leader) = leader else {
            return Ok(());
        };
        let raft = self.nodes[leader].raft.as_ref().expect("it leads");
        if raft.is_settled() && *raft.membership() == decided {
            for number in 0..self.nodes.len() {
                let id = self.nodes[number].id;
                if !decided.is_member(id) && self.rng.bool() {
                    self.nodes[number].wipe(&mut self.rng);
                    self.start(number)?;
                }
            }
        }
        if self.rng.bool() && self.nodes.len() > 1 {
            return self.transfer(leader, faults);
        }
        let mut numbers: Vec<_> = (0..self.nodes.len()).collect();
        self.rng.shuffle(&mut numbers);
        let member = |number: &usize| (self.nodes[*number].id, self.nodes[*number].device);
        let count = *[1, 3, 5]
            .iter()
            .rfind(|count| **count <= numbers.len())
            .expect("there is one");
        let (voters, others) = numbers.split_at(count);
        let learners = &others[..self.rng.usize(0..=others.len())];
        let wanted = Membership::new(voters.iter().map(member), learners.iter().map(member));
        let clock = self.nodes[leader].clock(self.now);
        let raft = self.nodes[leader].raft.as_mut().expect("it leads");
        // Refused while another one is under way.
        let _ = raft.change(clock, &wanted);
        self.settle(leader, faults)
    }

    fn transfer(&mut self, leader: usize, faults: &Faults) -> Checked {
        let clock = self.nodes[leader].clock(self.now);
        let raft = self.nodes[leader].raft.as_mut().expect("it leads");
        let voters: Vec<_> = raft.membership().voters().iter().copied().collect();
        if let Some(to) = self.rng.choice(voters) {
            let _ = raft.transfer(clock, to);
        }
        self.settle(leader, faults)
    }
}
