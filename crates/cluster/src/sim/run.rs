//! What happens in a world, and what it must be like in the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{DeviceId, NodeId, ShardId};
use map::{Fill, Map, State, WIDTH};
use parking_lot::Mutex;

use super::checks::Fate;
use super::disk::Disk;
use super::faults::{Faults, SECOND};
use super::world::{Event, World};
use super::{Broken, PANICS, SHARDS};
use crate::control::Part;
use crate::{Status, control};

type Checked = Result<(), Broken>;

/// Everything is as it should be after this time without faults: a node that flapped waits for a minute.
const REST_MAX: u64 = 240 * SECOND;
/// It must stay so for a while.
const CALM: u64 = 3 * SECOND;
/// No request takes longer.
const QUIET: u64 = 35 * SECOND;
/// What others have taken over is looked at every 10 s, twice.
const LEAVE_MAX: u64 = 60 * SECOND;

impl World {
    /// Faults for their time, and then peace, in which everything must come to rest.
    pub(super) fn run(&mut self, faults: &Faults) -> Checked {
        for number in 0..self.machines.len() {
            self.start(number);
        }
        self.after(0, Event::Clients);
        for (mean, event) in [
            (faults.crash_every, Event::Crash),
            (faults.pause_every, Event::Pause),
            (faults.cut_every, Event::Cut),
            (faults.clock_every, Event::Clock),
            (faults.drain_every, Event::Drain),
            (faults.destroy_every, Event::Destroy),
        ] {
            self.soon(mean, event);
        }
        // At first it grows in peace, for a while or not at all.
        if self.shared.chance(700) {
            self.go_on_until(8 * SECOND)?;
        }
        self.go_on_until(self.now + faults.duration)?;
        self.calm(faults);
        self.come_to_rest()?;
        // Who waits for an answer gets one, or gives up.
        self.is_quiet = true;
        self.go_on_until(self.now + QUIET)?;
        self.nothing_comes_back()?;
        let begun = self.now;
        for number in 0..self.machines.len() {
            self.read_all(number);
        }
        self.go_on_until(self.now + 5 * SECOND)?;
        self.shared.checks.lock().check_registers(begun);
        self.is_sound()
    }

    fn go_on_until(&mut self, until: u64) -> Checked {
        while self.now < until {
            self.step();
            self.is_sound()?;
        }
        Ok(())
    }

    /// Nothing that must not happen has happened so far.
    fn is_sound(&self) -> Checked {
        if let Some(panic) = PANICS.with_borrow(|panics| panics.first().cloned()) {
            return Err(Broken::Promise(format!("a panic: {panic}")));
        }
        match &self.shared.checks.lock().broken {
            Some(why) => Err(Broken::Promise(why.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        let faults = self.shared.faults.lock().clone();
        match event {
            Event::Request(number, call) => self.requested(number, call),
            Event::Answer(number, answer) => self.answered(number, answer),
            Event::Clients => self.clients(),
            Event::Start(number) => self.start(number),
            Event::Resume(number) => {
                let now = self.now;
                self.machines[number].resume(now);
            }
            Event::Mend => self.cut.clear(),
            // Faults have ended.
            _ if self.is_calm => {}
            Event::Crash => {
                self.soon(faults.crash_every, Event::Crash);
                self.crash();
            }
            Event::Pause => {
                self.soon(faults.pause_every, Event::Pause);
                let number = self.any();
                if self.machines[number].process.is_some() && !self.machines[number].is_paused {
                    self.machines[number].is_paused = true;
                    let long = 10 + self.shared.below(8 * SECOND);
                    self.after(long, Event::Resume(number));
                }
            }
            Event::Cut => {
                self.soon(faults.cut_every, Event::Cut);
                self.sever();
            }
            Event::Clock => {
                self.soon(faults.clock_every, Event::Clock);
                let wrong = i64::try_from(self.shared.below(20 * SECOND)).expect("it is small");
                self.machines[self.any()].clock.set_wrong(wrong - 10_000);
            }
            Event::Drain if self.is_any_broken() => {}
            Event::Drain => {
                self.soon(faults.drain_every, Event::Drain);
                let node = NodeId(u32::try_from(self.any()).expect("few") + 1);
                let is_draining = self.shared.chance(500);
                self.drain(node, is_draining);
            }
            Event::Destroy => {
                self.soon(faults.destroy_every, Event::Destroy);
                self.destroy();
            }
        }
    }

    fn any(&self) -> usize {
        let number = self.shared.below(self.machines.len() as u64);
        usize::try_from(number).expect("few")
    }

    /// Mostly one node; sometimes all at once.
    fn crash(&mut self) {
        let (all, one) = (self.shared.chance(150), self.any());
        for number in 0..self.machines.len() {
            if all || number == one {
                self.machines[number].crash();
                let id = self.machines[number].id;
                self.hang_up(id);
                let long = 10 + self.shared.below(6 * SECOND);
                self.after(long, Event::Start(number));
            }
        }
    }

    /// One node from all others, or any from any, one way.
    fn sever(&mut self) {
        let count = self.machines.len();
        let id = |number: usize| NodeId(u32::try_from(number).expect("few") + 1);
        if self.shared.chance(500) {
            let (one, both) = (self.any(), self.shared.chance(700));
            for other in (0..count).filter(|other| *other != one) {
                self.cut.insert((id(one), id(other)));
                if both {
                    self.cut.insert((id(other), id(one)));
                }
            }
        } else {
            for _ in 0..=self.any() {
                let (from, to) = (self.any(), self.any());
                self.cut.insert((id(from), id(to)));
            }
        }
        let long = 50 + self.shared.below(6 * SECOND);
        self.after(long, Event::Mend);
    }

    /// An administrator asks any node for it.
    fn drain(&mut self, node: NodeId, is_draining: bool) {
        let mut running = self.machines.iter().filter_map(|one| one.process.as_ref());
        if let Some(process) = running.next() {
            let cluster = process.cluster.clone();
            let part = Part::Node(node);
            // Who asks has other things to do: it does not come when all is at rest.
            let patience = std::time::Duration::from_secs(2);
            let drain = async move {
                let asked = cluster.drain(part, is_draining);
                drop(tokio::time::timeout(patience, asked).await);
            };
            process.runtime.spawn(drain);
        }
    }

    /// A device is lost for ever; only one, and only if all that it has is elsewhere.
    fn destroy(&mut self) {
        let disks = self.machines.iter().flat_map(|machine| &machine.disks);
        let disks: Vec<_> = disks.cloned().collect();
        if disks.len() <= usize::from(WIDTH) || self.is_any_broken() {
            return;
        }
        let disk = &disks[usize::try_from(self.shared.below(disks.len() as u64)).expect("few")];
        // Of those who run, all may be behind.
        if self.machines.iter().any(|one| one.process.is_none()) {
            return;
        }
        let map = self.decided_map();
        let mut groups = map.groups.values().filter(|group| group.is_member(disk.id));
        let elsewhere = |group: &map::Group| {
            let to_spare = group.copies_to_spare(|id| id != disk.id);
            // Of whole copies the other one may be given up in this moment, for this one.
            to_spare >= Some(usize::from(group.policy.needed() == 1))
        };
        // What is being moved may be given up elsewhere in this moment; and while nobody runs, nobody knows.
        if map.devices.is_empty() || map.devices.keys().any(|id| map.is_draining(*id)) {
            return;
        }
        let checks = self.shared.checks.lock();
        let mut memberships = checks.memberships.values();
        let spares = memberships.all(|(_, one)| {
            let mut members = one.members();
            let has = members.any(|(id, device)| device == disk.id && one.is_voter(id));
            !has || !one.is_joint() && one.voters().len() == usize::from(WIDTH)
        });
        if spares && groups.all(elsewhere) {
            self.shared.note(self.now);
            disk.break_down();
        }
    }

    fn is_any_broken(&self) -> bool {
        let mut disks = self.machines.iter().flat_map(|machine| &machine.disks);
        disks.any(|disk| disk.is_broken())
    }

    /// The map in the control shard.
    fn decided_map(&self) -> Map {
        let running = self.machines.iter().filter_map(|one| one.process.as_ref());
        let states = running.flat_map(|process| process.groups.control_rows());
        let newest = states.max_by_key(|(applied, _)| *applied);
        let rows = newest.map(|(_, rows)| rows).unwrap_or_default();
        let row = rows.iter().find(|(key, _)| key == control::MAP_ROW);
        row.and_then(|(_, row)| Map::decode(row).ok())
            .unwrap_or_default()
    }

    /// Which map each node has, which one is decided, and who is not up by it.
    pub(super) fn maps(&self) -> String {
        let running = self.machines.iter();
        let running = running.filter_map(|one| Some((one.id, one.process.as_ref()?)));
        let maps = running.map(|(id, process)| format!("{id} has {}", process.map.get().epoch));
        let maps: Vec<_> = maps.collect();
        let decided = self.decided_map();
        let (maps, away) = (maps.join(", "), self.away(&decided));
        format!("decided is {}, {maps}; not up: {away:?}", decided.epoch)
    }

    /// Nodes and devices that are not up by a map, or to be emptied; but for broken ones.
    fn away(&self, map: &Map) -> Vec<String> {
        let disks = self.machines.iter().flat_map(|machine| &machine.disks);
        let good: BTreeSet<_> = disks
            .filter(|disk| !disk.is_broken())
            .map(|disk| disk.id)
            .collect();
        let is_away = |node: &map::Node| node.state != State::Up || node.is_draining;
        let nodes = map.nodes.iter().filter(|(_, node)| is_away(node));
        let nodes = nodes.map(|(id, node)| format!("{id} is {node:?}"));
        let devices = map
            .devices
            .iter()
            .filter(|(id, one)| good.contains(id) && one.state != State::Up);
        nodes
            .chain(devices.map(|(id, one)| format!("{id} is {}", one.state)))
            .collect()
    }

    /// The newest map that any node has.
    fn newest_map(&self) -> Arc<Map> {
        let maps = self.machines.iter().filter_map(|one| one.process.as_ref());
        let newest = maps.map(|one| one.map.get()).max_by_key(|map| map.epoch);
        newest.unwrap_or_default()
    }

    /// Ends all faults.
    fn calm(&mut self, faults: &Faults) {
        self.is_calm = true;
        *self.shared.faults.lock() = faults.peace();
        self.cut.clear();
        let now = self.now;
        for number in 0..self.machines.len() {
            if self.machines[number].is_paused {
                self.machines[number].resume(now);
            }
            // Who is down for good is out by now.
            self.machines[number].clock.set_wrong(1_000_000);
            self.start(number);
        }
    }

    /// Waits until everything is as it should be.
    fn come_to_rest(&mut self) -> Checked {
        let (begun, until) = (self.now, self.now + REST_MAX);
        let status: Arc<Mutex<Option<Status>>> = Arc::default();
        let (mut since, mut next) = (None, self.now);
        while self.now < until {
            if self.now >= next {
                next = self.now + SECOND / 2;
                if self.now > begun + 10 * SECOND {
                    // Who is down for good, and was noticed only now, is out as well.
                    let clocks = self.machines.iter().map(|machine| &machine.clock);
                    clocks.for_each(|clock| clock.set_wrong(2_000_000));
                }
                for number in 1..=self.machines.len() {
                    self.drain(NodeId(u32::try_from(number).expect("few")), false);
                }
                self.ask_status(&status);
            }
            self.go_on_until(self.now + 50)?;
            let is_whole = status.lock().as_ref().is_some_and(|status| status.whole);
            since = match is_whole && self.disagreement().is_none() {
                true => since.or(Some(self.now)),
                false => None,
            };
            if since.is_some_and(|since| self.now >= since + CALM) {
                return Ok(());
            }
        }
        let (status, why) = (status.lock().clone(), self.disagreement());
        Err(Broken::Rest(format!("{why:?}, {status:#?}")))
    }

    fn ask_status(&self, status: &Arc<Mutex<Option<Status>>>) {
        let process = self.machines[0].process.as_ref().expect("all run");
        let (cluster, status) = (process.cluster.clone(), status.clone());
        process.runtime.spawn(async move {
            *status.lock() = cluster.status().await.ok();
        });
    }

    /// Where the map says something else than is the case.
    fn disagreement(&self) -> Option<String> {
        let map = self.newest_map();
        // Who flapped is back after a minute at the latest.
        if let Some(away) = self.away(&map).first() {
            return Some(away.clone());
        }
        let checks = self.shared.checks.lock();
        for shard in (0..SHARDS).map(ShardId) {
            let wanted = map.shards.get(&shard).map(|one| one.voters.clone());
            let wanted: BTreeSet<_> = wanted.unwrap_or_default().into_iter().collect();
            let (_, real) = &checks.memberships[&shard];
            let voters: BTreeSet<_> = real
                .voters()
                .iter()
                .filter_map(|id| real.device(*id))
                .collect();
            if voters != wanted || real.learners().next().is_some() || real.is_joint() {
                return Some(format!("{shard}: {real:?}, and the map has {wanted:?}"));
            }
            let mut leading = self.machines.iter().filter_map(|one| one.process.as_ref());
            if !leading.any(|process| process.groups.leads(shard)) {
                return Some(format!("nobody leads {shard}"));
            }
        }
        let mut groups = map.groups.iter();
        let filling =
            groups.find(|(_, group)| group.members.iter().any(|one| one.fill != Fill::Full));
        filling.map(|(id, _)| format!("{id} is being filled"))
    }

    /// What was deleted stays away, what was acknowledged is where it should be, and nowhere else.
    fn nothing_comes_back(&mut self) -> Checked {
        self.scrub();
        let until = self.now + LEAVE_MAX;
        loop {
            self.go_on_until(self.now + 5 * SECOND)?;
            let Some(why) = self.astray() else {
                return self.gone_is_gone();
            };
            if self.now >= until {
                return Err(Broken::Promise(why));
            }
        }
    }

    /// What the scrubber does: what nobody refers to is deleted.
    fn scrub(&self) {
        let checks = self.shared.checks.lock();
        let map = self.newest_map();
        for disk in self.machines.iter().flat_map(|machine| &machine.disks) {
            for group in map.groups.keys() {
                for id in disk.listed(*group) {
                    if !matches!(checks.chunks.get(&id), Some(Fate::Held(_))) {
                        disk.chunks.set(id, None);
                    }
                }
            }
        }
    }

    /// A copy that is missing, or is left over.
    fn astray(&self) -> Option<String> {
        let map = self.newest_map();
        let checks = self.shared.checks.lock();
        let held = checks.chunks.iter();
        for (id, _) in held.filter(|(_, fate)| matches!(fate, Fate::Held(_))) {
            let Some(group) = map.groups.get(&id.group()) else {
                return Some(format!("{} of {id} is not in the map", id.group()));
            };
            let full: BTreeSet<DeviceId> = group.full().collect();
            let right = |disk: &Disk| disk.index_of(*id) == group.part(disk.id);
            let disks = self.machines.iter().flat_map(|machine| &machine.disks);
            for disk in disks.filter(|disk| !disk.is_broken()) {
                let has = disk.has(*id);
                if has && !right(disk) {
                    return Some(format!("{} has a wrong part of {id}: {group:?}", disk.id));
                }
                if has != full.contains(&disk.id) {
                    let has = if has { "has" } else { "lacks" };
                    return Some(format!(
                        "{} {has} {id} of {}: {group:?}",
                        disk.id,
                        id.group()
                    ));
                }
            }
        }
        None
    }

    fn gone_is_gone(&self) -> Checked {
        let checks = self.shared.checks.lock();
        for disk in self.machines.iter().flat_map(|machine| &machine.disks) {
            let mut gone = checks
                .chunks
                .iter()
                .filter(|(_, fate)| **fate == Fate::Gone);
            if let Some((id, _)) = gone.find(|(id, _)| disk.has(**id)) {
                return Err(Broken::Promise(format!(
                    "{id} has come back to {}",
                    disk.id
                )));
            }
        }
        Ok(())
    }
}
